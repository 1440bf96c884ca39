//! Addresses as they stand in a configuration: of transports, of the device, of networks behind peers.

use std::net::{IpAddr, Ipv6Addr};

use ipnet::IpNet;
use libp2p::multiaddr::Protocol;
use libp2p::{Multiaddr, PeerId};

use router_common::host_address::{is_host_v4, is_host_v6};
use stream_router::p2p::is_dns_name;

/// What an address to listen on looks like.
pub(super) const LISTEN_ALLOWED: &str =
    "/ip4/ADDRESS/tcp/PORT or /ip4/ADDRESS/udp/PORT/quic-v1, or the same with /ip6";

/// What an address of a peer looks like.
pub(super) const DIAL_ALLOWED: &str = "/ip4/ADDRESS/tcp/PORT, /ip4/ADDRESS/tcp/PORT/tls or /ip4/ADDRESS/udp/PORT/quic-v1, or the same with /ip6, \
     /dns, /dns4 or /dns6 and a name, or /dnsaddr/NAME, perhaps followed by /p2p/ and the id of this peer; or /p2p/, the id of another \
     peer and /p2p-circuit";

/// What an address looks like that others are told.
pub(super) const ANNOUNCED_ALLOWED: &str = "/ip4/ADDRESS/tcp/PORT, /ip4/ADDRESS/tcp/PORT/tls or /ip4/ADDRESS/udp/PORT/quic-v1, or the same with /ip6";

/// What an address of the device looks like.
pub(super) const DEVICE_ALLOWED: &str =
    "a unicast address with its prefix length, such as \"10.42.0.1/24\" or \"fd42::1/64\"";

/// What a network behind a peer looks like.
pub(super) const NETWORK_ALLOWED: &str =
    "a unicast network with its prefix length, such as \"10.42.0.2/32\" or \"192.168.7.0/24\"";

/// Parses an address to listen on; an unspecified address and port 0 are allowed.
pub(super) fn listen_address(text: &str) -> Result<Multiaddr, String> {
    let (address, host, _) = transport_address(text, None)?;
    match host {
        Host::Ip(ip) if ip.is_multicast() => Err(format!("{ip} is a multicast address")),
        Host::Ip(_) => Ok(address),
        Host::Name => Err(format!("{text} has a name, which is no address to listen on")),
    }
}

/// Parses an address to dial `peer` at. The `/p2p` part, if any, is checked and taken off.
pub(super) fn dial_address(text: &str, peer: Option<PeerId>) -> Result<Multiaddr, String> {
    let (address, host, port) = transport_address(text, Some(peer))?;
    if let Host::Ip(ip) = host
        && (ip.is_unspecified() || ip.is_multicast())
    {
        return Err(format!("{ip} is not the address of a host"));
    }
    if port == Some(0) {
        return Err("port 0 cannot be dialled".to_owned());
    }
    Ok(address)
}

/// Parses an address to dial `peer` at, which may lead through a relay: `[ADDRESS]/p2p/RELAY/p2p-circuit`.
pub(super) fn peer_address(text: &str, peer: Option<PeerId>) -> Result<Multiaddr, String> {
    let Some((to_relay, behind)) = text.split_once("/p2p-circuit") else {
        return dial_address(text, peer);
    };
    let wrong = |_| format!("{text} is no address through a relay");
    let address: Multiaddr = text.parse().map_err(wrong)?;
    let relay = address.iter().find_map(|part| match part {
        Protocol::P2p(id) => Some(id),
        _ => None,
    });
    let relay = relay.filter(|id| to_relay.ends_with(&id.to_string()));
    let relay = relay.ok_or_else(|| format!("{text} names no relay before /p2p-circuit"))?;
    if Some(relay) == peer {
        return Err(format!("{text} leads to the peer through itself"));
    }
    if *to_relay != format!("/p2p/{relay}") {
        dial_address(to_relay, Some(relay))?;
    }
    match behind.strip_prefix("/p2p/").map(str::parse::<PeerId>) {
        None if behind.is_empty() => Ok(address),
        Some(Ok(named)) if peer.is_none_or(|peer| peer == named) => Ok(address),
        _ => Err(format!("{text} leads to another than this peer")),
    }
}

/// Returns the relay that an address leads through, if it does.
pub(super) fn relay_of(address: &Multiaddr) -> Option<PeerId> {
    let is_circuit = address.iter().any(|part| part == Protocol::P2pCircuit);
    let mut ids = address.iter().filter_map(|part| match part {
        Protocol::P2p(id) => Some(id),
        _ => None,
    });
    ids.next().filter(|_| is_circuit)
}

