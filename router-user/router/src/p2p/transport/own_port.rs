//! Connections from a port that this node listens on, which a NAT so has one address for.

use std::{error::Error, io, net::SocketAddr};

use libp2p::{Multiaddr, TransportError, swarm::DialError};

use super::refusal::causes;

/// No connection can be made from a listening port.
#[derive(Debug, thiserror::Error)]
pub(super) enum NoPort {
    /// Nothing listens that could reach the peer.
    #[error("no listening port leads there")]
    NotListening,
    /// There is such a connection already, or was a moment ago.
    #[error("the listening port is in use for a connection to there")]
    Taken(#[source] io::Error),
}

impl NoPort {
    /// Takes an error of binding or connecting for one of the port, if it is.
    pub(super) fn of(error: io::Error) -> Result<Self, io::Error> {
        match error.kind() {
            io::ErrorKind::AddrInUse | io::ErrorKind::AddrNotAvailable => Ok(Self::Taken(error)),
            _ => Err(error),
        }
    }
}

/// Returns the address that could not be dialled from the listening port, if a dial failed for that alone.
pub(in crate::p2p) fn no_port_for(error: &DialError) -> Option<Multiaddr> {
    let DialError::Transport(attempts) = error else {
        return None;
    };
    match attempts.as_slice() {
        [(address, TransportError::Other(error))] => is_no_port(error).then(|| address.clone()),
        _ => None,
    }
}

/// Says whether a dial failed, at one address at least, as there is a connection from the listening port to it.
pub(in crate::p2p) fn is_port_taken(error: &DialError) -> bool {
    let DialError::Transport(attempts) = error else {
        return false;
    };
    let mut errors = attempts.iter().map(|(_, error)| error);
    errors.any(|error| matches!(error, TransportError::Other(error) if is_no_port(error)))
}

fn is_no_port(error: &(dyn Error + 'static)) -> bool {
    causes(error).any(|cause| cause.is::<NoPort>())
}

/// Says whether a socket that listens `at` an address could reach another.
pub(super) fn leads_to(at: SocketAddr, to: SocketAddr) -> bool {
    at.is_ipv4() == to.is_ipv4()
        && (at.ip().is_unspecified() || at.ip().is_loopback() == to.ip().is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::p2p::transport::{
        segments::SegmentBook,
        tcp_sockets::{Origin, TcpSockets},
        test_network::in_own_network,
    };

    #[test]
    fn connections_are_made_from_a_port_that_nobody_else_can_listen_at() {
        in_own_network(|| {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .expect("runtime");
            runtime.block_on(async {
                let sockets = TcpSockets::default();
                let any = SocketAddr::from(([127, 0, 0, 1], 0));
                let (own, other) = (sockets.listen(any), sockets.listen(any));
                let (own, other) = (own.expect("listens"), other.expect("listens"));
                let at = own.local_addr().expect("it is bound");
                let to = other.local_addr().expect("it is bound");
                let now = tokio::time::Instant::now();
                let size = SegmentBook::default().plan(to.ip(), now).size;

                let _first = sockets
                    .connect(to, size, &Origin::Port(at))
                    .await
                    .expect("connects");

                let (_accepted, from) = other.accept().await.expect("it is connected");
                assert_eq!(from, at);
                let second = sockets
                    .connect(to, size, &Origin::Port(at))
                    .await
                    .expect_err("there is one");
                assert!(matches!(NoPort::of(second), Ok(NoPort::Taken(_))));
                let taken = sockets.listen(at).expect_err("somebody listens there");
                assert_eq!(taken.kind(), io::ErrorKind::AddrInUse);
            });
        });
    }

    #[test]
    fn a_listening_socket_leads_to_addresses_of_its_own_kind() {
        let at = |text: &str| text.parse::<SocketAddr>().expect("an address");
        for (listening, to, leads) in [
            ("0.0.0.0:1", "192.0.2.1:1", true),
            ("192.0.2.2:1", "192.0.2.1:1", true),
            ("0.0.0.0:1", "127.0.0.1:1", true),
            ("127.0.0.1:1", "127.0.0.2:1", true),
            ("127.0.0.1:1", "192.0.2.1:1", false),
            ("192.0.2.2:1", "127.0.0.1:1", false),
            ("[::]:1", "192.0.2.1:1", false),
            ("[::]:1", "[2001:db8::1]:1", true),
        ] {
            assert_eq!(leads_to(at(listening), at(to)), leads, "{listening} to {to}");
        }
    }
}
