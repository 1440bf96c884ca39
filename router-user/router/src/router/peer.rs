//! A peer of a router, and the tasks that write its streams.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

use libp2p_identity::PeerId;
use tracing::{Instrument, debug_span};

use super::pool::{PoolError, StreamPool};
use super::stats::PeerStats;
use crate::egress::cancellation::CancellationToken;
use crate::egress::lane_stream::LaneStream;
use crate::egress::lanes::PeerLanes;
use crate::egress::sender::{self, SenderControl, StreamSource};
use crate::egress::stream_scaler::ScaledPeer;
use stream_router_engine::flow_cache::StreamIndex;
use stream_router_engine::queue::{AqmActions, QueueLimits};

/// The router drops nothing that it took: from the first mark on it takes nothing more for the peer, so that no more than
/// the workers' queues hold comes on top.
const LIMITS: QueueLimits = QueueLimits {
    pressure_at: 512 * 1024,
    relief_at: 256 * 1024,
    full_at: usize::MAX,
    aqm: false,
};

/// A peer that was found.
pub(super) struct RouterPeer {
    pub(super) id: PeerId,
    pub(super) lanes: PeerLanes,
    /// Too much waits for it.
    pub(super) busy: Arc<AtomicBool>,
    /// A stream of it could not be closed.
    pub(super) unclosed: AtomicBool,
    n_written: AtomicU64,
    n_written_bytes: AtomicU64,
    n_lost: AtomicU64,
}

impl RouterPeer {
    pub(super) fn new(id: PeerId, n_most: u32, n_active: u32) -> Self {
        let busy = Arc::new(AtomicBool::new(false));
        let switch = {
            let busy = busy.clone();
            Box::new(move |pressed| busy.store(pressed, Relaxed))
        };
        Self {
            id,
            lanes: PeerLanes::new(n_most, n_active, LIMITS, switch),
            busy,
            unclosed: AtomicBool::new(false),
            n_written: AtomicU64::new(0),
            n_written_bytes: AtomicU64::new(0),
            n_lost: AtomicU64::new(0),
        }
    }

    /// Counts packets that will not be written.
    pub(super) fn add_lost(&self, n: u64) {
        self.n_lost.fetch_add(n, Relaxed);
    }

    pub(super) fn stats(&self) -> PeerStats {
        PeerStats {
            peer: self.id,
            // Before what is queued, so that it is never more.
            n_written: self.n_written.load(Relaxed),
            n_written_bytes: self.n_written_bytes.load(Relaxed),
            n_lost: self.n_lost.load(Relaxed),
            n_accepted: self.lanes.n_offered(),
            n_streams: self.lanes.n_active(),
            n_open_streams: self.lanes.n_open(),
        }
    }
}

/// A peer beside its place among the router's peers.
pub(super) struct PlacedPeer<'a>(pub(super) u32, pub(super) &'a RouterPeer);

impl ScaledPeer for PlacedPeer<'_> {
    fn index(&self) -> u32 {
        self.0
    }

    fn id(&self) -> PeerId {
        self.1.id
    }

    fn lanes(&self) -> &PeerLanes {
        &self.1.lanes
    }

    /// Prepares nothing: the pool opens a stream when there is something to write.
    async fn prepare(&self, _: u32) {}
}

/// Runs the sender of one of the peer's streams, until `finish` is cancelled and nothing waits.
pub(super) async fn send<P: StreamPool>(
    pool: Arc<P>,
    peer: Arc<RouterPeer>,
    stream: StreamIndex,
    finish: CancellationToken,
) {
    let Some(lane) = peer.lanes.get(stream) else {
        return;
    };
    let source = PooledStreams {
        pool: pool.as_ref(),
        peer: &peer,
    };
    let control = SenderControl {
        finish,
        ..SenderControl::default()
    };
    let span = debug_span!("stream", peer = %peer.id, stream = stream.0);
    sender::run(lane, &source, &control).instrument(span).await;
}

/// Streams of the embedder's pool.
struct PooledStreams<'a, P> {
    pool: &'a P,
    peer: &'a RouterPeer,
}

impl<P: StreamPool> StreamSource for PooledStreams<'_, P> {
    type Stream = P::Stream;
    type Error = PoolError;

    async fn open(&self, place: LaneStream) -> Result<P::Stream, PoolError> {
        self.pool.open_in_lane(self.peer.id, place).await
    }

    async fn close(&self, stream: P::Stream) -> Result<(), PoolError> {
        self.pool.close(self.peer.id, stream).await
    }

    fn handle_written(&self, n_frames: u64, n_bytes: u64) {
        self.peer.n_written.fetch_add(n_frames, Relaxed);
        self.peer.n_written_bytes.fetch_add(n_bytes, Relaxed);
    }

    fn handle_lost(&self, n_frames: u64) {
        self.peer.add_lost(n_frames);
    }

    fn handle_aqm(&self, actions: AqmActions) {
        // Its queues do not age, but a frame that is gone is never left out of the count.
        self.peer.add_lost(actions.n_dropped.into());
    }

    fn handle_failed(&self, finishing: bool) {
        if finishing {
            self.peer.unclosed.store(true, Relaxed);
        }
    }
}

impl From<io::Error> for PoolError {
    fn from(error: io::Error) -> Self {
        Self::new(error)
    }
}
