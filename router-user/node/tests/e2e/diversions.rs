//! Routes, rules, filters and settings of others that take packets of peers are named in the status, by `/health` and by the
//! doctor, with the command that puts them right.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use nix::sys::signal::Signal;

use crate::host::Status;
use crate::metrics::get;
use crate::support::host_view::LIMIT;
use crate::support::{NODE, machine};
use xtask::lab::probe::answers;
use xtask::lab::process::{output, text, until};
use xtask::lab::{Pair, PairPlan, ScratchDir, Side};

const METRICS: &str = "127.0.0.1:9464";

/// A pair of which the first node serves metrics and has more networks behind the second.
fn pair(networks: &[&str], sections: &str) -> Result<Pair> {
    let mut pair = Pair::prepare(
        Path::new(NODE),
        &PairPlan::unique(),
        ScratchDir::unique("diversions")?,
    )?;
    pair.a.config.sections = format!("\n[metrics]\nlisten = \"{METRICS}\"\n{sections}");
    let networks = networks.iter().map(|net| (*net).to_owned());
    pair.a.config.peers[0].allowed_ips.extend(networks);
    pair.a.node.configure(&pair.a.config)?;
    pair.start_nodes()?;
    Ok(pair)
}

fn shell(side: &Side, command: &str) -> Result<String> {
    text(side.host.command("sh").args(["-c", command]), LIMIT)
}

fn health(side: &Side) -> Result<(u16, String)> {
    get(&side.host, METRICS, METRICS, "/health")
}

/// Waits until one thing is not right, and returns its text and the command that puts it right.
fn conflict(side: &Side, kind: &str) -> Result<(String, String)> {
    let (found, _) = until(kind, LIMIT * 2, || {
        let things = Status::of(side)?.host.things;
        let wrong = things
            .into_iter()
            .find(|thing| thing.state != "ok" && thing.kind == kind);
        Ok(wrong)
    })?;
    Ok((
        found.detail.context("what is the matter")?,
        found.fix.context("a command")?,
    ))
}

fn wait_until_right(side: &Side, what: &str) -> Result<()> {
    until(what, LIMIT * 2, || {
        let is_right = Status::of(side)?.is_right() && health(side)?.0 == 200;
        Ok(is_right.then_some(()))
    })
    .map(drop)
}

/// What `doctor` finds of the host.
fn doctor(side: &Side) -> Result<String> {
    let mut doctor = side.host.command(NODE);
    doctor.arg("doctor").arg("--config").arg(side.node.config());
    Ok(String::from_utf8(output(&mut doctor, LIMIT)?.stdout)?)
}

