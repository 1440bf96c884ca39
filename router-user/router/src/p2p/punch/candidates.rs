//! Where this node is seen from outside, and which of a peer's addresses are dialled.

use std::{
    net::IpAddr,
    sync::{Mutex, MutexGuard, PoisonError},
};

use libp2p::{Multiaddr, PeerId, swarm::ConnectionId};

use crate::p2p::address::{TransportKind, ip_of, reachable, transport_kind};

/// Most addresses that are told to a peer, and most of a peer's that are dialled at a time.
const MAX_CANDIDATES: usize = 8;

/// Most of them that are at one host: what two relays see over two transports. Its other ports are not to be tried.
const MAX_PER_HOST: usize = 4;

/// Most connections whose peers are believed where this node is: those to its relays.
const MAX_OBSERVED: usize = 8;

/// The addresses at which this node is seen from outside.
#[derive(Debug, Default)]
pub(in crate::p2p) struct Candidates(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    /// What relays say, each of a connection from the listening port.
    observed: Vec<(ConnectionId, Multiaddr)>,
    /// Those whose port a router forwards to this node.
    mapped: Vec<Multiaddr>,
    /// Those of the host that are nobody's private ones.
    listening: Vec<Multiaddr>,
    own: Vec<Multiaddr>,
}

impl Candidates {
    /// Records where a relay sees this node, on a connection from the listening port. Returns whether that is news.
    pub(in crate::p2p) fn handle_observed(&self, connection: ConnectionId, address: &Multiaddr) -> bool {
        let Some((plain, _)) = reachable(address, None) else {
            return false;
        };
        self.change(|known| {
            known.observed.retain(|(other, _)| *other != connection);
            if known.observed.len() < MAX_OBSERVED {
                known.observed.push((connection, plain));
            }
        })
    }

    /// Records that a connection has ended, and with it what a NAT may have kept for it. Returns whether that is news.
    pub(in crate::p2p) fn handle_closed(&self, connection: ConnectionId) -> bool {
        self.change(|known| known.observed.retain(|(other, _)| *other != connection))
    }

    /// Records where this node listens. Returns whether that is news.
    pub(in crate::p2p) fn set_listening(
        &self,
        listening: &[Multiaddr],
        is_inner: impl Fn(IpAddr) -> bool,
    ) -> bool {
        let outside = listening.iter().filter_map(|address| {
            let (plain, ip) = reachable(address, None)?;
            (!is_private(ip) && !is_inner(ip)).then_some(plain)
        });
        let outside = outside.collect();
        self.change(|known| known.listening = outside)
    }

    /// Records at which addresses a router forwards to this node. Returns whether that is news.
    pub(in crate::p2p) fn set_mapped(&self, mapped: Vec<Multiaddr>) -> bool {
        self.change(|known| known.mapped = mapped)
    }

    /// Returns what relays say, each with the connection on which it does.
    pub(in crate::p2p) fn observed(&self) -> Vec<(ConnectionId, Multiaddr)> {
        self.known().observed.clone()
    }

    /// Returns where this node is seen, the best first.
    pub(in crate::p2p) fn own(&self) -> Vec<Multiaddr> {
        self.known().own.clone()
    }

