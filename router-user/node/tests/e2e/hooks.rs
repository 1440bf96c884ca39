//! Commands of the operator that a node runs as it and its peers come and go.

use std::fs;
use std::path::Path;
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::support::{NODE, machine};
use xtask::lab::process::until;
use xtask::lab::{Pair, PairPlan, ScratchDir};

const LIMIT: Duration = Duration::from_secs(30);

#[test]
fn hooks_run_as_the_node_and_its_peers_come_and_go_and_one_that_hangs_holds_nothing_up() {
    let _machine = machine::shared();
    let scratch = ScratchDir::unique("hooks").unwrap();
    let told = scratch.path().join("told");
    let mut pair = Pair::prepare(
        Path::new(NODE),
        &PairPlan::unique(),
        ScratchDir::unique("hooks").unwrap(),
    )
    .unwrap();
    let say = format!(
        "echo $STREAM_ROUTER_EVENT $STREAM_ROUTER_DEVICE $STREAM_ROUTER_PEER_ID >>{}; echo said",
        told.display()
    );
    pair.a.config.sections += "[hooks]\n";
    let descriptors = scratch.path().join("descriptors");
    let look = format!("ls -l /proc/$$/fd >{}", descriptors.display());
    for (hook, script) in [
        ("up", format!("{look}; {say}")),
        ("down", say.clone()),
        ("peer_up", say.clone()),
        ("peer_down", format!("{say}; sleep 1000")),
    ] {
        pair.a.config.sections += &format!("{hook} = [\"/bin/sh\", \"-c\", {script:?}]\n");
    }
    pair.a.node.configure(&pair.a.config).unwrap();
    let until_told = |lines: &[String]| {
        let expected: String = lines.iter().map(|line| format!("{line}\n")).collect();
        until("the hooks have run", LIMIT, || {
            let told = fs::read_to_string(&told).unwrap_or_default();
            Ok((told == expected).then_some(()))
        })
        .unwrap();
    };
    let device = pair.a.config.device.clone();
    let peer = format!("{device} {}", pair.b.node.peer_id());
    let mut lines = vec![format!("up {device}")];

    pair.a.node.start().unwrap();
    until_told(&lines);
    pair.b.node.start().unwrap();
    lines.push(format!("peer_up {peer}"));
    until_told(&lines);
    pair.b.node.stop(Signal::SIGTERM).unwrap();
    lines.push(format!("peer_down {peer}"));
    until_told(&lines);
    // That one hangs meanwhile.
    pair.a.node.stop(Signal::SIGTERM).unwrap();
    lines.push(format!("down {device}"));
    until_told(&lines);

    // What the node has open, it keeps to itself: a device that a child held open would outlive the node.
    let held = fs::read_to_string(&descriptors).unwrap();
    assert!(
        held.contains("/dev/null")
            && !held.contains("socket:")
            && !held.contains("anon_inode:")
            && !held.contains("/dev/net/tun"),
        "{held}"
    );
    let log = pair.a.node.log().unwrap();
    assert!(log.contains("a hook says hook=\"up\" output=\"said\""), "{log}");
}
