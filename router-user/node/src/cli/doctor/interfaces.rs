//! Checks the interfaces: the device's name, MTU and queueing, offloads and MTU of those below the tunnel, XDP at gateways.

use std::collections::BTreeSet;

use libp2p::multiaddr::Protocol;

use super::finding::Finding;
use super::input::CheckInput;
use super::node::RunningNode;
use super::sysctl::read;
use crate::config::{GatewaySection, Hook, Sink};
use crate::control::GatewayStatus;
use crate::device::{Interface, Netlink, NetlinkError, Offload, driver, has_offload};

/// Least MTU for QUIC, which begins with datagrams of 1200 bytes (RFC 9000, 14), here with an IPv6 and a UDP header.
const QUIC_MIN_MTU: u32 = 1248;

/// Offloads without which the node's own segments are cut or joined packet by packet.
const OFFLOADS: [(Offload, &str); 4] = [
    (Offload::TxChecksum, "tx"),
    (Offload::Tso, "tso"),
    (Offload::Gso, "gso"),
    (Offload::Gro, "gro"),
];

/// The qdisc that the kernel gives a device that is made.
const DEFAULT_QDISC: &str = "net.core.default_qdisc";

/// What a device has that nobody has given a qdisc.
const PLAIN_QDISCS: [&str; 7] = ["noop", "noqueue", "pfifo_fast", "fq", "fq_codel", "mq", "pfifo"];

/// An interface, and whether an XDP program is attached to it.
struct InterfaceState {
    link: Option<Interface>,
    has_xdp: bool,
}

/// Checks the device, the `underlays` and the gateways.
///
/// # Errors
/// The system gives no runtime.
pub(super) fn check(
    input: &CheckInput,
    underlays: &BTreeSet<String>,
) -> Result<Vec<Finding>, Box<dyn std::error::Error>> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let look = |name: &str| {
        runtime.block_on(async {
            let netlink = Netlink::open()?;
            let link = netlink.link_by_name(name).await?;
            let has_xdp = match &link {
                Some(link) => netlink.has_xdp(link.index).await?,
                None => false,
            };
            Ok::<_, NetlinkError>(InterfaceState { link, has_xdp })
        })
    };
    let device = input.config.device();
    let mut findings = vec![match look(device.name()) {
        Ok(seen) => judge_device(device.name(), device.mtu(), seen.link.as_ref(), input),
        Err(error) => Finding::unknown("device", error.to_string()),
    }];
    if let Some(status) = input.running.status() {
        let qdisc = runtime.block_on(async { Netlink::open()?.root_qdisc(status.device.index).await });
        findings.push(match qdisc {
            Ok(kind) => judge_qdisc(
                &status.device.name,
                kind.as_deref(),
                read(DEFAULT_QDISC).as_deref(),
            ),
            Err(error) => Finding::unknown("qdisc", error.to_string()).about(&status.device.name),
        });
    }
    let has_quic = input
        .config
        .peers()
        .iter()
        .flat_map(|peer| peer.addresses())
        .chain(input.config.node().listen())
        .any(|address| address.iter().any(|part| part == Protocol::QuicV1));
    for name in underlays {
        if name == "lo" {
            continue;
        }
        findings.push(offloads(name));
        if let Ok(InterfaceState { link: Some(link), .. }) = look(name) {
            findings.push(judge_mtu(name, link.mtu, has_quic));
        }
    }
    for gateway in input.config.gateways() {
        let name = gateway.interface();
        if !underlays.contains(name) {
            findings.push(offloads(name));
        }
        let status = input.running.status().map(|status| &status.gateways);
        let own = status.and_then(|all| all.iter().find(|one| one.interface == name));
        match look(name) {
            Ok(seen) => findings.push(judge_gateway(gateway, &seen, own, &input.running)),
            Err(error) => findings.push(Finding::unknown("gateway", error.to_string()).about(name)),
        }
    }
    Ok(findings)
}

fn judge_device(name: &str, mtu: u32, link: Option<&Interface>, input: &CheckInput) -> Finding {
    let owner = match &input.running {
        RunningNode::Yes(status) if status.device.name == name => Owner::Node,
        RunningNode::Unknown => Owner::Unknown,
        RunningNode::Yes(_) | RunningNode::No => Owner::Other,
    };
    judge_device_of(name, mtu, link.map(|link| link.mtu), owner)
}

