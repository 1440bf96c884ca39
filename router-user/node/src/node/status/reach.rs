//! How this node is reached, and why a peer is connected through a relay alone.

use std::time::{Instant, SystemTime};

use crate::config::Config;
use crate::control::{
    AddressOrigin, DirectTry, PeerAddress, PeerPath, PeerState, PeerStatus, ReachStatus, RelayStatus,
    SeenAddress, ServedStatus,
};
use crate::node::peers::ConfiguredPeer;
use stream_router::p2p::{Multiaddr, PeerId, PeerSnapshot, ReachSnapshot};

/// What the configuration says of it.
#[derive(Debug)]
pub(super) struct ReachConfig {
    punch: bool,
    listens: bool,
    /// Whether the node says in the DHT where it is.
    is_in_dht: bool,
    /// What it says there, unless that is where it listens and what routers forward.
    announce: Vec<Multiaddr>,
}

impl ReachConfig {
    pub(super) fn new(config: &Config) -> Self {
        Self {
            punch: config.transport().punch(),
            listens: !config.node().listen().is_empty(),
            is_in_dht: config.discovery().dht(),
            announce: config.discovery().announce().to_vec(),
        }
    }

    pub(super) fn status(
        &self,
        reach: &ReachSnapshot,
        listening: &[Multiaddr],
        mapped: &[Multiaddr],
        name: impl Fn(&PeerId) -> Option<String>,
    ) -> ReachStatus {
        let texts = |all: &[Multiaddr]| all.iter().map(ToString::to_string).collect::<Vec<_>>();
        let relays = reach.relays.iter().map(|one| RelayStatus {
            peer: one.relay.to_string(),
            peer_name: name(&one.relay),
            held: one.is_held,
            last_error: one.last_error.clone(),
        });
        let seen = reach.seen.iter().map(|(relay, address)| SeenAddress {
            address: address.to_string(),
            peer: relay.to_string(),
            peer_name: name(relay),
        });
        ReachStatus {
            relays: relays.collect(),
            seen: seen.collect(),
            told: texts(&reach.told),
            announced: match (self.is_in_dht, &self.announce[..]) {
                (false, _) => Vec::new(),
                (true, []) => texts(&[mapped, listening].concat()),
                (true, said) => texts(said),
            },
            serves: reach.serves.map(|served| ServedStatus {
                reservations: served.n_reservations as u64,
                circuits: served.n_circuits as u64,
                bytes: served.n_bytes,
            }),
        }
    }

    /// Adds to the status of a peer the relays that lead to it, and why there is no direct connection.
    pub(super) fn complete(
        &self,
        mut status: PeerStatus,
        configured: &ConfiguredPeer,
        known: Option<&PeerSnapshot>,
        reach: &ReachSnapshot,
    ) -> PeerStatus {
        let own = configured.peer.id;
        for relay in reach
            .relays
            .iter()
            .map(|one| one.relay)
            .filter(|relay| *relay != own)
        {
            let address = format!("/p2p/{relay}/p2p-circuit");
            if status
                .addresses
                .iter()
                .any(|known| known.address.starts_with(&address))
            {
                continue;
            }
            let failures = known.map_or(&[][..], |known| &known.failed);
            let failed = failures
                .iter()
                .find(|failed| failed.address.to_string().starts_with(&address));
            status.addresses.push(PeerAddress {
                address,
                origin: AddressOrigin::Relay,
                last_dial_error: failed.map(|failed| failed.error.clone()),
                last_dial_error_age_seconds: failed.map(|failed| age(failed.at)),
            });
        }
        if status.state == PeerState::Disconnected {
            status.state = absent(configured, !status.addresses.is_empty());
        }
        if status.path == Some(PeerPath::Relayed) {
            let failed = known.and_then(|known| known.failed_punch.as_ref());
            status.relayed_because = Some(match failed {
                Some(failed) => failed.error.clone(),
                None if !self.punch => "transport.punch is false on this node".to_owned(),
                None if !self.listens => "this node listens nowhere (node.listen is empty)".to_owned(),
                None => "no direct connection has been tried yet, or the first try is under way".to_owned(),
            });
            status.direct_tried_age_seconds = failed.map(|failed| age(failed.at));
            let tried = failed.into_iter().flat_map(|failed| &failed.tried);
            let tried = tried.map(|(address, error)| DirectTry {
                address: address.to_string(),
                error: error.clone(),
            });
            status.direct_tries = tried.collect();
        }
        status
    }
}

/// Returns the state of a peer that is not connected, by whether there is an address to dial it at.
pub(super) fn absent(configured: &ConfiguredPeer, has_address: bool) -> PeerState {
    match has_address {
        true if configured.on_demand && !configured.peer.absence.is_in_demand(Instant::now()) => {
            PeerState::Idle
        }
        true => PeerState::Connecting,
        false => PeerState::Disconnected,
    }
}

