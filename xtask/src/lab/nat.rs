//! Two nodes that are each behind a NAT, and a relay that both reach.

use std::net::IpAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use super::process::{text, until};
use super::{
    Namespace, Node, NodeConfig, PeerConfig, ScratchDir, Transport, link, mount_bpffs, unique_device,
};

const LIMIT: Duration = Duration::from_secs(10);

/// Where the relay is.
const RELAY: &str = "198.51.100.9";

/// What is between a node and the others. Every kind lets in what answers, and drops the rest without a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NatKind {
    /// One outside port for each inside one, at which everybody is let in.
    FullCone,
    /// The same, but only hosts are let in that something was sent to.
    AddressRestricted,
    /// The same, but only from ports that something was sent to.
    PortRestricted,
    /// `masquerade` of Linux, as most homes have it.
    Masquerade,
    /// Another outside port for each destination.
    Symmetric,
    /// Two of `masquerade`, one behind the other.
    Double,
    /// `masquerade` behind a provider's NAT, which both nodes share: one outside port for each inside one, and what is sent there
    /// from inside comes back in (RFC 6888).
    Hairpin,
}

impl NatKind {
    /// Every kind.
    pub const ALL: [Self; 7] = [
        Self::FullCone,
        Self::AddressRestricted,
        Self::PortRestricted,
        Self::Masquerade,
        Self::Symmetric,
        Self::Double,
        Self::Hairpin,
    ];

    /// Its name in tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::FullCone => "full cone",
            Self::AddressRestricted => "address-restricted",
            Self::PortRestricted => "port-restricted",
            Self::Masquerade => "masquerade",
            Self::Symmetric => "symmetric",
            Self::Double => "double",
            Self::Hairpin => "CGNAT hairpin",
        }
    }

    /// Says whether one node may be behind this kind and the other behind that.
    pub fn goes_with(self, other: Self) -> bool {
        (self == Self::Hairpin) == (other == Self::Hairpin)
    }

    /// The rules of the router before a host.
    fn rules(self, host: &str) -> String {
        let to_host = format!("iifname wan meta l4proto {{ tcp, udp }} dnat to {host};");
        let (inward, remembers, lets_in, masquerade) = match self {
            Self::FullCone => (&*to_host, "", "iifname wan ct state new accept;", "masquerade"),
            Self::AddressRestricted => (
                &*to_host,
                "iifname lan update @hosts { ip daddr }",
                "iifname wan ct state new ip saddr @hosts accept;",
                "masquerade",
            ),
            Self::PortRestricted => (
                &*to_host,
                "iifname lan update @ports { ip daddr . th dport }",
                "iifname wan ct state new ip saddr . th sport @ports accept;",
                "masquerade",
            ),
            Self::Masquerade | Self::Double | Self::Hairpin => ("", "", "", "masquerade"),
            Self::Symmetric => ("", "", "", "masquerade fully-random"),
        };
        format!(
            "table ip nat {{
                set hosts {{ type ipv4_addr; size 1024; flags dynamic, timeout; timeout 1m; }}
                set ports {{ type ipv4_addr . inet_service; size 1024; flags dynamic, timeout; timeout 1m; }}
                chain inward {{ type nat hook prerouting priority dstnat; {inward} }}
                chain outward {{ type nat hook postrouting priority srcnat; oifname wan {masquerade}; }}
                chain to_itself {{ type filter hook input priority filter; iifname wan ct state new drop; }}
                chain through {{
                    type filter hook forward priority filter;
                    {remembers}
                    {lets_in}
                    iifname wan ct state new drop;
                }}
            }}"
        )
    }
}

/// What a [`NatLab`] is like.
#[derive(Clone, Debug)]
pub struct NatPlan {
    /// What each of the two nodes is behind.
    pub kinds: [NatKind; 2],
    /// How the relay is reached, and the only way on which the two listen.
    pub transport: Transport,
    /// Whether the two listen. A node that does not is reached through the relay alone.
    pub listens: bool,
}

/// Two hosts behind NATs, and one that both reach.
#[derive(Debug)]
pub struct NatNetwork {
    /// The two hosts.
    pub hosts: [Namespace; 2],
    /// The network to which the outermost routers belong, which is a host itself: that of the relay.
    pub middle: Namespace,
    _routers: Vec<Namespace>,
}

/// Two nodes behind NATs, and a relay.
#[derive(Debug)]
pub struct NatLab {
    /// The two nodes.
    pub nodes: [Node; 2],
    /// The relay.
    pub relay: Node,
    /// When the relay was there, and the two began to start.
    pub started: Instant,
    /// Where they are.
    pub network: NatNetwork,
    _directory: ScratchDir,
}

