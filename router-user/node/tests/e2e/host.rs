//! A running node keeps its host as it wants it, says what was changed, and ends when its device is gone.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use nix::sys::signal::Signal;
use serde::Deserialize;

use crate::metrics::get;
use crate::support::hand::{CHANGES, Change, Hand};
use crate::support::host_view::{LIMIT, view, wait_for_view};
use crate::support::lan::{GATEWAY, Lan, LanPlan};
use crate::support::{NODE, machine};
use xtask::lab::probe::{PingPlan, answers};
use xtask::lab::process::until;
use xtask::lab::{Namespace, Pair, PairPlan, ScratchDir, Side, link, unique_name};

/// How long one of many tries may take.
const PATIENCE: Duration = Duration::from_millis(500);

const METRICS: &str = "127.0.0.1:9464";

/// What of `status --json` these tests read.
#[derive(Debug, Deserialize)]
pub(crate) struct Status {
    pub(crate) hook: String,
    pub(crate) host: HostStatus,
}

#[derive(Debug, Deserialize)]
pub(crate) struct HostStatus {
    pub(crate) put_back: u64,
    pub(crate) things: Vec<HostThing>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct HostThing {
    pub(crate) kind: String,
    pub(crate) name: String,
    pub(crate) state: String,
    pub(crate) detail: Option<String>,
    pub(crate) fix: Option<String>,
}

impl Status {
    pub(crate) fn of(side: &Side) -> Result<Self> {
        side.node.ask(&["status"])
    }

    /// Whether the last comparison has found all things right: it ends a moment after it has put the last of them back.
    pub(crate) fn is_right(&self) -> bool {
        self.host.things.iter().all(|thing| thing.state == "ok")
    }