/// Returns how many seconds ago something was. A clock that was set back says 0.
pub(super) fn age(at: SystemTime) -> f64 {
    at.elapsed().unwrap_or_default().as_secs_f64()
}

#[cfg(test)]
mod tests {
    use super::super::peer_status;
    use super::super::tests::{configured, connection_at};
    use super::*;
    use stream_router::p2p::{ConnectionDirection, FailedDial, FailedPunch, RelaySnapshot};

    fn config(punch: bool, announce: &[&str]) -> ReachConfig {
        ReachConfig {
            punch,
            listens: true,
            is_in_dht: true,
            announce: announce.iter().map(|text| text.parse().unwrap()).collect(),
        }
    }

    fn through(relay: PeerId) -> ReachSnapshot {
        let mut reach = ReachSnapshot::default();
        reach.relays = vec![RelaySnapshot::new(relay, true, None)];
        reach.seen = vec![(relay, "/ip4/198.51.100.1/tcp/9".parse().unwrap())];
        reach
    }

    #[test]
    fn a_node_says_where_it_is_seen_and_what_it_announces() {
        let (relay, listening) = (PeerId::random(), ["/ip4/192.0.2.1/tcp/4001".parse().unwrap()]);
        let reach = through(relay);
        let mapped = ["/ip4/198.51.100.1/tcp/4001".parse().unwrap()];
        let status = |config: ReachConfig| {
            config.status(&reach, &listening, &mapped, |peer| {
                (*peer == relay).then(|| "oslo".to_owned())
            })
        };

        let shown = status(config(true, &[]));

        assert_eq!(shown.relays[0].peer_name.as_deref(), Some("oslo"));
        assert!(shown.relays[0].held);
        assert_eq!(shown.seen[0].address, "/ip4/198.51.100.1/tcp/9");
        assert_eq!(
            shown.announced,
            ["/ip4/198.51.100.1/tcp/4001", "/ip4/192.0.2.1/tcp/4001"]
        );
        let said = "/ip4/203.0.113.1/tcp/1";
        assert_eq!(status(config(true, &[said])).announced, [said]);
        let silent = ReachConfig {
            is_in_dht: false,
            ..config(true, &[said])
        };
        assert!(status(silent).announced.is_empty());
    }

    #[test]
    fn relays_are_addresses_of_a_peer_that_is_none_of_them() {
        let mut peer = configured(0);
        peer.addresses.clear();
        let (relay, own) = (PeerId::random(), peer.peer.id);
        let mut known = PeerSnapshot::new(own);
        let circuit: Multiaddr = format!("/p2p/{relay}/p2p-circuit").parse().unwrap();
        known.failed = vec![FailedDial::now(circuit.clone(), "no place there".to_owned())];
        let complete = |reach: &ReachSnapshot| {
            let status = peer_status(&peer, Some(&known));
            config(true, &[]).complete(status, &peer, Some(&known), reach)
        };

        let dialled = complete(&through(relay));
        let alone = complete(&through(own));

        let [address] = &dialled.addresses[..] else {
            panic!("{:?}", dialled.addresses)
        };
        assert_eq!(
            (&address.address, address.origin),
            (&circuit.to_string(), AddressOrigin::Relay)
        );
        assert_eq!(address.last_dial_error.as_deref(), Some("no place there"));
        assert_eq!(dialled.state, PeerState::Connecting);
        assert_eq!(
            (alone.addresses, alone.state),
            (Vec::new(), PeerState::Disconnected)
        );
    }

    #[test]
    fn a_relayed_peer_says_why_and_a_direct_one_does_not() {
        let peer = configured(0);
        let circuit = format!("/p2p/{}/p2p-circuit", PeerId::random());
        let mut known = PeerSnapshot::new(peer.peer.id);
        known.connections = vec![connection_at(&circuit, ConnectionDirection::Inbound, 60)];
        let complete = |known: &PeerSnapshot, punch| {
            let status = peer_status(&peer, Some(known));
            config(punch, &[]).complete(status, &peer, Some(known), &ReachSnapshot::default())
        };

        let because = |known: &PeerSnapshot, punch| complete(known, punch).relayed_because.unwrap();
        assert!(because(&known, true).contains("under way"));
        assert!(because(&known, false).contains("transport.punch is false"));
        let tried = ("/ip4/198.51.100.2/tcp/9".parse().unwrap(), "timed out".to_owned());
        known.failed_punch = Some(FailedPunch::now("nobody answered".to_owned(), vec![tried]));
        let relayed = complete(&known, true);
        assert_eq!(relayed.relayed_because.as_deref(), Some("nobody answered"));
        assert_eq!(relayed.direct_tries[0].error, "timed out");
        assert!(relayed.direct_tried_age_seconds.is_some());

        let direct = "/ip4/192.0.2.2/tcp/4001";
        known.connections = vec![connection_at(direct, ConnectionDirection::Inbound, 60)];
        let direct = complete(&known, true);
        assert_eq!((direct.relayed_because, direct.direct_tries), (None, Vec::new()));
    }
}
