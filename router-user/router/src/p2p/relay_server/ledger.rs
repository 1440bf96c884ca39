//! Who has a place at this relay, and which circuits there are: what is decided of requests.

use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

use libp2p::{PeerId, swarm::ConnectionId};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::message::Status;
use crate::p2p::config::ServeConfig;

/// How long a reservation holds; its owner renews it before it ends.
pub(super) const RESERVATION_TIME: Duration = Duration::from_secs(60 * 60);

/// Most reservations of one peer: one for each connection that it may have made anew while the old one was not yet found
/// lost.
const MAX_RESERVATIONS_PER_PEER: usize = 4;

/// Most reservations of all peers, of which only configured ones are connected.
const MAX_RESERVATIONS: usize = 4096;

/// A connection of a peer.
pub(super) type End = (PeerId, ConnectionId);

/// Names a circuit, from the moment that it is allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct CircuitId(u64);

/// A circuit between two peers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Circuit {
    pub(super) from: PeerId,
    pub(super) to: PeerId,
}

/// A circuit that may be, and ends with either of its connections.
#[derive(Debug)]
pub(super) struct Standing {
    pub(super) id: CircuitId,
    /// The connection of its far end.
    pub(super) far: ConnectionId,
    pub(super) over: CancellationToken,
}

#[derive(Debug)]
struct Entry {
    circuit: Circuit,
    ends: [ConnectionId; 2],
    /// Ends with the connections.
    over: CancellationToken,
}

/// The reservations and circuits.
#[derive(Debug)]
pub(super) struct Ledger {
    limits: ServeConfig,
    /// The connections that stand.
    ends: HashSet<End>,
    reservations: HashMap<End, Instant>,
    circuits: HashMap<CircuitId, Entry>,
    next: u64,
}

impl Ledger {
    pub(super) fn new(limits: ServeConfig) -> Self {
        Self {
            limits,
            ends: HashSet::new(),
            reservations: HashMap::new(),
            circuits: HashMap::new(),
            next: 0,
        }
    }

    pub(super) fn n_reservations(&self) -> usize {
        self.reservations.len()
    }

    pub(super) fn n_circuits(&self) -> usize {
        self.circuits.len()
    }

    /// Takes in that a connection stands.
    pub(super) fn open(&mut self, end: End) {
        self.ends.insert(end);
    }

    /// Gives a place to a peer on one of its connections, from `now` on. Returns whether it had one there.
    pub(super) fn reserve(&mut self, end: End, now: Instant) -> Result<bool, Status> {
        if !self.ends.contains(&end) {
            // It has closed since it was asked on.
            return Err(Status::ConnectionFailed);
        }
        let is_held = self.reservations.contains_key(&end);
        if !is_held {
            let of_peer = self.reservations.keys().filter(|(peer, _)| *peer == end.0);
            let n_of_peer = of_peer.count();
            if n_of_peer >= MAX_RESERVATIONS_PER_PEER || self.n_reservations() >= MAX_RESERVATIONS {
                return Err(Status::ReservationRefused);
            }
        }
        self.reservations.insert(end, now + RESERVATION_TIME);
        Ok(is_held)
    }

    /// Allows a circuit from a connection to a peer; it ends on the connection of the newest place of that one. The circuit
    /// counts until [`Ledger::remove`].
    pub(super) fn connect(&mut self, (from, near): End, to: PeerId) -> Result<Standing, Status> {
        let places = self.reservations.iter().filter(|((peer, _), _)| *peer == to);
        let newest = places.max_by_key(|(_, ends)| **ends);
        let Some(((_, far), _)) = newest.filter(|_| from != to) else {
            return Err(Status::NoReservation);
        };
        let far = *far;
        let is_full = |peer| {
            let of_peer = self.circuits.values().map(|entry| entry.circuit);
            let of_peer = of_peer.filter(|circuit| circuit.from == peer || circuit.to == peer);
            of_peer.count() >= self.limits.max_circuits_per_peer
        };
        if self.n_circuits() >= self.limits.max_circuits || is_full(from) || is_full(to) {
            return Err(Status::ResourceLimitExceeded);
        }
        let id = CircuitId(self.next);
        self.next += 1;
        let over = CancellationToken::new();
        let entry = Entry {
            circuit: Circuit { from, to },
            ends: [near, far],
            over: over.clone(),
        };
        self.circuits.insert(id, entry);
        Ok(Standing { id, far, over })
    }

    /// Takes in that a circuit is over.
    pub(super) fn remove(&mut self, id: CircuitId) -> Option<Circuit> {
        self.circuits.remove(&id).map(|entry| entry.circuit)
    }

    /// Takes in that a connection is closed, which ends its circuits: of their streams not each tells. Returns whether its peer
    /// had a place on it.
    pub(super) fn close(&mut self, end: End) -> bool {
        let circuits = self.circuits.values();
        let ended = circuits.filter(|entry| entry.ends.contains(&end.1));
        ended.for_each(|entry| entry.over.cancel());
        self.ends.remove(&end);
        self.reservations.remove(&end).is_some()
    }

