//! What the process may do; a node started from the same place may do as much.

use std::fs;

use libp2p::multiaddr::Protocol;

use super::Scene;
use super::finding::Finding;
use crate::config::Sink;

/// A capability, by its bit (`linux/capability.h`).
#[derive(Clone, Copy, Debug)]
struct Capability {
    name: &'static str,
    bit: u32,
    /// What a node does with it.
    what_for: &'static str,
    /// A node runs without it.
    is_optional: bool,
}

const NET_BIND_SERVICE: Capability = Capability {
    name: "CAP_NET_BIND_SERVICE",
    bit: 10,
    what_for: "listens on a port below 1024",
    is_optional: false,
};
const NET_ADMIN: Capability = Capability {
    name: "CAP_NET_ADMIN",
    bit: 12,
    what_for: "makes the device, its routes and the hook",
    is_optional: false,
};
const NET_RAW: Capability = Capability {
    name: "CAP_NET_RAW",
    bit: 13,
    what_for: "opens a gateway's AF_XDP sockets",
    is_optional: false,
};
const SYS_NICE: Capability = Capability {
    name: "CAP_SYS_NICE",
    bit: 23,
    what_for: "puts its data threads before other programs",
    is_optional: true,
};
const PERFMON: Capability = Capability {
    name: "CAP_PERFMON",
    bit: 38,
    what_for: "loads programs that read packets",
    is_optional: false,
};
const BPF: Capability = Capability {
    name: "CAP_BPF",
    bit: 39,
    what_for: "loads eBPF programs",
    is_optional: false,
};

/// CAP_SYS_ADMIN stands for CAP_BPF and CAP_PERFMON (kernel: `bpf_capable`, `perfmon_capable`).
const SYS_ADMIN_BIT: u32 = 21;

/// First port that needs no capability, unless `net.ipv4.ip_unprivileged_port_start` says otherwise.
const FIRST_FREE_PORT: u16 = 1024;

/// Looks at the process's own.
pub(super) fn check(scene: &Scene) -> Vec<Finding> {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let Some(effective) = effective(&status) else {
        return vec![Finding::unknown("capabilities", "/proc/self/status does not say")];
    };
    let first_free = fs::read_to_string("/proc/sys/net/ipv4/ip_unprivileged_port_start")
        .ok()
        .and_then(|text| text.trim().parse().ok())
        .unwrap_or(FIRST_FREE_PORT);
    let listen = scene.config.node().listen().iter();
    let has_low_port = listen.flat_map(|address| address.iter()).any(
        |part| matches!(part, Protocol::Tcp(port) | Protocol::Udp(port) if port != 0 && port < first_free),
    );
    let gateways = scene.config.gateways();
    let has_sockets = gateways.iter().any(|gateway| gateway.sink() != Sink::Ring);
    let mut needed = vec![NET_ADMIN, BPF, PERFMON, SYS_NICE];
    needed.extend(has_low_port.then_some(NET_BIND_SERVICE));
    needed.extend(has_sockets.then_some(NET_RAW));
    vec![judge(effective, &needed)]
}

/// The effective set, from the text of `/proc/PID/status`.
fn effective(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"))?;
    u64::from_str_radix(line.trim(), 16).ok()
}

fn judge(effective: u64, needed: &[Capability]) -> Finding {
    const CHECK: &str = "capabilities";
    let has = |bit: u32| effective & (1 << bit) != 0;
    let missing: Vec<_> = needed
        .iter()
        .filter(|one| {
            let by_admin = [BPF.bit, PERFMON.bit].contains(&one.bit) && has(SYS_ADMIN_BIT);
            !has(one.bit) && !by_admin
        })
        .collect();
    if missing.is_empty() {
        let names: Vec<_> = needed.iter().map(|one| one.name).collect();
        return Finding::ok(CHECK, names.join(", "));
    }
    let told: Vec<_> = missing
        .iter()
        .map(|one| format!("without {} no node {}", one.name, one.what_for))
        .collect();
    let detail = told.join("; ");
    if missing.iter().all(|one| one.is_optional) {
        return Finding::warning(CHECK, detail);
    }
    Finding::problem(CHECK, detail).mend("sudo stream-router doctor")
}

#[cfg(test)]
mod tests {
    use super::super::finding::Verdict;
    use super::*;

    #[test]
    fn the_effective_set_is_read() {
        let status = "Name:\tx\nCapPrm:\t0\nCapEff:\t000001ffffffffff\nCapBnd:\t0\n";
        assert_eq!(effective(status), Some(0x1ff_ffff_ffff));
        assert_eq!(effective("Name:\tx\n"), None);
    }

    #[test]
    fn what_is_missing_is_named_with_what_it_is_for() {
        let needed = [NET_ADMIN, BPF, PERFMON, SYS_NICE];
        let all = needed.iter().fold(0, |set, one| set | 1 << one.bit);

        assert_eq!(judge(all, &needed).verdict, Verdict::Ok);
        assert_eq!(
            judge(all & !(1 << SYS_NICE.bit), &needed).verdict,
            Verdict::Warning
        );
        let finding = judge(all & !(1 << BPF.bit), &needed);
        assert_eq!(finding.verdict, Verdict::Problem);
        assert_eq!(finding.detail, "without CAP_BPF no node loads eBPF programs");
        let by_admin = 1 << NET_ADMIN.bit | 1 << SYS_NICE.bit | 1 << SYS_ADMIN_BIT;
        assert_eq!(judge(by_admin, &needed).verdict, Verdict::Ok);
        assert_eq!(judge(all, &[NET_RAW]).verdict, Verdict::Problem);
    }
}
