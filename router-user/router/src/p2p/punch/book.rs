//! When a direct connection is tried with a peer that is connected through a relay.

use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

use libp2p::{Multiaddr, PeerId, swarm::ConnectionId};
use tokio::time::Instant;

/// Time from a try that failed to the next, which doubles with every one. Most that succeed at all do at once.
const FIRST_WAIT: Duration = Duration::from_secs(10);

/// The longest that time becomes; a random part of it is left out, up to a fifth.
const LONGEST_WAIT: Duration = Duration::from_secs(5 * 60);

/// Time from a change of this node's addresses to what follows: most changes are several.
const SETTLE: Duration = Duration::from_secs(1);

/// Least time between two tries that have this node dial a peer, whichever side begins and however many connections come
/// and go.
const LEAST_INTERVAL: Duration = Duration::from_secs(4);

/// How long the peer with the smaller id leaves beginning to the other, which may be reached through a relay just now too.
const HEAD_START: Duration = Duration::from_millis(500);

/// Most tries at a time.
const MAX_AT_ONCE: usize = 32;

/// Most dials of one try: a NAT that refuses what it does not know ends one before the peer has dialled.
const MAX_DIALS: usize = 3;

/// How long after the first one of a try it is dialled again.
const AGAIN_WITHIN: Duration = Duration::from_secs(2);

/// The tries with every peer that is connected through relays alone.
#[derive(Debug)]
pub(in crate::p2p) struct PunchBook {
    local_peer: PeerId,
    peers: HashMap<PeerId, Entry>,
    /// When peers were dialled last, as far as it matters.
    dialled: HashMap<PeerId, Instant>,
    /// Dials of tries, some of which may be over: what becomes of them is told nobody.
    dials: HashSet<ConnectionId>,
}

#[derive(Debug)]
struct Entry {
    /// Whether this node begins.
    begins: bool,
    stage: Stage,
    due: Option<Instant>,
    wait: Duration,
}

#[derive(Debug, PartialEq, Eq)]
enum Stage {
    Idle,
    /// The exchange goes on that this node has begun.
    Asking,
    Dialling {
        dial: ConnectionId,
        round: Round,
        since: Instant,
    },
}

/// How a peer is connected through relays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::p2p) struct Relayed {
    /// The connection on which this node begins.
    pub(in crate::p2p) connection: ConnectionId,
    /// Whether the peer has dialled this node.
    pub(in crate::p2p) is_dialled: bool,
    /// Whether this node has dialled the peer.
    pub(in crate::p2p) has_dialled: bool,
}

/// What a try dials.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::p2p) struct Round {
    pub(in crate::p2p) addresses: Vec<Multiaddr>,
    /// Whether this node is the accepting side of the connection.
    pub(in crate::p2p) accepts: bool,
    n_dials: usize,
}

/// Why a try that a peer has begun is not followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(in crate::p2p) enum Refusal {
    #[error("there is a direct connection, or none through a relay")]
    NotWanted,
    #[error("the peer tries too often")]
    TooOften,
}

/// What follows from the end of a dial.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::p2p) enum DialEnd {
    /// The try is over already.
    Over,
    /// The peer is to be dialled once more.
    Again(Round),
    /// The try failed.
    Failed,
}

impl Round {
    pub(in crate::p2p) fn new(addresses: Vec<Multiaddr>, accepts: bool) -> Self {
        Self {
            addresses,
            accepts,
            n_dials: 0,
        }
    }
}

impl PunchBook {
    pub(in crate::p2p) fn new(local_peer: PeerId) -> Self {
        Self {
            local_peer,
            peers: HashMap::new(),
            dialled: HashMap::new(),
            dials: HashSet::new(),
        }
    }

    /// Records that a peer without a direct connection is connected through a relay. The side begins that the other has
    /// dialled; if each has dialled the other, the one with the larger id does.
    pub(in crate::p2p) fn handle_relayed(&mut self, peer: PeerId, relayed: Relayed, now: Instant) {
        let leads = self.local_peer > peer;
        let begins = relayed.is_dialled && (leads || !relayed.has_dialled);
        let earliest = self.earliest(peer, now);
        let entry = self.peers.entry(peer).or_insert(Entry {
            begins: false,
            stage: Stage::Idle,
            due: None,
            wait: FIRST_WAIT,
        });
        if begins == entry.begins {
            return;
        }
        entry.begins = begins;
        if entry.stage == Stage::Idle {
            let head_start = if leads { Duration::ZERO } else { HEAD_START };
            entry.due = begins.then(|| earliest.max(now + head_start));
        }
    }

