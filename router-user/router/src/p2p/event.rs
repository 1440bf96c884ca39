//! What the network reports.

use std::time::Duration;

use libp2p::{Multiaddr, PeerId, swarm::ConnectionId};
use tokio::runtime::Handle;

use super::{address::TransportKind, snapshot::ConnectionDirection, uplink::Way};

/// What happens on the network.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum NetworkEvent {
    /// A connection is up. A peer may have several; the oldest is the one to prefer.
    Connected {
        /// The peer.
        peer: PeerId,
        /// The new connection.
        connection: ConnectionId,
        /// The peer's address.
        address: Multiaddr,
        /// Which side dialled.
        direction: ConnectionDirection,
        /// The transport that carries the connection.
        transport: TransportKind,
        /// Which way its packets take.
        way: Way,
        /// How long dialling and handshakes took, as seen from this side.
        took: Duration,
        /// The runtime of the connection's task, on which writers and readers of its streams should run, too.
        runtime: Handle,
    },
    /// A connection is to be left: there is a better one, or one is enough, or nothing was sent for long. It opens no streams
    /// any more, and is closed once both sides have closed theirs and read those of the other. What is sent to the peer is
    /// to go over another of its connections; if there is none, the peer comes to rest, and
    /// [`NetworkHandle::dial_wanted`](super::NetworkHandle::dial_wanted) has it dialled again.
    Leaving {
        /// The peer.
        peer: PeerId,
        /// The connection.
        connection: ConnectionId,
    },
    /// A connection that was to be left stays, as the others are gone, or the other side keeps it.
    Staying {
        /// The peer.
        peer: PeerId,
        /// The connection.
        connection: ConnectionId,
    },
    /// A connection is down. It comes once for each [`NetworkEvent::Connected`], after it.
    Disconnected {
        /// The peer.
        peer: PeerId,
        /// The former connection.
        connection: ConnectionId,
        /// Why the connection is down, for the log.
        cause: String,
    },
    /// A peer was not reached, for a reason that is new since it was last connected: at most 8 come of an absence, and fewer
    /// while the receiver is behind.
    Unreached {
        /// The peer.
        peer: PeerId,
        /// Why, for an operator.
        error: String,
        /// How long the attempt took; zero for one that did not begin, as no address was known.
        took: Duration,
    },
    /// A round trip was measured. It is left out while the receiver is behind.
    Rtt {
        /// The peer.
        peer: PeerId,
        /// The connection.
        connection: ConnectionId,
        /// The duration of the round trip.
        rtt: Duration,
    },
    /// The node can be reached at an address of its own. It comes for every address of an unspecified one such as
    /// 0.0.0.0.
    Listening {
        /// The address.
        address: Multiaddr,
    },
}
