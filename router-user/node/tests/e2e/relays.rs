//! Nodes behind NAT that reach each other through a third, and do not listen: nothing else is tried.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use nix::sys::signal::Signal;

use crate::support::{NODE, machine};
use xtask::lab::probe::{PingPlan, answers};
use xtask::lab::process::until;
use xtask::lab::{NatKind, NatLab, NatPlan, Transport};

const LIMIT: Duration = Duration::from_secs(30);
const PATIENCE: Duration = Duration::from_secs(1);

fn start(transport: Transport) -> Result<NatLab> {
    let plan = NatPlan {
        kinds: [NatKind::Masquerade; 2],
        transport,
        listens: false,
    };
    NatLab::start(Path::new(NODE), &plan)
}

/// Checks that packets cross both ways, and that both sides say that a relay takes them.
fn check(lab: &NatLab) -> Result<()> {
    for (own, other) in [(0, 1), (1, 0)] {
        lab.nodes[own].wait_connected(&lab.nodes[other], LIMIT)?;
        let pings = PingPlan::new(NatLab::inner(other)).run(&lab.network.hosts[own])?;
        assert_eq!(pings.n_lost(), 0);
        let path = lab.path(own)?.context("it is connected")?;
        assert!(lab.is_relayed(&path), "{path}");
    }
    Ok(())
}

fn reach_each_other(transport: Transport) -> Result<()> {
    let lab = start(transport)?;
    check(&lab)?;
    assert!(lab.relay.status()?.counter("circuits_relayed")? >= 1);
    assert_eq!(lab.relay.status()?.counter("reservations_given")?, 2);
    Ok(())
}

#[test]
fn two_nodes_behind_nat_reach_each_other_through_a_relay_over_tcp() {
    let _machine = machine::shared();
    reach_each_other(Transport::Tcp).unwrap();
}

#[test]
fn two_nodes_behind_nat_reach_each_other_through_a_relay_over_quic() {
    let _machine = machine::shared();
    reach_each_other(Transport::Quic).unwrap();
}

#[test]
fn flows_go_on_through_a_relay_that_was_started_anew() {
    let _machine = machine::shared();
    let mut lab = start(Transport::Tcp).unwrap();
    check(&lab).unwrap();

    lab.relay.stop(Signal::SIGTERM).unwrap();
    lab.relay.start().unwrap();

    until("packets cross again", LIMIT, || {
        Ok(answers(&lab.network.hosts[0], NatLab::inner(1), PATIENCE)?.then_some(()))
    })
    .unwrap();
    check(&lab).unwrap();
}
