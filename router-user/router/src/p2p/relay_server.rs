//! What a node relays for its peers, and the bounds of it.

use std::time::Duration;

use libp2p::{
    Multiaddr, PeerId,
    relay::{Behaviour, Config, Status},
    swarm::{FromSwarm, NetworkBehaviour, behaviour::ExternalAddrConfirmed},
};

use super::config::ServeConfig;

/// How long a circuit may last at most: a VPN's lives long. The peers make another one when it ends.
const CIRCUIT_TIME: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// How long a reservation holds; its owner renews it before it ends.
const RESERVATION_TIME: Duration = Duration::from_secs(60 * 60);

/// Most reservations of one peer: one for each connection that it may have made anew while the old one was not yet found
/// lost.
const MAX_RESERVATIONS_PER_PEER: usize = 4;

/// Most reservations of all peers, of which only configured ones are connected.
const MAX_RESERVATIONS: usize = 4096;

/// Makes the behaviour that relays for connected peers.
pub(super) fn behaviour(local_peer: PeerId, config: &ServeConfig) -> Behaviour {
    let limits = Config {
        max_reservations: MAX_RESERVATIONS,
        // The stock behaviour lets one more pass than it is told, here and for the circuits of a peer.
        max_reservations_per_peer: MAX_RESERVATIONS_PER_PEER - 1,
        reservation_duration: RESERVATION_TIME,
        reservation_rate_limiters: Vec::new(),
        max_circuits: config.max_circuits,
        max_circuits_per_peer: config.max_circuits_per_peer.saturating_sub(1),
        max_circuit_duration: CIRCUIT_TIME,
        // Unlimited.
        max_circuit_bytes: 0,
        circuit_src_rate_limiters: Vec::new(),
    };
    let mut behaviour = Behaviour::new(local_peer, limits);
    // Without it the protocol is only there once somebody has confirmed an address.
    behaviour.set_status(Some(Status::Enable));
    behaviour
}

/// Has reservations say that the relay is at `address`: a stock client takes none that says no address.
pub(super) fn add_address(behaviour: &mut Behaviour, address: &Multiaddr) {
    behaviour.on_swarm_event(FromSwarm::ExternalAddrConfirmed(ExternalAddrConfirmed {
        addr: address,
    }));
}
