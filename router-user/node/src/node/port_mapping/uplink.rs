//! Which gateway is asked, and for which ports.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, UdpSocket};
use std::num::NonZeroU16;

use libp2p::Multiaddr;
use libp2p::multiaddr::Protocol;

use crate::device::{Netlink, NetlinkError, SeenRoute, TABLE_MAIN, Way};
use stream_router::p2p::MAX_MAPPED_ADDRESSES;

/// The way to the default gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Uplink {
    /// The gateway's address in the network of the host.
    pub(super) gateway: Ipv4Addr,
    /// The host's address there.
    pub(super) source: Ipv4Addr,
    /// The interface.
    pub(super) output: u32,
}

/// What is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Wanted {
    pub(super) uplink: Uplink,
    pub(super) ports: Vec<Port>,
}

/// A port on which the node listens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Port {
    pub(super) transport: Transport,
    pub(super) number: NonZeroU16,
}

/// What a port is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Transport {
    Tcp,
    /// Over UDP.
    Quic,
}

/// Why nobody is asked.
#[derive(Debug, thiserror::Error)]
pub(super) enum NotAsked {
    /// Nothing is needed.
    #[error("this host has the public address {0}")]
    Public(Ipv4Addr),
    #[error("the main routing table has no IPv4 default route to a router")]
    NoGateway,
    /// Also if somebody has led the network of the gateway into another tunnel.
    #[error("packets to the gateway {0} do not leave by the interface of the default route")]
    OtherWay(Ipv4Addr),
    #[error("the node listens on no IPv4 port at {0}, from which the gateway is reached")]
    NotListening(Ipv4Addr),
    #[error("the routes of the host cannot be read: {0}")]
    Netlink(#[from] NetlinkError),
    #[error("the way to the gateway {0} cannot be found: {1}")]
    NoWay(Ipv4Addr, std::io::Error),
}

impl Wanted {
    /// Looks which gateway is to be asked, and for what. Nothing is sent.
    ///
    /// # Errors
    /// Nobody is to be asked.
    pub(super) async fn look(
        netlink: &Netlink,
        device: u32,
        listening: &[Multiaddr],
    ) -> Result<Self, NotAsked> {
        let routes = netlink.routes_of_table(TABLE_MAIN).await?;
        let (gateway, output) = default_gateway(&routes, device).ok_or(NotAsked::NoGateway)?;
        // An unmarked socket asks, which the node's own routes may lead elsewhere.
        match netlink.way_to(gateway.into(), None).await? {
            Way::By(route) if route.output == Some(output) => {}
            Way::By(_) | Way::Nowhere(_) => return Err(NotAsked::OtherWay(gateway)),
        }
        let source = source_to(gateway).map_err(|error| NotAsked::NoWay(gateway, error))?;
        if is_public(source) {
            return Err(NotAsked::Public(source));
        }
        let ports = ports_at(listening, source);
        match ports.is_empty() {
            true => Err(NotAsked::NotListening(source)),
            false => Ok(Self {
                uplink: Uplink {
                    gateway,
                    source,
                    output,
                },
                ports,
            }),
        }
    }
}

/// Returns the router of the IPv4 default route that the kernel prefers, and its interface.
fn default_gateway(routes: &[SeenRoute], device: u32) -> Option<(Ipv4Addr, u32)> {
    let ways = routes.iter().filter_map(|route| {
        let (Some(IpAddr::V4(gateway)), Some(output)) = (route.router, route.output) else {
            return None;
        };
        let is_default = route.net.prefix_len() == 0 && route.kind.is_empty() && output != device;
        is_default.then_some((route.metric, gateway, output))
    });
    let (_, gateway, output) = ways.min_by_key(|(metric, ..)| *metric)?;
    Some((gateway, output))
}

fn source_to(gateway: Ipv4Addr) -> std::io::Result<Ipv4Addr> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    socket.connect((gateway, crab_nat::GATEWAY_PORT))?;
    match socket.local_addr()?.ip() {
        IpAddr::V4(source) => Ok(source),
        IpAddr::V6(_) => Err(std::io::ErrorKind::AddrNotAvailable.into()),
    }
}

/// Returns the ports on which the node listens at an address, each once and a few at most.
fn ports_at(listening: &[Multiaddr], at: Ipv4Addr) -> Vec<Port> {
    let mut ports: Vec<_> = listening.iter().filter_map(|address| port(address, at)).collect();
    // The swarm has them in no order.
    ports.sort_by_key(|port| (port.number, port.transport == Transport::Quic));
    ports.dedup();
    ports.truncate(MAX_MAPPED_ADDRESSES);
    ports
}

