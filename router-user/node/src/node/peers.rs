//! The configured peers as the data path sees them.

use std::collections::HashMap;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::Instant;

use arc_swap::ArcSwap;
use ipnet::IpNet;
use libp2p::{Multiaddr, PeerId};
use tokio::sync::watch;

use super::absence::Absence;
use super::recent_traffic::RecentTraffic;
use crate::config::PeerSection;
use stream_router::egress::lanes::PeerLanes;
use stream_router_engine::queue::QueueLimits;
use stream_router_engine::route_table::{PeerIndex, RouteTable};

/// About 1 ms of queue at 4 Gbit/s: deep enough that the stream never runs dry between two turns of the workers,
/// short enough that a ping behind it stays quick.
pub(super) const QUEUE_LIMITS: QueueLimits = QueueLimits {
    pressure_at: 512 * 1024,
    relief_at: 256 * 1024,
    full_at: 4 * 1024 * 1024,
    aqm: true,
};

/// The present table. A task loads it once for a batch or a turn, and sees one configuration in all of it.
pub(super) type LivePeers = ArcSwap<PeerTable>;

/// A peer that is configured, or was: it is the same for as long as anything of it is under way.
pub(super) struct NodePeer {
    /// Its index in every table.
    pub(super) index: PeerIndex,
    /// Its identity.
    pub(super) id: PeerId,
    /// The ways to it.
    pub(super) lanes: PeerLanes,
    /// Whether a connection stands, so that its frames are worth queueing.
    pub(super) connected: AtomicBool,
    /// Since when it has been without one.
    pub(super) absence: Absence,
    /// Whether it is dialled when there is something to send to it, and not before.
    pub(super) on_demand: AtomicBool,
    /// How many connections its lanes are on.
    pub(super) n_connections: watch::Sender<u32>,
    /// The fewest streams by which all of its ways are used.
    pub(super) n_least_streams: AtomicU32,
    /// What went to and came from it.
    pub(super) traffic: Traffic,
}

impl NodePeer {
    /// Makes a peer without a connection.
    pub(super) fn new(index: PeerIndex, id: PeerId, lanes: PeerLanes) -> Self {
        Self {
            index,
            id,
            lanes,
            connected: AtomicBool::new(false),
            absence: Absence::new(Instant::now()),
            on_demand: AtomicBool::new(false),
            n_connections: watch::Sender::new(0),
            n_least_streams: AtomicU32::new(1),
            traffic: Traffic::default(),
        }
    }
}

/// Frames (a super-packet counts once) and packet bytes in both directions, and the inbound streams open now.
#[derive(Debug, Default)]
pub(super) struct Traffic {
    /// Frames written to a stream.
    pub(super) tx_packets: AtomicU64,
    /// Their bytes, with frame headers.
    pub(super) tx_bytes: AtomicU64,
    /// Frames injected.
    pub(super) rx_packets: AtomicU64,
    /// Their bytes, with frame headers.
    pub(super) rx_bytes: AtomicU64,
    /// What these were in the last minute.
    pub(super) recent: RecentTraffic,
    /// Streams that the peer has open.
    pub(super) n_inbound_streams: AtomicU32,
    /// Streams that the peer has opened, from the start.
    n_inbound_opened: AtomicU64,
}

impl Traffic {
    /// Returns the bytes sent and received so far.
    pub(super) fn bytes(&self) -> (u64, u64) {
        (self.tx_bytes.load(Relaxed), self.rx_bytes.load(Relaxed))
    }

    /// Returns the number by which the log knows another stream that the peer opens.
    pub(super) fn number_inbound_stream(&self) -> u64 {
        self.n_inbound_opened.fetch_add(1, Relaxed)
    }
}

/// Counts a stream that the peer opened, until it is dropped.
pub(super) struct InboundStream<'a>(&'a AtomicU32);

impl<'a> InboundStream<'a> {
    pub(super) fn new(traffic: &'a Traffic) -> Self {
        traffic.n_inbound_streams.fetch_add(1, Relaxed);
        Self(&traffic.n_inbound_streams)
    }
}

impl Drop for InboundStream<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

