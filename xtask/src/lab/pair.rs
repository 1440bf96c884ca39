//! Two hosts, a cable, and a node on each.

use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use anyhow::Result;

use super::identity::{unique_device, unique_name};
use super::{Namespace, Node, NodeConfig, PeerConfig, ScratchDir, link, mount_bpffs};

/// Two nodes that start together have to be connected within this time.
const CONNECT_LIMIT: Duration = Duration::from_secs(15);
const UNDERLAY_DEVICE: &str = "u0";

/// Protocol of the underlay's addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Underlay {
    /// 192.0.2.1 and 192.0.2.2.
    V4,
    /// 2001:db8::1 and 2001:db8::2.
    V6,
}

/// libp2p transport between the nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// TCP port 4001.
    Tcp,
    /// QUIC on UDP port 4001.
    Quic,
}

/// What a pair is to be.
#[derive(Debug)]
pub struct PairPlan {
    /// Names of the two namespaces.
    pub hosts: [String; 2],
    /// Names of the two TUN devices.
    pub devices: [String; 2],
    /// Device MTU in bytes.
    pub mtu: u32,
    /// Protocol of the underlay.
    pub underlay: Underlay,
    /// Transport between the nodes.
    pub transport: Transport,
}

/// A host with its node. The node goes first.
#[derive(Debug)]
pub struct Side {
    /// The node.
    pub node: Node,
    /// The node's configuration.
    pub config: NodeConfig,
    /// The host.
    pub host: Namespace,
    /// The node's inner IPv4 address.
    pub v4: IpAddr,
    /// The node's inner IPv6 address.
    pub v6: IpAddr,
}

/// Two nodes, each the other's peer.
#[derive(Debug)]
pub struct Pair {
    /// 10.42.0.1 and fd42::1.
    pub a: Side,
    /// 10.42.0.2 and fd42::2.
    pub b: Side,
    directory: ScratchDir,
}

impl PairPlan {
    /// Names that nobody else has, IPv4 outside, TCP, the default MTU.
    pub fn unique() -> Self {
        Self {
            hosts: [unique_name("a"), unique_name("b")],
            devices: [unique_device(), unique_device()],
            mtu: 1420,
            underlay: Underlay::V4,
            transport: Transport::Tcp,
        }
    }
}

impl Pair {
    /// Makes a pair with unique names and waits until the nodes are connected.
    ///
    /// # Errors
    /// When something cannot be made or a node does not start.
    pub fn unique(binary: &Path) -> Result<Self> {
        Self::start(binary, &PairPlan::unique())
    }

    /// Makes a pair and waits until the nodes are connected.
    ///
    /// # Errors
    /// When something cannot be made or a node does not start.
    pub fn start(binary: &Path, plan: &PairPlan) -> Result<Self> {
        let directory = ScratchDir::unique("pair")?;
        let mut pair = Self::prepare(binary, plan, directory)?;
        pair.start_nodes()?;
        Ok(pair)
    }

    /// Makes hosts, cable, identities and configurations, and starts nothing.
    ///
    /// # Errors
    /// When something cannot be made.
    pub fn prepare(binary: &Path, plan: &PairPlan, directory: ScratchDir) -> Result<Self> {
        mount_bpffs()?;
        let hosts = [
            Namespace::create(&plan.hosts[0])?,
            Namespace::create(&plan.hosts[1])?,
        ];
        let outer = [plan.outer_address(1), plan.outer_address(2)];
        link(
            (&hosts[0], UNDERLAY_DEVICE, &[&outer[0]]),
            (&hosts[1], UNDERLAY_DEVICE, &[&outer[1]]),
        )?;
        let nodes = [
            Node::new(binary, &hosts[0], directory.path(), "a")?,
            Node::new(binary, &hosts[1], directory.path(), "b")?,
        ];
        let configs = [
            plan.config(0, nodes[1].peer_id()),
            plan.config(1, nodes[0].peer_id()),
        ];
        let [host_a, host_b] = hosts;
        let [node_a, node_b] = nodes;
        let [config_a, config_b] = configs;
        Ok(Self {
            a: Side::new(host_a, node_a, config_a, 1)?,
            b: Side::new(host_b, node_b, config_b, 2)?,
            directory,
        })
    }

    /// Starts both nodes and waits until they are connected.
    ///
    /// # Errors
    /// When a node does not start, or they do not connect in time.
    pub fn start_nodes(&mut self) -> Result<()> {
        self.a.node.start()?;
        self.b.node.start()?;
        self.a.node.wait_connected(&self.b.node, CONNECT_LIMIT)?;
        self.b.node.wait_connected(&self.a.node, CONNECT_LIMIT)?;
        Ok(())
    }

    /// Returns the directory of keys, configurations, logs and sockets.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }
}

impl Side {
    fn new(host: Namespace, node: Node, config: NodeConfig, number: u16) -> Result<Self> {
        node.configure(&config)?;
        let (v4, v6) = (inner_v4(number).parse()?, inner_v6(number).parse()?);
        Ok(Self {
            node,
            config,
            host,
            v4,
            v6,
        })
    }
}

impl PairPlan {
    fn outer_address(&self, number: u16) -> String {
        match self.underlay {
            Underlay::V4 => format!("192.0.2.{number}/24"),
            Underlay::V6 => format!("2001:db8::{number}/64"),
        }
    }

    fn multiaddr(&self, v4: &str, v6: &str) -> String {
        let address = match self.underlay {
            Underlay::V4 => format!("/ip4/{v4}"),
            Underlay::V6 => format!("/ip6/{v6}"),
        };
        match self.transport {
            Transport::Tcp => address + "/tcp/4001",
            Transport::Quic => address + "/udp/4001/quic-v1",
        }
    }

    /// Returns the configuration of one side (0 or 1), whose peer has this id.
    pub fn config(&self, side: usize, peer_id: &str) -> NodeConfig {
        let (own, other) = if side == 0 { (1, 2) } else { (2, 1) };
        NodeConfig {
            device: self.devices[side].clone(),
            addresses: vec![format!("{}/24", inner_v4(own)), format!("{}/64", inner_v6(own))],
            mtu: self.mtu,
            listen: vec![self.multiaddr("0.0.0.0", "::")],
            sections: String::new(),
            peers: vec![PeerConfig {
                id: peer_id.to_owned(),
                addresses: vec![self.multiaddr(&format!("192.0.2.{other}"), &format!("2001:db8::{other}"))],
                allowed_ips: vec![
                    format!("{}/32", inner_v4(other)),
                    format!("{}/128", inner_v6(other)),
                ],
            }],
        }
    }
}

fn inner_v4(number: u16) -> String {
    format!("10.42.0.{number}")
}

fn inner_v6(number: u16) -> String {
    format!("fd42::{number}")
}