#[test]
fn what_diverts_packets_for_peers_or_swallows_theirs_is_named_with_the_command_that_ends_it() {
    let _machine = machine::shared();
    // Of the last the address in its middle is the own one.
    let pair = pair(&["10.9.0.0/16", "fd09::/64", "10.42.0.0/31"], "").unwrap();
    let side = &pair.a;
    let device = side.config.device.as_str();
    wait_until_right(side, "at the start").unwrap();
    for (done, kind, named, fix) in [
        (
            "ip rule add pref 10 to 10.9.0.0/16 table 100; ip route add default via 192.0.2.2 table 100"
                .to_owned(),
            "way",
            "the way to 10.9.0.0/16 leads elsewhere, through u0: the rule 10 has table 100 looked at first"
                .to_owned(),
            "ip rule del pref 10".to_owned(),
        ),
        (
            "ip rule add pref 11 from 10.42.0.1 blackhole".to_owned(),
            "way",
            "leads nowhere: the rule 11 ends it".to_owned(),
            "ip rule del pref 11".to_owned(),
        ),
        (
            "ip -6 route add fd09::/64 dev u0 metric 1".to_owned(),
            "way",
            "the way to fd09::/64 leads elsewhere, through u0".to_owned(),
            "ip -6 route del fd09::/64 dev u0 metric 1".to_owned(),
        ),
        (
            "ip route add 10.9.1.0/24 via 192.0.2.2".to_owned(),
            "way",
            "the way to 10.9.1.0/24 leads elsewhere, through u0: it lies inside 10.9.0.0/16".to_owned(),
            "ip route del 10.9.1.0/24 via 192.0.2.2 dev u0".to_owned(),
        ),
        (
            "ip route add blackhole 10.9.2.0/24".to_owned(),
            "way",
            "the way to 10.9.2.0/24 leads elsewhere, nowhere (blackhole)".to_owned(),
            "ip route del blackhole 10.9.2.0/24".to_owned(),
        ),
        (
            format!("tc filter add dev {device} ingress protocol all pref 5 bpf bytecode '1,6 0 0 2' da"),
            "ingress",
            "the device's ingress is taken: a bpf filter of priority 5".to_owned(),
            format!("tc filter del dev {device} ingress pref 5"),
        ),
    ] {
        shell(side, &done).unwrap();

        let (text, command) = conflict(side, kind).unwrap();

        assert!(text.contains(&named), "{done}: {text}");
        assert_eq!(command, fix, "{done}");
        let (code, body) = health(side).unwrap();
        assert!(code == 503 && body.contains(&fix), "{done}: {body}");
        let found = doctor(side).unwrap();
        assert!(found.contains(&named) && found.contains(&fix), "{done}: {found}");
        shell(side, &command).unwrap();
        wait_until_right(side, &done).unwrap();
    }
    for to in [pair.b.v4, pair.b.v6] {
        assert!(answers(&side.host, to, LIMIT).unwrap(), "{to}");
    }
    let log = side.node.log().unwrap();
    assert!(log.contains("10.9.1.0/24"), "{log}");
}

#[test]
fn a_network_inside_a_peers_is_the_hosts_own_from_the_next_reload_on() {
    let _machine = machine::shared();
    let pair = pair(&["10.9.0.0/16"], "").unwrap();
    let side = &pair.a;
    shell(side, "ip route add 10.9.1.0/24 via 192.0.2.2").unwrap();
    conflict(side, "way").unwrap();

    let reloaded: serde_json::Value = side.node.ask(&["reload"]).unwrap();

    let notes = reloaded["notes"].to_string();
    assert!(
        notes.contains("10.9.1.0/24, through u0, lies inside 10.9.0.0/16 of a peer"),
        "{notes}"
    );
    wait_until_right(side, "after the reload").unwrap();
    let found = doctor(side).unwrap();
    assert!(
        found.contains("10.9.1.0/24, which this host reaches through u0"),
        "{found}"
    );
}

#[test]
fn settings_that_an_exit_needs_are_put_back_and_stay_on_when_the_node_stops() {
    let _machine = machine::shared();
    let mut pair = pair(&[], "\n[exit]\nserve = true\n").unwrap();
    let device = pair.a.config.device.clone();
    let value = |side: &Side, name: &str| -> Result<String> {
        let path = format!("/proc/sys/net/{name}");
        let value = side.host.enter(|| Ok(fs::read_to_string(&path)?))?;
        Ok(value.trim().to_owned())
    };
    let names = [
        "ipv4/ip_forward".to_owned(),
        "ipv6/conf/all/forwarding".to_owned(),
        format!("ipv4/conf/{device}/forwarding"),
        format!("ipv6/conf/{device}/forwarding"),
    ];
    for name in &names {
        let side = &pair.a;
        assert_eq!(value(side, name).unwrap(), "1", "{name}");
        let path = format!("/proc/sys/net/{name}");
        side.host.enter(|| Ok(fs::write(&path, "0")?)).unwrap();

        until(name, LIMIT * 2, || Ok((value(side, name)? == "1").then_some(()))).unwrap();

        let called = format!("net.{}", name.replace('/', "."));
        until("it is said", LIMIT, || {
            let is_said = side.node.log()?.contains(&format!("the setting {called} is off"));
            Ok(is_said.then_some(()))
        })
        .unwrap();
        let status = Status::of(side).unwrap();
        let is_its = |thing: &&crate::host::HostThing| thing.kind == "setting" && thing.name == called;
        assert_eq!(status.host.things.iter().filter(is_its).count(), 1, "{called}");
        let _: serde_json::Value = side.node.ask(&["reload"]).unwrap();
    }
    for signal in [Signal::SIGTERM, Signal::SIGKILL] {
        pair.a.node.stop(signal).unwrap();
        for name in &names[..2] {
            assert_eq!(value(&pair.a, name).unwrap(), "1", "{name} after {signal}");
        }
        pair.a.node.start().unwrap();
    }
}

