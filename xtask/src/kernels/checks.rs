//! What is looked at in each kernel: tests of this workspace, by what they show.

use anyhow::{Result, ensure};

/// A row of the table.
#[derive(Debug)]
pub(super) struct Check {
    /// Its name.
    pub(super) name: &'static str,
    /// What it shows.
    pub(super) what: &'static str,
    /// How closely a run has to look for it to be among its checks.
    depth: Depth,
    /// What runs.
    pub(super) tests: Tests,
}

/// How closely a kernel is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Depth {
    /// What shows most in the few minutes that the test suite has for it.
    Brief,
    /// What a node is for.
    Usual,
    /// Everything.
    Thorough,
}

/// Tests of one program.
#[derive(Debug)]
pub(super) enum Tests {
    /// End-to-end tests: nodes in network namespaces.
    Nodes(&'static [&'static str]),
    /// Tests of the eBPF programs in the kernel.
    Programs(&'static [&'static str]),
}

/// What became of a check.
#[derive(Debug)]
pub(super) struct Outcome {
    /// Name of the check.
    pub(super) check: String,
    /// Whether it passed.
    pub(super) passed: bool,
    /// Seconds that it took.
    pub(super) secs: u64,
}

const ALL: &[Check] = &[
    Check {
        name: "programs",
        what: "both programs load, and take and refuse packets as they should",
        depth: Depth::Brief,
        tests: Tests::Programs(&[
            "captures::whole_ipv4_packets_are_captured",
            "captures::whole_ipv6_packets_are_captured_behind_every_extension_header",
            "gateway::packets_for_a_peer_are_captured_behind_every_header_with_a_hop_less",
        ]),
    },
    Check {
        name: "transports",
        what: "TCP and QUIC over IPv4 and IPv6, carrying both protocols",
        depth: Depth::Usual,
        tests: Tests::Nodes(&["traffic::every_underlay_carries_traffic"]),
    },
    Check {
        name: "gateway-native",
        what: "a gateway in the driver",
        depth: Depth::Brief,
        tests: Tests::Nodes(&[
            "gateway::hosts_of_a_network_reach_a_peer_although_the_gateways_host_forwards_nothing",
        ]),
    },
    Check {
        name: "gateway-sockets",
        what: "a gateway with AF_XDP sockets",
        depth: Depth::Thorough,
        tests: Tests::Nodes(&["gateway::hosts_of_a_network_reach_a_peer_through_sockets"]),
    },
    Check {
        name: "gateway-generic",
        what: "a gateway in the kernel's receive path",
        depth: Depth::Usual,
        tests: Tests::Nodes(&["gateway::an_interface_without_driver_support_is_captured_in_generic_mode"]),
    },
    Check {
        name: "vxlan",
        what: "an overlay inside of the tunnel",
        depth: Depth::Usual,
        tests: Tests::Nodes(&["overlays::pods_reach_each_other_over_vxlan"]),
    },
    Check {
        name: "fragments",
        what: "fragments in order with the whole packets of their flow",
        depth: Depth::Usual,
        tests: Tests::Nodes(&["order::datagrams_in_fragments_do_not_overtake_whole_ones_of_their_flow"]),
    },
    Check {
        name: "udp-segments",
        what: "a datagram that the sender left to be segmented",
        depth: Depth::Brief,
        tests: Tests::Nodes(&["traffic::a_segmented_datagram_arrives_as_its_segments"]),
    },
    Check {
        name: "order",
        what: "no reordering while workers come and go",
        depth: Depth::Thorough,
        tests: Tests::Nodes(&["order::workers_that_come_and_go_every_second_reorder_and_lose_nothing"]),
    },
    Check {
        name: "all-programs",
        what: "every test of the programs in the kernel",
        depth: Depth::Thorough,
        tests: Tests::Programs(&[
            "captures::",
            "device::",
            "flows::",
            "gateway::",
            "offload::",
            "refusals::",
            "rings::",
            "sockets::",
        ]),
    },
    Check {
        name: "lifecycle",
        what: "start, stop, signals, and nothing left behind",
        depth: Depth::Thorough,
        tests: Tests::Nodes(&["lifecycle::a_signal_ends_a_node_in_order_and_nothing_is_left"]),
    },
    Check {
        name: "mtu",
        what: "the path's MTU is learnt",
        depth: Depth::Thorough,
        tests: Tests::Nodes(&[
            "traffic::the_path_mtu_is_the_devices",
            "traffic::a_host_behind_a_node_learns_the_mtu_and_gets_through",
        ]),
    },
];

/// Returns the checks up to `depth`, or those of these names.
///
/// # Errors
/// When no check has one of the names.
pub(super) fn chosen(depth: Depth, only: &[String]) -> Result<Vec<&'static Check>> {
    for name in only {
        let names: Vec<&str> = ALL.iter().map(|check| check.name).collect();
        ensure!(
            names.contains(&name.as_str()),
            "no check {name}; there are {}",
            names.join(", ")
        );
    }
    let wanted = |check: &&Check| {
        if only.is_empty() {
            check.depth <= depth
        } else {
            only.iter().any(|name| name == check.name)
        }
    };
    Ok(ALL.iter().filter(wanted).collect())
}
