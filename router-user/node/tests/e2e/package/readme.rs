//! Two nodes made as the README says, from the installed package, with names and what they listen on by default.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;

use super::{LIMIT, Running, packages};
use crate::support::machine;
use crate::support::unit::Unit;
use xtask::lab::probe::PingPlan;
use xtask::lab::process::{signal, wait};
use xtask::lab::{CleanRoot, Namespace, ScratchDir, link};

const CONFIG: &str = "/etc/stream-router.toml";
const NAMES: [&str; 2] = ["berlin", "paris"];
/// What each node has outside, as another one dials it.
const OUTSIDE: [[&str; 2]; 2] = [["192.0.2.1", "2001:db8::1"], ["192.0.2.2", "2001:db8::2"]];

#[test]
fn two_nodes_that_are_made_as_the_readme_says_carry_packets() {
    let _machine = machine::shared();
    let scratch = ScratchDir::unique("readme").unwrap();
    let packages = packages().unwrap();
    let root = CleanRoot::for_package(&packages.deb).unwrap();
    root.install(&packages.deb).unwrap();
    let unit = Unit::installed(&root).unwrap();
    let roots = [root.twin().unwrap(), root];
    let ids = roots
        .each_ref()
        .map(|root| root.run(&["stream-router", "keygen"]).unwrap().trim().to_owned());
    let shown = example().unwrap();
    let (own, peer) = shown.split_once("[[peer]]").unwrap();

    // With the section of the peer, as it stands there.
    let whole = format!("{own}[[peer]]{}", peer.replace("12D3KooW...", &ids[1]));
    write(&roots[0], &whole).unwrap();
    roots[0]
        .run(&["stream-router", "check", "--config", CONFIG])
        .unwrap();
    // Without it, for invites.
    write(&roots[0], own).unwrap();
    write(&roots[1], &of_another(own, NAMES[1], 2).unwrap()).unwrap();
    let hosts = [Namespace::unique("a").unwrap(), Namespace::unique("b").unwrap()];
    link(
        (&hosts[0], "u0", &["192.0.2.1/24", "2001:db8::1/64"]),
        (&hosts[1], "u0", &["192.0.2.2/24", "2001:db8::2/64"]),
    )
    .unwrap();
    let mut nodes = [0, 1].map(|side: usize| {
        let checked = roots[side].run(&["stream-router", "check", "--config", CONFIG]);
        checked.unwrap();
        let log = scratch.path().join(format!("{side}.log"));
        Running::start(&unit, &roots[side], &hosts[side], log).unwrap()
    });
    for node in &nodes {
        node.hear("READY=1").unwrap();
    }

    for (one, other) in [(0, 1), (1, 0)] {
        let invite = roots[one].run(&["stream-router", "invite", "--config", CONFIG]);
        let invite = invite.unwrap();
        let join = ["stream-router", "join", "--config", CONFIG, invite.trim()];
        let section = roots[other].run(&[&join[..], &["--dry-run"]].concat()).unwrap();
        let name = format!("name = {:?}\n", NAMES[one]);
        assert!(section.contains(&name), "{section}");
        for address in dialled(one) {
            assert!(section.contains(&format!("{address:?}")), "{address}: {section}");
        }
        roots[other].run(&join).unwrap();
    }
    for root in &roots {
        root.run(&["stream-router", "reload"]).unwrap();
    }
    for node in &nodes {
        node.hear("STATUS=1 of 1 peers connected").unwrap();
    }
    for (side, inside) in [(0, "10.42.0.2"), (0, "fd42::2"), (1, "10.42.0.1"), (1, "fd42::1")] {
        let ping = PingPlan::new(inside.parse().unwrap()).run(&hosts[side]).unwrap();
        assert_eq!(ping.n_lost(), 0, "{inside}");
    }
    let peers = roots[0].run(&["stream-router", "peers", "paris"]).unwrap();
    assert!(peers.contains("state     connected"), "{peers}");

    for node in &mut nodes {
        signal(&node.process, Signal::SIGTERM).unwrap();
        assert!(wait(&mut node.process, LIMIT).unwrap().success());
    }
}

/// The configuration that the README shows.
pub(super) fn example() -> Result<String> {
    let readme = readme()?;
    let (_, rest) = readme.split_once("```toml\n").context("no TOML is shown")?;
    let (shown, _) = rest.split_once("```").context("the TOML has no end")?;
    ensure!(
        !shown.contains("listen ="),
        "the default is what is tried: {shown}"
    );
    Ok(shown.to_owned())
}

pub(super) fn readme() -> Result<String> {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2);
    Ok(fs::read_to_string(
        workspace.context("no workspace")?.join("README.md"),
    )?)
}

/// The same on another node: with its name and addresses.
pub(super) fn of_another(shown: &str, name: &str, number: u8) -> Result<String> {
    let own = [NAMES[0], "10.42.0.1/24", "fd42::1/64"];
    let addresses = [format!("10.42.0.{number}/24"), format!("fd42::{number}/64")];
    let others = [name, &addresses[0], &addresses[1]];
    let mut text = shown.to_owned();
    for (own, other) in own.into_iter().zip(others) {
        ensure!(text.contains(own), "no {own}: {shown}");
        text = text.replace(own, other);
    }
    Ok(text)
}

pub(super) fn write(root: &CleanRoot, text: &str) -> Result<()> {
    let path = root.path().join(CONFIG.trim_start_matches('/'));
    // The twins may share the file until then.
    fs::remove_file(&path)?;
    Ok(fs::write(&path, text)?)
}

/// Where a node is dialled that listens on what it does by default.
fn dialled(side: usize) -> Vec<String> {
    let [v4, v6] = OUTSIDE[side];
    let both = [format!("/ip4/{v4}"), format!("/ip6/{v6}")];
    let transports = ["tcp/4001", "udp/4001/quic-v1"];
    both.iter()
        .flat_map(|ip| transports.map(|transport| format!("{ip}/{transport}")))
        .collect()
}
