//! Peers that do not answer on a connection, or get nothing through it: another one is made before it is given up.

use std::{collections::BTreeMap, net::IpAddr};

use libp2p::{PeerId, swarm::ConnectionId};
use tokio::time::Instant;

use super::Driver;
use crate::p2p::{
    address::{tcp_destination, transport_kind},
    life::Doubt,
    transport::Stall,
};

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
            self.redials
                .handle_silent((peer, self.connections.uplink(connection)), now);
            // What leads elsewhere may work.
            self.state.doubt_peer(peer);
        }
    }

    /// Takes in that a peer was heard on a connection.
    pub(super) fn handle_heard(&mut self, peer: PeerId, connection: ConnectionId, now: Instant) {
        if self.connections.handle_heard(connection, now) {
            tracing::debug!(%peer, %connection, "the peer answers on the connection again");
            self.state.set_silent(connection, false);
            self.redials
                .handle_present((peer, self.connections.uplink(connection)));
            if let Some((_, address)) = self.state.runtime_and_address(connection) {
                self.state.clear_dial_error(peer, transport_kind(&address));
            }
        } else {
            let lead = (peer, self.connections.uplink(connection));
            self.redials.handle_answer(lead);
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

    /// Takes in that connections to hosts stall. Their peers are pinged on all that they have there, which finds a path that
    /// is gone, and dialled beside those: elsewhere, if that path is likely to be, and there, if it may drop large packets.
    pub(super) fn handle_stalled(&mut self, hosts: &BTreeMap<IpAddr, Stall>, now: Instant) {
        for (host, stall) in hosts {
            let doubt = match stall {
                Stall::Doubted => Doubt::Chance,
                Stall::Dark | Stall::Suspected => Doubt::Stall,
            };
            let leads = self.state.doubt_host(*host, doubt);
            tracing::debug!(%host, ?stall, n_peers = leads.len(), "connections to a host stall");
            for lead in leads {
                match stall {
                    Stall::Doubted => {}
                    Stall::Dark => self.redials.handle_stalled(lead, *host, now),
                    Stall::Suspected => self.redials.handle_silent(lead, now),
                }
            }
        }
    }

    /// Closes what is older than the stall that the small segments of a connection have ended: its path drops large packets, and it
    /// would stall in turn.
    pub(super) fn close_larger(&mut self, connection: ConnectionId, now: Instant) {
        let Some((_, address)) = self.state.runtime_and_address(connection) else {
            return;
        };
        let host = tcp_destination(&address).map(|at| at.ip());
        let Some(age) = host.and_then(|host| self.state.segments.take_stalled(host, now)) else {
            return;
        };
        for older in self.state.older_over_tcp(connection, age) {
            self.handle_down(older, "its path drops large packets".to_owned(), now);
            self.swarm.close_connection(older);
        }
    }
}
