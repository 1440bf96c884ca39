//! Direct connections with peers that are connected through a relay.

use std::{
    net::IpAddr,
    sync::{Arc, atomic::Ordering::Relaxed},
};

use libp2p::{
    Multiaddr, PeerId,
    core::ConnectedPoint,
    swarm::{ConnectionId, DialError},
};
use tokio::time::Instant;

use super::Driver;
use crate::p2p::{
    address::{plain, reachable},
    dial_error::{dial_error_text, dial_errors},
    node_behaviour::punch_options,
    punch::{Candidates, DialEnd, PunchBook, PunchEvent, PunchWord, Refusal, Relayed, Round, usable},
    reach::{FailedPunch, ReachSnapshot},
    uplink::UplinkId,
};

/// What the driver knows of direct connections that are agreed on.
pub(in crate::p2p) struct Punches {
    pub(in crate::p2p) book: PunchBook,
    pub(in crate::p2p) candidates: Arc<Candidates>,
    pub(in crate::p2p) is_inner: Arc<dyn Fn(IpAddr) -> bool + Send + Sync>,
    /// Whether relays are dialled from the listening port, so that they say where that is seen. A relay is not: it and a
    /// relay of its own could dial each other at once, and both would take themselves for the dialler of one connection.
    pub(in crate::p2p) shows_port: bool,
}

impl Driver {
    /// Takes in where a peer sees this node.
    pub(super) fn handle_identify(&mut self, event: &libp2p_identify::Event, now: Instant) {
        match event {
            libp2p_identify::Event::Received {
                peer_id: peer,
                connection_id: connection,
                info,
            } if self.reservations.is_relay(*peer) && self.state.is_from_listening_port(*connection) => {
                let address = &info.observed_addr;
                let is_news = self.punches.candidates.handle_observed(*connection, address);
                self.show_reach();
                if is_news {
                    tracing::info!(relay = %peer, %address, "a relay sees this node here");
                    self.punches.book.handle_addresses(now);
                }
            }
            event => tracing::trace!(?event, "identify"),
        }
    }

    /// Takes in that a connection has closed, on which a relay may have seen this node.
    pub(super) fn handle_unseen(&mut self, connection: ConnectionId, now: Instant) {
        let observed = self.punches.candidates.observed();
        if !observed.iter().any(|(seen_on, _)| *seen_on == connection) {
            return;
        }
        if self.punches.candidates.handle_closed(connection) {
            self.punches.book.handle_addresses(now);
        }
        self.show_reach();
    }

    /// Takes in where this node listens.
    pub(super) fn show_candidates(&mut self, now: Instant) {
        let is_inner = &self.punches.is_inner;
        let listening = self.swarm.listeners().cloned().collect::<Vec<_>>();
        if self
            .punches
            .candidates
            .set_listening(&listening, |ip| is_inner(ip))
        {
            self.punches.book.handle_addresses(now);
        }
        self.show_reach();
    }

    /// Shows how this node is reached.
    pub(super) fn show_reach(&self) {
        let observed = self.punches.candidates.observed();
        let seen = observed.into_iter();
        let seen = seen.filter_map(|(connection, address)| Some((self.state.peer_of(connection)?, address)));
        self.state.set_reach(ReachSnapshot {
            relays: self.reservations.snapshot(),
            seen: seen.collect(),
            told: match self.swarm.behaviour().punch.is_enabled() {
                true => self.punches.candidates.own(),
                false => Vec::new(),
            },
            serves: None,
        });
    }

    /// Takes in at which addresses routers forward to this node.
    pub(super) fn set_mapped(&mut self, mapped: &[Multiaddr], now: Instant) {
        let outside = mapped.iter().filter_map(|address| {
            let (plain, ip) = reachable(address, None)?;
            (!(self.punches.is_inner)(ip)).then_some(plain)
        });
        let outside: Vec<_> = outside.collect();
        self.state.set_mapped(outside.clone());
        if self.punches.candidates.set_mapped(outside) {
            self.punches.book.handle_addresses(now);
            if self.connections.is_anybody_present() {
                self.discovery.handle_listening_change(now);
            }
        }
        self.show_reach();
    }

