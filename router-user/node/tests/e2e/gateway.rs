//! A network behind a gateway: its hosts reach a peer, and the gateway's host keeps what is its own.

use std::fs;
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use aya::programs::{ProgramInfo, SchedClassifier, TcAttachType};
use nix::sys::signal::Signal;
use serde_json::Value;

use crate::support::lan::{GATEWAY, Lan, LanPlan, section};
use crate::support::{NODE, machine};
use router_common::frame::MAX_PACKET_LEN;
use router_common::names::PROGRAM_GATEWAY_TC;
use xtask::lab::probe::{PingPlan, answers, path_mtu};
use xtask::lab::process::until;
use xtask::lab::{Namespace, Node, NodeConfig, Status, unique_device};

const LIMIT: Duration = Duration::from_secs(10);
const HOOKS: [&str; 2] = ["tc", "xdp"];
/// No flow is forgotten before it is looked at.
const FLOWS_STAY: &str = "\n[connections]\nttl = \"10m\"\n";
/// Each way; a few thousand packets.
const STREAM_BYTES: usize = 8 * 1024 * 1024;

#[test]
fn hosts_of_a_network_reach_a_peer_although_the_gateways_host_forwards_nothing() {
    reach_a_peer("xdp", "native");
}

#[test]
fn hosts_of_a_network_reach_a_peer_in_packets_that_the_kernel_has_merged() {
    reach_a_peer("tc", "tc");
}

fn reach_a_peer(hook: &'static str, mode: &str) {
    let _machine = machine::shared();
    let plan = LanPlan {
        hook,
        sections: FLOWS_STAY,
        ..LanPlan::default()
    };
    let lan = Lan::start(&plan).expect("the network can be made");
    lan.forward_nothing_from(GATEWAY).expect("it can be told");
    let status = lan.status();
    let [gateway] = &status.gateways[..] else {
        panic!("{:?}", status.gateways)
    };
    assert_eq!((&gateway.interface[..], &gateway.mode[..]), (GATEWAY, mode));
    assert_eq!(gateway.sink, "ring buffer");
    assert_eq!((&gateway.reason, &gateway.sink_reason), (&None, &None));

    reach_each_other(&lan, hook == "xdp");
}

#[test]
fn hosts_of_a_network_reach_a_peer_through_sockets() {
    let _machine = machine::shared();
    let plan = LanPlan {
        sink: "af_xdp",
        sections: FLOWS_STAY,
        ..LanPlan::default()
    };
    let mut lan = Lan::start(&plan).unwrap();
    lan.forward_nothing_from(GATEWAY).unwrap();
    let gateway = &lan.status().gateways[0];
    assert_eq!(
        (&gateway.mode[..], &gateway.sink[..]),
        ("native", "AF_XDP, copy mode")
    );
    let reason = gateway.sink_reason.as_deref();
    assert!(
        reason.is_some_and(|reason| reason.starts_with("no zero-copy: ")),
        "{reason:?}"
    );

    reach_each_other(&lan, true);

    let status = lan.status();
    for counter in ["socket_no_memory", "socket_dropped"] {
        assert_eq!(status.counter(counter).unwrap(), 0, "{counter}");
    }
    for signal in [Signal::SIGTERM, Signal::SIGKILL] {
        lan.pair.a.node.stop(signal).unwrap();
        assert!(!lan.is_attached(GATEWAY), "after {signal}");
        lan.pair.a.node.start().unwrap();
        let answered = || Ok(answers(&lan.host, lan.pair.b.v4, LIMIT)?.then_some(()));
        until("an answer after a restart", LIMIT, answered).unwrap();
    }
}

#[test]
fn sockets_that_would_be_no_gain_or_too_small_give_way_to_rings_or_an_error() {
    let _machine = machine::shared();
    let plan = LanPlan {
        sink: "auto",
        ..LanPlan::default()
    };
    let mut lan = Lan::start(&plan).unwrap();
    lan.forward_nothing_from(GATEWAY).unwrap();
    let gateway = &lan.status().gateways[0];
    assert_eq!(gateway.sink, "ring buffer");
    let reason = gateway.sink_reason.as_deref();
    assert!(
        reason.is_some_and(|reason| reason.starts_with("no zero-copy: ")),
        "{reason:?}"
    );
    assert!(answers(&lan.host, lan.pair.b.v4, LIMIT).unwrap());

    lan.pair.a.node.stop(Signal::SIGTERM).unwrap();
    let log = lan.refused_start(NodeConfig {
        mtu: 9000,
        sections: section(GATEWAY, "xdp", "af_xdp"),
        ..lan.pair.a.config.clone()
    });
    assert!(
        log.contains("cannot receive from lan0 by AF_XDP sockets"),
        "{log}"
    );
    assert!(log.contains("device.mtu is 9000"), "{log}");
    assert!(!lan.is_attached(GATEWAY));
}

