//! The addresses that the node can listen on and dial.

use std::{
    borrow::Cow,
    fmt,
    net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV6},
};

use libp2p::{Multiaddr, PeerId, multiaddr::Protocol};
use nix::net::if_::{if_indextoname, if_nametoindex};

use super::circuit::Circuit;
use super::names::{NameKind, NamedAddress, is_dns_name};

/// The transport that carries a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TransportKind {
    /// TCP with TLS or Noise.
    Tcp,
    /// QUIC version 1.
    Quic,
    /// A circuit through a relay, with TLS or Noise inside.
    Relay,
}

impl fmt::Display for TransportKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "tcp",
            Self::Quic => "quic",
            Self::Relay => "relay",
        })
    }
}

/// Why an address cannot be used.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AddressError {
    /// The address is neither TCP nor QUIC over an IP address.
    #[error(
        "{address} is not supported; use /ip4/ADDRESS/tcp/PORT, /ip4/ADDRESS/tcp/PORT/tls, /ip4/ADDRESS/udp/PORT/quic-v1, or the same with /ip6, or with /ip6zone/INTERFACE/ip6 for a link-local address; for a peer also with /dns/NAME, /dns4/NAME or /dns6/NAME, or /dnsaddr/NAME alone, or /p2p/RELAY/p2p-circuit"
    )]
    Unsupported {
        /// The address.
        address: Multiaddr,
    },
    /// The address leads through a relay that is no configured peer.
    #[error(
        "{address} leads through relay {relay}, which is no configured peer; add a [[peer]] section for it"
    )]
    UnknownRelay {
        /// The address.
        address: Multiaddr,
        /// The relay.
        relay: Box<PeerId>,
    },
    /// The address ends in the id of another peer.
    #[error("{address} names peer {named}, but stands with peer {expected}")]
    OtherPeer {
        /// The address.
        address: Multiaddr,
        /// The peer that the address names.
        named: Box<PeerId>,
        /// The peer that the address was given for.
        expected: Box<PeerId>,
    },
}

/// Checks that the node can listen on `address`, or dial it to reach `peer`.
///
/// # Errors
///
/// Returns an error if the address is neither TCP nor QUIC over an IP address, or ends in the id of another peer.
pub(super) fn check_address(
    address: &Multiaddr,
    peer: Option<PeerId>,
) -> Result<TransportKind, AddressError> {
    let unsupported = || AddressError::Unsupported {
        address: address.clone(),
    };
    let mut protocols = address.iter().peekable();
    if host(&mut protocols).is_none() {
        return Err(unsupported());
    }
    let kind = match protocols.next() {
        Some(Protocol::Tcp(_)) => {
            protocols.next_if_eq(&Protocol::Tls);
            TransportKind::Tcp
        }
        Some(Protocol::Udp(_)) if protocols.next() == Some(Protocol::QuicV1) => TransportKind::Quic,
        _ => return Err(unsupported()),
    };
    match (protocols.next(), peer) {
        (None, _) => {}
        (Some(Protocol::P2p(named)), Some(expected)) if named == expected => {}
        (Some(Protocol::P2p(named)), Some(expected)) => {
            return Err(AddressError::OtherPeer {
                address: address.clone(),
                named: Box::new(named),
                expected: Box::new(expected),
            });
        }
        _ => return Err(unsupported()),
    }
    if protocols.next().is_some() {
        return Err(unsupported());
    }
    Ok(kind)
}

