//! Order: packets of one flow arrive once each and in the order they were sent, whatever the workers do.
//!
//! `STREAM_ROUTER_ORDER_SECS` sets how long each test sends; 60 is a thorough run.

mod fragments;
mod stall;
mod tcp;

use std::fs;
use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use aya::maps::{HashMap, Map, MapData};

use crate::support::lan::{Lan, LanPlan};
use crate::support::{NODE, machine, runtime};
use router_common::flow_entry::FlowEntry;
use router_common::flow_key::FlowKey;
use stream_router_node::control::{ControlError, set_streams, set_workers};
use xtask::lab::probe::Gate;
use xtask::lab::probe::Tally;
use xtask::lab::probe::UdpPlan;
use xtask::lab::probe::datagrams;
use xtask::lab::process::until;
use xtask::lab::{Namespace, PIN_ROOT, Pair, PairPlan, ScratchDir, Side, Status, Transport};

const DEFAULT_SECS: u64 = 8;
const TCP_PORT: u16 = 7400;
/// In each direction and protocol.
const TCP_FLOWS: usize = 12;
const GENTLE: UdpPlan = UdpPlan {
    n_flows: 100,
    short_len: 100,
    rate: 3000,
};
/// Enough that packets wait in several rings at once.
const HARD: UdpPlan = UdpPlan {
    n_flows: 100,
    short_len: 1000,
    rate: 40_000,
};

/// How long losing a connection and making one may take.
const OUTAGE: Duration = Duration::from_secs(20);

/// A machine that stalls saturates its queues for a moment; what they refuse then is counted, and nothing else is lost. To
/// TCP's receiver what follows a loss is out of order, so that of TCP only a whole run can be judged.
fn assert_in_order(tally: Tally, what: &str, n_refused: u64) {
    eprintln!("{what}: {tally}; {n_refused} refused");
    assert!(tally.n_flows > 0 && tally.n_sent > 1000, "{what}: {tally}");
    assert!(tally.n_lost <= n_refused, "{what}: {tally}; {n_refused} refused");
    let n_reordered = if what.starts_with("TCP") && tally.n_lost > 0 {
        0
    } else {
        tally.n_reordered
    };
    let faults = (n_reordered, tally.n_duplicated, tally.n_corrupt);
    assert_eq!(faults, (0, 0, 0), "{what}: {tally}");
}

/// Makes a host's TCP wait for what is only late, as on a busy machine it may be, before it counts as lost.
fn be_patient(host: &Namespace) -> Result<()> {
    host.enter(|| {
        fs::write("/proc/sys/net/ipv4/tcp_early_retrans", "0")?;
        // Since Linux 6.11.
        let shortest = Path::new("/proc/sys/net/ipv4/tcp_rto_min_us");
        if shortest.exists() {
            fs::write(shortest, "2000000")?;
        }
        Ok(())
    })
}

/// Packets that a node's queues refused.
fn n_refused(side: &Side) -> u64 {
    let counters = side.node.status().expect("the node answers").counters;
    let refused = ["peer_pressure", "ring_full", "tx_queue_full", "tx_aged"].map(|name| counters[name]);
    eprintln!("peer_pressure, ring_full, tx_queue_full, tx_aged: {refused:?}");
    refused.iter().sum()
}

fn duration() -> Duration {
    let secs = std::env::var("STREAM_ROUTER_ORDER_SECS").ok();
    Duration::from_secs(secs.and_then(|secs| secs.parse().ok()).unwrap_or(DEFAULT_SECS))
}

/// Connections from one side to the other for as long as `during` takes.
fn connections((from, to): (&Namespace, &Namespace), at: IpAddr, during: impl FnOnce()) -> Result<Tally> {
    let at = SocketAddr::new(at, TCP_PORT);
    let stop_sending = Gate::default();
    let listener = to.enter(|| tcp::listener(at))?;
    thread::scope(|scope| {
        let received = scope.spawn(|| tcp::receive(&listener));
        let sent = scope.spawn(|| from.enter(|| tcp::send(TCP_FLOWS, at, &stop_sending)));
        let (stop_sending, stop_receiving) = (stop_sending.open_on_drop(), tcp::CloseOnDrop(&listener));
        during();
        drop(stop_sending);
        let mut tally = sent.join().expect("the sender does not panic")?;
        drop(stop_receiving);
        tally += received.join().expect("the receiver does not panic")?;
        Ok(tally)
    })
}