    /// Takes in that a connection is up: one through a relay is to be followed by a direct one.
    pub(super) fn handle_way(&mut self, peer: PeerId, connection: ConnectionId, now: Instant) {
        let is_dialled = self.punches.book.handle_dialled(connection);
        if let Some(relayed) = self.state.relayed_alone(peer) {
            self.punches.book.handle_relayed(peer, relayed, now);
            return;
        }
        self.state.set_failed_punch(peer, None);
        if self.punches.book.remove(peer, now) || is_dialled {
            self.state.counters.punches_succeeded.fetch_add(1, Relaxed);
            self.state.set_punched(connection);
            tracing::info!(%peer, %connection, "connected directly, agreed on through a relay");
        }
    }

    /// Takes in that a connection is down.
    pub(super) fn handle_way_lost(&mut self, peer: PeerId, now: Instant) {
        // An exchange on it has ended with it, and another begins in its time.
        self.punches.book.remove(peer, now);
        match self.state.relayed_alone(peer) {
            Some(relayed) => self.punches.book.handle_relayed(peer, relayed, now),
            None => self.state.set_failed_punch(peer, None),
        }
    }

    /// Begins the tries that are due.
    pub(super) fn punch(&mut self, now: Instant) {
        for peer in self.punches.book.poll(now) {
            let Some(Relayed { connection, .. }) = self.state.relayed_alone(peer) else {
                self.punches.book.remove(peer, now);
                continue;
            };
            if self.punches.candidates.own().is_empty() {
                self.state.counters.punches_without_address.fetch_add(1, Relaxed);
                tracing::debug!(%peer, "no direct connection is tried: no relay says where this node is seen");
                self.punches.book.handle_no_address(peer);
                let error = "no relay says at which address it sees this node".to_owned();
                self.tell_punch_failed(peer, error, Vec::new());
                continue;
            }
            self.state.counters.punches_begun.fetch_add(1, Relaxed);
            tracing::debug!(%peer, %connection, "asks a peer for a direct connection");
            if let Some(punch) = self.swarm.behaviour_mut().punch.as_mut() {
                punch.begin(peer, connection);
            }
        }
    }

    pub(super) fn handle_punch(&mut self, event: PunchEvent, now: Instant) {
        let PunchEvent {
            peer,
            connection,
            word,
        } = event;
        let counters = &self.state.counters;
        match word {
            PunchWord::Failed(error) => {
                counters.punches_refused.fetch_add(1, Relaxed);
                tracing::debug!(%peer, %connection, error, "no direct connection was agreed on");
                self.tell_punch_failed(peer, format!("the peer agrees to none: {error}"), Vec::new());
                self.punches.book.handle_failure(peer, now, rand::random());
            }
            PunchWord::GaveWay => self.punches.book.handle_failure(peer, now, rand::random()),
            PunchWord::Agreed { is_own, addresses } => {
                match self.punches.book.handle_agreed(peer, is_own, now) {
                    Ok(()) => self.dial_punch(peer, is_own, &addresses, now),
                    Err(refusal @ Refusal::NotWanted) => {
                        tracing::debug!(%peer, %connection, %refusal, "a direct connection is not tried");
                    }
                    Err(refusal @ Refusal::TooOften) => {
                        counters.punches_declined.fetch_add(1, Relaxed);
                        tracing::debug!(%peer, %connection, %refusal, "a direct connection is not tried");
                    }
                }
            }
        }
    }

