//! What is looked at in each kernel: tests of this workspace, by what they show.

use anyhow::{Context, Result, ensure};

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

/// A check with the number of tests that have to pass.
#[derive(Debug)]
pub(super) struct Counted {
    /// The check.
    pub(super) check: &'static Check,
    /// How many tests its names stand for.
    pub(super) n_tests: usize,
}

/// What became of a check.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Outcome {
    /// Name of the check.
    pub(super) check: String,
    /// Whether every test that it stands for has run and passed.
    pub(super) passed: bool,
    /// Seconds that it took.
    pub(super) secs: u64,
}

impl Outcome {
    /// Reads what a machine says at the end of a check: its name, the program's exit code, how many tests passed, seconds.
    pub(super) fn read(said: [&str; 4], checks: &[Counted]) -> Self {
        let [name, status, n_passed, secs] = said;
        let counted = checks.iter().find(|counted| counted.check.name == name);
        let n_passed = n_passed.parse().ok();
        Self {
            check: name.to_owned(),
            passed: status == "0" && counted.is_some_and(|counted| n_passed == Some(counted.n_tests)),
            secs: secs.parse().unwrap_or(0),
        }
    }
}

impl Tests {
    /// Returns the names: a test's, or what those of a group begin with, which ends in `::`.
    pub(super) fn names(&self) -> &'static [&'static str] {
        match self {
            Self::Nodes(names) | Self::Programs(names) => names,
        }
    }

    /// Returns how many of the tests `listed` the names stand for.
    ///
    /// # Errors
    /// When a name stands for none: the check would show nothing.
    fn count(&self, listed: &[String]) -> Result<usize> {
        let means = |name: &str, test: &str| {
            if name.ends_with("::") {
                test.starts_with(name)
            } else {
                test == name
            }
        };
        for name in self.names() {
            let is_there = listed.iter().any(|test| means(name, test));
            ensure!(is_there, "there is no test {name}");
        }
        let meant = listed
            .iter()
            .filter(|test| self.names().iter().any(|name| means(name, test)));
        Ok(meant.count())
    }
}

/// Returns the checks with the number of their tests, of which the two programs list theirs.
///
/// # Errors
/// When a check names a test that there is not.
pub(super) fn counted(
    checks: Vec<&'static Check>,
    nodes: &[String],
    programs: &[String],
) -> Result<Vec<Counted>> {
    let count = |check: &'static Check| {
        let listed = match check.tests {
            Tests::Nodes(_) => nodes,
            Tests::Programs(_) => programs,
        };
        let n_tests = check
            .tests
            .count(listed)
            .with_context(|| format!("the check {}", check.name))?;
        Ok(Counted { check, n_tests })
    };
    checks.into_iter().map(count).collect()
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
        name: "features",
        what: "what the kernel refuses is said, by feature, and the node does without",
        depth: Depth::Usual,
        tests: Tests::Nodes(&["kernel_features::"]),
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

#[cfg(test)]
mod tests {
    use super::*;

    const LISTED: [&str; 3] = ["a::one", "a::two", "b::one"];

    fn count(names: &'static [&'static str]) -> Result<usize> {
        Tests::Nodes(names).count(&LISTED.map(str::to_owned))
    }

    fn check(n_tests: usize) -> Counted {
        Counted {
            check: &ALL[0],
            n_tests,
        }
    }

    #[test]
    fn a_name_stands_for_a_test_or_for_a_group() {
        assert_eq!(count(&["a::one"]).unwrap(), 1);
        assert_eq!(count(&["a::"]).unwrap(), 2);
        assert_eq!(count(&["a::one", "a::", "b::"]).unwrap(), 3);
    }

    #[test]
    fn a_name_that_stands_for_no_test_is_an_error() {
        for names in [&["a::on"], &["c::"], &["one"], &["a"]] {
            assert!(count(names).is_err(), "{names:?}");
        }
        assert!(count(&["a::one", "c::one"]).is_err());
    }

    #[test]
    fn a_check_of_which_not_every_test_ran_has_failed() {
        let passed =
            |status, n_passed| Outcome::read([ALL[0].name, status, n_passed, "7"], &[check(3)]).passed;

        assert!(passed("0", "3"));
        assert!(!passed("0", "2"));
        assert!(!passed("0", "0"));
        assert!(!passed("0", ""));
        assert!(!passed("101", "3"));
        assert!(!Outcome::read(["unknown", "0", "3", "7"], &[check(3)]).passed);
    }
}
