//! Nodes behind NATs that connect directly, as they agree on through a relay.

use std::path::Path;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::Value;

use crate::support::{NODE, machine};
use xtask::lab::probe::{PingPlan, UdpPlan, answers, datagrams};
use xtask::lab::process::until;
use xtask::lab::{NatKind, NatLab, NatPlan, Transport};

const LIMIT: Duration = Duration::from_secs(60);
const PATIENCE: Duration = Duration::from_millis(500);

/// Few enough packets that a busy machine refuses none.
const FLOWS: UdpPlan = UdpPlan {
    n_flows: 8,
    short_len: u32::MAX,
    rate: 500,
};

/// Starts two nodes, and waits until a packet has crossed.
fn start(kinds: [NatKind; 2], transport: Transport) -> Result<NatLab> {
    let plan = NatPlan {
        kinds,
        transport,
        listens: true,
    };
    let lab = NatLab::start(Path::new(NODE), &plan)?;
    until("packets cross", LIMIT, || {
        Ok(answers(&lab.network.hosts[0], NatLab::inner(1), PATIENCE)?.then_some(()))
    })?;
    Ok(lab)
}

/// Checks that packets cross both ways in order until the two send on a direct connection, and after it.
fn connect_directly(kinds: [NatKind; 2], transport: Transport) -> Result<()> {
    let lab = start(kinds, transport)?;
    let tallies = thread::scope(|scope| {
        let ways = [(0, 1), (1, 0)].map(|(from, to)| {
            let (lab, hosts) = (&lab, (&lab.network.hosts[from], &lab.network.hosts[to]));
            scope.spawn(move || {
                datagrams(FLOWS, hosts, NatLab::inner(to), || {
                    lab.wait_direct(LIMIT).expect("they connect directly");
                    let pings = PingPlan::new(NatLab::inner(to)).run(&lab.network.hosts[from]);
                    assert_eq!(pings.expect("ping runs").n_lost(), 0);
                })
            })
        });
        ways.map(|way| way.join().expect("it says why above"))
    });
    for tally in tallies {
        let tally = tally?;
        eprintln!("{kinds:?}, {transport:?}: {tally}");
        assert!(tally.n_sent > tally.n_lost);
        let faults = (tally.n_reordered, tally.n_duplicated, tally.n_corrupt);
        assert_eq!(faults, (0, 0, 0), "{tally}");
    }
    for node in &lab.nodes {
        assert!(node.status()?.counter("punches_succeeded")? >= 1);
        let peers: Value = node.ask(&["peers"])?;
        let paths = peers["peers"].as_array().context("a list")?;
        let paths: Vec<_> = paths.iter().map(|peer| &peer["path"]).collect();
        assert_eq!(paths, ["direct", "punched"], "the relay and the other one");
    }
    Ok(())
}

#[test]
fn two_that_masquerade_connect_directly_over_tcp() {
    let _machine = machine::shared();
    connect_directly([NatKind::Masquerade; 2], Transport::Tcp).unwrap();
}

#[test]
fn two_that_masquerade_connect_directly_over_quic() {
    let _machine = machine::shared();
    connect_directly([NatKind::Masquerade; 2], Transport::Quic).unwrap();
}

#[test]
fn a_full_cone_and_one_that_masquerades_connect_directly_over_tcp() {
    let _machine = machine::shared();
    connect_directly([NatKind::FullCone, NatKind::Masquerade], Transport::Tcp).unwrap();
}

#[test]
fn a_full_cone_and_one_that_masquerades_connect_directly_over_quic() {
    let _machine = machine::shared();
    connect_directly([NatKind::FullCone, NatKind::Masquerade], Transport::Quic).unwrap();
}

#[test]
fn two_symmetric_nats_let_nothing_through_and_packets_go_on_through_the_relay() {
    let _machine = machine::shared();
    let lab = start([NatKind::Symmetric; 2], Transport::Quic).unwrap();

    for node in &lab.nodes {
        node.wait_for("a try was in vain", LIMIT, |status| {
            status
                .counter("punches_in_vain")
                .is_ok_and(|in_vain| in_vain >= 1)
        })
        .unwrap();
    }

    for (own, other) in [(0, 1), (1, 0)] {
        let path = lab.path(own).unwrap().context("it is connected").unwrap();
        assert!(lab.is_relayed(&path), "{path}");
        let pings = PingPlan::new(NatLab::inner(other)).run(&lab.network.hosts[own]).unwrap();
        assert_eq!(pings.n_lost(), 0);
        assert_eq!(
            lab.nodes[own]
                .status()
                .unwrap()
                .counter("punches_succeeded")
                .unwrap(),
            0
        );
    }
}
