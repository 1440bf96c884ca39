//! The connections that the driver has reported as up, and which of them are still live.

use std::{collections::HashMap, time::Duration};

use libp2p::{PeerId, swarm::ConnectionId};
use tokio::time::Instant;

use super::{departure::Leave, redial_book::Lead, uplink::UplinkId};

/// The established connections of all peers.
///
/// A connection that this node has dialled is unproven until the peer shows that it has taken it in: the dialler's part of
/// a handshake ends before the peer decides. A connection ends in two steps: it is down when it is taken for dead or
/// begins to close, and closed when the swarm has let go of it.
#[derive(Debug, Default)]
pub(super) struct PeerConnections {
    all: HashMap<ConnectionId, PeerConnection>,
    /// Those of each peer that has any: a node of a large mesh has thousands.
    by_peer: HashMap<PeerId, Vec<ConnectionId>>,
}

#[derive(Debug)]
struct PeerConnection {
    peer: PeerId,
    uplink: UplinkId,
    stage: Stage,
    leaving: Option<Leaving>,
    /// Whether the peer does not answer on it.
    is_silent: bool,
    /// When the peer was last heard on it.
    heard: Option<Instant>,
}

/// How a connection is to be left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Leaving {
    pub(super) why: Leave,
    /// Whether the peer has said so.
    pub(super) by_peer: bool,
    pub(super) since: Instant,
}

/// How far a connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// The peer may refuse it still. It took so long to bring it up.
    Unproven(Duration),
    /// The connection was reported as up and not yet as down.
    Live,
    /// The connection was reported as down, or failed.
    Down,
}

/// A connection that has just gone down.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct WentDown {
    pub(super) peer: PeerId,
    /// The uplink that it counted for.
    pub(super) uplink: UplinkId,
    /// Whether the peer has no live connection any more.
    pub(super) was_last: bool,
    /// Whether it has none by the uplink.
    pub(super) was_last_of_uplink: bool,
    /// Whether the peer is to be left alone, as nothing was sent for long.
    pub(super) rests: bool,
}

impl PeerConnections {
    /// Adds a live connection. Returns whether it is the only one of its peer.
    pub(super) fn handle_established(&mut self, connection: ConnectionId, (peer, uplink): Lead) -> bool {
        let is_first = !self.is_present(peer);
        self.insert(connection, PeerConnection::new(peer, uplink, Stage::Live));
        is_first
    }

    /// Adds a connection that this node has dialled, which took so long to bring up.
    pub(super) fn handle_dialled(&mut self, connection: ConnectionId, (peer, uplink): Lead, took: Duration) {
        self.insert(
            connection,
            PeerConnection::new(peer, uplink, Stage::Unproven(took)),
        );
    }

    fn insert(&mut self, connection: ConnectionId, entry: PeerConnection) {
        let peer = entry.peer;
        if self.all.insert(connection, entry).is_none() {
            self.by_peer.entry(peer).or_default().push(connection);
        }
    }

    /// Returns the connections of a peer that have not closed.
    fn entries(&self, peer: PeerId) -> impl Iterator<Item = (ConnectionId, &PeerConnection)> {
        let connections = self.by_peer.get(&peer).into_iter().flatten();
        connections.filter_map(|connection| Some((*connection, self.all.get(connection)?)))
    }

    /// Takes an unproven connection out, as it is proven or has failed. Returns its peer and how long it took to bring it
    /// up, or `None` if there is no such connection.
    pub(super) fn take_unproven(&mut self, connection: ConnectionId) -> Option<(PeerId, Duration)> {
        let entry = self.all.get_mut(&connection)?;
        let Stage::Unproven(took) = entry.stage else {
            return None;
        };
        entry.stage = Stage::Down;
        Some((entry.peer, took))
    }

    /// Takes a connection for down. Returns `None` if it was down already, or is unknown.
    pub(super) fn handle_down(&mut self, connection: ConnectionId) -> Option<WentDown> {
        let entry = self.all.get_mut(&connection).filter(|entry| entry.is_live())?;
        entry.stage = Stage::Down;
        let (peer, uplink, leaving) = (entry.peer, entry.uplink, entry.leaving.take());
        Some(WentDown {
            peer,
            uplink,
            was_last: !self.is_present(peer),
            was_last_of_uplink: !self.is_present_by((peer, uplink)),
            rests: leaving.is_some_and(|leaving| leaving.why == Leave::Rest),
        })
    }