impl NatNetwork {
    /// Lays the cables.
    ///
    /// # Errors
    /// When something cannot be made.
    pub fn lay(kinds: [NatKind; 2]) -> Result<Self> {
        let middle = Namespace::unique("m")?;
        let hosts = [Namespace::unique("h1")?, Namespace::unique("h2")?];
        middle.ip(&["link", "add", "br0", "type", "bridge"])?;
        middle.ip(&["address", "add", &format!("{RELAY}/24"), "dev", "br0"])?;
        middle.ip(&["link", "set", "br0", "up"])?;
        let mut routers = Vec::new();
        ensure!(kinds[0].goes_with(kinds[1]), "{kinds:?} share no network");
        if kinds[0] == NatKind::Hairpin {
            lay_shared(&middle, &hosts, &mut routers)?;
        } else {
            for (number, (kind, host)) in (1..).zip(kinds.into_iter().zip(&hosts)) {
                lay(&middle, kind, host, number, &mut routers)?;
            }
        }
        Ok(Self {
            hosts,
            middle,
            _routers: routers,
        })
    }

    /// Keeps the two outermost routers from each other, or no more; both reach the middle all the same.
    ///
    /// # Errors
    /// When a port of the middle cannot be set.
    pub fn part(&self, are_parted: bool) -> Result<()> {
        let state = if are_parted { "on" } else { "off" };
        for port in ["p1", "p2"] {
            let mut set = self.middle.command("bridge");
            set.args(["link", "set", "dev", port, "isolated", state]);
            text(&mut set, LIMIT)?;
        }
        Ok(())
    }
}

impl NatLab {
    /// Starts the three nodes.
    ///
    /// # Errors
    /// When something cannot be made or does not start.
    pub fn start(binary: &Path, plan: &NatPlan) -> Result<Self> {
        mount_bpffs()?;
        let directory = ScratchDir::unique("nat")?;
        let network = NatNetwork::lay(plan.kinds)?;
        let [near, far] = &network.hosts;
        let node = |host, label| Node::new(binary, host, directory.path(), label);
        let mut relay = node(&network.middle, "relay")?;
        let mut nodes = [node(near, "near")?, node(far, "far")?];
        let way = match plan.transport {
            Transport::Tcp => "tcp/4001",
            Transport::Quic => "udp/4001/quic-v1",
        };
        let relay_at = format!("/ip4/{RELAY}/{way}");
        let peer = |node: &Node, number: u8, addresses: &[&str]| PeerConfig {
            id: node.peer_id().to_owned(),
            addresses: addresses.iter().map(|&address| address.to_owned()).collect(),
            allowed_ips: vec![format!("10.42.0.{number}/32")],
        };
        let serve = "\n[relay]\nserve = true\n".to_owned();
        let peers = vec![peer(&nodes[0], 1, &[]), peer(&nodes[1], 2, &[])];
        relay.configure(&config(9, vec![relay_at.clone()], serve, peers))?;
        let via = format!("\n[relay]\nvia = [\"{}\"]\n", relay.peer_id());
        let listen = match plan.listens {
            true => vec![format!("/ip4/0.0.0.0/{way}")],
            false => Vec::new(),
        };
        for (own, other) in [(1, 2), (2, 1)] {
            let peers = vec![
                peer(&relay, 9, &[&relay_at]),
                peer(&nodes[usize::from(other) - 1], other, &[]),
            ];
            let own_config = config(own, listen.clone(), via.clone(), peers);
            nodes[usize::from(own) - 1].configure(&own_config)?;
        }
        relay.start()?;
        let started = Instant::now();
        for node in &mut nodes {
            node.start()?;
        }
        Ok(Self {
            nodes,
            relay,
            started,
            network,
            _directory: directory,
        })
    }

    /// Returns the address of a node inside the tunnel.
    pub fn inner(node: usize) -> IpAddr {
        [10, 42, 0, node as u8 + 1].into()
    }

    /// Returns the address at which a node is connected to the other; `None` if it is not.
    ///
    /// # Errors
    /// When the node does not answer.
    pub fn path(&self, node: usize) -> Result<Option<String>> {
        let status = self.nodes[node].status()?;
        let other = status.peer(self.nodes[1 - node].peer_id())?;
        Ok(other.address.clone())
    }

    /// Waits until both nodes send on a direct connection; returns when they did.
    ///
    /// # Errors
    /// When they do not in time, or a node does not answer.
    pub fn wait_direct(&self, limit: Duration) -> Result<Instant> {
        until("both nodes send on a direct connection", limit, || {
            for node in 0..self.nodes.len() {
                if self.path(node)?.is_none_or(|path| self.is_relayed(&path)) {
                    return Ok(None);
                }
            }
            Ok(Some(()))
        })?;
        Ok(Instant::now())
    }