/// Two hosts, and the addresses of each.
type End<'a> = (&'a Namespace, [IpAddr; 2]);

/// Both protocols over IPv4 and IPv6 in both directions, while `during` runs; every packet has to arrive in order.
fn assert_everything_arrives_in_order(
    pair: &Pair,
    (a, at_a): End<'_>,
    (b, at_b): End<'_>,
    during: impl FnOnce(),
) {
    for host in [a, b] {
        be_patient(host).expect("TCP's settings can be written");
    }
    let done = Gate::default();
    let until_done = || done.wait();
    let ways = [
        ("there, IPv4", (a, b), at_b[0]),
        ("there, IPv6", (a, b), at_b[1]),
        ("back, IPv4", (b, a), at_a[0]),
        ("back, IPv6", (b, a), at_a[1]),
    ];
    thread::scope(|scope| {
        let runs: Vec<_> = ways
            .map(|(what, way, at)| {
                let udp = scope.spawn(move || datagrams(GENTLE, way, at, until_done));
                let tcp = scope.spawn(move || connections(way, at, until_done));
                (what, udp, tcp)
            })
            .into_iter()
            .collect();
        let done = done.open_on_drop();
        during();
        drop(done);
        let mut tallies = Vec::new();
        for (what, udp, tcp) in runs {
            let udp = udp.join().expect("no panic").expect("datagrams can be sent");
            let tcp = tcp.join().expect("no panic").expect("connections can be made");
            tallies.extend([(format!("UDP {what}"), udp), (format!("TCP {what}"), tcp)]);
        }
        let n_refused = n_refused(&pair.a) + n_refused(&pair.b);
        for (what, tally) in tallies {
            assert_in_order(tally, &what, n_refused);
        }
    });
}

fn end(side: &Side) -> End<'_> {
    (&side.host, [side.v4, side.v6])
}

/// What of a node is scaled, and between which numbers.
#[derive(Clone, Copy)]
enum Scaled {
    Workers,
    Streams,
}

/// Scales a node.
fn scale(side: &Side, what: Scaled, n: u32) {
    let socket = side.node.socket();
    let scaled = runtime().block_on(async {
        match what {
            Scaled::Workers => set_workers(&socket, n).await,
            Scaled::Streams => set_streams(&socket, n).await,
        }
    });
    match scaled {
        // The machine stood still: the client's limit passed before the node had its turn.
        Err(ControlError::NoNode { source, .. }) if source.kind() == ErrorKind::TimedOut => {}
        scaled => scaled.expect("the node scales"),
    }
}

/// Scales both nodes up and down every second.
fn scale_back_and_forth(pair: &Pair, what: Scaled) {
    let bounds = match what {
        Scaled::Workers => [32, 4],
        Scaled::Streams => [10, 1],
    };
    for n in bounds.into_iter().cycle().take(duration().as_secs() as usize) {
        for side in [&pair.a, &pair.b] {
            scale(side, what, n);
        }
        // What is tested: that they come and go so often.
        thread::sleep(Duration::from_secs(1));
    }
}

#[test]
fn a_steady_load_arrives_whole_and_in_order() {
    let _machine = machine::alone();
    let pair = Pair::unique(Path::new(NODE)).unwrap();

    // The load is all there is to wait for.
    assert_everything_arrives_in_order(&pair, end(&pair.a), end(&pair.b), || thread::sleep(duration()));
}