#[test]
fn an_exit_does_not_start_where_nft_refuses_and_says_what_to_do() {
    let _machine = machine::shared();
    let directory = ScratchDir::unique("nft").unwrap();
    let mut pair = Pair::prepare(
        Path::new(NODE),
        &PairPlan::unique(),
        ScratchDir::unique("refused").unwrap(),
    )
    .unwrap();
    pair.a.config.sections = "\n[exit]\nserve = true\n".to_owned();
    pair.a.node.configure(&pair.a.config).unwrap();
    let program = directory.path().join("nft");
    let refuses = "#!/bin/sh\ncat >/dev/null\necho 'Error: Could not process rule: No such file or directory' >&2\nexit 1\n";
    fs::write(&program, refuses).unwrap();
    shell(&pair.a, &format!("chmod 755 {}", program.display())).unwrap();
    let before = pair.a.host.ip(&["route", "show", "table", "all"]).unwrap();
    let mut run = pair.a.host.command("sh");
    let path = format!(
        "PATH={}:$PATH exec {NODE} run --config {}",
        directory.path().display(),
        pair.a.node.config().display()
    );

    let ended = output(run.args(["-c", &path]), LIMIT).unwrap();

    let said = String::from_utf8([ended.stdout, ended.stderr].concat()).unwrap();
    assert_eq!(ended.status.code(), Some(1), "{said}");
    for part in [
        "exit.serve",
        "nft refuses: Error: Could not process rule",
        "modprobe",
    ] {
        assert!(said.contains(part), "{part}: {said}");
    }
    assert_eq!(
        pair.a.host.ip(&["route", "show", "table", "all"]).unwrap(),
        before
    );
}

#[test]
fn purging_all_leaves_what_a_running_node_holds() {
    let _machine = machine::shared();
    let pair = Pair::unique(Path::new(NODE)).unwrap();
    let side = &pair.a;
    let own = |side: &Side| {
        side.host
            .ip(&["route", "show", "table", "all", "type", "unreachable"])
    };
    let before = own(side).unwrap();
    let (_, metric) = before.split_once("metric ").expect("a block");
    let metric: u32 = metric.split_whitespace().next().unwrap().parse().unwrap();
    // The next device's, or the one's before.
    let other = if metric.is_multiple_of(2) {
        metric + 1
    } else {
        metric - 1
    };
    shell(
        side,
        &format!("ip route add unreachable 10.77.0.0/16 metric {other}"),
    )
    .unwrap();
    let purge = |device: &str, all: bool| {
        let file = side.node.config().with_file_name("purge.toml");
        let text = format!(
            "[node]\ncontrol = '/nowhere/control.sock'\n[device]\nname = '{device}'\naddresses = ['10.66.0.1/24']\n"
        );
        fs::write(&file, text).unwrap();
        let mut purge = side.host.command(NODE);
        purge.arg("purge").arg("--config").arg(&file);
        if all {
            purge.arg("--all");
        }
        let ended = output(&mut purge, LIMIT).unwrap();
        let said = String::from_utf8([ended.stdout, ended.stderr].concat()).unwrap();
        (ended.status.success(), said)
    };

    // It is found by its device, not by the socket alone.
    let (done, said) = purge(&side.config.device, true);
    assert!(
        !done && said.contains(&format!("the node of {} runs", side.config.device)),
        "{said}"
    );
    let (done, said) = purge("sr-gone", true);

    assert!(done, "{said}");
    assert!(
        said.contains("removed the route unreachable 10.77.0.0/16"),
        "{said}"
    );
    assert!(
        said.contains(&format!("left what belongs to {}", side.config.device)),
        "{said}"
    );
    assert_eq!(own(side).unwrap(), before);
}