/// Checks that the node can dial `address`, which may begin with a name, to reach `peer`.
///
/// # Errors
///
/// Returns an error if the address is neither TCP nor QUIC over an IP address or a name, or ends in the id of another peer.
pub(super) fn check_peer_address(address: &Multiaddr, peer: PeerId) -> Result<(), AddressError> {
    if let Some(circuit) = Circuit::of(address) {
        return circuit.check(address, peer);
    }
    let Some(named) = NamedAddress::of(address) else {
        return check_address(address, Some(peer)).map(drop);
    };
    let unsupported = || AddressError::Unsupported {
        address: address.clone(),
    };
    if !is_dns_name(&named.name) {
        return Err(unsupported());
    }
    // What stands behind a name stands behind an IP address too, or, of /dnsaddr, behind those that it stands for.
    let rest = match named.kind {
        NameKind::Addresses if named.rest.iter().all(|part| matches!(part, Protocol::P2p(_))) => {
            Multiaddr::from(Protocol::Tcp(1))
                .iter()
                .chain(named.rest.iter())
                .collect()
        }
        NameKind::Addresses => return Err(unsupported()),
        NameKind::Ip | NameKind::Ip4 | NameKind::Ip6 => named.rest,
    };
    let ip = Multiaddr::from(Ipv4Addr::LOCALHOST);
    match check_address(&ip.iter().chain(rest.iter()).collect(), Some(peer)) {
        Err(AddressError::Unsupported { .. }) => Err(unsupported()),
        Err(AddressError::OtherPeer { named, expected, .. }) => Err(AddressError::OtherPeer {
            address: address.clone(),
            named,
            expected,
        }),
        Err(error @ AddressError::UnknownRelay { .. }) => Err(error),
        Ok(_) => Ok(()),
    }
}

/// Returns the address without the id of `peer`, in which it may end, and its IP address. Returns `None` if another host
/// cannot reach the address, or it is of another transport or peer.
pub(super) fn reachable(address: &Multiaddr, peer: Option<PeerId>) -> Option<(Multiaddr, IpAddr)> {
    check_address(address, peer).ok()?;
    let (mut plain, mut ip) = (Multiaddr::empty(), None);
    for protocol in address.iter() {
        match protocol {
            Protocol::Ip4(v4) => ip = Some(IpAddr::V4(v4)),
            Protocol::Ip6(v6) => ip = Some(IpAddr::V6(v6)),
            Protocol::Tcp(0) | Protocol::Udp(0) => return None,
            Protocol::P2p(_) => continue,
            _ => {}
        }
        plain.push(protocol);
    }
    let ip = ip?;
    let only_here = match ip {
        IpAddr::V4(v4) => v4.is_broadcast() || v4.is_link_local(),
        // Without the interface a link-local address says nothing.
        IpAddr::V6(v6) => v6.is_unicast_link_local() || v6.to_ipv4_mapped().is_some(),
    };
    let usable = !(only_here || ip.is_unspecified() || ip.is_loopback() || ip.is_multicast());
    usable.then_some((plain, ip))
}

/// Returns the IP address at which an address begins.
pub(super) fn ip_of(address: &Multiaddr) -> Option<IpAddr> {
    address.iter().find_map(|protocol| match protocol {
        Protocol::Ip4(ip) => Some(IpAddr::V4(ip)),
        Protocol::Ip6(ip) => Some(IpAddr::V6(ip)),
        _ => None,
    })
}

/// Returns the transport of a connection with this remote address.
pub(super) fn transport_kind(address: &Multiaddr) -> TransportKind {
    if Circuit::of(address).is_some() {
        return TransportKind::Relay;
    }
    let quic = address.iter().any(|protocol| protocol == Protocol::QuicV1);
    if quic {
        TransportKind::Quic
    } else {
        TransportKind::Tcp
    }
}

/// Says whether a peer is greeted with TLS at this address, without agreement on a security protocol before. In front of it there
/// may be a proxy that tells connections apart by that greeting, and that all of them then seem to come from.
pub(super) fn begins_with_tls(address: &Multiaddr) -> bool {
    address.iter().any(|part| part == Protocol::Tls)
}

/// Returns where an address leads to over TCP; `None` if it is none to dial over TCP.
pub(super) fn tcp_destination(address: &Multiaddr) -> Option<SocketAddr> {
    tcp_listen_address(address).filter(|at| at.port() != 0 && !at.ip().is_unspecified())
}