#[test]
fn datagrams_in_fragments_do_not_overtake_whole_ones_of_their_flow() {
    let _machine = machine::alone();
    const DATAGRAMS: u32 = 16_000;
    let pair = Pair::unique(Path::new(NODE)).unwrap();

    for (at, beside_tcp) in [(pair.b.v4, false), (pair.b.v4, true), (pair.b.v6, true)] {
        let (from, to) = (&pair.a.host, &pair.b.host);
        let run = || fragments::exchange((from, to), at, DATAGRAMS).expect("datagrams can be sent");
        let mut seen = None;
        if beside_tcp {
            connections((from, to), at, || seen = Some(run())).expect("connections can be made");
        } else {
            seen = Some(run());
        }
        let seen = seen.expect("the datagrams were sent");

        eprintln!(
            "{at}, beside TCP {beside_tcp}: {} of {DATAGRAMS} arrived",
            seen.n_distinct
        );
        assert_eq!((seen.n_reordered, seen.n_duplicated), (0, 0), "{at}");
        // Beside TCP the queue may drop some.
        assert!(
            seen.n_distinct > u64::from(DATAGRAMS) / 2,
            "{} arrived",
            seen.n_distinct
        );
    }
    assert_eq!(pair.a.node.status().unwrap().counters["fragment_alone"], 0);
}

#[test]
fn workers_that_come_and_go_every_second_reorder_and_lose_nothing() {
    let _machine = machine::alone();
    let pair = Pair::unique(Path::new(NODE)).unwrap();

    assert_everything_arrives_in_order(&pair, end(&pair.a), end(&pair.b), || {
        scale_back_and_forth(&pair, Scaled::Workers);
    });
}

#[test]
fn streams_that_come_and_go_every_second_reorder_and_lose_nothing_over_tcp() {
    streams_come_and_go(Transport::Tcp);
}

#[test]
fn streams_that_come_and_go_every_second_reorder_and_lose_nothing_over_quic() {
    streams_come_and_go(Transport::Quic);
}

/// A pair that forgets flows fast, so that streams close and open again, and scales when it is told only. Workers and
/// streams are on different threads.
fn forgetful_pair(transport: Transport) -> Result<Pair> {
    let plan = PairPlan {
        transport,
        ..PairPlan::unique()
    };
    let mut pair = Pair::prepare(Path::new(NODE), &plan, ScratchDir::unique("order")?)?;
    for side in [&mut pair.a, &mut pair.b] {
        side.config.sections =
            "\n[workers]\nthreads = 2\n[streams]\nscale_interval = \"1h\"\n[connections]\nttl = \"500ms\"\n"
                .to_owned();
        side.node.configure(&side.config)?;
    }
    pair.start_nodes()?;
    Ok(pair)
}

fn streams_come_and_go(transport: Transport) {
    let _machine = machine::alone();
    let pair = forgetful_pair(transport).expect("the nodes start");

    assert_everything_arrives_in_order(&pair, end(&pair.a), end(&pair.b), || {
        scale_back_and_forth(&pair, Scaled::Streams);
    });
}

#[test]
fn a_connection_lost_and_made_again_reorders_nothing_over_tcp() {
    outlives_its_connection(Transport::Tcp);
}

#[test]
fn a_connection_lost_and_made_again_reorders_nothing_over_quic() {
    outlives_its_connection(Transport::Quic);
}

/// Waits until so many more packets of the first node have come to the second.
fn wait_for_more(pair: &Pair, n: u64) -> Result<()> {
    let received = || -> Result<u64> { Ok(pair.b.node.status()?.peer(pair.a.node.peer_id())?.rx_frames) };
    let wanted = received()? + n;
    until("packets arrive", OUTAGE, || {
        Ok((received()? >= wanted).then_some(()))
    })?;
    Ok(())
}

