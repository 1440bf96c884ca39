//! Several nodes of the installed package, under systemd itself.

use std::fs;
use std::path::Path;

use anyhow::Result;

use super::{LIMIT, packages};
use crate::support::booted::Booted;
use crate::support::machine;
use xtask::lab::process::{output, until};
use xtask::lab::{CleanRoot, ScratchDir};

const NAMES: [&str; 3] = ["a", "b", "c"];

#[test]
fn systemd_runs_three_nodes_and_each_comes_and_goes_alone() {
    let _machine = machine::shared();
    let scratch = ScratchDir::unique("tunnels").unwrap();
    let packages = packages().unwrap();
    let root = CleanRoot::with(&packages.deb, &["systemd"]).unwrap();
    root.install(&packages.deb).unwrap();
    let ids = NAMES.map(|name| root.run(&["stream-router", "keygen", "--name", name]).unwrap());
    for number in 0..NAMES.len() {
        configure(&root, number, &ids).unwrap();
    }
    // What a unit reads beside its file: a peer of the first node is there alone. No id ends like its name, as none has an l.
    let added = root.run(&[
        "stream-router",
        "peer",
        "add",
        "--name=a",
        ids[2].trim(),
        "--as=lisbon",
        "--addresses=/ip4/127.0.0.1/tcp/4003",
        "--allowed-ips=10.40.2.0/24",
    ]);
    let added = added.unwrap();
    assert!(
        added.contains("added in /etc/stream-router/a.d/lisbon.toml"),
        "{added}"
    );
    assert!(added.contains("takes effect with the next start"), "{added}");
    let log = scratch.path().join("boot.log");
    let host = Booted::start(&root, &log).unwrap_or_else(|error| panic!("{error:#}\n{}", read(&log)));
    let journal = || {
        host.run(&["journalctl", "--no-pager", "--unit=stream-router@*"])
            .unwrap()
    };
    let of_unit = |name: &str, property: &str| {
        let unit = format!("stream-router@{name}");
        let said = host.run(&["systemctl", "show", "--value", "--property", property, &unit]);
        said.unwrap().trim().to_owned()
    };

    for name in NAMES {
        let started = host.run(&["systemctl", "start", &format!("stream-router@{name}")]);
        started.unwrap_or_else(|error| panic!("{error:#}\n{}", journal()));
    }
    for name in NAMES {
        let shown = format!("STATUS=2 of 2 peers connected, of {name}");
        until(&shown, LIMIT, || {
            let connected = of_unit(name, "StatusText").starts_with("2 of 2 peers connected");
            Ok(connected.then_some(()))
        })
        .unwrap_or_else(|error| panic!("{error:#}\n{}", journal()));
    }
    let listed = |status: &str, name: &str| status.contains(&format!("device    {name} "));
    let status = host.run(&["stream-router", "status"]).unwrap();
    assert!(NAMES.iter().all(|name| listed(&status, name)), "{status}");
    let held = host
        .run(&["sh", "-c", "cat /proc/$1/status", "sh", &of_unit("a", "MainPID")])
        .unwrap();
    let uid = held.lines().find(|line| line.starts_with("Uid:")).unwrap();
    assert!(!uid.split_whitespace().any(|uid| uid == "0"), "{uid}");
    let before = ["b", "c"].map(|name| of_unit(name, "MainPID"));

    host.run(&["systemctl", "stop", "stream-router@a"]).unwrap();

    let status = host.run(&["stream-router", "status"]).unwrap();
    assert!(!listed(&status, "a"), "{status}");
    assert!(["b", "c"].iter().all(|name| listed(&status, name)), "{status}");
    assert_eq!(["b", "c"].map(|name| of_unit(name, "MainPID")), before);
    for name in ["b", "c"] {
        until("the peer that goes on", LIMIT, || {
            let connected = of_unit(name, "StatusText").starts_with("1 of 2 peers connected");
            Ok(connected.then_some(()))
        })
        .unwrap_or_else(|error| panic!("{error:#}\n{}", journal()));
    }
    host.run(&["systemctl", "start", "stream-router@a"]).unwrap();
    assert!(listed(&host.run(&["stream-router", "status"]).unwrap(), "a"));

    // A drop-in is of its node alone, and the node that runs takes each change.
    let peer = |what: &str| host.run(&["sh", "-ec", &format!("stream-router peer {what}")]);
    let removed = peer("remove --name a lisbon").unwrap();
    assert!(
        removed.contains("/etc/stream-router/a.d/lisbon.toml") && removed.contains("peer removed: lisbon"),
        "{removed}"
    );
    let added = peer(&format!(
        "add --name a {} --as lisbon --addresses /ip4/127.0.0.1/tcp/4003 --allowed-ips 10.40.2.0/24",
        ids[2].trim()
    ));
    assert!(added.unwrap().contains("peer added: lisbon"));
    let set = peer("set --name a lisbon --comment moved").unwrap();
    assert!(set.contains("/etc/stream-router/a.d/lisbon.toml"), "{set}");
    let wrong = peer("set --name b lisbon --comment moved")
        .unwrap_err()
        .to_string();
    assert!(wrong.contains("/etc/stream-router/b.toml"), "{wrong}");
    let reload = host.run(&["systemctl", "reload", "stream-router@a"]);
    reload.unwrap_or_else(|error| panic!("{error:#}\n{}", journal()));
    let shown = host
        .run(&["stream-router", "peers", "--name=a", "lisbon"])
        .unwrap();
    assert!(shown.contains("comment   moved"), "{shown}");

    // A file that is wrong disturbs no node that runs, and is no reason to try again.
    fs::write(
        root.path().join("etc/stream-router/b.toml"),
        "[device]\naddresses = 7\n",
    )
    .unwrap();
    let reload = output(
        &mut host.command(&["systemctl", "reload", "stream-router@b"]),
        LIMIT,
    )
    .unwrap();
    assert!(!reload.status.success());
    assert_eq!(of_unit("b", "ActiveState"), "active");
    assert!(journal().contains("device.addresses"), "{}", journal());
    host.run(&["systemctl", "stop", "stream-router@b"]).unwrap();
    let start = output(
        &mut host.command(&["systemctl", "start", "stream-router@b"]),
        LIMIT,
    )
    .unwrap();
    assert!(!start.status.success());
    assert_eq!(of_unit("b", "ActiveState"), "failed");
    assert_eq!(of_unit("b", "ExecMainStatus"), "2");
    assert_eq!(of_unit("c", "MainPID"), before[1]);
}

/// A node whose peers are the two others, over the loopback device; one of the first node's is added by a command.
fn configure(root: &CleanRoot, number: usize, ids: &[String; 3]) -> Result<()> {
    let mut text = format!(
        "[node]\nlisten = [\"/ip4/127.0.0.1/tcp/{}\"]\n[device]\naddresses = [\"10.{number}.0.1/24\"]\n",
        4001 + number
    );
    let here = |other: usize| other != number && (number, other) != (0, 2);
    for (other, id) in ids.iter().enumerate().filter(|(other, _)| here(*other)) {
        text += &format!(
            "[[peer]]\nid = {:?}\naddresses = [\"/ip4/127.0.0.1/tcp/{}\"]\nallowed_ips = [\"10.4{number}.{other}.0/24\"]\n",
            id.trim(),
            4001 + other
        );
    }
    let path = root
        .path()
        .join(format!("etc/stream-router/{}.toml", NAMES[number]));
    Ok(fs::write(path, text)?)
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_default()
}
