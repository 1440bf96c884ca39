//! Nodes behind NATs that connect directly, as they agree on through a relay.

use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::Value;

use crate::support::{NODE, machine};
use xtask::lab::probe::{PingPlan, UdpPlan, answers, datagrams};
use xtask::lab::process::{output, until};
use xtask::lab::{NatKind, NatLab, NatPlan, Node, Transport};

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
        let pings = PingPlan::new(NatLab::inner(other))
            .run(&lab.network.hosts[own])
            .unwrap();
        assert_eq!(pings.n_lost(), 0);
        assert_eq!(
            lab.nodes[own]
                .status()
                .unwrap()
                .counter("punches_succeeded")
                .unwrap(),
            0
        );
        say_why(&lab.nodes[own]).unwrap();
    }
}

/// Checks that a node says where it is seen, and why its peer is connected through the relay: what was tried, and how it failed.
fn say_why(node: &Node) -> Result<()> {
    let status: Value = node.ask(&["status"])?;
    let reach = &status["reach"];
    assert_eq!(reach["relays"][0]["held"], true, "{reach}");
    let seen = reach["seen"][0]["address"].as_str().context("it is seen")?;
    assert!(seen.starts_with("/ip4/198.51.100."), "{reach}");
    assert_eq!(reach["told"][0], seen, "{reach}");
    let peers: Value = node.ask(&["peers"])?;
    let relayed = peers["peers"].as_array().context("a list")?;
    let relayed = relayed.iter().find(|peer| peer["path"] == "relayed");
    let relayed = relayed.context("one is relayed")?;
    let because = relayed["relayed_because"].as_str().context("it says why")?;
    let tried = &relayed["direct_tries"][0];
    let at = tried["address"].as_str().context("an address was tried")?;
    assert!(at.starts_with("/ip4/198.51.100."), "{relayed}");
    let error = tried["error"].as_str().context("it failed")?;
    assert!(because.contains(error), "{relayed}");
    assert!(
        relayed["direct_tried_age_seconds"].as_f64().is_some(),
        "{relayed}"
    );
    let mut doctor = Command::new(NODE);
    doctor.arg("doctor").arg("--config").arg(node.config());
    let said = output(&mut doctor, LIMIT)?;
    let said = String::from_utf8_lossy(&said.stdout);
    let line = said
        .lines()
        .find(|line| line.contains("packets go through a relay"));
    let line = line.with_context(|| said.to_string())?;
    assert!(line.starts_with("warning  reach"), "{line}");
    assert!(line.contains("both sides at once"), "{line}");
    Ok(())
}