/// A peer with what the configuration says of it.
pub(super) struct ConfiguredPeer {
    /// The peer.
    pub(super) peer: Arc<NodePeer>,
    /// What people call it.
    pub(super) name: Option<String>,
    /// What the configuration says of it to people.
    pub(super) comment: Option<String>,
    /// The inner addresses that are its own.
    pub(super) allowed_ips: Vec<IpNet>,
    /// Where the configuration says to dial it; nowhere, and it has to dial.
    pub(super) addresses: Vec<Multiaddr>,
    /// Whether it is dialled when there is something to send to it, and not before.
    pub(super) on_demand: bool,
    /// The most bytes per second that are sent to it.
    pub(super) rate: Option<NonZeroU32>,
}

/// Every configured peer, found by index, by identity or by inner address.
pub(super) struct PeerTable {
    routes: RouteTable,
    /// In the order of the configuration.
    peers: Vec<ConfiguredPeer>,
    /// Those that are not enabled, for people alone.
    disabled: Vec<PeerSection>,
    /// Asked for each packet.
    by_index: Vec<Option<Arc<NodePeer>>>,
    by_id: HashMap<PeerId, usize>,
}

impl PeerTable {
    /// Makes a table of these peers, in the order of the configuration.
    pub(super) fn new(peers: Vec<ConfiguredPeer>) -> Self {
        let prefixes = peers.iter().flat_map(|configured| {
            let index = configured.peer.index;
            configured.allowed_ips.iter().map(move |prefix| (*prefix, index))
        });
        let n_indices = peers
            .iter()
            .map(|configured| configured.peer.index.0 as usize + 1)
            .max();
        let mut by_index = vec![None; n_indices.unwrap_or(0)];
        for ConfiguredPeer { peer, .. } in &peers {
            if let Some(place) = by_index.get_mut(peer.index.0 as usize) {
                *place = Some(peer.clone());
            }
        }
        let ids = peers.iter().map(|configured| configured.peer.id);
        Self {
            routes: RouteTable::new(prefixes),
            by_id: ids.zip(0..).collect(),
            by_index,
            peers,
            disabled: Vec::new(),
        }
    }

    /// Returns the table with the peers of the configuration that are not enabled.
    pub(super) fn with_disabled(mut self, disabled: &[PeerSection]) -> Self {
        self.disabled = disabled.to_vec();
        self
    }

    /// Gives every peer the rate that the configuration says, and the time to connect.
    pub(super) fn apply_rates(&self) {
        for configured in &self.peers {
            configured.peer.lanes.pacer().set_rate(configured.rate);
            configured.peer.on_demand.store(configured.on_demand, Relaxed);
        }
    }

    /// Returns every peer, in the order of the configuration.
    pub(super) fn all(&self) -> &[ConfiguredPeer] {
        &self.peers
    }

    /// Returns the peers that are configured and not enabled.
    pub(super) fn disabled(&self) -> &[PeerSection] {
        &self.disabled
    }

    /// Returns how many networks all peers have.
    pub(super) fn n_prefixes(&self) -> usize {
        self.peers.iter().map(|peer| peer.allowed_ips.len()).sum()
    }

    /// Returns how many peers have a connection over which packets go.
    pub(super) fn n_connected(&self) -> usize {
        let connected = self.peers.iter().filter(|peer| peer.peer.connected.load(Relaxed));
        connected.count()
    }

    /// Returns the peer at `index`.
    pub(super) fn get(&self, index: PeerIndex) -> Option<&Arc<NodePeer>> {
        self.by_index.get(index.0 as usize)?.as_ref()
    }

    /// Returns the peer with this identity.
    pub(super) fn by_id(&self, id: &PeerId) -> Option<&Arc<NodePeer>> {
        Some(&self.configured(id)?.peer)
    }

    /// Returns the peer with this identity, and what the configuration says of it.
    pub(super) fn configured(&self, id: &PeerId) -> Option<&ConfiguredPeer> {
        self.peers.get(*self.by_id.get(id)?)
    }

    /// Returns which inner address belongs to which peer.
    pub(super) fn routes(&self) -> &RouteTable {
        &self.routes
    }
}
