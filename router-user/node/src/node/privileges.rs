//! The capabilities that a node uses, and whether the process has them: checked before anything is made, and by the
//! doctor.

use std::fs;
use std::io;

use libp2p::multiaddr::Protocol;
use procfs::process::Process;

use super::error::NodeError;
use crate::config::{Config, Sink};

/// A capability that a node uses.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Capability {
    pub(crate) name: &'static str,
    /// Capabilities any of which is enough, a bit each.
    any_of: u64,
    what_for: &'static str,
    /// Whether a node runs without the capability.
    pub(crate) is_optional: bool,
}

/// Bits of the sets of capabilities (`include/uapi/linux/capability.h`).
const CAP_NET_BIND_SERVICE: u64 = 1 << 10;
const CAP_NET_ADMIN: u64 = 1 << 12;
const CAP_NET_RAW: u64 = 1 << 13;
const CAP_SYS_ADMIN: u64 = 1 << 21;
const CAP_SYS_NICE: u64 = 1 << 23;
const CAP_PERFMON: u64 = 1 << 38;
const CAP_BPF: u64 = 1 << 39;

const NET_ADMIN: Capability = Capability {
    name: "CAP_NET_ADMIN",
    any_of: CAP_NET_ADMIN,
    what_for: "the device, its routes and the hook at its egress",
    is_optional: false,
};
const BPF: Capability = Capability {
    name: "CAP_BPF",
    any_of: CAP_BPF | CAP_SYS_ADMIN,
    what_for: "eBPF maps and programs",
    is_optional: false,
};
const PERFMON: Capability = Capability {
    name: "CAP_PERFMON",
    any_of: CAP_PERFMON | CAP_SYS_ADMIN,
    what_for: "what the eBPF programs do with packets",
    is_optional: false,
};
const SYS_NICE: Capability = Capability {
    name: "CAP_SYS_NICE",
    any_of: CAP_SYS_NICE,
    what_for: "data threads that go before other programs",
    is_optional: true,
};
const NET_RAW: Capability = Capability {
    name: "CAP_NET_RAW",
    any_of: CAP_NET_RAW,
    what_for: "AF_XDP sockets at a gateway, which /usr/share/stream-router/af-xdp.conf gives the service",
    is_optional: false,
};
const NET_BIND_SERVICE: Capability = Capability {
    name: "CAP_NET_BIND_SERVICE",
    any_of: CAP_NET_BIND_SERVICE,
    what_for: "listening on a port that is kept for root",
    is_optional: false,
};

/// First port that needs no capability, unless `net.ipv4.ip_unprivileged_port_start` says otherwise.
const FIRST_FREE_PORT: u16 = 1024;

/// Returns the capabilities that the node of this configuration uses.
pub(crate) fn needed(config: &Config) -> Vec<Capability> {
    let first_free = fs::read_to_string("/proc/sys/net/ipv4/ip_unprivileged_port_start")
        .ok()
        .and_then(|text| text.trim().parse().ok())
        .unwrap_or(FIRST_FREE_PORT);
    let mut listen = config.node().listen().iter().flat_map(|address| address.iter());
    let has_low_port = listen.any(
        |part| matches!(part, Protocol::Tcp(port) | Protocol::Udp(port) if port != 0 && port < first_free),
    );
    let has_sockets = config
        .gateways()
        .iter()
        .any(|gateway| gateway.sink() != Sink::Ring);
    let mut needed = vec![NET_ADMIN, BPF, PERFMON, SYS_NICE];
    needed.extend(has_sockets.then_some(NET_RAW));
    needed.extend(has_low_port.then_some(NET_BIND_SERVICE));
    needed
}

/// Returns those of `needed` that the process lacks.
///
/// # Errors
/// The kernel does not say which capabilities the process has.
pub(crate) fn missing(needed: &[Capability]) -> io::Result<Vec<Capability>> {
    let status = Process::myself().and_then(|process| process.status());
    Ok(missing_from(status.map_err(io::Error::other)?.capeff, needed))
}

/// Returns the names of capabilities, and what each is for.
pub(crate) fn described(capabilities: &[Capability]) -> String {
    let described = capabilities
        .iter()
        .map(|one| format!("{} (for {})", one.name, one.what_for));
    described.collect::<Vec<_>>().join(", ")
}

/// Fails if the process lacks a capability without which the node of this configuration does not run.
pub(super) fn check(config: &Config) -> Result<(), NodeError> {
    let mut missing = missing(&needed(config)).map_err(|source| NodeError::System {
        action: "ask for the capabilities of this process",
        source,
    })?;
    missing.retain(|one| !one.is_optional);
    if missing.is_empty() {
        return Ok(());
    }
    Err(NodeError::Privileges {
        missing: described(&missing),
    })
}

fn missing_from(held: u64, needed: &[Capability]) -> Vec<Capability> {
    let lacks = |one: &&Capability| held & one.any_of == 0;
    needed.iter().filter(lacks).copied().collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;

    use super::*;

    #[test]
    fn what_is_lacking_is_named_with_what_it_is_for() {
        let held = CAP_NET_ADMIN | CAP_PERFMON;

        assert_eq!(
            described(&missing_from(held, &[NET_ADMIN, BPF, PERFMON, SYS_NICE])),
            "CAP_BPF (for eBPF maps and programs), CAP_SYS_NICE (for data threads that go before other programs)"
        );
    }

    #[test]
    fn a_low_port_and_a_gateways_sockets_need_more() {
        let names = |text: &str| -> Vec<_> {
            let config = Config::parse(text, Path::new("sr.toml")).unwrap();
            needed(&config).iter().skip(4).map(|one| one.name).collect()
        };
        let node = |port: u16| {
            format!(
                "[node]\nkey = \"/k\"\nlisten = [\"/ip4/0.0.0.0/tcp/{port}\"]\n[device]\naddresses = [\"10.42.0.1/24\"]\n"
            )
        };

        assert_eq!(names(&node(4001)), Vec::<&str>::new());
        assert_eq!(names(&node(443)), ["CAP_NET_BIND_SERVICE"]);
        let gateway = |sink| {
            format!(
                "{}[[gateway]]\ninterface = \"lan0\"\nsink = \"{sink}\"\n",
                node(0)
            )
        };
        assert_eq!(names(&gateway("auto")), ["CAP_NET_RAW"]);
        assert_eq!(names(&gateway("ring")), Vec::<&str>::new());
    }

    #[test]
    fn the_service_is_given_what_a_node_may_need_and_no_more() {
        let unit = include_str!("../../dist/stream-router.service");
        let sockets = include_str!("../../dist/af-xdp.conf");
        for setting in ["AmbientCapabilities=", "CapabilityBoundingSet="] {
            let given = |text: &'static str| -> BTreeSet<&str> {
                let lines = text.lines().filter_map(|line| line.strip_prefix(setting));
                lines.flat_map(str::split_whitespace).collect()
            };
            let always = [NET_ADMIN, BPF, PERFMON, NET_BIND_SERVICE].map(|one| one.name);
            assert_eq!(given(unit), always.into());
            assert_eq!(given(sockets), [NET_RAW.name].into());
        }
        // In place of CAP_SYS_NICE.
        assert!(unit.contains("\nLimitNICE=-10\n"));
    }

    #[test]
    fn an_administrator_needs_no_capability_of_its_own_for_ebpf() {
        let held = CAP_NET_ADMIN | CAP_SYS_ADMIN;

        assert!(missing_from(held, &[NET_ADMIN, BPF, PERFMON]).is_empty());
    }
}