/// Returns where an address over TCP is listened on, which may be at all addresses of the host and at any port.
pub(super) fn tcp_listen_address(address: &Multiaddr) -> Option<SocketAddr> {
    socket_address(address).and_then(|(at, kind)| (kind == TransportKind::Tcp).then_some(at))
}

/// Returns where an address over QUIC leads, or is listened on.
pub(super) fn quic_address(address: &Multiaddr) -> Option<SocketAddr> {
    socket_address(address).and_then(|(at, kind)| (kind == TransportKind::Quic).then_some(at))
}

/// Says where an address leads and over what, as people write it; an address of another kind as it is.
pub(super) fn plain(address: &Multiaddr) -> String {
    if let Some(circuit) = Circuit::of(address) {
        return format!("through relay {}", circuit.relay);
    }
    match socket_address(address) {
        Some((at, kind)) => format!("{at} over {kind}"),
        None => address.to_string(),
    }
}

fn socket_address(address: &Multiaddr) -> Option<(SocketAddr, TransportKind)> {
    let mut parts = address.iter().peekable();
    let (ip, zone) = host(&mut parts)?;
    let (port, kind) = match parts.next()? {
        Protocol::Tcp(port) => {
            parts.next_if_eq(&Protocol::Tls);
            (port, TransportKind::Tcp)
        }
        Protocol::Udp(port) if parts.next()? == Protocol::QuicV1 => (port, TransportKind::Quic),
        _ => return None,
    };
    let at = match ip {
        IpAddr::V6(v6) => SocketAddrV6::new(v6, port, 0, zone.map_or(0, |zone| scope_of(&zone))).into(),
        v4 @ IpAddr::V4(_) => SocketAddr::new(v4, port),
    };
    let is_whole = parts.all(|part| matches!(part, Protocol::P2p(_)));
    is_whole.then_some((at, kind))
}

/// Takes the IP address at the beginning of an address, with the interface by which a link-local one is reached.
fn host<'a>(parts: &mut impl Iterator<Item = Protocol<'a>>) -> Option<(IpAddr, Option<Cow<'a, str>>)> {
    match parts.next()? {
        Protocol::Ip4(ip) => Some((ip.into(), None)),
        Protocol::Ip6(ip) => Some((ip.into(), None)),
        Protocol::Ip6zone(zone) => match parts.next()? {
            Protocol::Ip6(ip) if ip.is_unicast_link_local() => Some((ip.into(), Some(zone))),
            _ => None,
        },
        _ => None,
    }
}

/// Returns the number of an interface. One that is not there has a number that no interface has, so that the kernel says
/// so when the address is used.
fn scope_of(interface: &str) -> u32 {
    const NO_INTERFACE: u32 = i32::MAX as u32;
    if_nametoindex(interface).unwrap_or(NO_INTERFACE)
}

/// Returns the name of the interface with this number; `None` if it is gone, for which nix gives an empty name.
fn interface_name(number: u32) -> Option<String> {
    let name = if_indextoname(number).ok()?.into_string().ok()?;
    (!name.is_empty()).then_some(name)
}

