//! Three nodes made as the README says, two of them behind NATs: every command of its section, as it stands there.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::Signal;
use serde_json::Value;

use super::readme::{example, of_another, readme, write};
use super::{LIMIT, Running, packages};
use crate::support::machine;
use crate::support::unit::Unit;
use xtask::lab::probe::{PingPlan, answers};
use xtask::lab::process::{signal, until, wait};
use xtask::lab::{CleanRoot, Namespace, NatKind, NatNetwork, ScratchDir};

/// The three, and the last part of their addresses inside.
const NODES: [(&str, u8); 3] = [("berlin", 1), ("paris", 2), (MIDDLE, 9)];
const MIDDLE: &str = "oslo";
/// How long two nodes may take to connect directly: tries that were in vain are followed by others ever more rarely.
const PATIENCE: Duration = Duration::from_secs(300);

/// What the README says of them.
struct Section {
    /// The end of the file of the one in the middle.
    relay: String,
    commands: String,
}

/// The hosts of the README, and what was printed on them.
struct Story<'a> {
    unit: &'a Unit,
    scratch: &'a ScratchDir,
    hosts: BTreeMap<&'static str, (&'a CleanRoot, &'a Namespace)>,
    running: BTreeMap<String, Running>,
    /// The line of each.
    invites: BTreeMap<String, String>,
    /// Those who are to do what comes.
    told: Vec<String>,
}

#[test]
fn two_nodes_behind_nats_that_are_made_as_the_readme_says_meet_at_a_third_and_connect_directly() {
    let _machine = machine::shared();
    let scratch = ScratchDir::unique("readme-nat").unwrap();
    let packages = packages().unwrap();
    let root = CleanRoot::for_package(&packages.deb).unwrap();
    root.install(&packages.deb).unwrap();
    let unit = Unit::installed(&root).unwrap();
    let roots = [root.twin().unwrap(), root.twin().unwrap(), root];
    let section = Section::read().unwrap();
    let shown = example().unwrap();
    let (own, _) = shown.split_once("[[peer]]").unwrap();
    for ((name, number), root) in NODES.into_iter().zip(&roots) {
        let end = if name == MIDDLE { &*section.relay } else { "" };
        write(root, &[&of_another(own, name, number).unwrap(), end].concat()).unwrap();
    }
    let network = NatNetwork::lay([NatKind::Masquerade; 2]).unwrap();
    // Nothing direct gets through at first.
    network.part(true).unwrap();
    let [berlin, paris] = &network.hosts;
    let places = [berlin, paris, &network.middle];
    let names = NODES.map(|(name, _)| name);
    let mut story = Story {
        unit: &unit,
        scratch: &scratch,
        hosts: names.into_iter().zip(roots.iter().zip(places)).collect(),
        running: BTreeMap::new(),
        invites: BTreeMap::new(),
        told: Vec::new(),
    };

    for line in section.commands.lines() {
        story.tell(line).with_context(|| line.to_owned()).unwrap();
    }

    let far = "10.42.0.2".parse().unwrap();
    until("packets cross", LIMIT, || {
        Ok(answers(berlin, far, LIMIT)?.then_some(()))
    })
    .unwrap();
    for name in ["berlin", "paris"] {
        assert_eq!(story.path_to_the_other(name).unwrap(), "relayed", "{name}");
    }
    let ping = PingPlan::new(far).run(berlin).unwrap();
    assert_eq!(ping.n_lost(), 0);

    network.part(false).unwrap();
    for name in ["berlin", "paris"] {
        until("both are connected directly", PATIENCE, || {
            Ok((story.path_to_the_other(name)? == "punched").then_some(()))
        })
        .unwrap();
    }
    let ping = PingPlan::new(far).run(berlin).unwrap();
    assert_eq!(ping.n_lost(), 0);

    for node in story.running.values_mut() {
        signal(&node.process, Signal::SIGTERM).unwrap();
        assert!(wait(&mut node.process, LIMIT).unwrap().success());
    }
}

impl Section {
    fn read() -> Result<Self> {
        let readme = readme()?;
        let block = |kind: &str| {
            let (_, section) = readme.split_once("\n## Two nodes behind NAT\n")?;
            let (section, _) = section.split_once("\n## ")?;
            let (_, block) = section.split_once(&format!("```{kind}\n"))?;
            Some(block.split_once("```")?.0.to_owned())
        };
        Ok(Self {
            relay: block("toml").context("no TOML is shown")?,
            commands: block("sh").context("no commands are shown")?,
        })
    }
}

impl Story<'_> {
    /// Does what a line says: a comment names the hosts of the commands below it.
    fn tell(&mut self, line: &str) -> Result<()> {
        if let Some(names) = line.strip_prefix("# ") {
            let names = names.split(", ").map(|name| name.trim_start_matches("on "));
            self.told = names.map(str::to_owned).collect();
            return Ok(());
        }
        ensure!(!self.told.is_empty(), "nobody is to do it");
        let command = line.split('#').next().unwrap_or(line);
        let words: Vec<_> = command.split_whitespace().collect();
        for name in self.told.clone() {
            match &words[..] {
                ["sudo", "systemctl", "enable", "--now", "stream-router"] => self.start(&name)?,
                ["sudo", "stream-router", command @ ..] => self.run(&name, command)?,
                _ => bail!("this is no command of ours"),
            }
        }
        Ok(())
    }

    fn start(&mut self, name: &str) -> Result<()> {
        let (root, host) = self.hosts[name];
        let log = self.scratch.path().join(format!("{name}.log"));
        let node = Running::start(self.unit, root, host, log)?;
        node.hear("READY=1")?;
        self.running.insert(name.to_owned(), node);
        Ok(())
    }

    fn run(&mut self, name: &str, command: &[&str]) -> Result<()> {
        let (root, _) = self.hosts[name];
        let filled = command.iter().map(|word| match word.strip_prefix('$') {
            Some(whose) => self.invites.get(whose).map(String::as_str),
            None => Some(*word),
        });
        let filled: Option<Vec<_>> = filled.collect();
        let filled = filled.context("nobody has printed it yet")?;
        let printed = root.run(&[&["stream-router"], &filled[..]].concat())?;
        eprintln!("{name}: {command:?}\n{printed}");
        if command == ["invite"] {
            self.invites.insert(name.to_owned(), printed.trim().to_owned());
        }
        Ok(())
    }

    /// How a node is connected to the one that is behind the other NAT, as its `peers` says.
    fn path_to_the_other(&self, name: &str) -> Result<String> {
        let other = if name == "berlin" { "paris" } else { "berlin" };
        let (root, _) = self.hosts.get(name).context("a host")?;
        let shown = root.run(&["stream-router", "peers", "--json", other])?;
        let shown: Value = serde_json::from_str(&shown)?;
        Ok(shown["peers"][0]["path"].as_str().unwrap_or("none").to_owned())
    }
}
