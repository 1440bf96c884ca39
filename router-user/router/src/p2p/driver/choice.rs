//! Which connections of peers stay: idle ones are closed, spare and worse ones left, and better addresses dialled.

use std::{sync::atomic::Ordering::Relaxed, time::Duration};

use libp2p::{Multiaddr, PeerId, swarm::ConnectionId};
use tokio::time::Instant;

use super::Driver;
use crate::p2p::{dial_error::dial_error_text, node_behaviour::dial_options, spare_connections::spare};

/// The time without use after which a connection to a peer on demand is closed.
const IDLE_TIME: Duration = Duration::from_secs(5 * 60);

/// The time without use after which a connection is closed that the peer does not know is to be left.
const SPARE_IDLE_TIME: Duration = Duration::from_secs(60);

/// Time between two attempts at a better address of a connected peer, up to a tenth more or less.
pub(super) const BETTER_INTERVAL: Duration = Duration::from_secs(30);

impl Driver {
    /// Closes the connections to peers on demand that this node has dialled and that nothing was sent on for long.
    pub(super) fn close_idle(&mut self, now: Instant) {
        if self.idle_watch.poll_due(1).is_some_and(|due| due > now) {
            return;
        }
        let looked = self.idle_watch.look(self.state.uses().into_iter(), now);
        self.settle(&looked, now);
        for (connection, idle) in looked {
            let Some(peer) = self.state.dialled_peer(connection) else {
                continue;
            };
            if idle >= IDLE_TIME && self.redials.is_on_demand(peer) {
                self.handle_down(connection, "nothing was sent on it for long".to_owned(), now);
                if !self.connections.is_present(peer) {
                    self.redials.handle_rest(peer, now);
                }
                self.swarm.close_connection(connection);
            }
        }
    }

    /// Leaves connections that are not needed or at a worse address than another, and closes those that are left.
    pub(super) fn settle(&mut self, idle: &[(ConnectionId, Duration)], now: Instant) {
        let local_peer = self.state.local_peer;
        let redials = &self.redials;
        let standing = self.state.standing(|peer, address| redials.rank(peer, address));
        for (peer, n_wanted, standing) in standing {
            for connection in spare(&standing, n_wanted, local_peer < peer) {
                if self.state.set_leaving(connection) {
                    tracing::debug!(%peer, %connection, "a connection is to be left");
                    self.swarm.behaviour_mut().departure.leave(peer, connection);
                }
            }
        }
        for (connection, is_free) in self.state.leaving() {
            let is_idle = idle
                .iter()
                .any(|(id, time)| *id == connection && *time >= SPARE_IDLE_TIME);
            if is_free || is_idle {
                self.handle_down(connection, "another connection is used".to_owned(), now);
                self.swarm.close_connection(connection);
            }
        }
    }

    /// Dials a better address of each peer that this node has reached at another.
    pub(super) fn dial_better(&mut self, now: Instant) {
        if now < self.next_better {
            return;
        }
        self.next_better = now + BETTER_INTERVAL.mul_f64(0.9 + 0.2 * rand::random::<f64>());
        self.better_turn = self.better_turn.wrapping_add(1);
        let redials = &self.redials;
        let standing = self.state.standing(|peer, address| redials.rank(peer, address));
        for (peer, _, standing) in standing {
            let rank = standing.iter().filter_map(|standing| standing.rank).min();
            let better = rank.and_then(|rank| self.redials.better(peer, rank, self.better_turn));
            if let Some(address) = better {
                self.dial_beside(peer, &address);
            }
        }
    }

    /// Dials a connected peer once more.
    fn dial_beside(&mut self, peer: PeerId, address: &Multiaddr) {
        let options = dial_options(peer, address);
        let connection = options.connection_id();
        let _span = tracing::debug_span!("dial", %peer, %connection).entered();
        self.swarm.behaviour_mut().streams.handle_dial(connection);
        tracing::debug!(%peer, %connection, %address, "dialling another connection");
        if let Err(error) = self.swarm.dial(options) {
            self.state.counters.dial_failures.fetch_add(1, Relaxed);
            tracing::debug!(%peer, error = dial_error_text(&error), "cannot dial another connection");
        }
    }

    pub(super) fn dial_another(&mut self, peer: PeerId) {
        let Some(address) = self.state.dialled_over_tcp(peer) else {
            return;
        };
        self.dial_beside(peer, &address);
    }
}
