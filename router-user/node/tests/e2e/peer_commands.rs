//! Peers that come, change and go by commands while a node runs, each in a file of its own.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::{Command, Output};
use std::time::Duration;

use anyhow::Result;
use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::support::{NODE, machine};
use xtask::lab::process::output;
use xtask::lab::{Node, Pair, PairPlan, ScratchDir, Side};

const LIMIT: Duration = Duration::from_secs(30);

fn peer(node: &Node, arguments: &[&str]) -> Result<Output> {
    let mut command = Command::new(NODE);
    command
        .args(["peer", arguments[0], "--config"])
        .arg(node.config());
    output(command.args(&arguments[1..]), LIMIT)
}

/// What such a command prints as it succeeds.
fn told(node: &Node, arguments: &[&str]) -> String {
    let ended = peer(node, arguments).expect("it ends");
    let errors = String::from_utf8_lossy(&ended.stderr);
    assert!(ended.status.success(), "{arguments:?}: {errors}");
    String::from_utf8(ended.stdout).expect("text")
}

fn n_peers(node: &Node) -> usize {
    let list: Value = node.ask(&["peers"]).expect("it answers");
    list["peers"].as_array().expect("a list").len()
}

/// The routes to the other node.
fn routes(side: &Side) -> String {
    let routes = side
        .host
        .ip(&["route", "show", "10.42.0.2/32"])
        .expect("ip answers");
    routes.trim().to_owned()
}

/// A peer that is not enabled is shown with its comment, apart from those that count.
fn is_shown_as_disabled(node: &Node, id: &str) {
    let list: Value = node.ask(&["peers"]).expect("it answers");
    let expected = json!([{
        "id": id, "name": "rome", "comment": "moved", "allowed_ips": ["10.42.0.2/32", "fd42::2/128"],
        "addresses": ["/ip4/192.0.2.2/tcp/4001"],
    }]);
    assert_eq!((&list["peers"], &list["disabled"]), (&json!([]), &expected));
    for (arguments, expected) in [
        (&["peers"][..], "rome  10.42.0.2    disabled  -"),
        (&["peers", "-v", "--state", "disabled"], "moved"),
        (&["peers", "rome"], "comment   moved"),
        (&["status"], "0 of 0 connected, 1 more disabled"),
    ] {
        let mut command = Command::new(NODE);
        command.arg(arguments[0]).arg("--socket").arg(node.socket());
        let shown = output(command.args(&arguments[1..]), LIMIT).expect("it ends");
        let shown = String::from_utf8(shown.stdout).expect("text");
        assert!(shown.contains(expected), "{arguments:?}: {shown}");
    }
}

#[test]
fn a_running_node_takes_peers_that_commands_add_change_and_remove() {
    let _machine = machine::shared();
    let mut pair = Pair::prepare(
        Path::new(NODE),
        &PairPlan::unique(),
        ScratchDir::unique("peer").unwrap(),
    )
    .unwrap();
    pair.a.config.peers.clear();
    pair.a.node.configure(&pair.a.config).unwrap();
    fs::set_permissions(pair.a.node.config(), fs::Permissions::from_mode(0o640)).unwrap();
    pair.a.node.start().unwrap();
    pair.b.node.start().unwrap();
    let main = fs::read_to_string(pair.a.node.config()).unwrap();
    let id = pair.b.node.peer_id().to_owned();
    let add = [
        "add",
        &id,
        "--as",
        "rome",
        "--addresses",
        "/ip4/192.0.2.2/tcp/4001",
    ];
    let networks = ["--allowed-ips", "10.42.0.2/32,fd42::2/128"];

    // What would be wrong is named with the file that it would stand in, and changes nothing.
    let file = pair.a.node.config().with_extension("d").join("rome.toml");
    let wrong = peer(&pair.a.node, &add).unwrap();
    let errors = String::from_utf8_lossy(&wrong.stderr);
    let expected = format!("{}:1: peer[0].allowed_ips: missing", file.display());
    assert!(
        wrong.status.code() == Some(2) && errors.contains(&expected),
        "{errors}"
    );
    assert!(!file.exists());

    let said = told(&pair.a.node, &[&add[..], &networks[..]].concat());
    assert!(said.contains(&format!("peer added: rome ({id})")), "{said}");
    assert_eq!(fs::metadata(&file).unwrap().mode() & 0o777, 0o640);
    pair.a.node.wait_connected(&pair.b.node, LIMIT).unwrap();
    assert_ne!(routes(&pair.a), "");
    let again = peer(&pair.a.node, &[&add[..], &networks[..]].concat()).unwrap();
    assert_eq!(again.status.code(), Some(2), "{again:?}");

    // Not enabled, it is nobody: neither dialled nor let in, though it dials.
    let said = told(
        &pair.a.node,
        &["set", "rome", "--enabled", "false", "--comment", "moved"],
    );
    assert!(said.contains(&format!("peer removed: rome ({id})")), "{said}");
    assert_eq!(n_peers(&pair.a.node), 0);
    assert_eq!(routes(&pair.a), "");
    is_shown_as_disabled(&pair.a.node, &id);
    told(&pair.a.node, &["set", "10.42.0.2", "--enabled", "true"]);
    pair.a.node.wait_connected(&pair.b.node, LIMIT).unwrap();
    let text = fs::read_to_string(&file).unwrap();
    assert!(
        text.contains("enabled = true\n") && text.contains("comment = \"moved\"\n"),
        "{text}"
    );

    let said = told(&pair.a.node, &["remove", "ROME"]);
    assert!(said.contains(&format!("peer removed: rome ({id})")), "{said}");
    assert!(!file.exists());
    assert_eq!(n_peers(&pair.a.node), 0);
    assert_eq!(fs::read_to_string(pair.a.node.config()).unwrap(), main);

    // Without a node that runs, it is for the next start.
    pair.a.node.stop(Signal::SIGTERM).unwrap();
    let said = told(&pair.a.node, &[&add[..], &networks[..]].concat());
    assert!(said.contains("the next start"), "{said}");
    pair.a.node.start().unwrap();
    pair.a.node.wait_connected(&pair.b.node, LIMIT).unwrap();

    // A peer of the main file is changed there.
    let own = pair.a.node.peer_id().to_owned();
    told(&pair.b.node, &["set", &own, "--as", "oslo"]);
    assert!(
        fs::read_to_string(pair.b.node.config())
            .unwrap()
            .contains("name = \"oslo\"\n")
    );
}