    fn dial_punch(&mut self, peer: PeerId, is_own: bool, addresses: &[Multiaddr], now: Instant) {
        let own = self.punches.candidates.own();
        let (usable, n_refused) = usable(addresses, peer, &own, |ip| (self.punches.is_inner)(ip));
        let counters = &self.state.counters;
        counters
            .punch_addresses_refused
            .fetch_add(n_refused as u64, Relaxed);
        if !is_own {
            counters.punches_begun.fetch_add(1, Relaxed);
        }
        if usable.is_empty() {
            counters.punches_without_address.fetch_add(1, Relaxed);
            tracing::debug!(%peer, ?own, ?addresses, "no direct connection is tried: no addresses fit each other");
            self.punches.book.handle_failure(peer, now, rand::random());
            let of = |addresses: &[Multiaddr]| match addresses {
                [] => "nowhere".to_owned(),
                some => some.iter().map(plain).collect::<Vec<_>>().join(", "),
            };
            let error = format!(
                "no address fits another: this node is seen at {}, the peer at {}",
                of(&own),
                of(addresses)
            );
            self.tell_punch_failed(peer, error, Vec::new());
            return;
        }
        self.dial_round(peer, Round::new(usable, is_own), now);
    }

    fn dial_round(&mut self, peer: PeerId, round: Round, now: Instant) {
        let options = punch_options(peer, &round);
        let connection = options.connection_id();
        self.swarm.behaviour_mut().streams.handle_punch(connection);
        tracing::debug!(%peer, %connection, ?round, "dialling a peer that dials this node at once");
        // From the listening port it leaves as the routes have it.
        match self.dial_by(UplinkId::FIRST, options) {
            Ok(()) => self.punches.book.handle_dial(peer, connection, round, now),
            Err(error) => self.handle_punch_in_vain(peer, dial_failures(&error), now),
        }
    }

    /// Takes in that a dial failed. Returns whether it was one of these.
    pub(super) fn handle_punch_failure(
        &mut self,
        peer: PeerId,
        connection: ConnectionId,
        is_port_taken: bool,
        errors: impl FnOnce() -> (String, Vec<(Multiaddr, String)>),
        now: Instant,
    ) -> bool {
        match self.punches.book.handle_dial_failure(peer, connection, now) {
            None => return false,
            Some(DialEnd::Over) => {}
            // The peer was quicker, and its connection is in its handshake.
            Some(_) if is_port_taken => self.punches.book.handle_failure(peer, now, rand::random()),
            Some(DialEnd::Again(round)) => self.dial_round(peer, round, now),
            Some(DialEnd::Failed) => self.handle_punch_in_vain(peer, errors(), now),
        }
        true
    }

    fn handle_punch_in_vain(
        &mut self,
        peer: PeerId,
        (error, tried): (String, Vec<(Multiaddr, String)>),
        now: Instant,
    ) {
        self.state.counters.punches_in_vain.fetch_add(1, Relaxed);
        tracing::debug!(%peer, error, "a direct connection was tried in vain");
        self.punches.book.handle_failure(peer, now, rand::random());
        self.tell_punch_failed(peer, error, tried);
    }

    /// Shows why there is no direct connection with a peer. One that has come up meanwhile leaves nothing to say.
    fn tell_punch_failed(&self, peer: PeerId, error: String, tried: Vec<(Multiaddr, String)>) {
        if self.state.relayed_alone(peer).is_some() {
            let failed = FailedPunch::now(error, tried);
            self.state.set_failed_punch(peer, Some(failed));
        }
    }
}

/// Returns why a dial failed, as a whole and at each address.
pub(super) fn dial_failures(error: &DialError) -> (String, Vec<(Multiaddr, String)>) {
    (dial_error_text(error), dial_errors(error))
}

/// Says whether this node is the accepting side of a connection, which it may have dialled all the same.
pub(super) fn accepts(endpoint: &ConnectedPoint) -> bool {
    match endpoint {
        ConnectedPoint::Dialer { role_override, .. } => role_override.is_listener(),
        ConnectedPoint::Listener { .. } => true,
    }
}
