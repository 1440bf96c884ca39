//! Which of this host's addresses are of use to others, the best first.
//!
//! A host with containers has a bridge for each network of them, and only a few addresses are announced. Those come first from
//! which connections stand, then those of interfaces with a route by way of a gateway, then others. A bridge that is neither is
//! for containers alone, and not announced.

use std::{
    collections::{HashMap, HashSet},
    fs::File,
    io::Read,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    path::Path,
};

use libp2p::Multiaddr;
use nix::ifaddrs::getifaddrs;

use super::address::ip_of;

/// Bytes of a routing table that are read. Routes with a gateway that stand behind are not seen, which costs nothing but
/// the order.
const MAX_TABLE_BYTES: u64 = 1 << 20;

/// Remote addresses whose way is looked up.
const MAX_REMOTES: usize = 64;

/// The flag of a route that leads to a gateway.
const RTF_GATEWAY: u32 = 2;

/// What is known of this host's addresses.
#[derive(Debug, Default)]
pub(super) struct HostAddresses {
    /// The addresses from which peers are reached.
    sources: HashSet<IpAddr>,
    /// The interface of each address.
    interfaces: HashMap<IpAddr, String>,
    /// The interfaces with a route by way of a gateway.
    with_gateway: HashSet<String>,
    bridges: HashSet<String>,
}

impl HostAddresses {
    /// Looks at the host's interfaces and routes. `remotes` are the addresses at which peers are connected.
    pub(super) fn read(remotes: impl IntoIterator<Item = SocketAddr>) -> Self {
        let sources = remotes.into_iter().take(MAX_REMOTES).filter_map(source_to);
        let interfaces: HashMap<_, _> = match getifaddrs() {
            Ok(all) => all
                .filter_map(|interface| {
                    let address = interface.address?;
                    let v4 = address.as_sockaddr_in().map(|at| IpAddr::V4(at.ip()));
                    let v6 = || address.as_sockaddr_in6().map(|at| IpAddr::V6(at.ip()));
                    Some((v4.or_else(v6)?, interface.interface_name))
                })
                .collect(),
            Err(error) => {
                tracing::debug!(%error, "cannot list the addresses of the host");
                HashMap::new()
            }
        };
        let bridges = interfaces.values().filter(|name| is_bridge(name)).cloned();
        Self {
            sources: sources.collect(),
            bridges: bridges.collect(),
            with_gateway: with_gateway_v4(&table("route"))
                .chain(with_gateway_v6(&table("ipv6_route")))
                .collect(),
            interfaces,
        }
    }

    /// Returns those of these addresses that are of use, the best first.
    pub(super) fn by_use(&self, mut addresses: Vec<Multiaddr>) -> Vec<Multiaddr> {
        addresses.retain(|address| self.rank(address).is_some());
        addresses.sort_by_key(|address| self.rank(address));
        addresses
    }

    /// Returns a small number for an address that is of much use, and none for one that is of none.
    fn rank(&self, address: &Multiaddr) -> Option<u8> {
        let ip = ip_of(address)?;
        if self.sources.contains(&ip) {
            return Some(0);
        }
        match self.interfaces.get(&ip) {
            Some(name) if self.with_gateway.contains(name) => Some(1),
            Some(name) if self.bridges.contains(name) => None,
            Some(_) | None => Some(2),
        }
    }
}