    /// Returns when a peer may be dialled again.
    fn earliest(&self, peer: PeerId, now: Instant) -> Instant {
        let last = self.dialled.get(&peer);
        last.map_or(now, |last| now.max(*last + LEAST_INTERVAL))
    }

    /// Records that a peer has a direct connection, or none at all. Returns whether a try goes on, or did just now: where no NAT
    /// is in its way the peer's connection is accepted before this node dials, whose own dial then fails.
    pub(in crate::p2p) fn remove(&mut self, peer: PeerId, now: Instant) -> bool {
        let is_recent = self.earliest(peer, now) > now;
        let entry = self.peers.remove(&peer);
        entry.is_some_and(|entry| is_recent || entry.stage != Stage::Idle)
    }

    /// Records that the addresses of this node have changed.
    pub(in crate::p2p) fn handle_addresses(&mut self, now: Instant) {
        let peers: Vec<_> = self.peers.keys().copied().collect();
        for peer in peers {
            let earliest = self.earliest(peer, now);
            if let Some(entry) = self.peers.get_mut(&peer) {
                entry.wait = FIRST_WAIT;
                if entry.stage == Stage::Idle {
                    entry.due = Some(earliest.max(now + SETTLE));
                }
            }
        }
    }

    /// Returns when [`PunchBook::poll`] has to be called next.
    pub(in crate::p2p) fn poll_due(&self) -> Option<Instant> {
        let has_room = self.n_tries() < MAX_AT_ONCE;
        let dues = self.peers.values().filter_map(|entry| entry.due);
        dues.min().filter(|_| has_room)
    }

    /// Returns the peers with which an exchange is to be begun at `now`.
    pub(in crate::p2p) fn poll(&mut self, now: Instant) -> Vec<PeerId> {
        let room = MAX_AT_ONCE.saturating_sub(self.n_tries());
        let is_due = |entry: &Entry| entry.due.is_some_and(|due| due <= now);
        let due = self
            .peers
            .iter_mut()
            .filter(|(_, entry)| is_due(entry))
            .take(room);
        due.map(|(peer, entry)| {
            entry.due = None;
            entry.stage = Stage::Asking;
            *peer
        })
        .collect()
    }

    /// Records that the exchange with a peer is over, and the peer is dialled unless it is refused.
    pub(in crate::p2p) fn handle_agreed(
        &mut self,
        peer: PeerId,
        is_own: bool,
        now: Instant,
    ) -> Result<(), Refusal> {
        let (leads, earliest) = (self.local_peer > peer, self.earliest(peer, now));
        let entry = self.peers.get_mut(&peer).ok_or(Refusal::NotWanted)?;
        match (&entry.stage, is_own) {
            (Stage::Asking, true) | (Stage::Idle, false) => {}
            // Both have begun: the same side gives way here and there.
            (Stage::Asking, false) if !leads => {}
            _ => return Err(Refusal::NotWanted),
        }
        if earliest > now {
            return Err(Refusal::TooOften);
        }
        entry.due = None;
        self.dialled.retain(|_, last| *last + LEAST_INTERVAL > now);
        self.dialled.insert(peer, now);
        Ok(())
    }

    /// Records that a peer is dialled.
    pub(in crate::p2p) fn handle_dial(
        &mut self,
        peer: PeerId,
        dial: ConnectionId,
        mut round: Round,
        now: Instant,
    ) {
        self.dials.insert(dial);
        if let Some(entry) = self.peers.get_mut(&peer) {
            let since = match entry.stage {
                Stage::Dialling { since, .. } => since,
                Stage::Idle | Stage::Asking => now,
            };
            round.n_dials += 1;
            entry.stage = Stage::Dialling { dial, round, since };
        }
    }

    /// Records that a dial failed. Returns `None` if it is of no try.
    pub(in crate::p2p) fn handle_dial_failure(
        &mut self,
        peer: PeerId,
        dial: ConnectionId,
        now: Instant,
    ) -> Option<DialEnd> {
        if !self.dials.remove(&dial) {
            return None;
        }
        let stage = self.peers.get(&peer).map(|entry| &entry.stage);
        Some(match stage {
            Some(Stage::Dialling {
                dial: current,
                round,
                since,
            }) if *current == dial => match round.n_dials < MAX_DIALS && now < *since + AGAIN_WITHIN {
                true => DialEnd::Again(round.clone()),
                false => DialEnd::Failed,
            },
            _ => DialEnd::Over,
        })
    }