    /// Records that the peer does not answer on a connection. Returns false if that is known, or the connection is not live.
    pub(super) fn handle_silent(&mut self, connection: ConnectionId) -> bool {
        let entry = self.all.get_mut(&connection);
        let entry = entry.filter(|entry| entry.is_live() && !entry.is_silent);
        entry.map(|entry| entry.is_silent = true).is_some()
    }

    /// Records that the peer was heard on a connection. Returns whether it was silent.
    pub(super) fn handle_heard(&mut self, connection: ConnectionId, now: Instant) -> bool {
        let Some(entry) = self.all.get_mut(&connection) else {
            return false;
        };
        entry.heard = Some(now);
        std::mem::take(&mut entry.is_silent)
    }

    /// Says whether the peer was heard on a live connection at `since` or later.
    pub(super) fn is_heard(&self, peer: PeerId, since: Instant) -> bool {
        let is_heard = |entry: &PeerConnection| {
            let is_heard = entry.heard.is_some_and(|heard| heard >= since);
            entry.stays() && !entry.is_silent && is_heard
        };
        self.entries(peer).any(|(_, entry)| is_heard(entry))
    }

    /// Returns the live connections of a peer on which it does not answer.
    pub(super) fn silent(&self, peer: PeerId) -> Vec<ConnectionId> {
        let entries = self.entries(peer);
        let silent = entries.filter(|(_, entry)| entry.is_live() && entry.is_silent);
        silent.map(|(connection, _)| connection).collect()
    }

    /// Records that a live connection is to be left. Returns false if that is known, or there is no such connection.
    pub(super) fn set_leaving(&mut self, connection: ConnectionId, leaving: Leaving) -> bool {
        let entry = self.all.get_mut(&connection).filter(|entry| entry.stays());
        entry.map(|entry| entry.leaving = Some(leaving)).is_some()
    }

    /// Records that a connection is not to be left any more. Returns false if it was not to be.
    pub(super) fn clear_leaving(&mut self, connection: ConnectionId) -> bool {
        let entry = self.all.get_mut(&connection);
        entry.is_some_and(|entry| entry.leaving.take().is_some())
    }

    /// Returns how a connection is to be left, if it is.
    pub(super) fn leaving(&self, connection: ConnectionId) -> Option<Leaving> {
        self.all.get(&connection)?.leaving
    }

    /// Says whether a peer has a live connection that is not to be left.
    pub(super) fn stays(&self, peer: PeerId) -> bool {
        self.entries(peer).any(|(_, entry)| entry.stays())
    }

    /// Says whether the peer has a live connection beside this one that is not to be left.
    pub(super) fn has_other(&self, peer: PeerId, connection: ConnectionId) -> bool {
        let mut others = self.entries(peer).filter(|(id, _)| *id != connection);
        others.any(|(_, entry)| entry.stays())
    }

    /// Returns the spare connections of a peer that has no others any more.
    pub(super) fn needed(&self, peer: PeerId) -> Vec<ConnectionId> {
        if self.stays(peer) {
            return Vec::new();
        }
        let is_spare = |entry: &PeerConnection| {
            let why = entry.leaving.map(|leaving| leaving.why);
            entry.is_live() && why == Some(Leave::Spare)
        };
        let spare = self.entries(peer).filter(|(_, entry)| is_spare(entry));
        spare.map(|(connection, _)| connection).collect()
    }

    /// Returns the connections that this node has wanted to leave since `since` or before.
    pub(super) fn left_since(&self, since: Instant) -> Vec<ConnectionId> {
        let left = self.all.iter().filter(|(_, entry)| {
            let leaving = entry.leaving.filter(|leaving| !leaving.by_peer);
            leaving.is_some_and(|leaving| leaving.since <= since)
        });
        left.map(|(connection, _)| *connection).collect()
    }

    /// Forgets a connection that has closed.
    pub(super) fn handle_closed(&mut self, connection: ConnectionId) {
        let Some(entry) = self.all.remove(&connection) else {
            return;
        };
        if let Some(connections) = self.by_peer.get_mut(&entry.peer) {
            connections.retain(|other| *other != connection);
            if connections.is_empty() {
                self.by_peer.remove(&entry.peer);
            }
        }
    }

