//! The model, and samples for every test of the view.

use std::time::Duration;

use super::columns::Order;
use super::filter::Filter;
use super::model::{Model, NodeSample};
use super::panes::Pane;
use crate::control::{
    AddressOrigin, ControlError, CounterKind, CounterList, CounterOrigin, CounterStatus, DeviceStatus,
    Direction, DisabledPeer, Flow, FlowList, FlowQuery, IpProtocol, KernelStatus, MemoryStatus, PeerAddress,
    PeerList, PeerState, PeerStatus, Status, StreamList, StreamState, StreamStatus, Transport, WorkerList,
    WorkerState, WorkerStatus,
};

pub(super) const PEER_A: &str = "12D3KooWDpJ7As7BWAwRMfu1VU2WCqNjvq387JEYKDBj4kx6nXTN";
pub(super) const PEER_B: &str = "12D3KooWSgS6DL7SNHPMVyNYsLMw1xPAsMEuNNGbEmeeHUQYxKjL";

/// A sample whose counts are those of a node that has sent for `n` seconds.
pub(super) fn sample(n: u64) -> NodeSample {
    NodeSample {
        at: Duration::from_secs(n),
        status: status(n),
        peers: PeerList {
            peers: vec![peer(PEER_A, 1, n), silent_peer(PEER_B)],
            disabled: Vec::new(),
        },
        workers: WorkerList {
            workers: (0..4).map(|id| worker(id, n)).collect(),
        },
        streams: StreamList {
            streams: vec![stream(PEER_A, 0, n), stream(PEER_A, 1, 0)],
        },
        counters: CounterList {
            counters: vec![
                counter("captured", CounterKind::Event, 1000 * n),
                counter("ring_full", CounterKind::Drop, 30 * n),
                counter("tx_aged", CounterKind::Drop, 7),
                counter("tx_no_route", CounterKind::Drop, 0),
            ],
        },
        flows: Some(FlowList {
            live: 1234,
            rx_live: 1230,
            matched: 1234,
            max_entries: 4096,
            flows: vec![
                flow("10.42.0.2", 443, 1_000_000 * n),
                flow("10.42.0.3", 80, 5000 * n),
                flow("fd42::2", 22, 9),
            ],
        }),
    }
}

fn status(n: u64) -> Status {
    Status {
        version: "1.2.3".to_owned(),
        uptime_seconds: 60.0 + n as f64,
        peer_id: "12D3KooWOwnOwnOwn".to_owned(),
        name: None,
        device: DeviceStatus {
            name: "sr0".to_owned(),
            index: 7,
            mtu: 1420,
            addresses: vec!["10.42.0.1/24".to_owned()],
        },
        listen: Vec::new(),
        port_mapping: crate::control::PortMappingStatus::default(),
        reach: crate::control::ReachStatus::default(),
        hook: String::new(),
        hook_reason: String::new(),
        sink: String::new(),
        sink_reason: String::new(),
        pins: None,
        workers: 4,
        retired_workers: 0,
        data_threads: Vec::new(),
        configured_peers: 2,
        connected_peers: 1,
        disabled_peers: 0,
        gateways: Vec::new(),
        host: crate::control::HostStatus::default(),
        memory: MemoryStatus::default(),
        kernel: KernelStatus {
            release: String::new(),
            features: Vec::new(),
        },
    }
}