/// Only datagrams: TCP itself sends again what was lost, and that out of order.
fn outlives_its_connection(transport: Transport) {
    let _machine = machine::alone();
    let pair = forgetful_pair(transport).expect("the nodes start");
    scale(&pair.a, Scaled::Streams, 10);
    let set_link = |state: &str| {
        let set = pair.b.host.ip(&["link", "set", "u0", state]);
        set.expect("the link can be set");
    };

    let tally = datagrams(GENTLE, (&pair.a.host, &pair.b.host), pair.b.v4, || {
        wait_for_more(&pair, 1000).expect("datagrams arrive");
        set_link("down");
        let lost = |status: &Status| !status.is_connected(pair.b.node.peer_id());
        let waited = pair.a.node.wait_for("the connection is lost", OUTAGE, lost);
        waited.expect("a dead link is noticed");
        set_link("up");
        let waited = pair.a.node.wait_connected(&pair.b.node, OUTAGE);
        waited.expect("the nodes connect again");
        wait_for_more(&pair, 1000).expect("datagrams arrive again");
    })
    .expect("datagrams can be sent");

    eprintln!("{transport:?}: {tally}");
    let faults = (tally.n_reordered, tally.n_duplicated, tally.n_corrupt);
    assert_eq!(faults, (0, 0, 0), "{tally}");
    assert!(tally.n_lost > 0 && tally.n_sent > tally.n_lost + 1000, "{tally}");
}

#[test]
fn workers_come_and_go_behind_a_gateway_with_rings() {
    behind_a_gateway("xdp", "ring", "ring buffer");
}

#[test]
fn workers_come_and_go_behind_a_gateway_that_gets_merged_packets() {
    behind_a_gateway("tc", "ring", "ring buffer");
}

#[test]
fn workers_come_and_go_behind_a_gateway_with_sockets() {
    behind_a_gateway("xdp", "af_xdp", "AF_XDP");
}

fn behind_a_gateway(hook: &'static str, sink: &'static str, shown: &str) {
    let _machine = machine::alone();
    let plan = LanPlan {
        hook,
        sink,
        ..LanPlan::default()
    };
    let lan = Lan::start(&plan).expect("the network can be made");
    // Larger packets would go the host's way until the sender has learned the MTU.
    lan.host
        .ip(&["link", "set", "eth0", "mtu", &plan.mtu.to_string()])
        .expect("the MTU can be set");
    let status = || lan.pair.a.node.status().expect("the node answers");
    let before = status();
    assert!(
        before.gateways[0].sink.starts_with(shown),
        "{}",
        before.gateways[0].sink
    );

    let there = (&lan.host, lan.addresses());
    assert_everything_arrives_in_order(&lan.pair, there, end(&lan.pair.b), || {
        scale_back_and_forth(&lan.pair, Scaled::Workers);
    });

    let captured = status().counters["captured"] - before.counters["captured"];
    assert!(captured > 10_000, "{captured} packets were captured");
}

#[test]
fn broken_affinity_is_noticed() {
    let _machine = machine::alone();
    let pair = Pair::unique(Path::new(NODE)).unwrap();
    let mut connections = open_connections(&pair.a).unwrap();

    let tally = datagrams(HARD, (&pair.a.host, &pair.b.host), pair.b.v4, || {
        let until = std::time::Instant::now() + duration();
        while std::time::Instant::now() < until {
            move_flows(&mut connections);
        }
    })
    .unwrap();

    eprintln!("{tally}");
    assert!(tally.n_reordered > 0, "{tally}");
}

fn open_connections(side: &Side) -> Result<HashMap<MapData, FlowKey, FlowEntry>> {
    let path = Path::new(PIN_ROOT).join(&side.config.device).join("CONNECTIONS");
    let data = MapData::from_pin(&path).with_context(|| format!("cannot open {}", path.display()))?;
    Ok(HashMap::try_from(Map::from_map_data(data)?)?)
}

/// Gives every live flow another worker, as the kernel never does.
fn move_flows(connections: &mut HashMap<MapData, FlowKey, FlowEntry>) {
    let flows: Vec<_> = connections.iter().flatten().collect();
    for (key, mut conn) in flows {
        conn.worker = (conn.worker + 1) % 8;
        // An entry may have gone since.
        let _ = connections.insert(key, conn, 2);
    }
}