/// Pings and streams both ways, with equal bytes, and none of it by the host; the packets of streams `one_by_one`, or merged.
fn reach_each_other(lan: &Lan, one_by_one: bool) {
    let before = lan.status();
    let b = [lan.pair.b.v4, lan.pair.b.v6];
    for to in b {
        assert_eq!(
            PingPlan::new(to).run(&lan.host).expect("ping runs").n_lost(),
            0,
            "{to}"
        );
    }
    let after_pings = lan.status();
    for to in b {
        exchange(&lan.host, &lan.pair.b.host, to).expect("bytes cross");
    }
    for to in lan.addresses() {
        exchange(&lan.pair.b.host, &lan.host, to).expect("bytes cross");
        // What is forwarded is a flow of the gateway's in both directions.
        let list: Value = lan
            .pair
            .a
            .node
            .ask(&["flows", "--address", &to.to_string()])
            .expect("flows");
        let is_whole = |flow: &Value| {
            let counted = ["bytes", "rx_bytes"].map(|field| flow[field].as_u64());
            flow["source"] == to.to_string() && counted.iter().all(|n| *n >= Some(STREAM_BYTES as u64))
        };
        let flows = list["flows"].as_array().expect("a list");
        assert!(flows.iter().any(is_whole), "{list}");
    }

    let count = |status: &Status| status.counter("captured").expect("a counter");
    let captured = |from: &Status, to: &Status| count(to) - count(from);
    assert_eq!(captured(&before, &after_pings), 6);
    let most = if one_by_one { 1420 } else { MAX_PACKET_LEN };
    let fewest = (4 * STREAM_BYTES / most) as u64;
    let streams = captured(&after_pings, &lan.status());
    assert!(streams >= fewest, "{streams} packets of {fewest} and more");
}

#[test]
fn what_is_not_for_a_peer_is_the_hosts() {
    for hook in HOOKS {
        let _machine = machine::shared();
        let plan = LanPlan {
            hook,
            ..LanPlan::default()
        };
        let lan = Lan::start(&plan).unwrap();
        lan.forward_nothing_from(GATEWAY).unwrap();
        let before = lan.status();

        let own: [IpAddr; 5] = [
            "192.168.77.1".parse().unwrap(),
            "fd77::1".parse().unwrap(),
            "192.0.2.1".parse().unwrap(),
            lan.pair.a.v4,
            lan.pair.a.v6,
        ];
        for to in own {
            assert_eq!(PingPlan::new(to).run(&lan.host).unwrap().n_lost(), 0, "{to}");
        }

        let after = lan.status();
        assert_eq!(
            after.counter("captured").unwrap(),
            before.counter("captured").unwrap()
        );
        let passed = after.counter("passed_not_ours").unwrap() - before.counter("passed_not_ours").unwrap();
        assert!(passed >= 15, "{passed} of 15 echo requests passed");
    }
}

#[test]
fn the_host_answers_for_packets_without_hops_and_packets_beyond_the_mtu() {
    for hook in HOOKS {
        let _machine = machine::shared();
        let plan = LanPlan {
            hook,
            ..LanPlan::default()
        };
        let lan = Lan::start(&plan).unwrap();

        assert_eq!(path_mtu(&lan.host, lan.pair.b.v4).unwrap(), 1420);

        let status = lan.status();
        for counter in ["passed_ttl", "passed_too_big"] {
            assert!(status.counter(counter).unwrap() > 0, "{counter} at {hook}");
        }
    }
}

#[test]
fn an_interface_without_driver_support_is_captured_in_generic_mode() {
    let _machine = machine::shared();
    let plan = LanPlan {
        hook: "xdp",
        bridge: true,
        ..LanPlan::default()
    };
    let lan = Lan::start(&plan).unwrap();
    let status = lan.status();
    assert_eq!(status.gateways[0].mode, "generic");
    let reason = status.gateways[0].reason.as_deref();
    assert!(
        reason.is_some_and(|reason| reason.contains("not supported")),
        "{reason:?}"
    );
    assert!(lan.pair.a.node.log().unwrap().contains("mode=\"generic\""));

    for to in [lan.pair.b.v4, lan.pair.b.v6] {
        exchange(&lan.host, &lan.pair.b.host, to).unwrap();
    }
    lan.forward_nothing_from(plan.gateway()).unwrap();
    for to in [lan.pair.b.v4, lan.pair.b.v6] {
        assert_eq!(PingPlan::new(to).run(&lan.host).unwrap().n_lost(), 0, "{to}");
    }
}