fn peer(id: &str, number: u32, n: u64) -> PeerStatus {
    PeerStatus {
        id: id.to_owned(),
        name: None,
        comment: None,
        state: PeerState::Connected,
        address: Some(format!("/ip4/192.0.2.{number}/tcp/4001/p2p/{id}")),
        transport: Some(Transport::Tcp),
        path: None,
        direction: Some(Direction::Outbound),
        rtt_ms: Some(0.25),
        handshake_age_seconds: Some(3.0),
        connections: 1,
        links: Vec::new(),
        streams: 2,
        allowed_ips: vec![format!("10.42.{number}.0/24")],
        rate_bytes_per_second: None,
        tx_frames: 1000 * n,
        tx_bytes: 1_000_000 * n,
        rx_frames: 10 * n,
        rx_bytes: 2000 * n,
        tx_bytes_per_second: None,
        rx_bytes_per_second: None,
        addresses: vec![
            PeerAddress {
                address: format!("/ip4/192.0.2.{number}/tcp/4001"),
                origin: AddressOrigin::Configured,
                last_dial_error: None,
                last_dial_error_age_seconds: None,
            },
            PeerAddress {
                address: "/ip6/2001:db8::1/udp/4001/quic-v1".to_owned(),
                origin: AddressOrigin::Dht,
                last_dial_error: None,
                last_dial_error_age_seconds: None,
            },
            PeerAddress {
                address: "/dns4/berlin.example/tcp/4001".to_owned(),
                origin: AddressOrigin::Mdns,
                last_dial_error: None,
                last_dial_error_age_seconds: None,
            },
        ],
        last_dial_error: None,
        refuses: false,
        relayed_because: None,
        direct_tries: Vec::new(),
        direct_tried_age_seconds: None,
    }
}

fn silent_peer(id: &str) -> PeerStatus {
    PeerStatus {
        state: PeerState::Connecting,
        address: None,
        transport: None,
        direction: None,
        rtt_ms: None,
        handshake_age_seconds: None,
        connections: 0,
        streams: 0,
        name: Some("Paris".to_owned()),
        last_dial_error: Some("connection refused\u{1b}[2J".to_owned()),
        ..peer(id, 2, 0)
    }
}

fn worker(id: u32, n: u64) -> WorkerStatus {
    WorkerStatus {
        id,
        state: if id == 3 {
            WorkerState::Retired
        } else {
            WorkerState::Active
        },
        thread: "sr-data-0".to_owned(),
        ring_bytes: 1 << 21,
        fill: f64::from(id) * 0.3,
        sockets: 0,
        flows: id,
        packets: 1000 * n,
        bytes: 100_000 * n,
        wakeups: n,
    }
}

fn stream(peer: &str, index: u32, n: u64) -> StreamStatus {
    StreamStatus {
        peer: peer.to_owned(),
        peer_name: None,
        index,
        state: StreamState::Active,
        open: index == 0,
        transport: Some(Transport::Tcp),
        frames: 1000 * n,
        queued_bytes: 4096,
        pressed: index == 0,
        refused: 0,
        dropped: 5 * n,
        marked: 0,
    }
}

fn counter(name: &str, kind: CounterKind, value: u64) -> CounterStatus {
    CounterStatus {
        name: name.to_owned(),
        value,
        origin: CounterOrigin::Kernel,
        kind,
        meaning: format!("what {name} counts"),
    }
}

fn flow(destination: &str, port: u16, bytes: u64) -> Flow {
    let destination: std::net::IpAddr = destination.parse().expect("an address");
    Flow {
        protocol: IpProtocol(6),
        source: if destination.is_ipv4() {
            [10, 42, 0, 1].into()
        } else {
            "fd42::1".parse().expect("an address")
        },
        source_port: 40_000,
        destination,
        destination_port: port,
        worker: Some(3),
        peer: Some(PEER_A.to_owned()),
        peer_name: None,
        stream: Some(0),
        age_seconds: 2.5,
        idle_seconds: 0.5,
        packets: bytes / 1000,
        bytes,
        rx_packets: bytes / 4000,
        rx_bytes: bytes / 4,
    }
}

/// A model that has heard a node for a while.
pub(super) fn model(seconds: u64) -> Model {
    let mut model = Model::default();
    for n in 0..=seconds {
        model.handle_sample(sample(n));
    }
    model
}

pub(super) fn failure() -> ControlError {
    ControlError::NoNode {
        path: "/run/sr.sock".into(),
        source: std::io::ErrorKind::ConnectionRefused.into(),
    }
}

fn texts(model: &Model, pane: Pane, filter: &str, column: &str) -> Vec<String> {
    texts_in(model, pane, filter, column, pane.first_order())
}

fn texts_in(model: &Model, pane: Pane, filter: &str, column: &str, order: Order) -> Vec<String> {
    let snapshot = model.snapshot().expect("a sample");
    let index = pane.columns().iter().position(|other| other.title == column);
    let index = index.expect("a column");
    let rows = pane.rows(snapshot, &Filter::new(filter), order);
    rows.into_iter()
        .map(|row| row.cells[index].text.clone())
        .collect()
}