/// Owner of an interface with the device's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Owner {
    /// The interface is the running node's.
    Node,
    /// The interface belongs to something else.
    Other,
    /// The interface may be the running node's.
    Unknown,
}

fn judge_device_of(name: &str, mtu: u32, found_mtu: Option<u32>, owner: Owner) -> Finding {
    const CHECK: &str = "device";
    let finding = match (found_mtu, owner) {
        (None, Owner::Node) => Finding::problem(
            CHECK,
            "the running node's device is not in this network namespace",
        )
        .fix("nsenter --net --target PID stream-router doctor"),
        (None, Owner::Other | Owner::Unknown) => Finding::ok(CHECK, "the name is free"),
        (Some(_), Owner::Unknown) => Finding::unknown(
            CHECK,
            "the name is taken; whether by a node cannot be told, as it may not be asked",
        ),
        (Some(_), Owner::Other) => Finding::problem(
            CHECK,
            "the name is taken by an interface that is no running node's",
        )
        .fix(format!("ip link delete {name}")),
        (Some(found), Owner::Node) if found != mtu => Finding::warning(
            CHECK,
            format!(
                "it has an MTU of {found} and the configuration says {mtu}; a gateway goes by the latter"
            ),
        )
        .fix(format!("ip link set dev {name} mtu {mtu}")),
        (Some(_), Owner::Node) => Finding::ok(CHECK, format!("the running node's, MTU {mtu}")),
    };
    finding.about(name)
}

/// Judges the root qdisc of the running node's device: it sees none of the packets to peers.
fn judge_qdisc(name: &str, kind: Option<&str>, default: Option<&str>) -> Finding {
    const CHECK: &str = "qdisc";
    let finding = match kind {
        Some(kind) if Some(kind) != default && !PLAIN_QDISCS.contains(&kind) => Finding::warning(
            CHECK,
            format!(
                "{kind} has no effect: packets to peers are taken before it; shape them at the interface below the \
                 tunnel, where they leave this host"
            ),
        )
        .fix(format!("tc qdisc delete dev {name} root")),
        Some(kind) => Finding::ok(CHECK, format!("{kind}, the kernel's own choice")),
        None => Finding::ok(CHECK, "none"),
    };
    finding.about(name)
}

fn offloads(name: &str) -> Finding {
    // What a veth pair carries has never been cut, so there is nothing to merge (kernel: `veth.c` has GRO for XDP only).
    let is_veth = driver(name).is_ok_and(|driver| driver == "veth");
    let states = OFFLOADS
        .iter()
        .filter(|(offload, _)| !(is_veth && *offload == Offload::Gro));
    let states: Vec<_> = states
        .map(|(offload, word)| (*word, has_offload(name, *offload).ok()))
        .collect();
    judge_offloads(name, &states)
}

fn judge_offloads(name: &str, states: &[(&str, Option<bool>)]) -> Finding {
    const CHECK: &str = "offloads";
    let words = |state| {
        let with = states.iter().filter(move |(_, one)| *one == state);
        with.map(|(word, _)| *word).collect::<Vec<_>>()
    };
    let (off, unknown) = (words(Some(false)), words(None));
    let finding = if !off.is_empty() {
        let command: Vec<_> = off.iter().map(|word| format!("{word} on")).collect();
        Finding::warning(
            CHECK,
            format!("off: {}; each costs CPU for every packet", off.join(", ")),
        )
        .fix(format!("ethtool -K {name} {}", command.join(" ")))
    } else if unknown.is_empty() {
        Finding::ok(CHECK, words(Some(true)).join(", "))
    } else {
        Finding::unknown(CHECK, format!("the kernel does not say: {}", unknown.join(", ")))
    };
    finding.about(name)
}