#[test]
fn a_bridge_is_captured_at_behind_the_merging_of_its_ports() {
    let _machine = machine::shared();
    let plan = LanPlan {
        bridge: true,
        ..LanPlan::default()
    };
    let lan = Lan::start(&plan).unwrap();
    assert_eq!(lan.status().gateways[0].mode, "tc");
    lan.forward_nothing_from(plan.gateway()).unwrap();

    reach_each_other(&lan, false);
}

#[test]
fn a_peer_that_is_the_default_route_leaves_the_host_its_own_networks() {
    let _machine = machine::shared();
    let plan = LanPlan {
        default_route: true,
        ..LanPlan::default()
    };
    let lan = Lan::start(&plan).unwrap();
    lan.forward_nothing_from(GATEWAY).unwrap();

    for to in [
        lan.pair.b.v4,
        lan.pair.b.v6,
        "192.168.77.1".parse().unwrap(),
        "fd77::1".parse().unwrap(),
        "192.0.2.1".parse().unwrap(),
    ] {
        assert_eq!(PingPlan::new(to).run(&lan.host).unwrap().n_lost(), 0, "{to}");
    }
    // Neighbour discovery by link-local addresses goes on, too.
    let link_local = lan
        .pair
        .a
        .host
        .ip(&[
            "-6", "-oneline", "address", "show", "dev", GATEWAY, "scope", "link",
        ])
        .unwrap();
    let link_local = link_local
        .split_whitespace()
        .nth(3)
        .and_then(|net| net.split('/').next())
        .unwrap();
    let mut ping = lan.host.command("ping");
    ping.args(["-q", "-c1", "-W2", &format!("{link_local}%eth0")]);
    assert!(
        ping.stdout(std::process::Stdio::null())
            .status()
            .unwrap()
            .success()
    );

    let late: IpAddr = "198.51.100.1".parse().unwrap();
    assert!(!answers(&lan.host, late, Duration::from_millis(200)).unwrap());
    lan.pair
        .a
        .host
        .ip(&["address", "add", "198.51.100.1/32", "dev", "lo"])
        .unwrap();
    let answered = || Ok(answers(&lan.host, late, Duration::from_millis(200))?.then_some(()));
    until("an address that came later answers", LIMIT, answered).unwrap();
}

#[test]
fn nothing_is_left_at_the_interface_however_a_node_ends() {
    for hook in HOOKS {
        let _machine = machine::shared();
        let plan = LanPlan {
            hook,
            ..LanPlan::default()
        };
        let mut lan = Lan::start(&plan).unwrap();

        for signal in [Signal::SIGTERM, Signal::SIGKILL] {
            assert!(lan.is_attached(GATEWAY), "{hook} before {signal}");
            lan.pair.a.node.stop(signal).unwrap();
            assert!(!lan.is_attached(GATEWAY), "{hook} after {signal}");
            lan.pair.a.node.start().unwrap();
        }
        lan.pair.a.node.stop(Signal::SIGTERM).unwrap();
        let listen = vec!["/ip4/203.0.113.9/tcp/4001".to_owned()];
        let log = lan.refused_start(NodeConfig {
            listen,
            ..lan.pair.a.config.clone()
        });
        assert!(log.contains("203.0.113.9"), "{log}");
        assert!(!lan.is_attached(GATEWAY), "{hook} after a failed start");
    }
}

#[test]
fn an_interface_that_cannot_be_a_gateway_is_named() {
    let _machine = machine::shared();
    let mut lan = Lan::start(&LanPlan::default()).unwrap();
    lan.pair.a.node.stop(Signal::SIGTERM).unwrap();
    lan.pair
        .a
        .host
        .ip(&["tuntap", "add", "raw0", "mode", "tun"])
        .unwrap();

    for (interface, said) in [
        ("lan9", "there is no interface lan9"),
        (
            "raw0",
            "raw0, which a [[gateway]] section names, is no Ethernet interface",
        ),
    ] {
        let log = lan.refused_start(NodeConfig {
            sections: section(GATEWAY, "auto", "ring") + &section(interface, "auto", "ring"),
            ..lan.pair.a.config.clone()
        });

        assert!(log.contains(said), "{log}");
        assert!(!lan.is_attached(GATEWAY));
    }
}

