//! The configured peers as the data path sees them.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed};

use ipnet::IpNet;
use libp2p::PeerId;
use tokio::sync::watch;

use super::streams::Streams;
use crate::engine::route_table::{PeerIndex, RouteTable};

/// One configured peer.
pub(super) struct Peer {
    /// Its index in every table.
    pub(super) index: PeerIndex,
    /// Its identity.
    pub(super) id: PeerId,
    /// The inner addresses that are its own.
    pub(super) allowed_ips: Vec<IpNet>,
    /// The ways to it.
    pub(super) streams: Streams,
    /// Whether a connection stands, so that its frames are worth queueing.
    pub(super) connected: AtomicBool,
    /// How many connections its lanes are on.
    pub(super) n_connections: watch::Sender<u32>,
    /// What went to and came from it.
    pub(super) traffic: Traffic,
}

/// Frames (a super-packet counts once) and packet bytes in both directions, and the streams open now.
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
    /// Open streams, ours and the peer's.
    pub(super) n_streams: AtomicU32,
}

/// Counts a stream as open for as long as it lives.
pub(super) struct OpenStream<'a>(&'a AtomicU32);

impl<'a> OpenStream<'a> {
    pub(super) fn new(traffic: &'a Traffic) -> Self {
        traffic.n_streams.fetch_add(1, Relaxed);
        Self(&traffic.n_streams)
    }
}

impl Drop for OpenStream<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

/// Every configured peer, found by index, by identity or by inner address.
pub(super) struct PeerTable {
    routes: RouteTable,
    peers: Vec<Arc<Peer>>,
    by_id: HashMap<PeerId, PeerIndex>,
}

impl PeerTable {
    /// Builds the table; peers get their indices in the given order.
    pub(super) fn new(
        peers: impl IntoIterator<Item = (PeerId, Vec<IpNet>)>,
        streams_of: impl Fn(PeerIndex) -> Streams,
    ) -> Self {
        let peers: Vec<_> = (0u32..)
            .map(PeerIndex)
            .zip(peers)
            .map(|(index, (id, allowed_ips))| {
                Arc::new(Peer {
                    index,
                    id,
                    allowed_ips,
                    streams: streams_of(index),
                    connected: AtomicBool::new(false),
                    n_connections: watch::Sender::new(0),
                    traffic: Traffic::default(),
                })
            })
            .collect();
        let prefixes = peers
            .iter()
            .flat_map(|peer| peer.allowed_ips.iter().map(|prefix| (*prefix, peer.index)));
        Self {
            routes: RouteTable::new(prefixes),
            by_id: peers.iter().map(|peer| (peer.id, peer.index)).collect(),
            peers,
        }
    }

    /// Every peer, by index.
    pub(super) fn all(&self) -> &[Arc<Peer>] {
        &self.peers
    }

    /// The peer at `index`.
    pub(super) fn get(&self, index: PeerIndex) -> Option<&Arc<Peer>> {
        self.peers.get(index.0 as usize)
    }

    /// The peer with this identity.
    pub(super) fn by_id(&self, id: &PeerId) -> Option<&Arc<Peer>> {
        self.get(*self.by_id.get(id)?)
    }

    /// Which inner address belongs to which peer.
    pub(super) fn routes(&self) -> &RouteTable {
        &self.routes
    }
}