fn port(address: &Multiaddr, at: Ipv4Addr) -> Option<Port> {
    let mut protocols = address.iter();
    if protocols.next() != Some(Protocol::Ip4(at)) {
        return None;
    }
    let (transport, number) = match (protocols.next(), protocols.next()) {
        (Some(Protocol::Tcp(number)), None) => (Transport::Tcp, number),
        (Some(Protocol::Udp(number)), Some(Protocol::QuicV1)) => (Transport::Quic, number),
        _ => return None,
    };
    let number = NonZeroU16::new(number)?;
    Some(Port { transport, number })
}

/// Says whether an address is one that others reach from everywhere. Those for documentation count as such, of which nobody
/// has one but in a test.
pub(super) fn is_public(ip: Ipv4Addr) -> bool {
    let [first, second, third, _] = ip.octets();
    let is_shared = first == 100 && second & 0xc0 == 64;
    let is_of_protocols = (first, second, third) == (192, 0, 0);
    let is_for_benchmarks = first == 198 && second & 0xfe == 18;
    !(first == 0
        || first >= 224
        || ip.is_private()
        || ip.is_loopback()
        || ip.is_link_local()
        || is_shared
        || is_of_protocols
        || is_for_benchmarks)
}

impl Transport {
    /// Returns the multiaddress of a port outside.
    pub(super) fn address(self, ip: Ipv4Addr, port: NonZeroU16) -> Multiaddr {
        let address = Multiaddr::from(ip);
        match self {
            Self::Tcp => address.with(Protocol::Tcp(port.get())),
            Self::Quic => address.with(Protocol::Udp(port.get())).with(Protocol::QuicV1),
        }
    }
}

impl fmt::Display for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let transport = match self.transport {
            Transport::Tcp => "tcp",
            Transport::Quic => "quic",
        };
        write!(f, "{transport} {}", self.number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEVICE: u32 = 9;

    fn route(net: &str, router: Option<&str>, output: u32, metric: u32) -> SeenRoute {
        SeenRoute {
            net: net.parse().expect("a network"),
            table: TABLE_MAIN,
            metric,
            output: Some(output),
            router: router.map(|router| router.parse().expect("an address")),
            kind: "",
            is_of_address: false,
        }
    }

    #[test]
    fn the_gateway_is_the_router_of_the_best_default_route_beside_the_tunnel() {
        let routes = [
            route("10.0.0.0/8", Some("10.0.0.1"), 2, 0),
            route("0.0.0.0/0", Some("10.42.0.2"), DEVICE, 0),
            route("0.0.0.0/0", None, 3, 1),
            route("0.0.0.0/0", Some("192.168.1.1"), 4, 600),
            route("0.0.0.0/0", Some("192.168.0.1"), 5, 100),
            route("::/0", Some("fe80::1"), 6, 0),
        ];
        let expected = Some((Ipv4Addr::new(192, 168, 0, 1), 5));
        assert_eq!(default_gateway(&routes, DEVICE), expected);
        assert_eq!(default_gateway(&routes[..3], DEVICE), None);
        let nowhere = SeenRoute {
            kind: "blackhole",
            ..routes[4].clone()
        };
        assert_eq!(default_gateway(&[nowhere], DEVICE), None);
    }

    #[test]
    fn a_few_ports_are_asked_for_and_those_alone_at_which_the_gateway_finds_the_node() {
        let at = Ipv4Addr::new(192, 168, 0, 7);
        let listening = [
            "/ip4/192.168.0.7/udp/4001/quic-v1",
            "/ip4/192.168.0.7/tcp/4001",
            "/ip4/192.168.0.7/tcp/4001",
            "/ip4/127.0.0.1/tcp/4002",
            "/ip4/192.168.0.7/udp/4003",
            "/ip4/192.168.0.7/tcp/0",
            "/ip6/fd00::1/tcp/4001",
        ];
        let listening: Vec<Multiaddr> = listening
            .iter()
            .map(|text| text.parse().expect("an address"))
            .collect();
        let shown = |ports: Vec<Port>| ports.iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(shown(ports_at(&listening, at)), ["tcp 4001", "quic 4001"]);

        let many: Vec<Multiaddr> = (1..20)
            .map(|port| Transport::Tcp.address(at, NonZeroU16::new(port).expect("a port")))
            .collect();
        assert_eq!(ports_at(&many, at).len(), MAX_MAPPED_ADDRESSES);
    }

    #[test]
    fn addresses_behind_another_nat_are_not_public() {
        for (text, expected) in [
            ("1.1.1.1", true),
            ("192.0.2.1", true),
            ("100.63.0.1", true),
            ("100.64.0.1", false),
            ("100.127.255.254", false),
            ("10.0.0.1", false),
            ("172.31.0.1", false),
            ("192.168.1.1", false),
            ("192.0.0.1", false),
            ("198.19.0.1", false),
            ("169.254.1.1", false),
            ("127.0.0.1", false),
            ("0.0.0.0", false),
            ("224.0.0.1", false),
            ("255.255.255.255", false),
        ] {
            assert_eq!(is_public(text.parse().expect("an address")), expected, "{text}");
        }
    }
}
