//! A peer is called by its name wherever it is shown or asked for.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::Value;

use crate::support::{NODE, machine};
use xtask::lab::probe::PingPlan;
use xtask::lab::process::{output, text, until};
use xtask::lab::{Node, Pair, PairPlan, ScratchDir};

const LIMIT: Duration = Duration::from_secs(30);

/// Gives a node and its peer names.
fn name(node: &Node, own: &str, peer: &str) -> Result<()> {
    let config = fs::read_to_string(node.config())?;
    let named = config
        .replacen("[node]\n", &format!("[node]\nname = {own:?}\n"), 1)
        .replacen("[[peer]]\n", &format!("[[peer]]\nname = {peer:?}\n"), 1);
    Ok(fs::write(node.config(), named)?)
}

fn ask(node: &Node, arguments: &[&str]) -> Result<String> {
    let mut command = Command::new(NODE);
    command.args(arguments).arg("--socket").arg(node.socket());
    text(&mut command, LIMIT)
}

fn json(node: &Node, arguments: &[&str]) -> Value {
    let text = ask(node, &[arguments, &["--json"]].concat()).expect("JSON");
    serde_json::from_str(&text).expect("JSON")
}

fn line<'a>(text: &'a str, part: &str) -> Result<&'a str> {
    let mut lines = text.lines();
    lines
        .find(|line| line.contains(part))
        .with_context(|| format!("no line has {part:?}:\n{text}"))
}

#[test]
fn a_name_is_shown_and_taken_everywhere() {
    let _machine = machine::shared();
    let plan = PairPlan::unique();
    let mut pair = Pair::prepare(Path::new(NODE), &plan, ScratchDir::unique("names").unwrap()).unwrap();
    name(&pair.a.node, "berlin", "paris").unwrap();
    pair.start_nodes().unwrap();
    let (node, peer) = (&pair.a.node, pair.b.node.peer_id());
    let called = format!("paris ({peer})");
    let ping = PingPlan::new(pair.b.v4).run(&pair.a.host).unwrap();
    assert_eq!(ping.n_lost(), 0);

    assert_eq!(json(node, &["status"])["name"], "berlin");
    let peers = json(node, &["peers"]);
    assert_eq!(
        (&peers["peers"][0]["name"], &peers["peers"][0]["id"]),
        (&"paris".into(), &peer.into())
    );
    assert_eq!(json(node, &["streams"])["streams"][0]["peer_name"], "paris");
    let shown = ask(node, &["peers"]).unwrap();
    assert!(line(&shown, "paris").unwrap().contains("10.42.0.2"), "{shown}");
    let shown = ask(node, &["peers", "--verbose"]).unwrap();
    assert!(line(&shown, "paris").unwrap().contains(peer), "{shown}");
    let shown = ask(node, &["peers", "paris"]).unwrap();
    assert_eq!(line(&shown, "peer ").unwrap(), format!("peer {called}"));
    let shown = ask(node, &["status"]).unwrap();
    assert!(line(&shown, "name").unwrap().ends_with("berlin"), "{shown}");
    assert!(line(&shown, "paris").unwrap().contains("connected"), "{shown}");
    let shown = ask(node, &["routes"]).unwrap();
    assert!(
        line(&shown, "10.42.0.2/32").unwrap().ends_with(&called),
        "{shown}"
    );
    let log = until("the log names the peer", LIMIT, || {
        let log = pair.a.node.log()?;
        Ok(log.contains(&format!("peer={called}")).then_some(log))
    });
    log.unwrap();

    // By name, inner address, id, and end of the id.
    for peer in ["Paris", "10.42.0.2", "fd42::2", peer, &peer[peer.len() - 9..]] {
        let flows = json(node, &["flows", "--peer", peer]);
        let matched = flows["matched"].as_u64().unwrap();
        assert!(matched >= 1, "{peer}: {flows}");
        assert_eq!(flows["flows"][0]["peer_name"], "paris", "{peer}");
        let nobodys = json(node, &["flows", "--peer", peer, "--address", "192.0.2.0/24"]);
        assert_eq!(nobodys["matched"], 0, "{peer}");
    }
    for nobody in ["rome", "10.42.0.9"] {
        let mut command = Command::new(NODE);
        command
            .args(["flows", "--peer", nobody, "--socket"])
            .arg(node.socket());
        let refused = output(&mut command, LIMIT).unwrap();
        let said = String::from_utf8_lossy(&refused.stderr);
        assert!(
            said.contains(nobody) && said.contains("the command peers lists them"),
            "{said}"
        );
    }

    renamed(&pair);
    invited(&pair);
}

/// A reload gives the peer another name, and says so.
fn renamed(pair: &Pair) {
    let (node, peer) = (&pair.a.node, pair.b.node.peer_id());
    let config = fs::read_to_string(node.config()).expect("the file");
    fs::write(node.config(), config.replace("\"paris\"", "\"rome\"")).expect("the file");

    let said = ask(node, &["reload"]).expect("a reload");

    assert_eq!(said.trim(), format!("peer changed: rome ({peer})"));
    assert_eq!(json(node, &["peers"])["peers"][0]["name"], "rome");
    let status = node.status().expect("a status");
    assert!(status.is_connected(peer), "another name disturbs nobody");
}

/// An invite has the name of its node, and another node takes it, or gives it one of its own.
fn invited(pair: &Pair) {
    let mut command = Command::new(NODE);
    command.args(["invite", "--config"]).arg(pair.a.node.config());
    let invite = text(&mut command, LIMIT).expect("it succeeds");
    let other = pair.directory().join("other.toml");
    let own = format!(
        "[node]\nkey = {:?}\n[device]\naddresses = [\"10.42.0.2/24\"]\n",
        pair.b.node.key()
    );
    fs::write(&other, own).expect("the file");
    let join = |arguments: &[&str]| {
        let mut command = Command::new(NODE);
        command
            .args(["join", "--config"])
            .arg(&other)
            .args(arguments)
            .arg(invite.trim());
        text(&mut command, LIMIT).expect("it succeeds")
    };

    assert!(invite.starts_with("sr2"), "{invite}");
    assert!(join(&["--dry-run"]).contains("[[peer]]\nname = \"berlin\"\nid = "));
    assert!(join(&["--as", "bonn"]).contains("[[peer]]\nname = \"bonn\"\nid = "));
    let mut check = Command::new(NODE);
    check.args(["check", "--config"]).arg(&other);
    let checked = text(&mut check, LIMIT).expect("it succeeds");
    assert!(checked.trim_end().ends_with("valid, 1 peers"), "{checked}");
}
