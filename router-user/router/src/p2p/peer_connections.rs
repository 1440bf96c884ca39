//! The connections that the driver has reported as up, and which of them are still live.

use std::{collections::HashMap, time::Duration};

use libp2p::{PeerId, swarm::ConnectionId};

/// The established connections of all peers.
///
/// A connection that this node has dialled is unproven until the peer shows that it has taken it in: the dialler's part of
/// a handshake ends before the peer decides. A connection ends in two steps: it is down when it is taken for dead or
/// begins to close, and closed when the swarm has let go of it.
#[derive(Debug, Default)]
pub(super) struct PeerConnections(HashMap<ConnectionId, PeerConnection>);

#[derive(Debug)]
struct PeerConnection {
    peer: PeerId,
    stage: Stage,
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
    /// Whether the peer has no live connection any more.
    pub(super) was_last: bool,
}

impl PeerConnections {
    /// Adds a live connection. Returns whether it is the only one of its peer.
    pub(super) fn handle_established(&mut self, connection: ConnectionId, peer: PeerId) -> bool {
        let is_first = !self.is_present(peer);
        let stage = Stage::Live;
        self.0.insert(connection, PeerConnection { peer, stage });
        is_first
    }

    /// Adds a connection that this node has dialled, which took so long to bring up.
    pub(super) fn handle_dialled(&mut self, connection: ConnectionId, peer: PeerId, took: Duration) {
        let stage = Stage::Unproven(took);
        self.0.insert(connection, PeerConnection { peer, stage });
    }

    /// Takes an unproven connection out, as it is proven or has failed. Returns its peer and how long it took to bring it
    /// up, or `None` if there is no such connection.
    pub(super) fn take_unproven(&mut self, connection: ConnectionId) -> Option<(PeerId, Duration)> {
        let entry = self.0.get_mut(&connection)?;
        let Stage::Unproven(took) = entry.stage else {
            return None;
        };
        entry.stage = Stage::Down;
        Some((entry.peer, took))
    }

    /// Takes a connection for down. Returns `None` if it was down already, or is unknown.
    pub(super) fn handle_down(&mut self, connection: ConnectionId) -> Option<WentDown> {
        let entry = self.0.get_mut(&connection).filter(|entry| entry.is_live())?;
        entry.stage = Stage::Down;
        let peer = entry.peer;
        Some(WentDown {
            peer,
            was_last: !self.is_present(peer),
        })
    }

    /// Forgets a connection that has closed.
    pub(super) fn handle_closed(&mut self, connection: ConnectionId) {
        self.0.remove(&connection);
    }

    /// Says whether a connection is live.
    pub(super) fn is_live(&self, connection: ConnectionId) -> bool {
        self.0.get(&connection).is_some_and(PeerConnection::is_live)
    }

    /// Says whether a peer has a live connection.
    pub(super) fn is_present(&self, peer: PeerId) -> bool {
        self.0.values().any(|entry| entry.peer == peer && entry.is_live())
    }

    /// Says whether any peer has a live connection.
    pub(super) fn is_anybody_present(&self) -> bool {
        self.0.values().any(PeerConnection::is_live)
    }

    /// Returns the connections of a peer that have not closed.
    pub(super) fn of_peer(&self, peer: PeerId) -> Vec<ConnectionId> {
        let of_peer = self.0.iter().filter(|(_, entry)| entry.peer == peer);
        of_peer.map(|(connection, _)| *connection).collect()
    }

    /// Returns how many connections have not closed.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }
}

impl PeerConnection {
    fn is_live(&self) -> bool {
        self.stage == Stage::Live
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(n: usize) -> ConnectionId {
        ConnectionId::new_unchecked(n)
    }

    #[test]
    fn a_peer_is_present_from_its_first_connection_to_its_last() {
        let (peer, other) = (PeerId::random(), PeerId::random());
        let mut connections = PeerConnections::default();
        assert!(!connections.is_anybody_present());

        assert!(connections.handle_established(id(1), peer));
        assert!(!connections.handle_established(id(2), peer));
        assert!(connections.is_present(peer) && !connections.is_present(other));

        let down = |was_last| Some(WentDown { peer, was_last });
        assert_eq!(connections.handle_down(id(1)), down(false));
        assert_eq!(connections.handle_down(id(2)), down(true));
        assert!(!connections.is_present(peer) && !connections.is_anybody_present());
    }

    #[test]
    fn a_connection_goes_down_once_and_stays_known_until_it_has_closed() {
        let peer = PeerId::random();
        let mut connections = PeerConnections::default();
        connections.handle_established(id(1), peer);
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
        connections.handle_dialled(id(1), peer, took);
        connections.handle_dialled(id(2), peer, took);
        assert!(!connections.is_present(peer) && !connections.is_live(id(1)));
        assert_eq!(connections.len(), 2);

        assert_eq!(connections.handle_down(id(1)), None);
        assert_eq!(connections.take_unproven(id(1)), Some((peer, took)));
        assert_eq!(connections.take_unproven(id(1)), None);
        assert!(connections.handle_established(id(1), peer));

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
        connections.handle_established(id(1), peer);
        connections.handle_down(id(1));

        assert!(connections.handle_established(id(2), peer));
        connections.handle_closed(id(1));

        assert!(connections.is_present(peer));
    }
}
