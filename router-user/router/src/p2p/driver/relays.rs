//! Relays: the places that this node holds at them, and what it relays itself.

use std::sync::atomic::Ordering::Relaxed;

use libp2p::{
    Multiaddr, PeerId,
    core::transport::{ListenerId, PortUse},
    relay::{self, StatusCode},
};
use tokio::time::Instant;

use super::Driver;
use crate::p2p::{address::begins_with_tls, circuit::Circuit, config::RelayRates, dial_error::DialFailure};

impl Driver {
    /// Asks connected relays for places that are due.
    pub(super) fn reserve(&mut self, now: Instant) {
        let is_connected = |relay| self.state.is_directly_connected(relay);
        for relay in self.reservations.poll_requests(is_connected, now) {
            match self.swarm.listen_on(Circuit::listen_address(relay)) {
                Ok(listener) => self.reservations.handle_request(relay, listener),
                Err(error) => tracing::error!(%relay, %error, "cannot ask a relay"),
            }
        }
    }

    /// Takes other relays for those of this node. Nobody is let in any more through one that goes, which forgets the place once it
    /// is not renewed; circuits that stand through it stay until there is another way.
    pub(super) fn set_relays(&mut self, via: &[PeerId], now: Instant) {
        let before = self.reservations.relays();
        for listener in self.reservations.set_relays(via, now) {
            self.swarm.remove_listener(listener);
        }
        for relay in before.iter().filter(|relay| !via.contains(relay)) {
            for connection in self.connections.of_peer(*relay) {
                self.handle_unseen(connection, now);
            }
        }
        for relay in via.iter().filter(|relay| !before.contains(relay)) {
            tracing::info!(%relay, "another relay is to reach this node");
            self.show_port(*relay, now);
        }
        self.show_reach();
    }

    /// Dials a relay once more that is connected already, and does not see the listening port.
    fn show_port(&mut self, relay: PeerId, now: Instant) {
        if !self.punches.shows_port {
            return;
        }
        if let Some((uplink, address)) = self.state.dialled_from_elsewhere(relay)
            && !begins_with_tls(&address)
        {
            self.dial_beside((relay, uplink), &address, PortUse::Reuse, now);
        }
    }

    /// Says why a peer cannot be dialled at an address through a relay now; `None` if it can, or the address is another one.
    pub(super) fn relay_trouble(&self, address: &Multiaddr) -> Option<DialFailure> {
        let Circuit { relay, .. } = Circuit::of(address)?;
        let is_there = self.state.is_directly_connected(relay);
        (!is_there).then(|| DialFailure::relay_absent(relay))
    }

    pub(super) fn handle_circuits(&mut self, event: relay::client::Event, now: Instant) {
        match event {
            relay::client::Event::ReservationReqAccepted {
                relay_peer_id: relay, ..
            } => {
                if self.reservations.handle_accepted(relay) {
                    self.show_reach();
                    tracing::info!(%relay, "peers reach this node through a relay");
                    self.redials.handle_relay(now);
                }
            }
            event => tracing::debug!(?event, "a circuit"),
        }
    }

    /// Takes in that a listener has closed. Returns whether it was a place at a relay.
    pub(super) fn handle_place_lost(
        &mut self,
        listener: ListenerId,
        error: Option<String>,
        now: Instant,
    ) -> bool {
        if self.reservations.handle_given_up(listener) {
            self.show_listening();
            return true;
        }
        let error = error.unwrap_or_else(|| "the connection to it has ended".to_owned());
        let Some((relay, was_held)) = self.reservations.handle_closed(listener, &error, now) else {
            return false;
        };
        match was_held {
            true => {
                tracing::info!(%relay, error, "peers do not reach this node through a relay any more; trying again")
            }
            false => tracing::warn!(%relay, error, "a relay gives this node no place; trying again"),
        }
        self.show_listening();
        self.show_reach();
        true
    }

    /// Has the reservations at this node say where it listens.
    pub(super) fn show_relay_addresses(&mut self) {
        let listening: Vec<_> = self.swarm.listeners().cloned().collect();
        if let Some(relay) = self.swarm.behaviour_mut().relay.as_mut() {
            relay.set_addresses(
                listening
                    .into_iter()
                    .filter(|address| Circuit::of(address).is_none()),
            );
        }
    }

    /// Has what this node relays keep other rates.
    pub(super) fn set_relay_rates(&mut self, rates: RelayRates) {
        if let Some(relay) = self.swarm.behaviour_mut().relay.as_mut() {
            relay.set_rates(rates);
        }
    }

    pub(super) fn handle_relay(&mut self, event: &relay::Event) {
        let counters = &self.state.counters;
        match event {
            relay::Event::ReservationReqAccepted {
                src_peer_id: peer,
                renewed: false,
            } => {
                counters.reservations_given.fetch_add(1, Relaxed);
                tracing::info!(%peer, "a peer is reached through this node");
            }
            relay::Event::ReservationReqDenied {
                src_peer_id: peer,
                status,
            } => {
                counters.reservations_refused.fetch_add(1, Relaxed);
                tracing::warn!(%peer, ?status, "refused a peer to be reached through this node");
            }
            relay::Event::CircuitReqAccepted {
                src_peer_id,
                dst_peer_id,
            } => {
                counters.circuits_relayed.fetch_add(1, Relaxed);
                tracing::info!(peer = %src_peer_id, to = %dst_peer_id, "relaying a circuit");
            }
            relay::Event::CircuitReqDenied {
                src_peer_id,
                dst_peer_id,
                status,
            } => {
                self.handle_circuit_refused(*src_peer_id, *dst_peer_id, status);
            }
            event => tracing::debug!(?event, "relaying"),
        }
    }

    /// Counts a circuit that was refused. That its other end is not there is no trouble of the relay.
    fn handle_circuit_refused(&self, peer: PeerId, to: PeerId, status: &StatusCode) {
        let counters = &self.state.counters;
        match status {
            StatusCode::ResourceLimitExceeded => {
                counters.circuits_refused.fetch_add(1, Relaxed);
                tracing::warn!(%peer, %to, "refused a circuit: there are as many as `relay` allows");
            }
            status => {
                counters.circuits_without_end.fetch_add(1, Relaxed);
                tracing::debug!(%peer, %to, ?status, "refused a circuit");
            }
        }
    }
}
