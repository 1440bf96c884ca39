//! Two nodes that know each other by nothing but invites.

use std::fs;
use std::os::unix::fs::{MetadataExt, chown};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::Result;
use nix::sys::signal::Signal;

use crate::support::{NODE, machine};
use xtask::lab::process::text;
use xtask::lab::{Node, Pair, PairPlan, ScratchDir, Side};

const LIMIT: Duration = Duration::from_secs(30);

fn run(arguments: &[&str], node: &Node) -> Result<String> {
    let mut command = Command::new(NODE);
    command.arg(arguments[0]).arg("--config").arg(node.config());
    text(command.args(&arguments[1..]), LIMIT)
}

/// Takes the other side out of the configuration.
fn forget(side: &mut Side) -> Result<()> {
    side.config.peers.clear();
    side.node.configure(&side.config)
}

#[test]
fn two_nodes_connect_once_each_has_joined_the_other() {
    let _machine = machine::shared();
    let mut pair = Pair::prepare(
        Path::new(NODE),
        &PairPlan::unique(),
        ScratchDir::unique("join").unwrap(),
    )
    .unwrap();
    forget(&mut pair.a).unwrap();
    forget(&mut pair.b).unwrap();
    let owned = pair.b.node.config();
    chown(&owned, Some(65_534), Some(65_534)).unwrap();
    pair.a.node.start().unwrap();

    // The running node knows its addresses; of those, only the underlay's is for others.
    let invite = run(&["invite"], &pair.a.node).unwrap();
    let section = run(&["join", "--dry-run", invite.trim()], &pair.b.node).unwrap();
    assert!(
        section.contains(
            "addresses = [\"/ip4/192.0.2.1/tcp/4001\"]\nallowed_ips = [\"10.42.0.1/32\", \"fd42::1/128\"]"
        ),
        "{section}"
    );
    run(&["join", invite.trim()], &pair.b.node).unwrap();
    let owner = fs::metadata(&owned).unwrap();
    assert_eq!((owner.uid(), owner.gid()), (65_534, 65_534));
    pair.b.node.start().unwrap();
    let invite = run(&["invite"], &pair.b.node).unwrap();
    run(&["join", invite.trim()], &pair.a.node).unwrap();
    pair.a.node.stop(Signal::SIGTERM).unwrap();
    pair.a.node.start().unwrap();

    pair.a.node.wait_connected(&pair.b.node, LIMIT).unwrap();
    let ping = pair
        .a
        .host
        .command("ping")
        .args(["-c1", "-W5", "10.42.0.2"])
        .output()
        .unwrap();
    assert!(ping.status.success(), "{ping:?}");
}