#[test]
fn an_interface_has_one_node_by_xdp() {
    let _machine = machine::shared();
    let plan = LanPlan {
        hook: "xdp",
        ..LanPlan::default()
    };
    let lan = Lan::start(&plan).unwrap();
    let a = &lan.pair.a;
    let mut second = Node::new(Path::new(NODE), &a.host, lan.pair.directory(), "second").unwrap();
    let config = NodeConfig {
        device: unique_device(),
        addresses: vec!["10.43.0.1/24".to_owned()],
        listen: vec!["/ip4/0.0.0.0/tcp/4002".to_owned()],
        peers: vec![],
        ..a.config.clone()
    };
    second.configure(&config).unwrap();

    second.launch().unwrap();
    let ended = second.wait_ended(LIMIT).unwrap();

    assert!(!ended.success());
    let log = second.log().unwrap();
    assert!(log.contains("cannot attach to the ingress of lan0"), "{log}");
    assert!(lan.is_attached(GATEWAY));
    assert!(answers(&lan.host, lan.pair.b.v4, LIMIT).unwrap());
}

impl Lan {
    fn status(&self) -> Status {
        self.pair.a.node.status().expect("the node answers")
    }

    /// From now on what crosses from the network to the peer went past the host.
    pub(crate) fn forward_nothing_from(&self, interface: &str) -> Result<()> {
        let a = &self.pair.a.host;
        let switch = format!("/proc/sys/net/ipv4/conf/{interface}/forwarding");
        a.enter(|| fs::write(&switch, "0").with_context(|| switch.clone()))?;
        for to in [self.pair.b.v4, self.pair.b.v6] {
            let family = if to.is_ipv4() { "-4" } else { "-6" };
            let to = to.to_string();
            a.ip(&[family, "rule", "add", "iif", interface, "to", &to, "blackhole"])?;
        }
        Ok(())
    }

    fn is_attached(&self, interface: &str) -> bool {
        let host = &self.pair.a.host;
        let link = host.ip(&["link", "show", "dev", interface]);
        let programs = host.enter(|| Ok(SchedClassifier::query_tcx(interface, TcAttachType::Ingress)?));
        let (_, programs) = programs.expect("the kernel says what is there");
        let is_own = |program: &ProgramInfo| program.name_as_str() == Some(PROGRAM_GATEWAY_TC);
        link.expect("the interface is there").contains("xdp") || programs.iter().any(is_own)
    }

    /// Starts the stopped first node with a configuration that it refuses; returns its log.
    fn refused_start(&mut self, config: NodeConfig) -> String {
        let node = &mut self.pair.a.node;
        node.configure(&config).expect("a file can be written");
        node.launch().expect("the node is started");
        let ended = node.wait_ended(LIMIT).expect("the node ends");
        assert!(!ended.success());
        node.log().expect("the node has a log")
    }
}

/// Sends a stream each way over one connection and compares what arrives.
fn exchange(from: &Namespace, to: &Namespace, address: IpAddr) -> Result<()> {
    let bytes: Vec<u8> = (0..STREAM_BYTES as u32)
        .map(|at| (at.wrapping_mul(2_654_435_761) >> 24) as u8)
        .collect();
    let listener = to.enter(|| Ok(TcpListener::bind(SocketAddr::new(address, 0))?))?;
    let at = listener.local_addr()?;
    let client = from.enter(|| Ok(TcpStream::connect_timeout(&at, LIMIT)?))?;
    let (server, _) = listener.accept()?;
    thread::scope(|scope| {
        let both = [&client, &server].map(|socket| {
            let bytes = &bytes;
            (
                scope.spawn(move || send(socket, bytes)),
                scope.spawn(move || receive(socket)),
            )
        });
        for (sent, received) in both {
            sent.join().expect("no panic")?;
            assert!(
                received.join().expect("no panic")? == bytes,
                "{from:?} to {address}"
            );
        }
        Ok(())
    })
}

fn send(mut socket: &TcpStream, bytes: &[u8]) -> Result<()> {
    socket.set_write_timeout(Some(LIMIT))?;
    socket.write_all(bytes)?;
    Ok(socket.shutdown(std::net::Shutdown::Write)?)
}

fn receive(mut socket: &TcpStream) -> Result<Vec<u8>> {
    socket.set_read_timeout(Some(LIMIT))?;
    let mut bytes = Vec::new();
    socket.read_to_end(&mut bytes)?;
    Ok(bytes)
}