    /// Forgets the reservations that have ended at `now`. Returns whose they were.
    pub(super) fn expire(&mut self, now: Instant) -> Vec<PeerId> {
        let ended = self.reservations.extract_if(|_, ends| *ends <= now);
        ended.map(|((peer, _), _)| peer).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ledger(max_circuits: usize, max_circuits_per_peer: usize) -> Ledger {
        Ledger::new(ServeConfig {
            max_circuits,
            max_circuits_per_peer,
            ..ServeConfig::default()
        })
    }

    fn place(ledger: &mut Ledger, end: End, now: Instant) -> Result<bool, Status> {
        ledger.open(end);
        ledger.reserve(end, now)
    }

    fn end(n: usize) -> End {
        (PeerId::random(), ConnectionId::new_unchecked(n))
    }

    #[test]
    fn a_place_is_renewed_and_ends_when_it_is_not() {
        let (mut ledger, start, end) = (ledger(1, 1), Instant::now(), end(1));
        assert_eq!(place(&mut ledger, end, start), Ok(false));
        assert_eq!(place(&mut ledger, end, start + RESERVATION_TIME / 2), Ok(true));

        assert_eq!(ledger.expire(start + RESERVATION_TIME), []);
        assert_eq!(ledger.expire(start + RESERVATION_TIME * 3 / 2), [end.0]);
        assert_eq!(ledger.n_reservations(), 0);
        assert!(!ledger.close(end));
        let gone = ledger.reserve(end, start);
        assert_eq!(gone, Err(Status::ConnectionFailed), "the connection is closed");
    }

    #[test]
    fn a_peer_has_as_many_places_as_it_may_and_the_newest_is_used() {
        let (mut ledger, start) = (ledger(8, 8), Instant::now());
        let (peer, other) = (PeerId::random(), end(100));
        let on = |n| (peer, ConnectionId::new_unchecked(n));
        for n in 0..MAX_RESERVATIONS_PER_PEER {
            let at = start + Duration::from_secs(n as u64);
            assert_eq!(place(&mut ledger, on(n), at), Ok(false));
        }
        let last = MAX_RESERVATIONS_PER_PEER;
        assert_eq!(
            place(&mut ledger, on(last), start),
            Err(Status::ReservationRefused)
        );

        let used = |ledger: &mut Ledger| ledger.connect(other, peer).map(|standing| standing.far);
        assert_eq!(used(&mut ledger).ok(), Some(on(last - 1).1));
        assert!(ledger.close(on(last - 1)));
        assert_eq!(used(&mut ledger).ok(), Some(on(last - 2).1));
        assert_eq!(place(&mut ledger, on(last), start), Ok(false));
    }

    #[test]
    fn there_are_no_more_places_than_may_be() {
        let (mut ledger, start) = (ledger(1, 1), Instant::now());
        for n in 0..MAX_RESERVATIONS {
            assert_eq!(place(&mut ledger, end(n), start), Ok(false));
        }
        assert_eq!(place(&mut ledger, end(0), start), Err(Status::ReservationRefused));
    }

    #[test]
    fn circuits_are_bounded_in_all_and_at_either_end() {
        let (mut ledger, start) = (ledger(3, 2), Instant::now());
        let ends = [end(1), end(2), end(3), end(4)];
        for end in ends {
            assert_eq!(place(&mut ledger, end, start), Ok(false));
        }
        let [a, b, c, d] = ends;
        let first = ledger.connect(a, b.0).expect("the first");
        assert_eq!(first.far, b.1);
        assert!(ledger.connect(b, c.0).is_ok());

        let full = |end: Result<Standing, Status>| end.err() == Some(Status::ResourceLimitExceeded);
        assert!(full(ledger.connect(b, d.0)), "b has two");
        assert!(full(ledger.connect(d, b.0)), "b has two");
        assert!(ledger.connect(a, d.0).is_ok());
        assert!(full(ledger.connect(c, d.0)), "there are three");

        let circuit = Circuit { from: a.0, to: b.0 };
        assert_eq!(ledger.remove(first.id), Some(circuit));
        assert_eq!(ledger.remove(first.id), None);
        assert!(ledger.connect(c, d.0).is_ok());
    }

    #[test]
    fn a_circuit_is_over_with_the_connection_of_either_end() {
        let (mut ledger, start) = (ledger(9, 9), Instant::now());
        let (near, far, other) = (end(1), end(2), end(3));
        assert_eq!(place(&mut ledger, far, start), Ok(false));
        assert_eq!(place(&mut ledger, other, start), Ok(false));
        let circuits = [(near, far), (near, other), (other, far)]
            .map(|(from, to)| ledger.connect(from, to.0).expect("a circuit"));
        let over = || circuits.each_ref().map(|circuit| circuit.over.is_cancelled());

        ledger.close(far);
        assert_eq!(over(), [true, false, true]);
        ledger.close(near);
        assert_eq!(over(), [true; 3]);
        assert_eq!(ledger.n_circuits(), 3, "they count until they are removed");
    }

    #[test]
    fn nobody_is_reached_without_a_place_nor_by_itself() {
        let (mut ledger, start) = (ledger(9, 9), Instant::now());
        let (one, other) = (end(1), end(2));
        let none = |end: Result<Standing, Status>| end.err() == Some(Status::NoReservation);
        assert!(none(ledger.connect(one, other.0)));
        assert_eq!(place(&mut ledger, one, start), Ok(false));
        assert!(none(ledger.connect(one, one.0)));
        assert!(none(ledger.connect(one, other.0)));
        assert_eq!(ledger.n_circuits(), 0);
    }
}