    /// Says whether a connection is live.
    pub(super) fn is_live(&self, connection: ConnectionId) -> bool {
        self.all.get(&connection).is_some_and(PeerConnection::is_live)
    }

    /// Says whether a peer has a live connection.
    pub(super) fn is_present(&self, peer: PeerId) -> bool {
        self.entries(peer).any(|(_, entry)| entry.is_live())
    }

    /// Says whether a peer has a live connection by an uplink.
    pub(super) fn is_present_by(&self, (peer, uplink): Lead) -> bool {
        let mut entries = self.entries(peer);
        entries.any(|(_, entry)| entry.is_live() && entry.uplink == uplink)
    }

    /// Returns the uplink that a connection counts for.
    pub(super) fn uplink(&self, connection: ConnectionId) -> UplinkId {
        self.all
            .get(&connection)
            .map_or(UplinkId::FIRST, |entry| entry.uplink)
    }

    /// Says whether any peer has a live connection.
    pub(super) fn is_anybody_present(&self) -> bool {
        self.all.values().any(PeerConnection::is_live)
    }

    /// Returns the connections of a peer that have not closed.
    pub(super) fn of_peer(&self, peer: PeerId) -> Vec<ConnectionId> {
        self.by_peer.get(&peer).cloned().unwrap_or_default()
    }

    /// Returns how many connections have not closed.
    pub(super) fn len(&self) -> usize {
        self.all.len()
    }
}

impl PeerConnection {
    fn new(peer: PeerId, uplink: UplinkId, stage: Stage) -> Self {
        Self {
            peer,
            uplink,
            stage,
            leaving: None,
            is_silent: false,
            heard: None,
        }
    }

    /// Says whether the connection is live, and not to be left.
    fn stays(&self) -> bool {
        self.is_live() && self.leaving.is_none()
    }

