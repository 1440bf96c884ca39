//! Which connections stand: none while nothing is sent on demand, and the better one as soon as it works.

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::thread;
use std::time::Duration;

use anyhow::Result;

use crate::support::{NODE, machine};
use xtask::lab::probe::Gate;
use xtask::lab::probe::PingPlan;
use xtask::lab::probe::UdpPlan;
use xtask::lab::probe::datagrams;
use xtask::lab::process::text;
use xtask::lab::{Pair, PairPlan, ScratchDir, Side, Status, Transport};

/// What connecting and coming to rest may take; much longer than it does.
const LIMIT: Duration = Duration::from_secs(30);

/// What moving may take: a better address is dialled every half minute.
const MOVE_LIMIT: Duration = Duration::from_secs(120);

/// Longer than a node takes to dial a peer that it has lost.
const REDIALLED: Duration = Duration::from_secs(3);

const GENTLE: UdpPlan = UdpPlan {
    n_flows: 40,
    short_len: 100,
    rate: 1500,
};

/// Two nodes that connect on demand, and rest soon.
fn pair_on_demand(transport: Transport) -> Result<Pair> {
    let plan = PairPlan {
        transport,
        ..PairPlan::unique()
    };
    let mut pair = Pair::prepare(Path::new(NODE), &plan, ScratchDir::unique("demand")?)?;
    for side in [&mut pair.a, &mut pair.b] {
        side.config.sections = "\n[transport]\nidle_time = \"2s\"\n".to_owned();
        side.node.configure(&side.config)?;
        // The peer's section is the last one.
        let mut config = File::options().append(true).open(side.node.config())?;
        config.write_all(b"connect = \"on-demand\"\n")?;
        side.node.start()?;
    }
    Ok(pair)
}

fn wait_for_state(side: &Side, peer: &Side, state: &str) -> Result<()> {
    let is_there = |status: &Status| {
        status
            .peer(peer.node.peer_id())
            .is_ok_and(|peer| peer.state == state)
    };
    side.node.wait_for(state, LIMIT, is_there)?;
    Ok(())
}

fn rests_and_comes_back(transport: Transport) {
    let pair = pair_on_demand(transport).expect("the nodes start");
    let (a, b) = (&pair.a, &pair.b);
    for (from, to) in [(a, b), (b, a), (a, b)] {
        let plan = PingPlan {
            patience: LIMIT,
            ..PingPlan::new(to.v4)
        };
        let report = plan.run(&from.host).expect("ping runs");
        assert_eq!(report.n_lost(), 0, "the first packets wait: {report:?}");

        for (side, peer) in [(a, b), (b, a)] {
            wait_for_state(side, peer, "idle").expect("both rest");
        }
        // Nothing is there to wait for but time: neither dials.
        thread::sleep(REDIALLED);
        for (side, peer) in [(a, b), (b, a)] {
            let status = side.node.status().expect("the node answers");
            let state = &status.peer(peer.node.peer_id()).expect("a peer").state;
            assert_eq!(state, "idle", "{transport:?}");
            assert_eq!(status.counters["tx_stream_lost"], 0, "{transport:?}");
        }
    }
}

#[test]
fn nodes_on_demand_rest_on_both_sides_until_either_has_a_packet_over_tcp() {
    let _machine = machine::shared();
    rests_and_comes_back(Transport::Tcp);
}

#[test]
fn nodes_on_demand_rest_on_both_sides_until_either_has_a_packet_over_quic() {
    let _machine = machine::shared();
    rests_and_comes_back(Transport::Quic);
}

