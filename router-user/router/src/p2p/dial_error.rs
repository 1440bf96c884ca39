//! The text of a dial error.

use std::fmt;

use libp2p::TransportError;
use libp2p::swarm::DialError;

use super::address::plain;
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
}

impl DialFailure {
    /// Makes the failure of a dial.
    pub(super) fn of_dial(error: &DialError) -> Self {
        Self::new(dial_error_text(error), is_refusal(error))
    }

    /// Makes the failure of a connection that ended, for this reason, before the peer had shown that it took it in.
    pub(super) fn unproven(reason: impl fmt::Display, refuses: bool) -> Self {
        let text = format!(
            "the connection ended before the other side took it in ({reason}); it may not know this node: check that \
             `stream-router peers` there names it"
        );
        Self::new(text, refuses)
    }

    fn new(text: String, refuses: bool) -> Self {
        let text = if refuses { REFUSED.to_owned() } else { text };
        Self { text, refuses }
    }
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
                TransportError::MultiaddrNotSupported(_) => {
                    format!("{address}: no address over TCP or QUIC")
                }
                TransportError::Other(error) => format!("{}: {}", plain(address), with_sources(error)),
            });
            text.collect::<Vec<_>>().join("; ")
        }
        DialError::NoAddresses => "its address is one of this node".to_owned(),
        error => with_sources(error),
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use libp2p::{Multiaddr, PeerId};

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
                DialError::Transport(vec![(odd.clone(), TransportError::MultiaddrNotSupported(odd))]),
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
            assert_eq!(DialFailure::of_dial(&error).text, expected);
        }
    }
}