/// Judges the MTU below the tunnel. Streams are cut as the path needs it; only QUIC has a least size.
fn judge_mtu(name: &str, mtu: u32, has_quic: bool) -> Finding {
    const CHECK: &str = "mtu";
    let finding = if has_quic && mtu < QUIC_MIN_MTU {
        Finding::problem(CHECK, format!("{mtu}: QUIC needs {QUIC_MIN_MTU} or more")).fix(format!(
            "ip link set dev {name} mtu {}",
            QUIC_MIN_MTU.next_multiple_of(16).max(1280)
        ))
    } else {
        Finding::ok(
            CHECK,
            format!("{mtu}; the tunnel's packets are cut to it, whatever device.mtu is"),
        )
    };
    finding.about(name)
}

fn judge_gateway(
    gateway: &GatewaySection,
    seen: &InterfaceState,
    status: Option<&GatewayStatus>,
    running: &RunningNode,
) -> Finding {
    const CHECK: &str = "gateway";
    let name = gateway.interface();
    // Where it may be either, another's program is at the other.
    let needs_xdp = gateway.hook() == Hook::Xdp || gateway.sink() == Sink::AfXdp;
    let finding = match (&seen.link, status) {
        (None, _) => Finding::problem(CHECK, "there is no such interface").fix("ip link show"),
        (Some(link), _) if link.ethernet_address.is_none() => {
            Finding::problem(CHECK, "it is no Ethernet interface").fix("ip link show")
        }
        (Some(link), _) if !link.up => {
            Finding::problem(CHECK, "it is down").fix(format!("ip link set dev {name} up"))
        }
        (Some(_), Some(status)) if status.mode == "native" => {
            Finding::ok(CHECK, format!("captured in the driver, by {}", status.sink))
        }
        (Some(_), Some(status)) if status.mode == "tc" => {
            Finding::ok(CHECK, format!("captured by TC, behind GRO, by {}", status.sink))
        }
        (Some(_), Some(status)) => Finding::warning(
            CHECK,
            format!(
                "captured in {} mode: {}; it must not be joined with rx-udp-gro-forwarding",
                status.mode,
                status.reason.as_deref().unwrap_or("no reason given")
            ),
        )
        .fix(format!("ethtool -K {name} rx-udp-gro-forwarding off")),
        (Some(_), None) if needs_xdp && seen.has_xdp && matches!(running, RunningNode::Unknown) => {
            Finding::unknown(
                CHECK,
                "an XDP program is attached; whether a node's cannot be told, as it may not be asked",
            )
        }
        (Some(_), None) if needs_xdp && seen.has_xdp => Finding::problem(
            CHECK,
            "another XDP program is attached, and a node cannot attach its own",
        )
        .fix(format!("ip link set dev {name} xdp off")),
        (Some(_), None) if !needs_xdp => {
            Finding::unknown(CHECK, "ready; by which hook shows once a node runs")
        }
        (Some(_), None) => {
            let driver = driver(name).unwrap_or_else(|_| "of unknown name".to_owned());
            Finding::unknown(
                CHECK,
                format!("ready; whether the driver {driver} takes the program shows once a node runs"),
            )
        }
    };
    finding.about(name)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::finding::Verdict;
    use super::*;
    use crate::config::Config;

    #[test]
    fn a_name_is_free_the_nodes_own_or_taken() {
        let judged = |found, owner| judge_device_of("sr0", 1420, found, owner);
        assert_eq!(judged(None, Owner::Other).verdict, Verdict::Ok);
        assert_eq!(judged(Some(1420), Owner::Node).verdict, Verdict::Ok);
        assert_eq!(judged(Some(1420), Owner::Unknown).verdict, Verdict::Unknown);
        assert_eq!(
            judged(Some(1420), Owner::Other).fix.as_deref(),
            Some("ip link delete sr0")
        );
        assert_eq!(
            judged(Some(1400), Owner::Node).fix.as_deref(),
            Some("ip link set dev sr0 mtu 1420")
        );
        assert_eq!(judged(None, Owner::Node).verdict, Verdict::Problem);
    }

    #[test]
    fn offloads_that_are_off_are_turned_on_by_the_command() {
        let on = [("tso", Some(true)), ("gro", Some(true))];
        let off = [("tso", Some(false)), ("gro", Some(true)), ("gso", Some(false))];
        assert_eq!(judge_offloads("u0", &on).verdict, Verdict::Ok);
        assert_eq!(
            judge_offloads("u0", &off).fix.as_deref(),
            Some("ethtool -K u0 tso on gso on")
        );
        assert_eq!(judge_offloads("u0", &[("tso", None)]).verdict, Verdict::Unknown);
    }

    #[test]
    fn only_quic_has_a_least_mtu() {
        assert_eq!(judge_mtu("u0", 1200, false).verdict, Verdict::Ok);
        assert_eq!(judge_mtu("u0", 1248, true).verdict, Verdict::Ok);
        assert_eq!(
            judge_mtu("u0", 1247, true).fix.as_deref(),
            Some("ip link set dev u0 mtu 1280")
        );
    }

    #[test]
    fn a_qdisc_that_somebody_has_given_the_device_is_told_from_the_kernels_own() {
        let verdict = |kind, default| judge_qdisc("sr0", kind, default).verdict;

        assert_eq!(verdict(None, None), Verdict::Ok);
        assert_eq!(verdict(Some("pfifo_fast"), Some("fq_codel")), Verdict::Ok);
        assert_eq!(verdict(Some("cake"), Some("cake")), Verdict::Ok);
        for shaping in ["tbf", "htb", "netem", "cake"] {
            assert_eq!(verdict(Some(shaping), Some("fq_codel")), Verdict::Warning);
        }
        assert_eq!(
            judge_qdisc("sr0", Some("tbf"), None).fix.as_deref(),
            Some("tc qdisc delete dev sr0 root")
        );
    }

    #[test]
    fn a_gateway_is_judged_by_its_interface_and_by_what_the_node_says() {
        let link = Interface {
            index: 1,
            name: "lan0".to_owned(),
            mtu: 1500,
            up: true,
            ethernet_address: Some([2; 6]),
        };
        let seen = |link: Option<Interface>, has_xdp| InterfaceState { link, has_xdp };
        let status = |mode: &str| GatewayStatus {
            interface: "lan0".to_owned(),
            mode: mode.to_owned(),
            reason: None,
            sink: "ring buffer".to_owned(),
            sink_reason: None,
        };
        let gateway = |hook: &str| {
            let text = format!(
                "[device]\naddresses = ['10.42.0.1/24']\n[[gateway]]\ninterface = 'lan0'\nhook = '{hook}'\n"
            );
            let config = Config::parse(&text, Path::new("sr.toml")).unwrap();
            config.gateways()[0].clone()
        };
        let (auto, xdp) = (gateway("auto"), gateway("xdp"));
        let verdict = |seen: &InterfaceState, status: Option<&GatewayStatus>| {
            judge_gateway(&xdp, seen, status, &RunningNode::No).verdict
        };
        let down = Interface {
            up: false,
            ..link.clone()
        };
        let no_ethernet = Interface {
            ethernet_address: None,
            ..link.clone()
        };

        assert_eq!(verdict(&seen(None, false), None), Verdict::Problem);
        assert_eq!(verdict(&seen(Some(down), false), None), Verdict::Problem);
        assert_eq!(verdict(&seen(Some(no_ethernet), false), None), Verdict::Problem);
        assert_eq!(verdict(&seen(Some(link.clone()), true), None), Verdict::Problem);
        assert_eq!(verdict(&seen(Some(link.clone()), false), None), Verdict::Unknown);
        let by_tc = judge_gateway(&auto, &seen(Some(link.clone()), true), None, &RunningNode::No);
        assert_eq!(by_tc.verdict, Verdict::Unknown);
        let unsure = judge_gateway(&xdp, &seen(Some(link.clone()), true), None, &RunningNode::Unknown);
        assert_eq!(unsure.verdict, Verdict::Unknown);
        assert_eq!(
            verdict(&seen(Some(link.clone()), true), Some(&status("native"))),
            Verdict::Ok
        );
        assert_eq!(
            verdict(&seen(Some(link.clone()), false), Some(&status("tc"))),
            Verdict::Ok
        );
        assert_eq!(
            verdict(&seen(Some(link), true), Some(&status("generic"))),
            Verdict::Warning
        );
    }
}