#[test]
fn rates_come_from_two_samples() {
    let first = model(0);
    assert_eq!(texts(&first, Pane::Peers, "", "TX"), ["-", "-"]);
    assert!(first.history().latest().is_none());

    let second = model(1);

    assert_eq!(texts(&second, Pane::Peers, "", "TX"), ["8.00 Mbit/s", "0 bit/s"]);
    assert_eq!(texts(&second, Pane::Peers, "", "RX FRAMES"), ["10.0/s", "0/s"]);
    assert_eq!(texts(&second, Pane::Workers, "", "RATE"), ["800 kbit/s"; 4]);
    assert_eq!(texts(&second, Pane::Streams, "", "DROPPED"), ["5.0/s", "0/s"]);
    for (column, expected) in [
        ("TX", ["8.00 Mbit/s", "40.0 kbit/s", "0 bit/s"]),
        ("RX", ["2.00 Mbit/s", "10.0 kbit/s", "0 bit/s"]),
        ("RATE", ["10.0 Mbit/s", "50.0 kbit/s", "0 bit/s"]),
    ] {
        assert_eq!(texts(&second, Pane::Flows, "", column), expected, "{column}");
    }
    let latest = second.history().latest().expect("a point");
    assert_eq!(
        (latest.tx_bits_per_second, latest.rx_bits_per_second),
        (8e6, 16e3)
    );
}

#[test]
fn rates_are_per_second_at_any_pace() {
    let mut model = model(0);
    model.handle_sample(NodeSample {
        at: Duration::from_secs(4),
        ..sample(8)
    });

    assert_eq!(texts(&model, Pane::Peers, "", "TX")[0], "16.0 Mbit/s");
}

#[test]
fn only_drops_that_happened_are_shown_and_the_fastest_first() {
    let model = model(2);

    assert_eq!(texts(&model, Pane::Drops, "", "REASON"), ["ring_full", "tx_aged"]);
    assert_eq!(texts(&model, Pane::Drops, "", "RATE"), ["30.0/s", "0/s"]);
    assert_eq!(texts(&model, Pane::Drops, "", "ALL"), ["60", "7"]);
}

#[test]
fn a_node_that_was_started_again_has_no_rates_yet() {
    let mut model = model(5);
    let mut restarted = sample(9);
    restarted.status.uptime_seconds = 0.5;

    model.handle_sample(restarted);

    assert_eq!(texts(&model, Pane::Peers, "", "TX"), ["-", "-"]);
    assert_eq!(
        model.history().latest().expect("a point").to,
        Duration::from_secs(5)
    );
}

#[test]
fn a_peer_that_comes_or_goes_leaves_the_others_rates_alone() {
    let mut model = model(5);
    let mut other = sample(6);
    other.peers.peers.remove(0);
    model.handle_sample(other);
    assert_eq!(texts(&model, Pane::Peers, "", "TX"), ["0 bit/s"]);

    model.handle_sample(sample(7));

    assert_eq!(texts(&model, Pane::Peers, "", "TX"), ["0 bit/s", "-"]);
    assert_eq!(model.history().latest().expect("a point").tx_bits_per_second, 0.0);
}

#[test]
fn a_peer_that_is_disabled_is_a_row_without_rates() {
    let mut model = model(5);
    for n in 6..8 {
        let mut other = sample(n);
        let asleep = other.peers.peers.remove(0);
        other.peers.disabled = vec![DisabledPeer {
            id: asleep.id,
            name: Some("rome".to_owned()),
            comment: None,
            allowed_ips: asleep.allowed_ips,
            addresses: Vec::new(),
        }];
        model.handle_sample(other);
    }

    let of = |column: &str| texts(&model, Pane::Peers, "", column);
    assert_eq!(of("PEER"), ["Paris", "rome"]);
    assert_eq!(of("STATE"), ["connecting", "disabled"]);
    assert_eq!(of("TX"), ["0 bit/s", "-"]);
    assert_eq!(of("RX FRAMES"), ["0/s", "-"]);
    assert_eq!(texts(&model, Pane::Peers, "rome", "ADDRESS"), ["-"]);
    assert_eq!(model.history().latest().expect("a point").tx_bits_per_second, 0.0);
}

