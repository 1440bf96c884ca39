//! The text of a dial error.

use std::{fmt, io};

use libp2p::multiaddr::Protocol;
use libp2p::swarm::DialError;
use libp2p::{Multiaddr, PeerId, TransportError};

use super::address::plain;
use super::circuit::Circuit;
use super::names::NameError;
use super::transport::is_refusal;
use stream_router_engine::causes::with_sources;

/// What an operator has to do when the other side refuses this node.
const REFUSED: &str = "the other side does not know this node: run `stream-router join` there with this node's invitation, \
                       or add this node to its [[peer]] sections";

/// Why a peer was not reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct DialFailure {
    /// The reason, for an operator.
    pub(super) text: String,
    /// Whether the peer refused this node as one that it does not know.
    pub(super) refuses: bool,
    /// The address that was dialled, without the peer's id, if the failure says it.
    pub(super) address: Option<Multiaddr>,
}

impl DialFailure {
    /// Makes the failure of a dial.
    pub(super) fn of_dial(error: &DialError) -> Self {
        let failure = Self::new(dial_error_text(error), is_refusal(error));
        Self {
            address: dialled_address(error),
            ..failure
        }
    }

    /// Makes the failure of a lookup.
    pub(super) fn of_lookup(error: &NameError) -> Self {
        Self::new(error.to_string(), false)
    }

    /// Makes the failure of a connection that ended, for this reason, before the peer had shown that it took it in.
    pub(super) fn unproven(reason: impl fmt::Display, refuses: bool) -> Self {
        let text = format!(
            "the connection ended before the other side took it in ({reason}); it may not know this node: check that \
             `stream-router peers` there names it"
        );
        Self::new(text, refuses)
    }

    /// Makes the failure of a dial through a relay that is not connected.
    pub(super) fn relay_absent(relay: PeerId) -> Self {
        Self {
            address: Some(Circuit::listen_address(relay)),
            ..Self::new(
                format!("relay {relay}, which leads to it, is not connected"),
                false,
            )
        }
    }

    fn new(text: String, refuses: bool) -> Self {
        let text = if refuses { REFUSED.to_owned() } else { text };
        Self {
            text,
            refuses,
            address: None,
        }
    }
}

fn dialled_address(error: &DialError) -> Option<Multiaddr> {
    let address = match error {
        DialError::WrongPeerId { address, .. } => address,
        DialError::Transport(attempts) => &attempts.first()?.0,
        _ => return None,
    };
    Some(without_peer(address.clone()))
}

/// Says why dialling one address failed, for an operator.
pub(super) fn dial_error_text(error: &DialError) -> String {
    match error {
        DialError::WrongPeerId { obtained, address } => {
            format!(
                "another peer, {obtained}, answers at {}; correct its id or address",
                plain(address)
            )
        }
        DialError::Transport(attempts) => {
            let text = attempts.iter().map(|(address, error)| match error {
                TransportError::MultiaddrNotSupported(_) => format!("{address}: {}", attempt_text(error)),
                TransportError::Other(_) => format!("{}: {}", plain(address), attempt_text(error)),
            });
            text.collect::<Vec<_>>().join("; ")
        }
        DialError::NoAddresses => "its address is one of this node".to_owned(),
        error => with_sources(error),
    }
}

/// Says why dialling failed at each address.
pub(super) fn dial_errors(error: &DialError) -> Vec<(Multiaddr, String)> {
    let DialError::Transport(attempts) = error else {
        return Vec::new();
    };
    let attempts = attempts.iter();
    attempts
        .map(|(address, error)| (without_peer(address.clone()), attempt_text(error)))
        .collect()
}

fn attempt_text(error: &TransportError<io::Error>) -> String {
    match error {
        TransportError::MultiaddrNotSupported(_) => "no address over TCP or QUIC".to_owned(),
        TransportError::Other(error) => with_sources(error),
    }
}

fn without_peer(mut address: Multiaddr) -> Multiaddr {
    if let Some(Protocol::P2p(_)) = address.iter().last() {
        address.pop();
    }
    address
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_said_once_and_as_people_write_it() {
        let address = |text: &str| text.parse::<Multiaddr>().unwrap();
        let refused = || TransportError::Other(io::ErrorKind::ConnectionRefused.into());
        let id = PeerId::random();
        let odd = address("/ip4/192.0.2.2/sctp/1");
        for (error, expected) in [
            (
                DialError::Transport(vec![
                    (address("/ip4/192.0.2.2/tcp/4001"), refused()),
                    (address("/ip6/2001:db8::2/udp/4001/quic-v1"), refused()),
                ]),
                "192.0.2.2:4001 over tcp: connection refused; [2001:db8::2]:4001 over quic: connection refused"
                    .to_owned(),
            ),
            (
                DialError::Transport(vec![(odd.clone(), TransportError::MultiaddrNotSupported(odd.clone()))]),
                "/ip4/192.0.2.2/sctp/1: no address over TCP or QUIC".to_owned(),
            ),
            (
                DialError::WrongPeerId {
                    obtained: id,
                    address: address(&format!("/ip4/192.0.2.2/tcp/4001/p2p/{id}")),
                },
                format!("another peer, {id}, answers at 192.0.2.2:4001 over tcp; correct its id or address"),
            ),
        ] {
            let at = dial_errors(&error);
            let n_tried = matches!(&error, DialError::Transport(_)).then(|| expected.split("; ").count());
            assert_eq!(at.len(), n_tried.unwrap_or(0));
            for (address, why) in at {
                assert!(!address.to_string().contains("/p2p/") && expected.contains(&why), "{why}");
            }
            let failure = DialFailure::of_dial(&error);
            assert_eq!(failure.text, expected);
            let dialled = failure.address.unwrap();
            assert!(dialled == odd || dialled == address("/ip4/192.0.2.2/tcp/4001"), "{dialled}");
        }
    }
}
