//! Which connections of peers stay: spare and worse ones are left, and so are those that nothing is sent on; better addresses
//! are dialled.

use std::{collections::HashMap, sync::atomic::Ordering::Relaxed, time::Duration};

use libp2p::{Multiaddr, PeerId, core::transport::PortUse, swarm::ConnectionId};
use tokio::time::Instant;

use super::Driver;
use crate::p2p::{
    departure::{DepartureEvent, Leave, Word},
    dial_error::dial_error_text,
    event::NetworkEvent,
    node_behaviour::dial_options,
    peer_connections::Leaving,
    redial_book::Lead,
    spare_connections::{Standing, by_uplink, costly, spare},
    transport::no_port_for,
    uplink::UplinkId,
};

/// How long the peer has to agree to leave a connection; then it is closed once nothing was sent on it for as long. A peer
/// may not know the protocol, or never close its streams.
const PATIENCE: Duration = Duration::from_secs(60);

impl Driver {
    /// Looks at all connections if it is time to.
    pub(super) fn look(&mut self, now: Instant) {
        let state = &self.state;
        let Some(idle) = self.idle_watch.look(|| state.uses(), now) else {
            return;
        };
        self.leave_spare(now);
        self.leave_idle(&idle, now);
        self.close_overdue(&idle, now);
        self.dial_better(now);
    }

    /// Leaves connections that are not needed or at a worse address than another.
    pub(super) fn leave_spare(&mut self, now: Instant) {
        let local_peer = self.state.local_peer;
        for (peer, n_wanted, standing) in self.standing() {
            for connection in costly(&standing) {
                self.leave(peer, connection, Leave::Spare, now);
            }
            for standing in by_uplink(&standing) {
                // Another is dialled by each uplink instead.
                let n_wanted = if self.uplinks.are_configured() {
                    1
                } else {
                    n_wanted
                };
                for connection in spare(&standing, n_wanted, local_peer < peer) {
                    self.leave(peer, connection, Leave::Spare, now);
                }
            }
        }
    }

    /// Leaves the connections to peers on demand that this node has dialled, if nothing was sent to them for long.
    fn leave_idle(&mut self, idle: &HashMap<ConnectionId, Duration>, now: Instant) {
        let idle_time = self.idle_time;
        let is_idle = |standing: &Standing| {
            let time = idle.get(&standing.connection);
            time.is_some_and(|time| *time >= idle_time)
        };
        for (peer, _, standing) in self.standing() {
            if !self.redials.is_on_demand(peer) || !standing.iter().all(is_idle) {
                continue;
            }
            // Those that the peer has dialled are left to the peer.
            let why = match standing.iter().all(|standing| standing.is_own) {
                true => Leave::Rest,
                false => Leave::Spare,
            };
            for own in standing.iter().filter(|standing| standing.is_own) {
                self.leave(peer, own.connection, why, now);
            }
        }
    }

    /// Closes the connections whose peers have not agreed to leave them in time, once nothing is sent on them.
    fn close_overdue(&mut self, idle: &HashMap<ConnectionId, Duration>, now: Instant) {
        let Some(since) = now.checked_sub(PATIENCE) else {
            return;
        };
        for connection in self.connections.left_since(since) {
            if idle.get(&connection).is_some_and(|time| *time >= PATIENCE) {
                self.close_left(connection, now);
            }
        }
    }

    fn leave(&mut self, peer: PeerId, connection: ConnectionId, why: Leave, now: Instant) {
        let leaving = Leaving {
            why,
            by_peer: false,
            since: now,
        };
        if self.set_leaving(peer, connection, leaving) {
            self.swarm.behaviour_mut().departure.leave(peer, connection, why);
        }
    }

    /// Takes a connection for one that is to be left. Returns false if that is known, or the connection is not live.
    fn set_leaving(&mut self, peer: PeerId, connection: ConnectionId, leaving: Leaving) -> bool {
        if !self.connections.set_leaving(connection, leaving) {
            return false;
        }
        tracing::debug!(%peer, %connection, ?leaving, "a connection is to be left");
        self.state.set_leaving(connection, true);
        if !self.connections.stays(peer) {
            self.redials.handle_rest(peer, leaving.since);
        }
        self.backlog.push(NetworkEvent::Leaving { peer, connection });
        true
    }

