//! What a node says of itself in an invite.

use std::net::IpAddr;

use ipnet::IpNet;
use libp2p::Multiaddr;
use libp2p::multiaddr::Protocol;

/// Returns the own addresses of a device, each as a prefix of its full length.
pub(crate) fn own_prefixes(device: &[IpNet]) -> Vec<IpNet> {
    device.iter().map(|net| IpNet::from(net.addr())).collect()
}

/// Returns those of the addresses at which a node listens that others can dial, in an order that stays the same. Before them
/// stand those at which a router forwards to it, which is where others are if there are any.
pub(crate) fn for_others(mapped: Vec<Multiaddr>, listen: Vec<Multiaddr>, device: &[IpNet]) -> Vec<Multiaddr> {
    let inner: Vec<IpAddr> = device.iter().map(IpNet::addr).collect();
    let mut listen = listen;
    listen.retain(|address| is_for_others(address, &inner) && !mapped.contains(address));
    // The swarm has them in no order.
    listen.sort_by_key(ToString::to_string);
    let mut all = mapped;
    all.extend(listen);
    all
}

/// Returns whether only a running node knows the address or the port.
pub(crate) fn is_open(address: &Multiaddr) -> bool {
    let any_port = |protocol| matches!(protocol, Protocol::Tcp(0) | Protocol::Udp(0));
    ip(address).is_none_or(|ip| ip.is_unspecified()) || address.iter().any(any_port)
}

/// Returns whether others can dial the address. One inside the VPN is reached through the very connection that is to be
/// made; a link-local one means nothing without its interface.
fn is_for_others(address: &Multiaddr, inner: &[IpAddr]) -> bool {
    ip(address).is_some_and(|ip| {
        let link_local = match ip {
            IpAddr::V4(ip) => ip.is_link_local(),
            IpAddr::V6(ip) => ip.is_unicast_link_local(),
        };
        !ip.is_loopback() && !ip.is_unspecified() && !link_local && !inner.contains(&ip)
    })
}

fn ip(address: &Multiaddr) -> Option<IpAddr> {
    address.iter().find_map(|protocol| match protocol {
        Protocol::Ip4(ip) => Some(IpAddr::V4(ip)),
        Protocol::Ip6(ip) => Some(IpAddr::V6(ip)),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> Multiaddr {
        text.parse().unwrap()
    }

    #[test]
    fn only_what_others_can_dial_is_for_them() {
        let inner = ["10.42.0.1".parse().unwrap(), "fd42::1".parse().unwrap()];
        for (text, expected) in [
            ("/ip4/192.0.2.1/tcp/4001", true),
            ("/ip6/2001:db8::1/udp/4001/quic-v1", true),
            ("/ip4/127.0.0.1/tcp/4001", false),
            ("/ip6/::1/tcp/4001", false),
            ("/ip6/fe80::1/tcp/4001", false),
            ("/ip4/169.254.0.1/tcp/4001", false),
            ("/ip4/10.42.0.1/tcp/4001", false),
            ("/ip6/fd42::1/tcp/4001", false),
            ("/ip4/0.0.0.0/tcp/4001", false),
        ] {
            assert_eq!(is_for_others(&address(text), &inner), expected, "{text}");
        }
    }

    #[test]
    fn where_a_router_forwards_stands_first_and_each_address_once() {
        let listen = ["/ip4/192.168.0.7/tcp/4001", "/ip4/192.0.2.7/tcp/4001"].map(address);
        let mapped = ["/ip4/192.0.2.9/tcp/4001", "/ip4/192.0.2.7/tcp/4001"].map(address);

        let all = for_others(mapped.to_vec(), listen.to_vec(), &[]);

        assert_eq!(all, [mapped[0].clone(), mapped[1].clone(), listen[0].clone()]);
    }

    #[test]
    fn what_only_a_running_node_knows_is_open() {
        for (text, expected) in [
            ("/ip4/0.0.0.0/tcp/4001", true),
            ("/ip6/::/udp/4001/quic-v1", true),
            ("/ip4/192.0.2.1/tcp/0", true),
            ("/ip4/192.0.2.1/udp/0/quic-v1", true),
            ("/ip4/192.0.2.1/udp/4001/quic-v1", false),
        ] {
            assert_eq!(is_open(&address(text)), expected, "{text}");
        }
    }
}
