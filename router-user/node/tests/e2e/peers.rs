//! Peers that come and go, and packets that are not theirs to send.

use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr, TcpStream, UdpSocket};
use std::path::Path;
use std::thread;
use std::time::Duration;

use anyhow::Result;
use nix::sys::signal::Signal;

use crate::support::{NODE, machine};
use xtask::lab::probe::{PingPlan, answers};
use xtask::lab::process::until;
use xtask::lab::{Namespace, Pair, PairPlan, Side, Transport};

/// Traffic has to flow again within 2 s; the rest is for a debug build on a busy machine.
const RETURN_LIMIT: Duration = Duration::from_secs(5);

#[test]
fn traffic_flows_again_after_a_peer_was_killed_and_restarted() {
    let _machine = machine::shared();
    let mut pair = Pair::unique(Path::new(NODE)).unwrap();
    assert!(pings(&pair.a, &pair.b) && pings(&pair.b, &pair.a));

    for signal in [Signal::SIGKILL, Signal::SIGTERM] {
        pair.b.node.stop(signal).unwrap();
        pair.b.node.start().unwrap();
        let from_a = time_until_answer(&pair.a.host, pair.b.v4).unwrap();
        let from_b = time_until_answer(&pair.b.host, pair.a.v6).unwrap();
        eprintln!(
            "after {signal} and restart: traffic from a after {from_a:?}, then from b after {from_b:?}"
        );
    }
}

#[test]
fn traffic_flows_again_after_a_link_was_down_over_tcp() {
    let _machine = machine::shared();
    outlives_a_link_that_was_down(Transport::Tcp);
}

#[test]
fn traffic_flows_again_after_a_link_was_down_over_quic() {
    let _machine = machine::shared();
    outlives_a_link_that_was_down(Transport::Quic);
}

#[test]
fn a_sender_is_told_that_a_peer_is_down() {
    let _machine = machine::shared();
    let mut pair = Pair::unique(Path::new(NODE)).unwrap();
    pair.b.node.stop(Signal::SIGTERM).unwrap();
    let b = pair.b.node.peer_id();
    let down = |status: &xtask::lab::Status| !status.is_connected(b);
    let (before, _) = pair
        .a
        .node
        .wait_for("the peer is down", RETURN_LIMIT, down)
        .unwrap();

    for to in [pair.b.v4, pair.b.v6] {
        let refused = pair.a.host.enter(|| {
            Ok(TcpStream::connect_timeout(&SocketAddr::new(to, 7000), Duration::from_secs(5)).err())
        });

        let kind = refused.unwrap().map(|error| error.kind());
        // Who is not told finds out by the time.
        let unreachable = [
            Some(ErrorKind::HostUnreachable),
            Some(ErrorKind::NetworkUnreachable),
        ];
        assert!(unreachable.contains(&kind), "connecting to {to}: {kind:?}");
    }
    let after = pair.a.node.status().unwrap();
    for counter in ["tx_peer_down", "icmp_unreachable_sent"] {
        let told = after.counter(counter).unwrap() - before.counter(counter).unwrap();
        assert!(told >= 2, "{counter} rose by {told}");
    }
}

#[test]
fn a_flood_to_a_peer_that_is_down_is_answered_at_a_limited_rate() {
    let _machine = machine::shared();
    const DATAGRAMS: u64 = 20_000;
    let mut pair = Pair::unique(Path::new(NODE)).unwrap();
    pair.b.node.stop(Signal::SIGTERM).unwrap();
    let b = pair.b.node.peer_id();
    pair.a
        .node
        .wait_for("the peer is down", RETURN_LIMIT, |status| !status.is_connected(b))
        .unwrap();
    let before = pair.a.node.status().unwrap();

    let to = SocketAddr::new(pair.b.v4, 7000);
    let socket = pair.a.host.enter(|| Ok(UdpSocket::bind("0.0.0.0:0")?)).unwrap();
    let n_sent = (0..DATAGRAMS)
        .filter(|_| socket.send_to(b"anybody there", to).is_ok())
        .count() as u64;

    let dropped = |status: &xtask::lab::Status| {
        let names = ["tx_peer_down", "tx_queue_full", "ring_full"];
        names
            .iter()
            .filter_map(|name| Some(status.counters.get(*name)? - before.counters.get(*name)?))
            .sum::<u64>()
    };
    let (after, _) = pair
        .a
        .node
        .wait_for("every datagram is counted", RETURN_LIMIT, |status| {
            dropped(status) >= n_sent
        })
        .unwrap();
    let told =
        after.counter("icmp_unreachable_sent").unwrap() - before.counter("icmp_unreachable_sent").unwrap();
    assert!(
        (1..n_sent / 10).contains(&told),
        "{told} answers to {n_sent} datagrams"
    );
}