/// Parses an address at which this node is to say that it is reached. Others dial only IP addresses that they are told.
pub(super) fn announced_address(text: &str) -> Result<Multiaddr, String> {
    let address = dial_address(text, None)?;
    match ip_of(&address) {
        Some(_) => Ok(address),
        None => Err(format!("{text} has a name, which is not announced")),
    }
}

/// Returns the IP address that an address begins with, perhaps after its zone; `None` if it begins with a name.
pub(super) fn ip_of(address: &Multiaddr) -> Option<IpAddr> {
    address.iter().find_map(|part| match part {
        Protocol::Ip4(ip) => Some(ip.into()),
        Protocol::Ip6(ip) => Some(ip.into()),
        _ => None,
    })
}

/// Says whether an address names the interface by which it is reached, which means nothing on another host.
pub(super) fn has_zone(address: &Multiaddr) -> bool {
    address.iter().any(|part| matches!(part, Protocol::Ip6zone(_)))
}

/// The host that an address leads to.
enum Host {
    Ip(IpAddr),
    Name,
}

/// Parses an address. `dialled` is `None` for an address to listen on, which carries no peer id, and otherwise the
/// peer's id if it is known. There is no port if the name stands for whole addresses.
fn transport_address(
    text: &str,
    dialled: Option<Option<PeerId>>,
) -> Result<(Multiaddr, Host, Option<u16>), String> {
    let address: Multiaddr = text
        .parse()
        .map_err(|error| format!("{text:?} is not a multiaddr: {error}"))?;
    let unsupported = || format!("{text} is not an address of a supported transport");
    let mut parts = address.iter().peekable();
    let mut plain = Multiaddr::empty();
    let first = parts.next().ok_or_else(unsupported)?;
    let mut has_port = true;
    let host = match &first {
        Protocol::Ip4(ip) => Host::Ip(IpAddr::V4(*ip)),
        Protocol::Ip6(ip) => Host::Ip(IpAddr::V6(*ip)),
        Protocol::Ip6zone(zone) => match parts.next() {
            Some(Protocol::Ip6(ip)) if ip.is_unicast_link_local() => {
                plain.push(first);
                Host::Ip(IpAddr::V6(ip))
            }
            _ => {
                return Err(format!(
                    "the interface {zone} has to be followed by a link-local /ip6 address"
                ));
            }
        },
        Protocol::Dns(name) | Protocol::Dns4(name) | Protocol::Dns6(name) | Protocol::Dnsaddr(name) => {
            if !is_dns_name(name) {
                return Err(format!("{name:?} is not a name that DNS can have"));
            }
            has_port = !matches!(first, Protocol::Dnsaddr(_));
            plain.push(first);
            Host::Name
        }
        _ => return Err(unsupported()),
    };
    if let Host::Ip(ip) = host {
        plain.push(ip.into());
    }
    let port = match has_port.then(|| parts.next()) {
        Some(Some(Protocol::Tcp(port))) => {
            plain.push(Protocol::Tcp(port));
            // A node that listens takes peers who begin with TLS at every port over TCP.
            if dialled.is_some()
                && let Some(tls) = parts.next_if_eq(&Protocol::Tls)
            {
                plain.push(tls);
            }
            Some(port)
        }
        Some(Some(Protocol::Udp(port))) if parts.next() == Some(Protocol::QuicV1) => {
            plain.push(Protocol::Udp(port));
            plain.push(Protocol::QuicV1);
            Some(port)
        }
        Some(_) => return Err(unsupported()),
        None => None,
    };
    match (parts.next(), dialled) {
        (None, _) => {}
        (Some(Protocol::P2p(id)), Some(peer)) => {
            if peer.is_some_and(|peer| peer != id) {
                return Err(format!("{id} is the id of another peer"));
            }
        }
        _ => return Err(unsupported()),
    }
    match parts.next() {
        None => Ok((plain, host, port)),
        Some(_) => Err(unsupported()),
    }
}

/// Parses an address of the device.
pub(super) fn device_address(text: &str) -> Result<IpNet, String> {
    let net = parse_net(text)?;
    let ip = net.addr();
    if let Some(kind) = special(ip) {
        return Err(format!("{ip} is {kind}"));
    }
    if net.prefix_len() == 0 {
        return Err(format!(
            "{net} has every address on its link; what goes by default to a peer is 0.0.0.0/0 or ::/0 in its allowed_ips"
        ));
    }
    // The two addresses of a /31 or /127 are both hosts (RFC 3021, RFC 6164).
    if net.prefix_len() + 2 <= net.max_prefix_len() {
        if ip == net.network() {
            return Err(format!("{net} is the network, not an address in it"));
        }
        if ip.is_ipv4() && ip == net.broadcast() {
            return Err(format!("{ip} is the broadcast address of {}", net.trunc()));
        }
    }
    Ok(net)
}

