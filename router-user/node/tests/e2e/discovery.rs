//! Nodes that have to find each other.

use std::path::Path;
use std::time::Duration;

use anyhow::Result;
use nix::sys::signal::Signal;

use crate::support::{NODE, machine};
use xtask::lab::probe::PingPlan;
use xtask::lab::{
    Namespace, Node, NodeConfig, Pair, PairPlan, PeerConfig, ScratchDir, link, mount_bpffs, unique_device,
};

/// Far longer than finding takes.
const LIMIT: Duration = Duration::from_secs(30);

#[test]
fn nodes_on_one_link_find_each_other_without_an_address() {
    let _machine = machine::shared();
    let directory = ScratchDir::unique("mdns").unwrap();
    let mut pair = Pair::prepare(Path::new(NODE), &PairPlan::unique(), directory).unwrap();
    for side in [&mut pair.a, &mut pair.b] {
        side.config.peers[0].addresses.clear();
        side.config.sections = "\n[discovery]\nmdns = true\n".to_owned();
        side.node.configure(&side.config).unwrap();
    }

    pair.start_nodes().unwrap();

    for (from, to) in [(&pair.a, &pair.b), (&pair.b, &pair.a)] {
        for address in [to.v4, to.v6] {
            assert_eq!(PingPlan::new(address).run(&from.host).unwrap().n_lost(), 0);
        }
        let status = from.node.status().unwrap();
        let peer = status.peer(to.node.peer_id()).unwrap();
        let outer = peer.address.as_deref().unwrap();
        assert!(outer.starts_with("/ip4/192.0.2."), "{outer}");
        assert_eq!(status.counter("unknown_peers_refused").unwrap(), 0);
    }
}

#[test]
fn nodes_that_know_only_a_third_connect_directly() {
    let _machine = machine::shared();
    let mut hosts = Triangle::start().unwrap();
    let [a, b, c] = &hosts.nodes;
    for (node, peer) in [(a, c), (c, a), (b, a), (b, c)] {
        node.wait_connected(peer, LIMIT).unwrap();
    }
    for (node, peer, outer) in [(a, c, "/ip4/192.0.2.3/"), (c, a, "/ip4/192.0.2.1/")] {
        let status = node.status().unwrap();
        let connected_at = status.peer(peer.peer_id()).unwrap().address.clone().unwrap();
        assert!(connected_at.starts_with(outer), "{connected_at}");
        assert_eq!(status.counter("records_refused").unwrap(), 0);
    }

    // What crosses now does not cross the third.
    hosts.nodes[1].stop(Signal::SIGTERM).unwrap();

    let report = PingPlan::new([10, 42, 0, 3].into()).run(&hosts.hosts[0]).unwrap();
    assert_eq!(report.n_lost(), 0);
}

/// Three hosts on one network, with a node on each: the first and the last know the address of the second only.
struct Triangle {
    nodes: [Node; 3],
    hosts: [Namespace; 3],
    _directory: ScratchDir,
}

impl Triangle {
    fn start() -> Result<Self> {
        mount_bpffs()?;
        let directory = ScratchDir::unique("dht")?;
        let hosts = [
            Namespace::unique("a")?,
            Namespace::unique("b")?,
            Namespace::unique("c")?,
        ];
        lay_cables(&hosts)?;
        let node = |index: usize| {
            let label = ["a", "b", "c"][index];
            Node::new(Path::new(NODE), &hosts[index], directory.path(), label)
        };
        let mut nodes = [node(0)?, node(1)?, node(2)?];
        let ids: Vec<_> = nodes.iter().map(|node| node.peer_id().to_owned()).collect();
        let peer = |index: usize, address: Option<u8>| PeerConfig {
            id: ids[index].clone(),
            addresses: address.map(outer).into_iter().collect(),
            allowed_ips: vec![format!("10.42.0.{}/32", index + 1)],
        };
        nodes[0].configure(&config(1, vec![peer(1, Some(2)), peer(2, None)]))?;
        nodes[1].configure(&config(2, vec![peer(0, None), peer(2, None)]))?;
        // It has moved away from there.
        nodes[2].configure(&config(3, vec![peer(1, Some(2)), peer(0, Some(77))]))?;
        for node in &mut nodes {
            node.start()?;
        }
        Ok(Self {
            nodes,
            hosts,
            _directory: directory,
        })
    }
}

fn outer(number: u8) -> String {
    format!("/ip4/192.0.2.{number}/tcp/4001")
}

fn config(number: u8, peers: Vec<PeerConfig>) -> NodeConfig {
    NodeConfig {
        device: unique_device(),
        addresses: vec![format!("10.42.0.{number}/24")],
        mtu: 1420,
        listen: vec!["/ip4/0.0.0.0/tcp/4001".to_owned()],
        sections: "\n[discovery]\ndht = true\n".to_owned(),
        peers,
    }
}

/// The second host has a bridge that the cables of the others end in.
fn lay_cables([a, b, c]: &[Namespace; 3]) -> Result<()> {
    link((a, "u0", &["192.0.2.1/24"]), (b, "ua", &[]))?;
    link((c, "u0", &["192.0.2.3/24"]), (b, "uc", &[]))?;
    b.ip(&["link", "add", "br0", "type", "bridge"])?;
    for end in ["ua", "uc"] {
        b.ip(&["link", "set", end, "master", "br0"])?;
    }
    b.ip(&["address", "add", "192.0.2.2/24", "dev", "br0"])?;
    b.ip(&["link", "set", "br0", "up"])?;
    b.wait_device_up("br0")
}