    fn change(&self, change: impl FnOnce(&mut Known)) -> bool {
        let mut known = self.known();
        change(&mut known);
        let mut own: Vec<Multiaddr> = Vec::new();
        let observed = known.observed.iter().map(|(_, address)| address);
        // A forwarded port lets in who was not asked for, too.
        for address in known.mapped.iter().chain(observed).chain(&known.listening) {
            if own.len() < MAX_CANDIDATES && !own.contains(address) {
                own.push(address.clone());
            }
        }
        let is_news = known.own != own;
        known.own = own;
        is_news
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Returns those of a peer's addresses that are dialled, at most [`MAX_CANDIDATES`], and how many are not. A peer could have
/// this node knock at doors of others: hosts inside the tunnel or of a private network are none of its business, unless this
/// node is seen in a private one itself, `own` being where it is seen. What both speak is all that can lead anywhere.
pub(in crate::p2p) fn usable(
    addresses: &[Multiaddr],
    peer: PeerId,
    own: &[Multiaddr],
    is_inner: impl Fn(IpAddr) -> bool,
) -> (Vec<Multiaddr>, usize) {
    let seen_private = own.iter().filter_map(ip_of).any(is_private);
    let way = |address: &Multiaddr| -> Option<(TransportKind, bool)> {
        Some((transport_kind(address), ip_of(address)?.is_ipv4()))
    };
    let mut usable: Vec<Multiaddr> = Vec::new();
    for address in addresses {
        let Some((plain, ip)) = reachable(address, Some(peer)) else {
            continue;
        };
        let is_near = is_private(ip) && !seen_private || is_inner(ip);
        let is_of_both = own.iter().any(|own| way(own) == way(&plain));
        let at_host = usable.iter().filter(|known| ip_of(known) == Some(ip)).count();
        let has_room = usable.len() < MAX_CANDIDATES && at_host < MAX_PER_HOST;
        if !is_near && is_of_both && has_room && !usable.contains(&plain) && !own.contains(&plain) {
            usable.push(plain);
        }
    }
    let n_refused = addresses.len() - usable.len();
    (usable, n_refused)
}

/// Says whether an address is one of a private network, behind a NAT of a provider too.
fn is_private(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(v4) => {
            let [first, second, ..] = v4.octets();
            v4.is_private() || first == 100 && second & 0xc0 == 64
        }
        IpAddr::V6(v6) => v6.is_unique_local(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> Multiaddr {
        text.parse().expect("an address")
    }

    fn addresses(texts: &[&str]) -> Vec<Multiaddr> {
        texts.iter().map(|text| address(text)).collect()
    }

    fn id(n: usize) -> ConnectionId {
        ConnectionId::new_unchecked(n)
    }

    #[test]
    fn what_relays_see_is_told_while_their_connections_stand_and_a_few_at_most() {
        let candidates = Candidates::default();
        let quic = address("/ip4/192.0.2.1/udp/4001/quic-v1");
        assert!(candidates.handle_observed(id(1), &quic));
        assert!(!candidates.handle_observed(id(1), &quic), "it is known");
        assert!(
            !candidates.handle_observed(id(2), &quic),
            "another relay says the same"
        );
        assert!(!candidates.handle_observed(id(3), &address("/ip4/127.0.0.1/tcp/4001")));
        assert_eq!(candidates.own(), std::slice::from_ref(&quic));
        assert_eq!(
            candidates.observed(),
            [(id(1), quic.clone()), (id(2), quic.clone())]
        );

        let listening = addresses(&[
            "/ip4/10.0.0.1/tcp/4001",
            "/ip4/100.64.0.1/tcp/4001",
            "/ip6/fd00::1/tcp/4001",
            "/ip6/2001:db8::1/tcp/4001",
            "/ip6/2001:db8:42::1/tcp/4001",
        ]);
        let is_inner = |ip: IpAddr| ip == "2001:db8:42::1".parse::<IpAddr>().expect("an address");
        assert!(candidates.set_listening(&listening, is_inner));
        assert_eq!(candidates.own(), [quic.clone(), listening[3].clone()]);

        assert!(!candidates.handle_closed(id(1)), "the other relay still says it");
        assert!(candidates.handle_closed(id(2)));
        assert_eq!(candidates.own(), [listening[3].clone()]);
        assert_eq!(candidates.observed(), []);

        for n in 0..30 {
            candidates.handle_observed(id(n), &address(&format!("/ip4/192.0.2.{n}/tcp/4001")));
        }
        assert_eq!(candidates.own().len(), MAX_CANDIDATES);
    }

    #[test]
    fn a_forwarded_port_is_told_before_what_relays_see() {
        let candidates = Candidates::default();
        let (seen, mapped) = (
            address("/ip4/192.0.2.1/tcp/40001"),
            address("/ip4/192.0.2.1/tcp/4001"),
        );
        candidates.handle_observed(id(1), &seen);
        candidates.handle_observed(id(2), &seen);

        assert!(candidates.set_mapped(vec![mapped.clone()]));
        assert!(!candidates.set_mapped(vec![mapped.clone()]), "it is known");
        assert_eq!(candidates.own(), [mapped, seen.clone()]);
        assert_eq!(
            candidates.observed(),
            [(id(1), seen.clone()), (id(2), seen.clone())]
        );

        assert!(candidates.set_mapped(Vec::new()));
        assert_eq!(candidates.own(), [seen]);
    }

    #[test]
    fn a_hostile_peer_has_nobody_dialled_but_a_few_hosts_outside() {
        let peer = PeerId::random();
        let own = addresses(&["/ip4/192.0.2.1/tcp/4001", "/ip4/192.0.2.1/udp/4001/quic-v1"]);
        let is_inner = |ip: IpAddr| ip == "203.0.113.1".parse::<IpAddr>().expect("an address");
        let refused = addresses(&[
            "/ip4/127.0.0.1/tcp/22",
            "/ip4/0.0.0.0/tcp/22",
            "/ip4/169.254.169.254/tcp/80",
            "/ip4/255.255.255.255/udp/9/quic-v1",
            "/ip4/224.0.0.1/udp/9/quic-v1",
            "/ip4/10.0.0.1/tcp/22",
            "/ip4/192.168.1.1/tcp/80",
            "/ip4/100.64.0.1/tcp/80",
            "/ip4/203.0.113.1/tcp/80",
            "/ip4/198.51.100.1/tcp/0",
            "/ip4/198.51.100.1/udp/53",
            "/ip6/::1/tcp/22",
            "/ip6/2001:db8::1/tcp/22",
            "/dns4/example.org/tcp/4001",
            "/ip4/192.0.2.1/tcp/4001",
        ]);
        let relayed = format!("/p2p/{}/p2p-circuit", PeerId::random());
        let other = format!("/ip4/198.51.100.1/tcp/4001/p2p/{}", PeerId::random());
        let all = [refused, addresses(&[&relayed, &other])].concat();
        assert_eq!(usable(&all, peer, &own, is_inner), (Vec::new(), all.len()));

        let good = address("/ip4/198.51.100.1/tcp/4001");
        let named = good.clone().with(libp2p::multiaddr::Protocol::P2p(peer));
        let twice = [named, good.clone()];
        assert_eq!(usable(&twice, peer, &own, is_inner), (vec![good.clone()], 1));
        assert_eq!(
            usable(&twice, peer, &own[1..], is_inner).0,
            [],
            "this node has no way by TCP"
        );

        let ports: Vec<_> = (1..16)
            .map(|port| address(&format!("/ip4/198.51.100.1/tcp/{port}")))
            .collect();
        assert_eq!(usable(&ports, peer, &own, is_inner).0, ports[..MAX_PER_HOST]);
        let hosts: Vec<_> = (1..16)
            .map(|host| address(&format!("/ip4/198.51.100.{host}/tcp/4001")))
            .collect();
        assert_eq!(usable(&hosts, peer, &own, is_inner).0, hosts[..MAX_CANDIDATES]);
    }

    #[test]
    fn a_private_address_is_dialled_from_a_private_network_alone() {
        let peer = PeerId::random();
        let theirs = addresses(&["/ip4/10.0.0.2/tcp/4001"]);
        let seen = |own: &str| usable(&theirs, peer, &addresses(&[own]), |_| false).0;

        assert_eq!(seen("/ip4/10.0.0.1/tcp/4001"), theirs);
        assert_eq!(seen("/ip4/192.0.2.1/tcp/4001"), []);
    }
}
