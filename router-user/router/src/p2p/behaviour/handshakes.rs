//! The inbound connections in their handshake, and how many of them there may be.

use std::{collections::HashMap, net::IpAddr};

use libp2p::{Multiaddr, multiaddr::Protocol, swarm::ConnectionId};

/// Most inbound connections that may be in their handshake at a time.
const MAX_HANDSHAKES: usize = 128;

/// Most inbound connections in their handshake from one IP address, so that one host cannot take them all.
const MAX_HANDSHAKES_PER_ADDRESS: usize = 16;

/// The inbound connections in their handshake, with the IP addresses that they come from.
#[derive(Debug, Default)]
pub(super) struct Handshakes(HashMap<ConnectionId, Option<IpAddr>>);

impl Handshakes {
    /// Begins a handshake with `remote`, unless there are too many already. Says whether it has.
    pub(super) fn begin(&mut self, connection: ConnectionId, remote: &Multiaddr) -> bool {
        let ip = remote.iter().find_map(|protocol| match protocol {
            Protocol::Ip4(ip) => Some(IpAddr::V4(ip)),
            Protocol::Ip6(ip) => Some(IpAddr::V6(ip)),
            _ => None,
        });
        let n_of_address = self.0.values().filter(|other| **other == ip).count();
        let has_room = self.0.len() < MAX_HANDSHAKES && n_of_address < MAX_HANDSHAKES_PER_ADDRESS;
        if has_room {
            self.0.insert(connection, ip);
        }
        has_room
    }

    /// Ends a handshake, in success or failure.
    pub(super) fn end(&mut self, connection: ConnectionId) {
        self.0.remove(&connection);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(host: usize, port: usize) -> Multiaddr {
        let text = format!("/ip4/192.0.2.{host}/tcp/{port}");
        text.parse().expect("an address")
    }

    #[test]
    fn one_host_cannot_take_all_handshakes() {
        let mut handshakes = Handshakes::default();
        let n_begun = (0..100)
            .filter(|n| handshakes.begin(ConnectionId::new_unchecked(*n), &address(1, 1000 + n)))
            .count();

        assert_eq!(n_begun, MAX_HANDSHAKES_PER_ADDRESS);
        assert!(handshakes.begin(ConnectionId::new_unchecked(100), &address(2, 1)));
    }

    #[test]
    fn all_hosts_together_are_bounded_and_an_end_makes_room() {
        let mut handshakes = Handshakes::default();
        let n_begun = (0..200)
            .filter(|n| handshakes.begin(ConnectionId::new_unchecked(*n), &address(*n, 1)))
            .count();
        assert_eq!(n_begun, MAX_HANDSHAKES);

        handshakes.end(ConnectionId::new_unchecked(0));

        assert!(handshakes.begin(ConnectionId::new_unchecked(200), &address(200, 1)));
        assert!(!handshakes.begin(ConnectionId::new_unchecked(201), &address(201, 1)));
    }
}
