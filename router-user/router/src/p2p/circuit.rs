//! Addresses of peers that are reached through a relay.

use libp2p::{Multiaddr, PeerId, multiaddr::Protocol};

use super::address::{AddressError, check_peer_address};

/// The parts of an address that leads through a relay.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Circuit {
    pub(super) relay: PeerId,
    /// Where the relay is, if the address says it.
    pub(super) relay_at: Option<Multiaddr>,
    /// The peer at the other end, if the address says it.
    pub(super) peer: Option<PeerId>,
}

impl Circuit {
    /// Reads an address, which may begin with one of the relay: `[ADDRESS]/p2p/RELAY/p2p-circuit[/p2p/PEER]`. Returns
    /// `None` if it is another one.
    pub(super) fn of(address: &Multiaddr) -> Option<Self> {
        let mut parts = address.iter();
        let (mut relay_at, mut relay) = (Multiaddr::empty(), None);
        for part in parts.by_ref() {
            match part {
                Protocol::P2pCircuit => break,
                Protocol::P2p(id) if relay.is_none() => relay = Some(id),
                part if relay.is_none() => relay_at.push(part),
                _ => return None,
            }
        }
        let is_circuit = address.iter().any(|part| part == Protocol::P2pCircuit);
        let peer = match (parts.next(), parts.next()) {
            (None, _) => None,
            (Some(Protocol::P2p(peer)), None) => Some(peer),
            _ => return None,
        };
        Some(Self {
            relay: relay.filter(|_| is_circuit)?,
            relay_at: (!relay_at.is_empty()).then_some(relay_at),
            peer,
        })
    }

    /// Checks that the parts of `address` fit each other and the peer.
    pub(super) fn check(&self, address: &Multiaddr, expected: PeerId) -> Result<(), AddressError> {
        let named = self.peer.unwrap_or(expected);
        if named != expected || self.relay == expected {
            return Err(AddressError::OtherPeer {
                address: address.clone(),
                named: Box::new(if self.relay == expected { self.relay } else { named }),
                expected: Box::new(expected),
            });
        }
        match &self.relay_at {
            Some(at) => check_peer_address(at, self.relay),
            None => Ok(()),
        }
    }

    /// Returns the address of a peer through a relay, as this node dials and shows it.
    pub(super) fn address(relay: PeerId, peer: PeerId) -> Multiaddr {
        Self::listen_address(relay).with(Protocol::P2p(peer))
    }

    /// Returns the address at which this node is reached through a relay, without its own id.
    pub(super) fn listen_address(relay: PeerId) -> Multiaddr {
        Multiaddr::from(Protocol::P2p(relay)).with(Protocol::P2pCircuit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_through_a_relay_names_it_and_may_say_where_it_is_and_whom_it_leads_to() {
        let (relay, peer) = (PeerId::random(), PeerId::random());
        let address = |text: String| text.parse::<Multiaddr>().expect("an address");
        let circuit = |relay_at: Option<&str>, peer| {
            Some(Circuit {
                relay,
                relay_at: relay_at.map(|at| address(at.to_owned())),
                peer,
            })
        };
        let at = "/ip4/192.0.2.1/tcp/4001";
        for (text, expected) in [
            (format!("/p2p/{relay}/p2p-circuit"), circuit(None, None)),
            (
                format!("/p2p/{relay}/p2p-circuit/p2p/{peer}"),
                circuit(None, Some(peer)),
            ),
            (format!("{at}/p2p/{relay}/p2p-circuit"), circuit(Some(at), None)),
            (
                format!("{at}/p2p/{relay}/p2p-circuit/p2p/{peer}"),
                circuit(Some(at), Some(peer)),
            ),
            (format!("{at}/p2p/{relay}"), None),
            (format!("{at}/p2p-circuit"), None),
            (format!("/p2p/{relay}/p2p-circuit/p2p-circuit"), None),
            (format!("/p2p/{relay}/p2p-circuit{at}"), None),
            (format!("/p2p/{relay}{at}/p2p-circuit"), None),
        ] {
            assert_eq!(Circuit::of(&address(text.clone())), expected, "{text}");
        }
        assert_eq!(
            Circuit::of(&Circuit::address(relay, peer)),
            circuit(None, Some(peer))
        );
    }

    #[test]
    fn an_address_through_a_relay_is_checked_part_by_part() {
        let (relay, peer) = (PeerId::random(), PeerId::random());
        let check = |text: String| check_peer_address(&text.parse().expect("an address"), peer);

        assert_eq!(
            check(format!("/dns/a.example/tcp/1/p2p/{relay}/p2p-circuit/p2p/{peer}")),
            Ok(())
        );
        for text in [
            format!("/p2p/{relay}/p2p-circuit/p2p/{relay}"),
            format!("/p2p/{peer}/p2p-circuit"),
        ] {
            assert!(matches!(check(text), Err(AddressError::OtherPeer { .. })));
        }
        let sctp = check(format!("/ip4/192.0.2.1/sctp/1/p2p/{relay}/p2p-circuit"));
        assert!(matches!(sctp, Err(AddressError::Unsupported { .. })));
    }
}