    fn is_live(&self) -> bool {
        self.stage == Stage::Live
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn by(peer: PeerId) -> Lead {
        (peer, UplinkId::FIRST)
    }

    fn id(n: usize) -> ConnectionId {
        ConnectionId::new_unchecked(n)
    }

    #[test]
    fn nothing_is_kept_of_a_peer_whose_connections_have_closed() {
        let (peer, other) = (PeerId::random(), PeerId::random());
        let mut connections = PeerConnections::default();
        connections.handle_dialled(id(1), by(peer), Duration::ZERO);
        connections.take_unproven(id(1));
        connections.handle_established(id(1), by(peer));
        connections.handle_established(id(2), by(peer));
        connections.handle_established(id(3), by(other));
        assert_eq!(connections.of_peer(peer), [id(1), id(2)]);

        for n in [1, 2, 2] {
            connections.handle_closed(id(n));
        }

        assert_eq!(connections.of_peer(peer), []);
        assert_eq!(connections.of_peer(other), [id(3)]);
        assert_eq!((connections.len(), connections.by_peer.len()), (1, 1));
    }

    #[test]
    fn a_peer_is_present_from_its_first_connection_to_its_last() {
        let (peer, other) = (PeerId::random(), PeerId::random());
        let mut connections = PeerConnections::default();
        assert!(!connections.is_anybody_present());

        assert!(connections.handle_established(id(1), by(peer)));
        assert!(!connections.handle_established(id(2), by(peer)));
        assert!(connections.is_present(peer) && !connections.is_present(other));

        let down = |was_last| {
            Some(WentDown {
                peer,
                uplink: UplinkId::FIRST,
                was_last,
                was_last_of_uplink: was_last,
                rests: false,
            })
        };
        assert_eq!(connections.handle_down(id(1)), down(false));
        assert_eq!(connections.handle_down(id(2)), down(true));
        assert!(!connections.is_present(peer) && !connections.is_anybody_present());
    }

    #[test]
    fn a_connection_goes_down_once_and_stays_known_until_it_has_closed() {
        let peer = PeerId::random();
        let mut connections = PeerConnections::default();
        connections.handle_established(id(1), by(peer));
        assert!(connections.is_live(id(1)));

        assert!(connections.handle_down(id(1)).is_some());
        assert_eq!(connections.handle_down(id(1)), None);
        assert!(!connections.is_live(id(1)));
        assert_eq!((connections.of_peer(peer), connections.len()), (vec![id(1)], 1));

        connections.handle_closed(id(1));
        assert_eq!((connections.of_peer(peer), connections.len()), (Vec::new(), 0));
    }

    #[test]
    fn a_dialled_connection_counts_once_it_is_proven_and_one_that_is_not_never_goes_down() {
        let peer = PeerId::random();
        let took = Duration::from_millis(3);
        let mut connections = PeerConnections::default();
        connections.handle_dialled(id(1), by(peer), took);
        connections.handle_dialled(id(2), by(peer), took);
        assert!(!connections.is_present(peer) && !connections.is_live(id(1)));
        assert_eq!(connections.len(), 2);

        assert_eq!(connections.handle_down(id(1)), None);
        assert_eq!(connections.take_unproven(id(1)), Some((peer, took)));
        assert_eq!(connections.take_unproven(id(1)), None);
        assert!(connections.handle_established(id(1), by(peer)));

        assert!(connections.is_live(id(1)));
        assert_eq!(connections.take_unproven(id(2)), Some((peer, took)));
        assert_eq!(connections.handle_down(id(2)), None);
    }

    #[test]
    fn a_connection_that_was_never_up_does_not_go_down() {
        assert_eq!(PeerConnections::default().handle_down(id(7)), None);
    }

    #[test]
    fn a_peer_that_returns_while_its_old_connection_closes_is_present_anew() {
        let peer = PeerId::random();
        let mut connections = PeerConnections::default();
        connections.handle_established(id(1), by(peer));
        connections.handle_down(id(1));

        assert!(connections.handle_established(id(2), by(peer)));
        connections.handle_closed(id(1));

        assert!(connections.is_present(peer));
    }

    #[test]
    fn spare_connections_are_needed_once_the_others_are_gone() {
        let (peer, now) = (PeerId::random(), Instant::now());
        let spare = Leaving {
            why: Leave::Spare,
            by_peer: false,
            since: now,
        };
        let mut connections = PeerConnections::default();
        connections.handle_established(id(1), by(peer));
        connections.handle_established(id(2), by(peer));

        assert!(connections.has_other(peer, id(1)) && connections.set_leaving(id(1), spare));
        assert!(!connections.set_leaving(id(1), spare), "it is known");
        assert!(!connections.has_other(peer, id(2)));
        assert_eq!(connections.needed(peer), [], "another is there");
        assert_eq!(connections.left_since(now), [id(1)]);

        connections.handle_down(id(2));
        assert_eq!(connections.needed(peer), [id(1)]);
        assert!(connections.clear_leaving(id(1)) && !connections.clear_leaving(id(1)));
        assert!(connections.stays(peer) && connections.needed(peer).is_empty());
        assert_eq!(connections.left_since(now), []);
    }

    #[test]
    fn a_peer_rests_if_its_last_connection_was_left_as_nothing_was_sent() {
        let peer = PeerId::random();
        let mut connections = PeerConnections::default();
        connections.handle_established(id(1), by(peer));
        let rest = Leaving {
            why: Leave::Rest,
            by_peer: true,
            since: Instant::now(),
        };

        assert!(connections.set_leaving(id(1), rest));

        assert_eq!(connections.needed(peer), [], "nothing is to be sent");
        assert_eq!(connections.left_since(Instant::now()), [], "the peer leaves it");
        let down = connections.handle_down(id(1)).expect("it was live");
        assert!(down.was_last && down.rests);
    }

    #[test]
    fn a_silent_connection_is_one_until_it_is_heard_and_another_is_heard_since() {
        let (start, peer) = (Instant::now(), PeerId::random());
        let mut connections = PeerConnections::default();
        connections.handle_established(id(1), by(peer));
        connections.handle_established(id(2), by(peer));

        connections.handle_heard(id(2), start);
        let since = start + Duration::from_millis(1);
        assert!(connections.handle_silent(id(1)));
        assert!(!connections.handle_silent(id(1)), "known");
        assert_eq!(connections.silent(peer), [id(1)]);
        assert!(!connections.is_heard(peer, since), "that was before");

        assert!(!connections.handle_heard(id(2), since), "it was not silent");
        assert!(connections.is_heard(peer, since));
        assert!(connections.handle_heard(id(1), since));
        assert!(connections.silent(peer).is_empty());

        connections.handle_silent(id(2));
        connections.handle_down(id(2));
        assert!(connections.silent(peer).is_empty(), "it is given up");
    }
}