/// A pair whose first node reaches the second by both transports, of which it prefers one, which is blocked.
fn pair_at_the_worse_transport(better: Transport) -> Result<Pair> {
    let plan = PairPlan {
        transport: better,
        ..PairPlan::unique()
    };
    let worse = match better {
        Transport::Tcp => Transport::Quic,
        Transport::Quic => Transport::Tcp,
    };
    let mut pair = Pair::prepare(Path::new(NODE), &plan, ScratchDir::unique("moves")?)?;
    let other = PairPlan {
        transport: worse,
        ..PairPlan::unique()
    };
    pair.b
        .config
        .listen
        .extend(other.config(1, pair.a.node.peer_id()).listen);
    let to_b = other.config(0, pair.b.node.peer_id()).peers.remove(0);
    pair.a.config.peers[0].addresses.extend(to_b.addresses);
    let prefer = match better {
        Transport::Tcp => "[\"tcp\", \"quic\"]",
        Transport::Quic => "[\"quic\", \"tcp\"]",
    };
    pair.a.config.sections = format!("\n[transport]\nprefer = {prefer}\n");
    // Who dials is known.
    pair.b.config.peers[0].addresses.clear();
    for side in [&pair.a, &pair.b] {
        side.node.configure(&side.config)?;
    }
    let protocol = match better {
        Transport::Tcp => "tcp",
        Transport::Quic => "udp",
    };
    let rules = format!(
        "table inet block {{ chain arriving {{ type filter hook prerouting priority raw; \
         iifname u0 {protocol} dport 4001 drop; }}; }}"
    );
    text(pair.b.host.command("nft").arg(rules), LIMIT)?;
    pair.start_nodes()?;
    Ok(pair)
}

fn moves_under_traffic(better: Transport) {
    let pair = pair_at_the_worse_transport(better).expect("the nodes start");
    let (a, b) = (&pair.a, &pair.b);
    let is_at = |status: &Status, transport| {
        let peer = status.peer(b.node.peer_id()).ok();
        let at = peer.and_then(|peer| peer.address.as_deref());
        at.is_some_and(|at| at.contains("/udp/") == (transport == Transport::Quic))
    };
    assert!(!is_at(&a.node.status().expect("the node answers"), better));

    let there = || {
        datagrams(GENTLE, (&a.host, &b.host), b.v4, || {
            let unblock = ["delete", "table", "inet", "block"];
            text(b.host.command("nft").args(unblock), LIMIT).expect("the block can be removed");
            let moved = a
                .node
                .wait_for("the better transport is used", MOVE_LIMIT, |status| {
                    is_at(status, better)
                });
            let (_, taken) = moved.expect("the node moves");
            eprintln!("{better:?} works again: moved after {taken:?}");
            let left = |side: &Side| {
                side.node
                    .log()
                    .is_ok_and(|log| log.contains(" left a connection "))
            };
            a.node
                .wait_for("the worse connection is closed", LIMIT, |_| left(a) && left(b))
                .expect("it is closed under traffic");
        })
    };
    let stop = Gate::default();
    let (there, back) = thread::scope(|scope| {
        let back = scope.spawn(|| datagrams(GENTLE, (&b.host, &a.host), a.v4, || stop.wait()));
        let stop = stop.open_on_drop();
        let there = there();
        drop(stop);
        (there, back.join().expect("no panic"))
    });

    let refused = |side: &Side| {
        let counters = side.node.status().expect("the node answers").counters;
        ["peer_pressure", "ring_full", "tx_queue_full", "tx_aged"]
            .iter()
            .map(|name| counters[*name])
            .sum::<u64>()
    };
    for (way, tally, n_refused) in [("there", there, refused(a)), ("back", back, refused(b))] {
        let tally = tally.expect("datagrams can be sent");
        eprintln!("{better:?}, {way}: {tally}; {n_refused} refused");
        assert!(tally.n_sent > 1000 && tally.n_lost <= n_refused, "{way}: {tally}");
        let faults = (tally.n_reordered, tally.n_duplicated, tally.n_corrupt);
        assert_eq!(faults, (0, 0, 0), "{way}: {tally}");
    }
}

#[test]
fn a_node_moves_to_tcp_under_traffic_without_loss_or_reordering() {
    let _machine = machine::alone();
    moves_under_traffic(Transport::Tcp);
}

#[test]
fn a_node_moves_to_quic_under_traffic_without_loss_or_reordering() {
    let _machine = machine::alone();
    moves_under_traffic(Transport::Quic);
}
