//! Twenty changes by somebody else, at random, to a node under traffic: all is as before within seconds, or a conflict is
//! named, and no packet for a peer leaves in the clear.

use std::process::{Child, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;

use crate::host::{HostThing, Status};
use crate::support::hand::{CHANGES, Hand};
use crate::support::host_view::{LIMIT, view, wait_for_view};
use crate::support::lan::{Lan, LanPlan};
use crate::support::machine;
use xtask::lab::probe::answers;
use xtask::lab::process::{text, until};

const N_CHANGES: usize = 20;
const SEEDS: [u64; 2] = [1, 20_261_128];

#[test]
fn a_node_under_another_hand_ends_as_it_was_and_leaks_nothing() {
    let _machine = machine::shared();
    let mut lan = Lan::start(&LanPlan::default()).unwrap();
    open_the_clear(&lan).unwrap();
    let process = lan.pair.a.node.process_id();
    for seed in SEEDS {
        if let Err(error) = one_hand(&lan, seed) {
            panic!("seed {seed}: {error:?}");
        }
    }

    assert_eq!(lan.pair.a.node.process_id(), process);
    lan.pair.a.node.ensure_alive().unwrap();
    assert_eq!(in_the_clear(&lan).unwrap(), [0, 0]);
    // What no route leads to the device is seen, so what would have leaked had been.
    let host = &lan.pair.a.host;
    for to in ["10.42.77.77", "fd42:77::77"] {
        assert!(!answers(host, to.parse().unwrap(), Duration::from_millis(200)).unwrap());
    }
    let seen = in_the_clear(&lan).unwrap();
    assert!(seen.iter().all(|n| *n > 0), "{seen:?}");
    assert!(lan.pair.a.node.stop(Signal::SIGTERM).unwrap().success());
}

#[test]
fn what_a_peer_sends_to_an_address_that_is_left_away_leaves_by_no_other_route() {
    let _machine = machine::shared();
    let lan = Lan::start(&LanPlan::default()).unwrap();
    open_the_clear(&lan).unwrap();
    let (near, far) = (&lan.pair.a, &lan.pair.b);
    for own in ["10.42.0.1/24", "fd42::1/64"] {
        until("the address is left away", LIMIT, || {
            let things = Status::of(near)?.host.things;
            let is_left = |thing: &HostThing| thing.name == own && thing.state == "conflict";
            if things.iter().any(is_left) {
                return Ok(Some(()));
            }
            if view(near)?.iter().any(|line| line.contains(&format!("{own} "))) {
                near.host
                    .ip(&["address", "del", own, "dev", &near.config.device])?;
            }
            Ok(None)
        })
        .unwrap();
    }

    for own in [near.v4, near.v6] {
        assert!(!answers(&far.host, own, Duration::from_secs(1)).unwrap());
    }

    assert_eq!(in_the_clear(&lan).unwrap(), [0, 0]);
    let _: serde_json::Value = near.node.ask(&["reload"]).unwrap();
    for own in [near.v4, near.v6] {
        until("an answer", LIMIT, || {
            Ok(answers(&far.host, own, Duration::from_secs(1))?.then_some(()))
        })
        .unwrap();
    }
}

fn one_hand(lan: &Lan, seed: u64) -> Result<()> {
    let side = &lan.pair.a;
    let before = view(side)?;
    let hand = Hand::of(side)?;
    let mut traffic = [flood(lan, "10.42.0.2")?, flood(lan, "fd42::2")?];
    let mut state = seed;
    let mut done = Vec::new();
    let mut outcome = Ok(());
    for _ in 0..N_CHANGES {
        let change = CHANGES[next(&mut state) % CHANGES.len()].name;
        done.push(change);
        outcome = undone(lan, &hand, change, &before).with_context(|| format!("after {done:?}"));
        if outcome.is_err() {
            break;
        }
    }
    for ping in &mut traffic {
        ping.kill()?;
        ping.wait()?;
    }
    outcome?;
    for to in [lan.pair.b.v4, lan.pair.b.v6] {
        ensure!(
            answers(&side.host, to, LIMIT)?,
            "no answer from {to} after {done:?}"
        );
    }
    let clear = in_the_clear(lan)?;
    ensure!(clear == [0, 0], "{clear:?} packets in the clear after {done:?}");
    Ok(())
}

/// Makes a change and waits until all is as before. A conflict has to be named, and a reload solves it.
fn undone(lan: &Lan, hand: &Hand<'_>, change: &str, before: &[String]) -> Result<()> {
    let side = hand.side;
    // Of a thing that the node has left as it is there may be nothing to change.
    let conflicts = Status::of(side)?.conflicts();
    match hand.change(change) {
        Err(error) if conflicts.is_empty() => return Err(error.context(change.to_owned())),
        _ => {}
    }
    let mut named = Vec::new();
    let settled = until(change, LIMIT, || {
        named = Status::of(side)?.conflicts();
        Ok((!named.is_empty() || view(side)? == before).then_some(()))
    });
    if named.is_empty() {
        settled?;
    } else {
        ensure!(
            named.iter().all(|name| !name.is_empty()),
            "a conflict without a name"
        );
        let _: serde_json::Value = side.node.ask(&["reload"])?;
    }
    wait_for_view(side, change, before)?;
    until("all things are right", LIMIT, || {
        Ok(Status::of(side)?.is_right().then_some(()))
    })?;
    let clear = in_the_clear(lan)?;
    ensure!(clear == [0, 0], "{change}: {clear:?} packets in the clear");
    Ok(())
}

fn next(state: &mut u64) -> usize {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    (*state >> 16) as usize
}

/// Sends pings, a hundred in a second, for as long as it runs.
fn flood(lan: &Lan, to: &str) -> Result<Child> {
    let mut ping = lan.pair.a.host.command("ping");
    ping.args(["-q", "-i", "0.01", to]);
    ping.stdout(Stdio::null()).stderr(Stdio::null());
    Ok(ping.spawn()?)
}

/// Gives the first host default routes over the underlay, and counts there what of the inner networks comes in the clear.
fn open_the_clear(lan: &Lan) -> Result<()> {
    let (a, b) = (&lan.pair.a.host, &lan.pair.b.host);
    for (host, address) in [(a, "2001:db8::1/64"), (b, "2001:db8::2/64")] {
        host.ip(&["address", "add", address, "dev", "u0", "nodad"])?;
    }
    a.ip(&["route", "add", "default", "via", "192.0.2.2"])?;
    a.ip(&["-6", "route", "add", "default", "via", "2001:db8::2"])?;
    let table = "table inet clear { counter v4 { }; counter v6 { }; \
                 chain arriving { type filter hook prerouting priority raw; \
                 iifname u0 ip daddr 10.42.0.0/16 counter name v4; \
                 iifname u0 ip6 daddr fd42::/16 counter name v6; }; }";
    text(b.command("nft").arg(table), LIMIT)?;
    Ok(())
}

/// Returns how many packets of the inner networks came over the underlay, IPv4 and IPv6.
fn in_the_clear(lan: &Lan) -> Result<[u64; 2]> {
    let count = |name: &str| -> Result<u64> {
        let shown = text(
            lan.pair
                .b
                .host
                .command("nft")
                .args(["list", "counter", "inet", "clear", name]),
            LIMIT,
        )?;
        let (_, rest) = shown.split_once("packets ").context("no counter")?;
        Ok(rest.split(' ').next().unwrap_or_default().parse()?)
    };
    Ok([count("v4")?, count("v6")?])
}
