//! The state of the network at one moment.

use std::time::{Duration, SystemTime};

use libp2p::{Multiaddr, PeerId, core::Endpoint, swarm::ConnectionId};

use super::{
    address::{TransportKind, transport_kind},
    counters::NetworkCounters,
    found::FoundAddress,
    reach::{FailedDial, FailedPunch, ReachSnapshot},
    uplink::UplinkConfig,
};

/// Which side opened a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConnectionDirection {
    /// The peer dialled this node.
    Inbound,
    /// This node dialled the peer.
    Outbound,
}

/// The state of the network at one moment.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct NetworkSnapshot {
    /// The id of this node.
    pub local_peer: PeerId,
    /// The addresses that this node listens on.
    pub listening: Vec<Multiaddr>,
    /// The addresses at which routers forward to this node, as
    /// [`NetworkHandle::set_mapped`](super::NetworkHandle::set_mapped) was told.
    pub mapped: Vec<Multiaddr>,
    /// How it is reached beside that.
    pub reach: ReachSnapshot,
    /// Every configured peer, in order of configuration.
    pub peers: Vec<PeerSnapshot>,
    /// What was refused or failed since the start.
    pub counters: NetworkCounters,
}

/// A configured peer at one moment.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct PeerSnapshot {
    /// The peer's id.
    pub peer: PeerId,
    /// The peer's connections, oldest first, and those that are to be left last.
    pub connections: Vec<ConnectionSnapshot>,
    /// Why the last attempt to dial the peer failed, if none succeeded since.
    pub last_dial_error: Option<String>,
    /// Addresses at which dialling the peer failed since it was last reached, each with its last failure; the latest is last.
    pub failed: Vec<FailedDial>,
    /// Why there is no direct connection with the peer, if it is connected through a relay.
    pub failed_punch: Option<FailedPunch>,
    /// Whether the peer refused this node, when it was last dialled, as one that it does not know.
    pub refuses: bool,
    /// The peer's addresses that were found and not configured, the nearest first.
    pub found: Vec<FoundAddress>,
}

/// A connection at one moment.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ConnectionSnapshot {
    /// The connection's id, unique in this process.
    pub connection: ConnectionId,
    /// The peer's address.
    pub address: Multiaddr,
    /// Which side dialled.
    pub direction: ConnectionDirection,
    /// The transport that carries the connection.
    pub transport: TransportKind,
    /// When the connection was established.
    pub since: SystemTime,
    /// Whether both sides have dialled at once, as they had agreed through a relay.
    pub is_punched: bool,
    /// The uplink by which it leaves, or has come, if that is one of those that were configured.
    pub uplink: Option<UplinkConfig>,
    /// Whether the peer does not answer on it.
    pub is_silent: bool,
    /// Whether the connection is to be left, as there is a better one or one is enough.
    pub is_leaving: bool,
    /// The last measured round trip.
    pub rtt: Option<Duration>,
    /// Which share of the packets that were sent in the last minute or two was lost, 0 to 1; `None` if there were too few, and
    /// through a relay. Over TCP it is that of segments that were sent again.
    pub loss: Option<f64>,
    /// Number of live streams of [`IP_PROTOCOL`](super::IP_PROTOCOL) that the peer opened.
    pub n_inbound_streams: usize,
    /// Number of live streams of [`IP_PROTOCOL`](super::IP_PROTOCOL) that this node opened.
    pub n_outbound_streams: usize,
}

impl NetworkSnapshot {
    /// Makes the snapshot of a node without peers, for tests of what reads one.
    pub fn new(local_peer: PeerId) -> Self {
        Self {
            local_peer,
            listening: Vec::new(),
            mapped: Vec::new(),
            reach: ReachSnapshot::default(),
            peers: Vec::new(),
            counters: NetworkCounters::default(),
        }
    }
}

impl PeerSnapshot {
    /// Makes the snapshot of a peer without connections, for tests of what reads one.
    pub fn new(peer: PeerId) -> Self {
        Self {
            peer,
            connections: Vec::new(),
            last_dial_error: None,
            failed: Vec::new(),
            failed_punch: None,
            refuses: false,
            found: Vec::new(),
        }
    }
}

impl ConnectionSnapshot {
    /// Makes the snapshot of a connection that has just been established, for tests of what reads one.
    pub fn new(connection: ConnectionId, address: Multiaddr, direction: ConnectionDirection) -> Self {
        Self {
            connection,
            direction,
            transport: transport_kind(&address),
            address,
            since: SystemTime::now(),
            is_punched: false,
            uplink: None,
            is_silent: false,
            is_leaving: false,
            rtt: None,
            loss: None,
            n_inbound_streams: 0,
            n_outbound_streams: 0,
        }
    }
}

impl From<Endpoint> for ConnectionDirection {
    fn from(endpoint: Endpoint) -> Self {
        match endpoint {
            Endpoint::Dialer => Self::Outbound,
            Endpoint::Listener => Self::Inbound,
        }
    }
}