    pub(crate) fn conflicts(&self) -> Vec<String> {
        let things = self.host.things.iter();
        let conflicts = things.filter(|thing| thing.state == "conflict");
        conflicts
            .map(|thing| thing.detail.clone().unwrap_or_default())
            .collect()
    }
}

#[test]
fn what_somebody_else_changes_is_put_back_and_named() {
    let _machine = machine::shared();
    let pair = Pair::unique(Path::new(NODE)).unwrap();
    let side = &pair.a;
    let before = view(side).unwrap();
    assert!(
        before.iter().any(|line| line.contains("sr_egress")),
        "{before:#?}"
    );
    let hand = Hand::of(side).unwrap();
    let mut n_changes = 0;
    for Change { name, said } in CHANGES {
        let Some(said) = said else { continue };
        n_changes += 1;
        let n_put_back = Status::of(side).unwrap().host.put_back;
        hand.change(name).unwrap();
        until(name, LIMIT * 2, || {
            let is_put_back = Status::of(side)?.host.put_back > n_put_back;
            Ok((is_put_back && side.node.log()?.contains(said)).then_some(()))
        })
        .unwrap();
        wait_for_view(side, name, &before).unwrap();
        for to in [pair.b.v4, pair.b.v6] {
            assert!(answers(&side.host, to, LIMIT).unwrap(), "{name}: {to}");
        }
        // The third change of one thing within a minute is left: this is about each by itself.
        let _: serde_json::Value = side.node.ask(&["reload"]).unwrap();
    }
    let status = Status::of(side).unwrap();
    assert_eq!(status.hook, "clsact egress");
    assert!(status.host.put_back >= n_changes, "{:?}", status.host);
    until("all things are right", LIMIT, || {
        Ok(Status::of(side)?.is_right().then_some(()))
    })
    .unwrap();
    // No packet was lost to the device while the program was at its place.
    assert_eq!(PingPlan::new(pair.b.v4).run(&side.host).unwrap().n_lost(), 0);
}

#[test]
fn a_device_that_is_deleted_or_moved_ends_the_node_with_the_reason() {
    let _machine = machine::shared();
    let mut pair = Pair::unique(Path::new(NODE)).unwrap();
    let device = pair.a.config.device.clone();

    pair.a.host.ip(&["link", "del", &device]).unwrap();
    let ended = pair.a.node.wait_ended(LIMIT).unwrap();

    assert_eq!(ended.code(), Some(1), "{ended}");
    let log = pair.a.node.log().unwrap();
    assert!(log.contains("was deleted by somebody else"), "{log}");

    pair.a.node.start().unwrap();
    let other = Namespace::create(&unique_name("other")).unwrap();
    pair.a
        .host
        .ip(&["link", "set", &device, "netns", other.name()])
        .unwrap();
    let ended = pair.a.node.wait_ended(LIMIT).unwrap();

    assert_eq!(ended.code(), Some(1), "{ended}");
    let log = pair.a.node.log().unwrap();
    assert!(
        log.contains(&format!(
            "the device {device} was moved to another network namespace"
        )),
        "{log}"
    );
    assert!(!other.has_device(&device).unwrap(), "it goes with the node");
    // The service manager starts it anew.
    pair.a.node.start().unwrap();
    pair.a.node.wait_connected(&pair.b.node, LIMIT).unwrap();
    assert!(answers(&pair.a.host, pair.b.v4, LIMIT).unwrap());
}

#[test]
fn the_third_change_within_a_minute_is_a_conflict_until_it_is_right_or_asked_for() {
    let _machine = machine::shared();
    let directory = ScratchDir::unique("conflict").unwrap();
    let mut pair = Pair::prepare(Path::new(NODE), &PairPlan::unique(), directory).unwrap();
    pair.a.config.sections = format!("\n[metrics]\nlisten = \"{METRICS}\"\n");
    pair.a.node.configure(&pair.a.config).unwrap();
    pair.start_nodes().unwrap();
    let side = &pair.a;
    let device = side.config.device.as_str();
    let before = view(side).unwrap();
    let remove = ["route", "del", "10.42.0.2/32", "dev", device];
    let health = || Ok::<_, anyhow::Error>(get(&side.host, METRICS, METRICS, "/health")?.0);
    let give_in = || {
        // The kernel may have been quicker than a look: so it is done until the node gives in.
        until("a conflict", LIMIT, || {
            let _ = side.host.ip(&remove);
            // A packet for the peer may have found no way a moment earlier.
            let mut conflicts = Status::of(side)?.conflicts().into_iter();
            Ok(conflicts.rfind(|conflict| conflict.contains("is missing")))
        })
    };

    let (conflict, _) = give_in().unwrap();
    assert!(
        conflict.contains("the route 10.42.0.2/32 is missing"),
        "{conflict}"
    );
    assert_eq!(health().unwrap(), 503);
    let log = side.node.log().unwrap();
    assert!(
        log.contains("time and again") && log.contains("10.42.0.2/32"),
        "{log}"
    );

    side.host
        .ip(&[
            "route",
            "add",
            "10.42.0.2/32",
            "dev",
            device,
            "proto",
            "static",
            "scope",
            "link",
        ])
        .unwrap();
    until("health returns", LIMIT, || Ok((health()? == 200).then_some(()))).unwrap();
    assert_eq!(Status::of(side).unwrap().conflicts(), Vec::<String>::new());

    give_in().unwrap();
    let reloaded: serde_json::Value = side.node.ask(&["reload"]).unwrap();
    let notes = reloaded["notes"].to_string();
    assert!(
        notes.contains("the route 10.42.0.2/32 is missing; put back"),
        "{reloaded}"
    );
    wait_for_view(side, "as before", &before).unwrap();
    until("health returns", LIMIT, || Ok((health()? == 200).then_some(()))).unwrap();
}

#[test]
fn a_gateway_that_is_made_anew_or_gets_another_address_is_captured_at_again() {
    let _machine = machine::shared();
    for (hook, sink) in [("tc", "ring"), ("xdp", "ring"), ("xdp", "af_xdp")] {
        let lan = Lan::start(&LanPlan {
            hook,
            sink,
            ..LanPlan::default()
        })
        .unwrap();
        let router = &lan.pair.a.host;
        // What crosses went past the host.
        lan.forward_nothing_from(GATEWAY).unwrap();
        let reach = |what: &str| -> Result<()> {
            let answered = || Ok(answers(&lan.host, lan.pair.b.v4, PATIENCE)?.then_some(()));
            until(what, LIMIT, answered).map(drop)
        };
        reach("at the start").unwrap();

        router
            .ip(&["link", "set", GATEWAY, "address", "02:00:00:00:77:01"])
            .unwrap();
        lan.host.ip(&["neighbour", "flush", "all"]).unwrap();
        reach("with another hardware address").unwrap();

        router.ip(&["link", "del", GATEWAY]).unwrap();
        until("the gateway is missed", LIMIT, || {
            let status = Status::of(&lan.pair.a)?;
            let gateway = status
                .host
                .things
                .iter()
                .find(|thing| thing.kind == "gateway")
                .context("no row")?;
            Ok((gateway.state == "wrong" && gateway.name == GATEWAY).then_some(()))
        })
        .unwrap();
        let inside: &[&str] = &["192.168.77.2/24", "fd77::2/64"];
        let outside: &[&str] = &["192.168.77.1/24", "fd77::1/64"];
        link((&lan.host, "eth0", inside), (router, GATEWAY, outside)).unwrap();
        lan.host
            .ip(&["route", "add", "default", "via", "192.168.77.1"])
            .unwrap();
        reach("at the interface that was made anew").unwrap();
        until("all things are right", LIMIT, || {
            Ok(Status::of(&lan.pair.a)?.is_right().then_some(()))
        })
        .unwrap();
    }
}

#[test]
fn pins_that_are_removed_come_back() {
    let _machine = machine::shared();
    let mut pair = Pair::unique(Path::new(NODE)).unwrap();
    let pins = pair.a.node.status().unwrap().pins.unwrap();
    let names = || -> Vec<_> {
        let entries = fs::read_dir(&pins).into_iter().flatten();
        let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        names
    };
    let before = names();
    assert!(before.len() > 10, "{before:?}");

    fs::remove_file(Path::new(&pins).join("CONNECTIONS")).unwrap();
    let are_back = || Ok((names() == before && Status::of(&pair.a)?.is_right()).then_some(()));
    until("one pin is back", LIMIT, are_back).unwrap();
    // At once, so that the node does not put pins back into what is being removed.
    let removed = PathBuf::from(format!("{pins}-removed"));
    fs::rename(&pins, &removed).unwrap();
    fs::remove_dir_all(&removed).unwrap();
    until("all pins are back", LIMIT, are_back).unwrap();

    assert!(pair.a.node.stop(Signal::SIGTERM).unwrap().success());
    assert!(!Path::new(&pins).exists());
}