    /// Takes a connection for one that is not to be left after all.
    fn clear_leaving(&mut self, peer: PeerId, connection: ConnectionId) {
        if self.connections.clear_leaving(connection) {
            tracing::debug!(%peer, %connection, "a connection that was to be left stays");
            self.state.set_leaving(connection, false);
            self.redials
                .handle_present((peer, self.connections.uplink(connection)));
            self.backlog.push(NetworkEvent::Staying { peer, connection });
        }
    }

    /// Keeps the spare connections of a peer that has lost the others.
    pub(super) fn keep_needed(&mut self, peer: PeerId) {
        for connection in self.connections.needed(peer) {
            self.swarm.behaviour_mut().departure.stay(peer, connection);
            self.clear_leaving(peer, connection);
        }
    }

    pub(super) fn handle_departure(&mut self, event: DepartureEvent, now: Instant) {
        let DepartureEvent {
            peer,
            connection,
            word,
        } = event;
        let why = self.connections.leaving(connection).map(|leaving| leaving.why);
        match word {
            Word::Heard(why) => {
                let is_own = self.state.dialled_peer(connection).is_some();
                let leaving = Leaving {
                    why,
                    by_peer: true,
                    since: now,
                };
                let agrees = !is_own && (why == Leave::Rest || self.connections.has_other(peer, connection));
                // A word that takes the place of another is not told to be taken back.
                let known = self.connections.leaving(connection);
                let is_heard = known.is_some_and(|leaving| leaving.by_peer);
                if !agrees && is_heard {
                    self.clear_leaving(peer, connection);
                }
                if !agrees || !is_heard && !self.set_leaving(peer, connection, leaving) {
                    self.swarm.behaviour_mut().departure.stay(peer, connection);
                }
            }
            Word::TakenBack | Word::Refused => self.clear_leaving(peer, connection),
            Word::Agreed if why.is_some() => self.close_left(connection, now),
            Word::NotTold if why == Some(Leave::Rest) => self.close_left(connection, now),
            Word::Agreed | Word::NotTold => {}
        }
    }

    fn close_left(&mut self, connection: ConnectionId, now: Instant) {
        self.handle_down(connection, "left".to_owned(), now);
        self.swarm.close_connection(connection);
    }

    /// Dials a better address of each peer that is connected at another, one of them at a time. The side that has dialled
    /// does, and both do where a connection leads through a relay: the peer may know no direct way to this node.
    fn dial_better(&mut self, now: Instant) {
        for (peer, _, standing) in self.standing() {
            for standing in by_uplink(&standing) {
                let to_better = standing
                    .iter()
                    .filter(|standing| standing.is_own || standing.is_relayed);
                let Some(best) = to_better.min_by_key(|standing| standing.rank) else {
                    continue;
                };
                let lead = (peer, best.uplink);
                if let Some(address) = self.redials.poll_better(lead, best.rank, now, rand::random())
                    && self.relay_trouble(&address).is_none()
                {
                    let port = self.port_to(peer, &address);
                    self.dial_beside(lead, &address, port, now);
                }
            }
        }
    }

    /// Dials a connected peer once more.
    pub(super) fn dial_beside(&mut self, lead: Lead, address: &Multiaddr, port: PortUse, now: Instant) {
        let (peer, uplink) = lead;
        let options = dial_options(peer, address, port);
        let connection = options.connection_id();
        let _span = tracing::debug_span!("dial", %peer, %connection).entered();
        self.swarm
            .behaviour_mut()
            .streams
            .handle_dial_by(connection, uplink);
        tracing::debug!(%peer, %connection, %address, "dialling another connection");
        match self.dial_by(uplink, options) {
            Ok(()) => self.redials.handle_attempt(lead, connection, now),
            Err(error) => {
                if let Some(address) = no_port_for(&error) {
                    return self.dial_beside(lead, &address, PortUse::New, now);
                }
                self.state.counters.dial_failures.fetch_add(1, Relaxed);
                tracing::debug!(%peer, error = dial_error_text(&error), "cannot dial another connection");
            }
        }
    }

    pub(super) fn dial_another(&mut self, peer: PeerId, now: Instant) {
        let Some(address) = self.state.dialled_over_tcp(peer) else {
            return;
        };
        self.dial_beside((peer, UplinkId::FIRST), &address, PortUse::New, now);
    }

    /// Returns the proven connections of every peer that are not to be left, and how many of them are to stand.
    fn standing(&self) -> Vec<(PeerId, usize, Vec<Standing>)> {
        let rank = |lead, address: &_, direction| self.redials.rank(lead, address, direction);
        let cost = |uplink| self.uplinks.cost(uplink);
        self.state.standing(rank, cost)
    }
}
