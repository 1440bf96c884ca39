//! Peers that do not answer on a connection: another one is made before it is given up.

use libp2p::{PeerId, swarm::ConnectionId};
use tokio::time::Instant;

use super::Driver;

impl Driver {
    /// Leaves a connection on which the peer has not answered since `since` if it was heard on another since, and dials the
    /// peer if not.
    pub(super) fn handle_silent(
        &mut self,
        peer: PeerId,
        connection: ConnectionId,
        since: Instant,
        now: Instant,
    ) {
        if !self.connections.handle_silent(connection) {
            return;
        }
        tracing::debug!(%peer, %connection, "the peer does not answer on a connection");
        self.state.set_silent(connection, true);
        if self.connections.is_heard(peer, since) {
            self.close_silent(peer, now);
        } else {
            self.redials.handle_silent(peer, now);
        }
    }

    /// Takes in that a peer was heard on a connection.
    pub(super) fn handle_heard(&mut self, peer: PeerId, connection: ConnectionId, now: Instant) {
        if self.connections.handle_heard(connection, now) {
            tracing::debug!(%peer, %connection, "the peer answers on the connection again");
            self.state.set_silent(connection, false);
            self.redials.handle_present(peer);
            self.state.clear_dial_error(peer);
        }
        self.close_silent(peer, now);
    }

    /// Closes the connections on which a peer does not answer, as there is one on which it does.
    pub(super) fn close_silent(&mut self, peer: PeerId, now: Instant) {
        for connection in self.connections.silent(peer) {
            self.handle_down(
                connection,
                "the peer answers on another connection".to_owned(),
                now,
            );
            self.swarm.close_connection(connection);
        }
    }
}