#[test]
fn a_packet_with_a_foreign_inner_source_is_counted_and_dropped() {
    let _machine = machine::shared();
    let pair = Pair::unique(Path::new(NODE)).unwrap();
    let at = SocketAddr::new(pair.a.v4, 7000);
    let receiver = pair.a.host.enter(|| Ok(UdpSocket::bind(at)?)).unwrap();
    receiver.set_read_timeout(Some(RETURN_LIMIT)).unwrap();
    pair.b
        .host
        .ip(&["address", "add", "10.99.0.1/32", "dev", "lo"])
        .unwrap();
    let send_from = |source: IpAddr, text: &[u8]| {
        let socket = pair
            .b
            .host
            .enter(|| Ok(UdpSocket::bind((source, 7001))?))
            .unwrap();
        socket.send_to(text, at).unwrap();
    };
    let before = pair
        .a
        .node
        .status()
        .unwrap()
        .counter("rx_source_not_allowed")
        .unwrap();

    for _ in 0..3 {
        send_from("10.99.0.1".parse().unwrap(), b"forged");
    }
    let counted = |status: &xtask::lab::Status| {
        status
            .counter("rx_source_not_allowed")
            .is_ok_and(|count| count >= before + 3)
    };
    let (after, _) = pair
        .a
        .node
        .wait_for("three drops are counted", RETURN_LIMIT, counted)
        .unwrap();
    send_from(pair.b.v4, b"honest");

    assert_eq!(after.counter("rx_source_not_allowed").unwrap(), before + 3);
    let mut buffer = [0; 64];
    let (len, source) = receiver.recv_from(&mut buffer).unwrap();
    assert_eq!((&buffer[..len], source.ip()), (&b"honest"[..], pair.b.v4));
}

fn outlives_a_link_that_was_down(transport: Transport) {
    let plan = PairPlan {
        transport,
        ..PairPlan::unique()
    };
    let mut pair = Pair::start(Path::new(NODE), &plan).expect("the pair starts");
    assert!(pings(&pair.a, &pair.b));
    let processes = [pair.a.node.process_id(), pair.b.node.process_id()];

    pair.b
        .host
        .ip(&["link", "set", "u0", "down"])
        .expect("the link goes down");
    // The outage itself, not a wait for something.
    thread::sleep(Duration::from_secs(30));
    pair.b
        .host
        .ip(&["link", "set", "u0", "up"])
        .expect("the link comes up");
    for side in [&pair.a, &pair.b] {
        side.host.wait_device_up("u0").expect("the link carries packets");
    }
    let taken = time_until_answer(&pair.a.host, pair.b.v4).expect("traffic flows again");
    eprintln!("{transport:?}: traffic {taken:?} after the link came up");

    pair.a.node.ensure_alive().expect("a goes on");
    pair.b.node.ensure_alive().expect("b goes on");
    assert_eq!(processes, [pair.a.node.process_id(), pair.b.node.process_id()]);
    assert!(pings(&pair.b, &pair.a));
}

fn pings(from: &Side, to: &Side) -> bool {
    let lost = |to| PingPlan::new(to).run(&from.host).expect("ping runs").n_lost();
    lost(to.v4) + lost(to.v6) == 0
}

fn time_until_answer(from: &Namespace, to: IpAddr) -> Result<Duration> {
    let answered = || Ok(answers(from, to, Duration::from_millis(100))?.then_some(()));
    let ((), taken) = until("an answer", RETURN_LIMIT, answered)?;
    Ok(taken)
}