/// Returns the beginning of the address of a socket: the IP address, for a link-local one after its interface.
pub(super) fn host_part(at: SocketAddr) -> Multiaddr {
    let zone = match at {
        SocketAddr::V6(v6) if v6.scope_id() != 0 && v6.ip().is_unicast_link_local() => {
            interface_name(v6.scope_id())
        }
        _ => None,
    };
    let mut address = Multiaddr::empty();
    if let Some(zone) = zone {
        address.push(Protocol::Ip6zone(zone.into()));
    }
    address.with(at.ip().into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tcp_and_quic_on_both_ip_versions_are_supported() {
        for (text, kind) in [
            ("/ip4/192.0.2.1/tcp/4001", TransportKind::Tcp),
            ("/ip6/2001:db8::1/tcp/4001", TransportKind::Tcp),
            ("/ip4/192.0.2.1/tcp/443/tls", TransportKind::Tcp),
            ("/ip4/0.0.0.0/udp/4001/quic-v1", TransportKind::Quic),
            ("/ip6/::/udp/4001/quic-v1", TransportKind::Quic),
        ] {
            assert_eq!(check_address(&address(text), None), Ok(kind), "{text}");
            assert_eq!(transport_kind(&address(text)), kind, "{text}");
        }
    }

    #[test]
    fn an_address_of_a_peer_may_begin_with_a_name() {
        let peer = PeerId::random();
        for text in [
            "/dns/vpn.example.org/tcp/4001".to_owned(),
            format!("/dns4/vpn.example.org/tcp/443/tls/p2p/{peer}"),
            "/dns4/vpn.example.org/udp/4001/quic-v1".to_owned(),
            format!("/dns6/vpn.example.org/tcp/4001/p2p/{peer}"),
            "/dnsaddr/example.org".to_owned(),
            format!("/dnsaddr/example.org/p2p/{peer}"),
        ] {
            assert_eq!(check_peer_address(&address(&text), peer), Ok(()), "{text}");
        }
        for text in [
            "/dns/vpn.example.org",
            "/dns/vpn.example.org/udp/4001",
            "/dns/vpn.example.org/ip4/192.0.2.1/tcp/4001",
            "/dns/a..b/tcp/4001",
            "/dnsaddr/example.org/tcp/4001",
        ] {
            let refused = check_peer_address(&address(text), peer);
            assert!(
                matches!(refused, Err(AddressError::Unsupported { .. })),
                "{text}: {refused:?}"
            );
        }
        let other = address(&format!("/dnsaddr/example.org/p2p/{}", PeerId::random()));
        let refused = check_peer_address(&other, peer);
        assert!(matches!(refused, Err(AddressError::OtherPeer { address, .. }) if address == other));
    }

    #[test]
    fn other_addresses_are_refused() {
        for text in [
            "/dns4/example.org/tcp/4001",
            "/dnsaddr/example.org",
            "/ip4/192.0.2.1",
            "/ip4/192.0.2.1/udp/4001",
            "/ip4/192.0.2.1/udp/4001/quic",
            "/ip4/192.0.2.1/tcp/4001/ws",
            "/ip4/192.0.2.1/tcp/4001/tls/ws",
            "/ip4/192.0.2.1/tcp/4001/tls/tls",
            "/ip4/192.0.2.1/tls",
            "/ip4/192.0.2.1/udp/4001/quic-v1/tls",
            "/tcp/4001",
            "/memory/1",
            "/ip6zone/lo/ip6/2001:db8::1/tcp/4001",
            "/ip6zone/lo/ip4/192.0.2.1/tcp/4001",
            "/ip6zone/lo/tcp/4001",
        ] {
            let refused = check_address(&address(text), None);
            assert!(
                matches!(refused, Err(AddressError::Unsupported { .. })),
                "{text}: {refused:?}"
            );
        }
    }

    #[test]
    fn a_link_local_address_is_reached_by_the_interface_of_its_zone() {
        let lo = if_nametoindex("lo").expect("every host has it");
        let at: SocketAddr = SocketAddrV6::new("fe80::1".parse().expect("an address"), 4001, 0, lo).into();
        for (text, kind) in [
            ("/ip6zone/lo/ip6/fe80::1/tcp/4001", TransportKind::Tcp),
            ("/ip6zone/lo/ip6/fe80::1/udp/4001/quic-v1", TransportKind::Quic),
        ] {
            let zoned = address(text);
            assert_eq!(check_address(&zoned, None), Ok(kind), "{text}");
            assert_eq!(socket_address(&zoned), Some((at, kind)), "{text}");
            assert!(
                zoned.to_string().starts_with(&host_part(at).to_string()),
                "{text}"
            );
            assert!(reachable(&zoned, None).is_none(), "{text}");
        }
        let gone = tcp_destination(&address("/ip6zone/gone/ip6/fe80::1/tcp/4001"));
        let Some(SocketAddr::V6(gone)) = gone else {
            panic!("{gone:?}")
        };
        assert_eq!(interface_name(gone.scope_id()), None);
        assert_eq!(host_part(gone.into()), address("/ip6/fe80::1"));
        assert_eq!(
            host_part("[2001:db8::1]:1".parse().expect("an address")),
            address("/ip6/2001:db8::1")
        );
    }

    #[test]
    fn named_peer_must_be_the_expected_one() {
        let (us, them) = (PeerId::random(), PeerId::random());
        let named = address("/ip4/192.0.2.1/tcp/4001").with(Protocol::P2p(them));

        assert_eq!(check_address(&named, Some(them)), Ok(TransportKind::Tcp));
        assert!(matches!(
            check_address(&named, Some(us)),
            Err(AddressError::OtherPeer { .. })
        ));
        assert!(matches!(
            check_address(&named, None),
            Err(AddressError::Unsupported { .. })
        ));
    }

    #[test]
    fn only_what_another_host_can_dial_is_reachable() {
        let peer = PeerId::random();
        for (text, port) in [
            ("/ip4/192.0.2.1/tcp/1/tls", 1),
            ("/ip4/192.0.2.1/tcp/1", 1),
            ("/ip6/2001:db8::1/udp/2/quic-v1", 2),
        ] {
            let plain = address(text);
            let named = plain.clone().with(Protocol::P2p(peer));
            for address in [&plain, &named] {
                let (reached, ip) = reachable(address, Some(peer)).expect("reachable");
                assert_eq!(reached, plain);
                assert_eq!(ip.is_ipv4(), port == 1);
            }
            assert!(
                reachable(&named, Some(PeerId::random())).is_none(),
                "another peer's"
            );
        }
        for text in [
            "/ip4/192.0.2.1/tcp/0",
            "/ip4/0.0.0.0/tcp/1",
            "/ip4/127.0.0.1/tcp/1",
            "/ip4/169.254.1.1/tcp/1",
            "/ip4/224.0.0.1/tcp/1",
            "/ip4/255.255.255.255/tcp/1",
            "/ip6/::1/tcp/1",
            "/ip6/fe80::1/tcp/1",
            "/ip6/::ffff:192.0.2.1/tcp/1",
            "/ip4/192.0.2.1/tcp/1/ws",
        ] {
            assert!(reachable(&address(text), Some(peer)).is_none(), "{text}");
        }
    }

    fn address(text: &str) -> Multiaddr {
        text.parse().expect("an address")
    }

    #[test]
    fn a_destination_over_tcp_is_one_host_and_port() {
        let peer = PeerId::random();
        let destination = |text: &str| tcp_destination(&text.parse().expect("an address"));

        let whole = format!("/ip6/2001:db8::1/tcp/4001/p2p/{peer}");
        assert_eq!(destination(&whole), "[2001:db8::1]:4001".parse().ok());
        let behind_a_proxy = "/ip4/192.0.2.1/tcp/443/tls";
        assert_eq!(destination(behind_a_proxy), "192.0.2.1:443".parse().ok());
        assert!(begins_with_tls(&address(behind_a_proxy)) && !begins_with_tls(&address(&whole)));
        for none in [
            "/ip4/192.0.2.1/udp/4001/quic-v1",
            "/ip4/192.0.2.1/tcp/0",
            "/ip4/0.0.0.0/tcp/4001",
            "/ip4/192.0.2.1/tcp/4001/ws",
            "/dns/a.example/tcp/4001",
        ] {
            assert_eq!(destination(none), None, "{none}");
        }
    }
}
