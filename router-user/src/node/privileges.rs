//! What the process may do, looked at before anything is made.

use rustix::thread::{CapabilitySet, capabilities};

use super::error::NodeError;
use crate::config::{Config, Sink};

/// A capability that a node cannot do without, and what for.
struct Need {
    /// One of these gives it.
    any_of: CapabilitySet,
    name: &'static str,
    what_for: &'static str,
}

const ALWAYS: [Need; 3] = [
    Need {
        any_of: CapabilitySet::NET_ADMIN,
        name: "CAP_NET_ADMIN",
        what_for: "the device, its routes and the hook at its egress",
    },
    Need {
        any_of: CapabilitySet::BPF.union(CapabilitySet::SYS_ADMIN),
        name: "CAP_BPF",
        what_for: "eBPF maps and programs",
    },
    Need {
        any_of: CapabilitySet::PERFMON.union(CapabilitySet::SYS_ADMIN),
        name: "CAP_PERFMON",
        what_for: "what the eBPF programs do with packets",
    },
];

const SOCKETS: Need = Need {
    any_of: CapabilitySet::NET_RAW,
    name: "CAP_NET_RAW",
    what_for: "AF_XDP sockets at a gateway",
};

/// Fails if the process lacks a capability that the node of this configuration needs.
pub(super) fn check(config: &Config) -> Result<(), NodeError> {
    let held = capabilities(None).map_err(|error| NodeError::System {
        action: "ask for the capabilities of this process",
        source: error.into(),
    })?;
    let sockets = config
        .gateways()
        .iter()
        .any(|gateway| gateway.sink() != Sink::Ring);
    match missing(held.effective, sockets) {
        missing if missing.is_empty() => Ok(()),
        missing => Err(NodeError::Privileges { missing }),
    }
}

fn missing(held: CapabilitySet, sockets: bool) -> String {
    let needs = ALWAYS.iter().chain(sockets.then_some(&SOCKETS));
    let missing = needs.filter(|need| !held.intersects(need.any_of));
    let missing = missing.map(|need| format!("{} (for {})", need.name, need.what_for));
    missing.collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_missing_capability_is_named() {
        let held = CapabilitySet::NET_ADMIN | CapabilitySet::PERFMON;

        assert_eq!(missing(held, false), "CAP_BPF (for eBPF maps and programs)");
        assert!(missing(CapabilitySet::empty(), true).contains("CAP_NET_RAW"));
    }

    #[test]
    fn the_capabilities_of_the_service_suffice() {
        let unit = include_str!("../../dist/stream-router.service");
        let lines = unit
            .lines()
            .filter_map(|line| line.strip_prefix("AmbientCapabilities="));
        let given: Vec<&str> = lines.flat_map(str::split_whitespace).collect();
        let mut held = CapabilitySet::empty();
        for need in ALWAYS.iter().chain([&SOCKETS]) {
            if given.contains(&need.name) {
                held |= need.any_of;
            }
        }

        assert_eq!(missing(held, true), "");
        assert_eq!(
            given.len(),
            ALWAYS.len() + 1,
            "and nothing else is given: {given:?}"
        );
    }

    #[test]
    fn an_administrator_needs_no_capability_of_its_own_for_ebpf() {
        assert_eq!(
            missing(CapabilitySet::NET_ADMIN | CapabilitySet::SYS_ADMIN, false),
            ""
        );
    }
}