/// Parses a network behind a peer.
pub(super) fn peer_network(text: &str) -> Result<IpNet, String> {
    let net = parse_net(text)?;
    if net.addr() != net.network() {
        return Err(format!("{net} has host bits set, the network is {}", net.trunc()));
    }
    // Longer prefixes than the special ranges' own lie wholly inside them; 0.0.0.0/0 and ::/0 do not.
    if net.prefix_len() >= special_prefix_len(net.addr())
        && let Some(kind) = special(net.addr())
    {
        return Err(format!("{net} is {kind}"));
    }
    Ok(net)
}

fn parse_net(text: &str) -> Result<IpNet, String> {
    if let Ok(ip) = text.parse::<IpAddr>() {
        return Err(format!("{ip} has no prefix length"));
    }
    text.parse()
        .map_err(|_source: ipnet::AddrParseError| format!("{text:?} is not an address with a prefix length"))
}

/// Returns what an address is that no host can have for itself; `None` for one that a host can have.
fn special(ip: IpAddr) -> Option<&'static str> {
    match ip {
        ip if ip.is_unspecified() => Some("the unspecified address"),
        ip if ip.is_loopback() => Some("a loopback address"),
        ip if ip.is_multicast() => Some("a multicast address"),
        IpAddr::V4(ip) if ip.is_broadcast() => Some("the broadcast address"),
        IpAddr::V6(ip) if ip.to_ipv4_mapped().is_some() => Some("an IPv4-mapped address; write it as IPv4"),
        IpAddr::V4(ip) if !is_host_v4(ip.octets()) => Some("an address that no host can have"),
        IpAddr::V6(ip) if !is_host_v6(&ip.octets()) => Some("an address that no host can have"),
        _ => None,
    }
}

/// Returns the prefix length of the special range that `ip` is in, if any: a network at least that long is inside it.
fn special_prefix_len(ip: IpAddr) -> u8 {
    match ip {
        IpAddr::V4(ip) if ip.is_multicast() => 4,
        IpAddr::V4(ip) if ip.is_loopback() => 8,
        IpAddr::V4(_) => 32,
        IpAddr::V6(ip) if ip.is_multicast() => 8,
        IpAddr::V6(ip) if ip.to_ipv4_mapped().is_some() => 96,
        IpAddr::V6(_) => Ipv6Addr::BITS as u8,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::invite::Invite;

    #[test]
    fn a_link_local_address_may_name_its_interface_and_nothing_else_may() {
        for text in [
            "/ip6zone/eth0/ip6/fe80::1/tcp/4001",
            "/ip6zone/eth0/ip6/fe80::1/udp/4001/quic-v1",
        ] {
            let address = listen_address(text).expect("an address to listen on");
            assert_eq!(address.to_string(), text);
            assert_eq!(ip_of(&address), "fe80::1".parse().ok());
            assert_eq!(dial_address(text, None), Ok(address));
        }
        for text in [
            "/ip6zone/eth0/ip6/2001:db8::1/tcp/4001",
            "/ip6zone/eth0/ip4/192.0.2.1/tcp/4001",
        ] {
            assert!(
                listen_address(text).expect_err("refused").contains("link-local"),
                "{text}"
            );
        }
    }

    #[test]
    fn a_peer_is_dialled_with_tls_over_tcp_and_no_node_listens_so() {
        for text in ["/ip4/192.0.2.1/tcp/443/tls", "/dns4/vpn.example.org/tcp/443/tls"] {
            let dialled = dial_address(text, None).expect("an address to dial");
            assert_eq!(dialled.to_string(), text);
        }
        for text in ["/ip4/192.0.2.1/udp/443/quic-v1/tls", "/dnsaddr/example.org/tls"] {
            assert!(dial_address(text, None).is_err(), "{text}");
        }
        assert!(listen_address("/ip4/192.0.2.1/tcp/443/tls").is_err());
    }

    #[test]
    fn an_invite_names_no_interface_of_this_host() {
        let zoned = "/ip6zone/eth0/ip6/fe80::1/tcp/4001".parse().expect("an address");
        let networks = vec!["10.42.0.2/32".parse().expect("a network")];

        let refused = Invite::new(PeerId::random(), vec![zoned], networks).expect_err("refused");

        assert!(refused.to_string().contains("of one host"), "{refused}");
    }
}