#[test]
fn flows_that_were_not_asked_for_stay_with_their_rates() {
    let mut model = model(2);
    let without = |n| NodeSample {
        flows: None,
        ..sample(n)
    };
    model.handle_sample(without(3));
    assert_eq!(texts(&model, Pane::Flows, "", "TX")[0], "8.00 Mbit/s");
    model.handle_sample(without(4));

    // Three seconds after those it is compared with.
    model.handle_sample(sample(5));

    assert_eq!(texts(&model, Pane::Flows, "", "TX")[0], "8.00 Mbit/s");
    assert_eq!(
        model
            .snapshot()
            .expect("a sample")
            .flows
            .as_ref()
            .expect("flows")
            .at,
        Duration::from_secs(5)
    );
}

#[test]
fn what_the_node_said_stays_while_it_does_not_answer() {
    let mut model = model(2);

    model.handle_failure(&failure());

    assert!(
        model
            .trouble()
            .is_some_and(|trouble| trouble.contains("/run/sr.sock"))
    );
    assert_eq!(texts(&model, Pane::Peers, "", "TX")[0], "8.00 Mbit/s");
    model.handle_sample(sample(3));
    assert_eq!(model.trouble(), None);
}

#[test]
fn a_filter_is_a_part_of_an_id_or_an_address_or_a_prefix() {
    let model = model(2);
    let n = |pane: Pane, filter: &str| texts(&model, pane, filter, pane.columns()[0].title).len();
    for (filter, n_peers, n_streams, n_flows) in [
        ("", 2, 2, 3),
        ("6nXTN", 1, 2, 3),
        ("6nxtn", 1, 2, 3),
        ("192.0.2.1", 1, 0, 0),
        ("10.42.1.7", 1, 0, 0),
        ("10.42.0.0/16", 2, 0, 2),
        ("10.42.0.3", 0, 0, 1),
        ("fd42::/16", 0, 0, 1),
        ("10.42.0", 0, 0, 2),
        ("paris", 1, 0, 0),
        ("nobody", 0, 0, 0),
    ] {
        let found = [Pane::Peers, Pane::Streams, Pane::Flows].map(|pane| n(pane, filter));
        assert_eq!(found, [n_peers, n_streams, n_flows], "{filter}");
    }
    assert_eq!((n(Pane::Workers, "nobody"), n(Pane::Drops, "nobody")), (4, 2));
}

#[test]
fn the_node_is_asked_for_what_is_looked_for_only() {
    let model = model(0);
    let query = |filter: &str| Filter::new(filter).query(&model);
    let all = FlowQuery {
        limit: 500,
        ..FlowQuery::default()
    };
    assert_eq!(query(""), all);
    assert_eq!(query("10.42"), all);
    assert_eq!(query("12D3"), all);
    let of_peer = FlowQuery {
        peer: Some(PEER_A.to_owned()),
        ..all.clone()
    };
    assert_eq!(query("kx6nXTN"), of_peer);
    assert_eq!(query("paris").peer.as_deref(), Some(PEER_B));
    let of_prefix = FlowQuery {
        address: Some("10.42.0.0/24".parse().expect("a prefix")),
        ..all
    };
    assert_eq!(query("10.42.0.0/24"), of_prefix);
}

#[test]
fn every_column_of_every_pane_can_order_it() {
    let model = model(2);
    for pane in Pane::ALL {
        let all = texts(&model, pane, "", pane.columns()[0].title);
        for column in 0..pane.columns().len() {
            for reversed in [false, true] {
                let order = Order { column, reversed };
                let mut ordered = texts_in(&model, pane, "", pane.columns()[0].title, order);
                let mut all = all.clone();
                ordered.sort();
                all.sort();
                assert_eq!(ordered, all, "{pane:?} {order:?}");
            }
        }
        let snapshot = model.snapshot().expect("a sample");
        for row in pane.rows(snapshot, &Filter::default(), pane.first_order()) {
            assert_eq!(row.cells.len(), pane.columns().len(), "{pane:?}");
        }
    }
    assert_eq!(texts(&model, Pane::Workers, "", "WORKER"), ["0", "1", "2", "3"]);
}
