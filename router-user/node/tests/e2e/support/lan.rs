//! A network behind a node, whose packets for the peer a gateway captures.

use std::fs;
use std::net::{IpAddr, Ipv6Addr};
use std::path::Path;

use anyhow::Result;

use crate::support::NODE;
use xtask::lab::{Namespace, Pair, PairPlan, ScratchDir, link};

const LAN_V4: &str = "192.168.77.0/24";
const LAN_V6: &str = "fd77::/64";
/// Interface of the first node's host in the network.
pub(crate) const GATEWAY: &str = "lan0";

/// What a network behind a gateway is to be.
pub(crate) struct LanPlan {
    /// Hook of the gateway.
    pub(crate) hook: &'static str,
    /// Sink of the gateway.
    pub(crate) sink: &'static str,
    /// MTU of the nodes' devices in bytes.
    pub(crate) mtu: u32,
    /// The first node's host has a bridge in the network, which has no driver.
    pub(crate) bridge: bool,
    /// Everything is behind the peer.
    pub(crate) default_route: bool,
    /// Further sections of the gateway's configuration.
    pub(crate) sections: &'static str,
}

impl Default for LanPlan {
    fn default() -> Self {
        Self {
            hook: "auto",
            sink: "ring",
            mtu: 1420,
            bridge: false,
            default_route: false,
            sections: "",
        }
    }
}

impl LanPlan {
    /// Interface of the gateway.
    pub(crate) fn gateway(&self) -> &'static str {
        if self.bridge { "br0" } else { GATEWAY }
    }
}

/// A pair of nodes and a host in a network behind the first; that one routes between network and tunnel.
pub(crate) struct Lan {
    /// The nodes.
    pub(crate) pair: Pair,
    /// The host in the network.
    pub(crate) host: Namespace,
}

impl Lan {
    /// Makes it all and waits until the nodes are connected.
    pub(crate) fn start(plan: &LanPlan) -> Result<Self> {
        let directory = ScratchDir::unique("gateway")?;
        let nodes = PairPlan {
            mtu: plan.mtu,
            ..PairPlan::unique()
        };
        let mut pair = Pair::prepare(Path::new(NODE), &nodes, directory)?;
        let host = Namespace::unique("lan")?;
        lay_cable(&host, &pair.a.host, plan)?;
        pair.a.config.sections = section(plan.gateway(), plan.hook, plan.sink) + plan.sections;
        if plan.default_route {
            pair.a.config.peers[0].allowed_ips = vec!["0.0.0.0/0".to_owned(), "::/0".to_owned()];
        }
        pair.a.node.configure(&pair.a.config)?;
        let behind = [LAN_V4, LAN_V6].map(str::to_owned);
        pair.b.config.peers[0].allowed_ips.extend(behind);
        pair.b.node.configure(&pair.b.config)?;
        forward_packets(&pair.a.host)?;
        pair.start_nodes()?;
        Ok(Self { pair, host })
    }

    /// Addresses of the host in the network.
    pub(crate) fn addresses(&self) -> [IpAddr; 2] {
        [
            [192, 168, 77, 2].into(),
            Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, 2).into(),
        ]
    }
}

/// Makes a router of a host.
pub(crate) fn forward_packets(host: &Namespace) -> Result<()> {
    host.enter(|| {
        fs::write("/proc/sys/net/ipv6/conf/all/forwarding", "1")?;
        Ok(fs::write("/proc/sys/net/ipv4/conf/all/forwarding", "1")?)
    })
}

fn lay_cable(host: &Namespace, router: &Namespace, plan: &LanPlan) -> Result<()> {
    let inside: &[&str] = &["192.168.77.2/24", "fd77::2/64"];
    let outside: &[&str] = &["192.168.77.1/24", "fd77::1/64"];
    if plan.bridge {
        link((host, "eth0", inside), (router, "lan0", &[]))?;
        router.ip(&["link", "add", "br0", "type", "bridge"])?;
        router.ip(&["link", "set", "lan0", "master", "br0"])?;
        for address in outside {
            let nodad: &[&str] = if address.contains(':') { &["nodad"] } else { &[] };
            router.ip(&[&["address", "add", address, "dev", "br0"], nodad].concat())?;
        }
        router.ip(&["link", "set", "br0", "up"])?;
        router.wait_device_up("br0")?;
    } else {
        link((host, "eth0", inside), (router, "lan0", outside))?;
    }
    host.ip(&["route", "add", "default", "via", "192.168.77.1"])?;
    host.ip(&["-6", "route", "add", "default", "via", "fd77::1"])?;
    Ok(())
}

/// A section of the configuration.
pub(crate) fn section(interface: &str, hook: &str, sink: &str) -> String {
    format!("\n[[gateway]]\ninterface = {interface:?}\nhook = {hook:?}\nsink = {sink:?}\n")
}
