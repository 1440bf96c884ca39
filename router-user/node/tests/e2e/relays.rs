//! Nodes behind NAT that reach each other through a third.

use std::path::Path;
use std::time::Duration;

use anyhow::Result;
use nix::sys::signal::Signal;

use crate::support::{NODE, machine};
use xtask::lab::probe::{PingPlan, answers};
use xtask::lab::process::{text, until};
use xtask::lab::{Namespace, Node, NodeConfig, PeerConfig, ScratchDir, link, mount_bpffs, unique_device};

const LIMIT: Duration = Duration::from_secs(30);
const PATIENCE: Duration = Duration::from_secs(1);

/// Two nodes that are each behind a router that masquerades, and a relay between the routers.
struct BehindNat {
    near: Node,
    far: Node,
    relay: Node,
    hosts: [Namespace; 2],
    /// The middle is a network of its own, to which the routers and the relay belong.
    _routers: [Namespace; 2],
    _middle: Namespace,
    _directory: ScratchDir,
}

/// Lays a cable from the middle to a router, and from there to a host.
fn lay(middle: &Namespace, router: &Namespace, host: &Namespace, number: u8) -> Result<()> {
    let (port, wan) = (format!("p{number}"), format!("198.51.100.{number}/24"));
    let (gateway, own) = (format!("10.7.{number}.1"), format!("10.7.{number}.2/24"));
    link((middle, &port, &[]), (router, "wan", &[&wan]))?;
    middle.ip(&["link", "set", &port, "master", "br0"])?;
    link(
        (router, "lan", &[&format!("{gateway}/24")]),
        (host, "u0", &[&own]),
    )?;
    host.ip(&["route", "add", "default", "via", &gateway])?;
    text(
        router.command("sysctl").args(["-qw", "net.ipv4.ip_forward=1"]),
        LIMIT,
    )?;
    text(router.command("nft").arg(NAT), LIMIT)?;
    Ok(())
}

/// A router as there is one in most homes: what is inside dials, and nobody dials in.
const NAT: &str = "
table ip nat {
    chain out { type nat hook postrouting priority srcnat; oifname wan masquerade; }
    chain to_itself { type filter hook input priority filter; iifname wan ct state new drop; }
    chain through { type filter hook forward priority filter; iifname wan ct state new drop; }
}";

/// Where the relay listens.
const RELAY: &str = "198.51.100.9";

impl BehindNat {
    /// Starts the three with the relay at this address, and these further lines in its section.
    fn start(relay_at: &str, limits: &str) -> Result<Self> {
        mount_bpffs()?;
        let directory = ScratchDir::unique("nat")?;
        let middle = Namespace::unique("m")?;
        let routers = [Namespace::unique("r1")?, Namespace::unique("r2")?];
        let hosts = [Namespace::unique("h1")?, Namespace::unique("h2")?];
        middle.ip(&["link", "add", "br0", "type", "bridge"])?;
        middle.ip(&["address", "add", &format!("{RELAY}/24"), "dev", "br0"])?;
        middle.ip(&["link", "set", "br0", "up"])?;
        for (number, (router, host)) in (1..).zip(routers.iter().zip(&hosts)) {
            lay(&middle, router, host, number)?;
        }
        let node = |host, label| Node::new(Path::new(NODE), host, directory.path(), label);
        let mut relay = node(&middle, "relay")?;
        let (mut near, mut far) = (node(&hosts[0], "near")?, node(&hosts[1], "far")?);
        let peer = |node: &Node, number: u8, addresses: &[&str]| PeerConfig {
            id: node.peer_id().to_owned(),
            addresses: addresses.iter().map(|&address| address.to_owned()).collect(),
            allowed_ips: vec![format!("10.42.0.{number}/32")],
        };
        let serve = format!("\n[relay]\nserve = true\n{limits}\n");
        let peers = vec![peer(&near, 1, &[]), peer(&far, 2, &[])];
        relay.configure(&config(9, vec![relay_at.to_owned()], serve, peers))?;
        let via = format!("\n[relay]\nvia = [\"{}\"]\n", relay.peer_id());
        let to_relay = peer(&relay, 9, &[relay_at]);
        let peers = vec![to_relay.clone(), peer(&far, 2, &[])];
        near.configure(&config(1, Vec::new(), via.clone(), peers))?;
        let peers = vec![to_relay, peer(&near, 1, &[])];
        far.configure(&config(2, Vec::new(), via, peers))?;
        for node in [&mut relay, &mut near, &mut far] {
            node.start()?;
        }
        Ok(Self {
            near,
            far,
            relay,
            hosts,
            _routers: routers,
            _middle: middle,
            _directory: directory,
        })
    }

    /// Checks that packets cross both ways, and that both sides say that a relay takes them.
    fn check(&self) -> Result<()> {
        for (node, peer, host, to) in [
            (&self.near, &self.far, &self.hosts[0], 2),
            (&self.far, &self.near, &self.hosts[1], 1),
        ] {
            node.wait_connected(peer, LIMIT)?;
            assert_eq!(PingPlan::new([10, 42, 0, to].into()).run(host)?.n_lost(), 0);
            let status = node.status()?;
            let shown = status.peer(peer.peer_id())?;
            let address = shown.address.as_deref().expect("it is connected");
            assert!(
                address.starts_with(&format!("/p2p/{}/p2p-circuit", self.relay.peer_id())),
                "{address}"
            );
        }
        Ok(())
    }
}

fn config(number: u8, listen: Vec<String>, sections: String, peers: Vec<PeerConfig>) -> NodeConfig {
    NodeConfig {
        device: unique_device(),
        addresses: vec![format!("10.42.0.{number}/24")],
        mtu: 1420,
        listen,
        sections,
        peers,
    }
}

fn reach_each_other(relay_at: &str) -> Result<()> {
    let lab = BehindNat::start(relay_at, "")?;
    lab.check()?;
    assert!(lab.relay.status()?.counter("circuits_relayed")? >= 1);
    assert_eq!(lab.relay.status()?.counter("reservations_given")?, 2);
    Ok(())
}

#[test]
fn two_nodes_behind_nat_reach_each_other_through_a_relay_over_tcp() {
    let _machine = machine::shared();
    reach_each_other(&format!("/ip4/{RELAY}/tcp/4001")).unwrap();
}

#[test]
fn two_nodes_behind_nat_reach_each_other_through_a_relay_over_quic() {
    let _machine = machine::shared();
    reach_each_other(&format!("/ip4/{RELAY}/udp/4001/quic-v1")).unwrap();
}

#[test]
fn flows_go_on_through_a_relay_that_was_started_anew() {
    let _machine = machine::shared();
    let mut lab = BehindNat::start(&format!("/ip4/{RELAY}/tcp/4001"), "").unwrap();
    lab.check().unwrap();

    lab.relay.stop(Signal::SIGTERM).unwrap();
    lab.relay.start().unwrap();

    let to = [10, 42, 0, 2].into();
    until("packets cross again", LIMIT, || {
        Ok(answers(&lab.hosts[0], to, PATIENCE)?.then_some(()))
    })
    .unwrap();
    lab.check().unwrap();
}