/// Returns the address from which the kernel would send to another.
fn source_to(remote: SocketAddr) -> Option<IpAddr> {
    let any: IpAddr = match remote {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    // Nothing is sent.
    let socket = UdpSocket::bind((any, 0)).ok()?;
    socket.connect(remote).ok()?;
    Some(socket.local_addr().ok()?.ip())
}

fn is_bridge(interface: &str) -> bool {
    Path::new("/sys/class/net")
        .join(interface)
        .join("bridge")
        .is_dir()
}

/// Reads a routing table of this thread's network namespace. What cannot be read is empty.
fn table(name: &str) -> String {
    let path = Path::new("/proc/thread-self/net").join(name);
    let mut text = String::new();
    let read = File::open(path).and_then(|file| file.take(MAX_TABLE_BYTES).read_to_string(&mut text));
    if let Err(error) = read {
        tracing::debug!(%error, table = name, "cannot read the routes of the host");
    }
    text
}

/// Returns the interfaces with a gateway in a table of the form of `/proc/net/route`: name, destination, gateway, flags.
fn with_gateway_v4(table: &str) -> impl Iterator<Item = String> {
    table.lines().filter_map(|line| {
        let mut fields = line.split_whitespace();
        let name = fields.next()?;
        let flags = u32::from_str_radix(fields.nth(2)?, 16).ok()?;
        (flags & RTF_GATEWAY != 0).then(|| name.to_owned())
    })
}

/// Returns the interfaces with a gateway in a table of the form of `/proc/net/ipv6_route`, of whose ten fields the last
/// two are flags and name.
fn with_gateway_v6(table: &str) -> impl Iterator<Item = String> {
    table.lines().filter_map(|line| {
        let mut fields = line.split_whitespace();
        let flags = u32::from_str_radix(fields.nth(8)?, 16).ok()?;
        (flags & RTF_GATEWAY != 0).then(|| fields.next().map(str::to_owned))?
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> Multiaddr {
        format!("{text}/tcp/4001").parse().expect("an address")
    }

    #[test]
    fn the_address_of_the_lan_comes_before_twenty_bridges_and_those_are_left_out() {
        let bridge = |n: u8| IpAddr::from([172, 17, n, 1]);
        let mut host = HostAddresses::default();
        for n in 0..20 {
            host.interfaces.insert(bridge(n), format!("br{n}"));
            host.bridges.insert(format!("br{n}"));
        }
        for (ip, name) in [
            ("192.0.2.1", "eth0"),
            ("198.51.100.1", "eth1"),
            ("203.0.113.1", "br19"),
        ] {
            host.interfaces
                .insert(ip.parse().expect("an address"), name.to_owned());
        }
        host.sources.insert(bridge(7));
        host.with_gateway.extend(["eth1".to_owned(), "br19".to_owned()]);
        let mut listening: Vec<_> = (0..20).map(|n| address(&format!("/ip4/{}", bridge(n)))).collect();
        let others = [
            "/ip4/192.0.2.1",
            "/ip4/198.51.100.1",
            "/ip4/203.0.113.1",
            "/ip6/2001:db8::9",
        ];
        listening.extend(others.map(address));

        let best = host.by_use(listening);

        let expected = [
            "/ip4/172.17.7.1",
            "/ip4/172.17.19.1",
            "/ip4/198.51.100.1",
            "/ip4/203.0.113.1",
            "/ip4/192.0.2.1",
            "/ip6/2001:db8::9",
        ];
        assert_eq!(best, expected.map(address));
    }

    #[test]
    fn the_tables_of_the_kernel_name_interfaces_with_a_gateway() {
        let v4 = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\n\
            eth0\t00000000\t010200C0\t0003\t0\t0\t100\t00000000\n\
            docker0\t000011AC\t00000000\t0001\t0\t0\t0\t0000FFFF\n";
        let v6 = "00000000000000000000000000000000 00 00000000000000000000000000000000 00 \
            20010db8000000000000000000000001 00000400 00000001 00000000 00000003     eth1\n\
            fe800000000000000000000000000000 40 00000000000000000000000000000000 00 \
            00000000000000000000000000000000 00000100 00000001 00000000 00000001     eth2\n\
            cut short\n";

        assert_eq!(with_gateway_v4(v4).collect::<Vec<_>>(), ["eth0"]);
        assert_eq!(with_gateway_v6(v6).collect::<Vec<_>>(), ["eth1"]);
    }

    #[test]
    fn a_source_is_the_address_that_the_kernel_takes() {
        let loopback = IpAddr::from([127, 0, 0, 1]);
        assert_eq!(source_to(SocketAddr::new(loopback, 9)), Some(loopback));
        let host = HostAddresses::read([SocketAddr::new(loopback, 9)]);
        assert_eq!(host.rank(&address("/ip4/127.0.0.1")), Some(0));
        assert_eq!(host.interfaces.get(&loopback).map(String::as_str), Some("lo"));
    }
}