    /// Records that a dial has succeeded. Returns whether it was one of a try.
    pub(in crate::p2p) fn handle_dialled(&mut self, dial: ConnectionId) -> bool {
        self.dials.remove(&dial)
    }

    /// Records that a try failed; `random` is in 0..=1.
    pub(in crate::p2p) fn handle_failure(&mut self, peer: PeerId, now: Instant, random: f64) {
        if let Some(entry) = self.peers.get_mut(&peer) {
            entry.stage = Stage::Idle;
            let wait = entry.wait.mul_f64(1.0 - random.clamp(0.0, 1.0) / 5.0);
            entry.due = entry.begins.then_some(now + wait);
            entry.wait = (entry.wait * 2).min(LONGEST_WAIT);
        }
    }

    /// Records that no try is of use until this node's addresses change.
    pub(in crate::p2p) fn handle_no_address(&mut self, peer: PeerId) {
        if let Some(entry) = self.peers.get_mut(&peer) {
            entry.stage = Stage::Idle;
            entry.due = None;
        }
    }

    fn n_tries(&self) -> usize {
        let tries = self.peers.values();
        tries.filter(|entry| entry.stage != Stage::Idle).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: Duration = Duration::from_secs(1);

    fn dialled(n: usize) -> Relayed {
        Relayed {
            connection: ConnectionId::new_unchecked(n),
            is_dialled: true,
            has_dialled: false,
        }
    }

    fn round() -> Round {
        Round::new(Vec::new(), true)
    }

    fn id(n: usize) -> ConnectionId {
        ConnectionId::new_unchecked(n)
    }

    /// Returns a book of a node with a larger id than its peer, and the peer.
    fn leading() -> (PunchBook, PeerId) {
        let (a, b) = (PeerId::random(), PeerId::random());
        (PunchBook::new(a.max(b)), a.min(b))
    }

    #[test]
    fn the_side_begins_that_was_dialled_and_the_larger_id_if_both_were() {
        let start = Instant::now();
        let both = Relayed {
            has_dialled: true,
            ..dialled(1)
        };
        let own = Relayed {
            is_dialled: false,
            ..both
        };
        let (a, b) = (PeerId::random(), PeerId::random());
        for (local, peer, relayed, due) in [
            (a.max(b), a.min(b), dialled(1), Some(start)),
            (a.max(b), a.min(b), both, Some(start)),
            (a.max(b), a.min(b), own, None),
            (a.min(b), a.max(b), dialled(1), Some(start + HEAD_START)),
            (a.min(b), a.max(b), both, None),
            (a.min(b), a.max(b), own, None),
        ] {
            let mut book = PunchBook::new(local);
            book.handle_relayed(peer, relayed, start);
            assert_eq!(book.poll_due(), due, "{relayed:?}");
        }
    }

    #[test]
    fn what_fails_is_tried_again_ever_more_rarely_and_soon_after_a_change_of_addresses() {
        let (mut book, peer) = leading();
        let mut now = Instant::now();
        book.handle_relayed(peer, dialled(1), now);
        let mut waits = Vec::new();
        for _ in 0..7 {
            assert_eq!(book.poll(now), [peer]);
            assert_eq!((book.poll(now), book.poll_due()), (Vec::new(), None));
            book.handle_failure(peer, now, 0.0);
            let due = book.poll_due().expect("it is tried again");
            waits.push((due - now).as_secs());
            now = due;
        }
        assert_eq!(waits, [10, 20, 40, 80, 160, 300, 300]);

        book.handle_addresses(now);
        assert_eq!(book.poll_due(), Some(now + SETTLE));
        now += SETTLE;
        assert_eq!(book.poll(now), [peer]);
        book.handle_failure(peer, now, 1.0);
        assert_eq!(book.poll_due(), Some(now + FIRST_WAIT * 4 / 5));
        assert!(!book.remove(peer, now), "none goes on");
        book.handle_relayed(peer, dialled(1), now);
        assert_eq!(book.poll(now), [peer]);
        assert!(book.remove(peer, now), "the peer may be quicker");
        assert_eq!(book.poll_due(), None);
    }

    #[test]
    fn a_peer_that_tries_often_is_not_followed_whatever_becomes_of_its_connections() {
        let (mut book, peer) = leading();
        let start = Instant::now();
        assert_eq!(
            book.handle_agreed(peer, false, start),
            Err(Refusal::NotWanted),
            "it is not relayed"
        );
        let own = Relayed {
            is_dialled: false,
            has_dialled: true,
            ..dialled(1)
        };
        book.handle_relayed(peer, own, start);
        assert_eq!(book.handle_agreed(peer, false, start), Ok(()));
        book.handle_dial(peer, id(7), round(), start);
        assert_eq!(
            book.handle_agreed(peer, false, start + 5 * S),
            Err(Refusal::NotWanted),
            "one goes on"
        );
        book.remove(peer, start);
        book.handle_relayed(peer, dialled(2), start + S);
        assert_eq!(
            book.handle_agreed(peer, false, start + 3 * S),
            Err(Refusal::TooOften)
        );
        assert_eq!(
            book.poll_due(),
            Some(start + LEAST_INTERVAL),
            "its own are not more often"
        );
        assert_eq!(book.handle_agreed(peer, false, start + LEAST_INTERVAL), Ok(()));
    }

    #[test]
    fn of_two_exchanges_at_once_that_of_the_larger_id_stands() {
        let start = Instant::now();
        let (mut leads, small) = leading();
        let large = leads.local_peer;
        let mut follows = PunchBook::new(small);
        leads.handle_relayed(small, dialled(1), start);
        follows.handle_relayed(large, dialled(1), start);
        let later = start + HEAD_START;
        assert_eq!(
            (leads.poll(later), follows.poll(later)),
            (vec![small], vec![large])
        );

        assert_eq!(leads.handle_agreed(small, false, later), Err(Refusal::NotWanted));
        assert_eq!(leads.handle_agreed(small, true, later), Ok(()));
        assert_eq!(follows.handle_agreed(large, false, later), Ok(()));
        follows.handle_dial(large, id(1), round(), later);
        assert_eq!(follows.handle_agreed(large, true, later), Err(Refusal::NotWanted));
    }

    #[test]
    fn a_dial_that_is_refused_at_once_is_repeated_a_few_times_and_one_of_another_kind_is_not_known() {
        let (mut book, peer) = leading();
        let start = Instant::now();
        book.handle_relayed(peer, dialled(1), start);
        book.poll(start);
        assert_eq!(book.handle_agreed(peer, true, start), Ok(()));
        book.handle_dial(peer, id(1), round(), start);
        assert_eq!(book.handle_dial_failure(peer, id(9), start), None);
        for n in 1..MAX_DIALS {
            let Some(DialEnd::Again(round)) = book.handle_dial_failure(peer, id(n), start + S) else {
                panic!("dial {n} is the last one");
            };
            book.handle_dial(peer, id(n + 1), round, start + S);
        }
        let last = book.handle_dial_failure(peer, id(MAX_DIALS), start + S);
        assert_eq!(last, Some(DialEnd::Failed));
        book.handle_failure(peer, start + S, 0.0);

        let later = start + 20 * S;
        book.poll(later);
        assert_eq!(book.handle_agreed(peer, true, later), Ok(()));
        book.handle_dial(peer, id(20), round(), later);
        let slow = book.handle_dial_failure(peer, id(20), later + AGAIN_WITHIN);
        assert_eq!(slow, Some(DialEnd::Failed));
        book.handle_dial(peer, id(21), round(), later);
        book.handle_failure(peer, later, 0.0);
        assert!(book.remove(peer, later + S), "one went on just now");
        book.handle_relayed(peer, dialled(1), later);
        assert!(!book.remove(peer, later + LEAST_INTERVAL));
        assert_eq!(book.handle_dial_failure(peer, id(21), later), Some(DialEnd::Over));
    }

    #[test]
    fn no_more_peers_are_tried_at_a_time_than_may_be() {
        let start = Instant::now();
        let mut book = PunchBook::new(PeerId::random());
        let peers: Vec<_> = (0..MAX_AT_ONCE + 5).map(|_| PeerId::random()).collect();
        for (n, peer) in peers.iter().enumerate() {
            book.handle_relayed(*peer, dialled(n), start);
        }
        let begun = book.poll(start + S);
        assert_eq!(begun.len(), MAX_AT_ONCE);
        assert_eq!(book.poll_due(), None, "there is no room");
        book.handle_no_address(begun[0]);
        assert!(book.poll_due().is_some());
        assert_eq!(book.poll(start + S).len(), 1);
    }
}
