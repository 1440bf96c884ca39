//! What kind of NAT is before the node, as far as relays show it.

use std::collections::BTreeSet;

use libp2p::Multiaddr;
use libp2p::multiaddr::Protocol;

/// Returns what kind of NAT is before a node that listens at some addresses and that relays see at others, and how that is
/// known; `None` if no relay says where it sees it.
pub(super) fn kind<'a>(listening: &[Multiaddr], seen: impl Iterator<Item = &'a Multiaddr>) -> Option<String> {
    let seen: BTreeSet<_> = seen.collect();
    if seen.is_empty() {
        return None;
    }
    if seen.iter().all(|address| listening.contains(address)) {
        return Some("none: relays see the node where it listens".to_owned());
    }
    // By each transport from one port: what is seen differs only if the NAT makes it so.
    let transports: BTreeSet<_> = seen.iter().filter_map(|address| is_udp(address)).collect();
    let differs = transports.iter().any(|transport| {
        let seen = seen.iter().filter(|address| is_udp(address) == Some(*transport));
        seen.count() > 1
    });
    let kind = match differs {
        true => {
            "one with a port of its own for each destination: relays see the node at different addresses, \
             and hardly anybody connects directly"
        }
        false => {
            "one whose port others can be told: where relays see the node by one transport, it is at one address"
        }
    };
    Some(kind.to_owned())
}

fn is_udp(address: &Multiaddr) -> Option<bool> {
    address.iter().find_map(|protocol| match protocol {
        Protocol::Tcp(_) => Some(false),
        Protocol::Udp(_) => Some(true),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn relays_that_see_different_ports_of_one_transport_show_that_nobody_can_be_told_one() {
        let address = |text: &str| text.parse::<Multiaddr>().expect("an address");
        let listening = [
            address("/ip4/10.0.0.1/tcp/4001"),
            address("/ip4/192.0.2.1/tcp/4001"),
        ];
        let (tcp, other, quic) = (
            address("/ip4/192.0.2.9/tcp/4001"),
            address("/ip4/192.0.2.9/tcp/4002"),
            address("/ip4/192.0.2.9/udp/4003/quic-v1"),
        );
        let begins = |seen: &[Multiaddr], with: &str| {
            let kind = kind(&listening, seen.iter()).expect("it is seen");
            assert!(kind.starts_with(with), "{kind}");
        };
        assert_eq!(kind(&listening, [].iter()), None);
        begins(&listening[1..], "none");
        begins(
            &[tcp.clone(), quic, tcp.clone()],
            "one whose port others can be told",
        );
        begins(&[tcp, other], "one with a port of its own");
    }
}