    /// Says whether a path leads through the relay.
    pub fn is_relayed(&self, path: &str) -> bool {
        path.starts_with(&format!("/p2p/{}/p2p-circuit", self.relay.peer_id()))
    }
}

/// Lays cables from the middle to a host, with a router or two between them.
fn lay(
    middle: &Namespace,
    kind: NatKind,
    host: &Namespace,
    number: u8,
    routers: &mut Vec<Namespace>,
) -> Result<()> {
    let outermost = outermost(middle, number)?;
    let before_host = match kind {
        NatKind::Double => {
            let inner = Namespace::unique(&format!("i{number}"))?;
            route(
                (&outermost, "lan", "100.64.7.1/24"),
                (&inner, "wan", "100.64.7.2/24"),
            )?;
            forward(&outermost, &kind.rules("100.64.7.2"))?;
            routers.push(outermost);
            inner
        }
        _ => outermost,
    };
    lay_home(before_host, kind, host, number, routers)
}

/// Lays cables from the middle to two hosts, each with a router before it and both behind one of their provider.
fn lay_shared(middle: &Namespace, hosts: &[Namespace; 2], routers: &mut Vec<Namespace>) -> Result<()> {
    let provider = outermost(middle, 1)?;
    for (number, host) in (1..).zip(hosts) {
        let home = Namespace::unique(&format!("i{number}"))?;
        let net = format!("100.64.{number}");
        let (lan, at) = (format!("lan{number}"), format!("{net}.1/24"));
        route((&provider, &lan, &at), (&home, "wan", &format!("{net}.2/24")))?;
        lay_home(home, NatKind::Hairpin, host, number, routers)?;
    }
    forward(&provider, &hairpin_rules())?;
    routers.push(provider);
    Ok(())
}

/// Lays a cable from the router of a home to the host behind it.
fn lay_home(
    router: Namespace,
    kind: NatKind,
    host: &Namespace,
    number: u8,
    routers: &mut Vec<Namespace>,
) -> Result<()> {
    let own = format!("10.7.{number}.2");
    let at = format!("10.7.{number}.1/24");
    route((&router, "lan", &at), (host, "u0", &format!("{own}/24")))?;
    forward(&router, &kind.rules(&own))?;
    routers.push(router);
    Ok(())
}

/// Makes the router that the middle knows.
fn outermost(middle: &Namespace, number: u8) -> Result<Namespace> {
    let port = format!("p{number}");
    let router = Namespace::unique(&format!("r{number}"))?;
    let outside = format!("198.51.100.{number}/24");
    link((middle, &port, &[]), (&router, "wan", &[&outside]))?;
    middle.ip(&["link", "set", &port, "master", "br0"])?;
    Ok(router)
}

/// Lays a cable from a router to what is behind it, for which it is the way to everywhere.
fn route(
    (router, port, at): (&Namespace, &str, &str),
    (behind, device, own): (&Namespace, &str, &str),
) -> Result<()> {
    link((router, port, &[at]), (behind, device, &[own]))?;
    let gateway = at.split('/').next().unwrap_or(at);
    behind.ip(&["route", "add", "default", "via", gateway])?;
    Ok(())
}

fn forward(router: &Namespace, rules: &str) -> Result<()> {
    text(
        router.command("sysctl").args(["-qw", "net.ipv4.ip_forward=1"]),
        LIMIT,
    )?;
    text(router.command("nft").arg(rules), LIMIT)?;
    Ok(())
}

/// The rules of a provider's router: the port on which a node listens has one outside, also for the provider's other customer.
/// The homes behind it let in what answers alone.
fn hairpin_rules() -> String {
    let ways = (1..=2).map(|number| (format!("100.64.{number}.2"), 10_000 + number));
    let (mut inward, mut outward) = (String::new(), String::new());
    for (home, port) in ways {
        for protocol in ["tcp", "udp"] {
            inward += &format!("ip daddr 198.51.100.1 {protocol} dport {port} dnat to {home}:4001;\n");
            outward += &format!("ip saddr {home} {protocol} sport 4001 snat to 198.51.100.1:{port};\n");
        }
    }
    format!(
        "table ip nat {{
            chain inward {{ type nat hook prerouting priority dstnat; {inward} }}
            chain outward {{ type nat hook postrouting priority srcnat; {outward} oifname wan masquerade; }}
            chain to_itself {{ type filter hook input priority filter; ct state new drop; }}
        }}"
    )
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
