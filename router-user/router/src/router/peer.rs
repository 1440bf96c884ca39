//! A peer of a router, and the tasks that write its streams.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use futures::AsyncWriteExt;
use libp2p::PeerId;
use tokio_util::sync::CancellationToken;
use tracing::debug;

use super::pool::{PoolError, StreamPool};
use super::stats::PeerStats;
use crate::egress::in_hand::InHand;
use crate::egress::streams::{Lane, Streams};
use stream_router_engine::backoff::Backoff;
use stream_router_engine::flow_cache::StreamIndex;
use stream_router_engine::queue::QueueLimits;

const FIRST_RETRY: Duration = Duration::from_millis(50);
const LAST_RETRY: Duration = Duration::from_secs(1);

/// The router drops nothing that it took: from the first mark on it takes nothing more for the peer, so that no more than
/// the workers' queues hold comes on top.
const LIMITS: QueueLimits = QueueLimits {
    pressure_at: 512 * 1024,
    relief_at: 256 * 1024,
    full_at: usize::MAX,
    aqm: false,
};

/// A peer that was found.
pub(super) struct Peer {
    pub(super) id: PeerId,
    pub(super) streams: Streams,
    /// Too much waits for it.
    pub(super) busy: Arc<AtomicBool>,
    /// A stream of it could not be closed.
    pub(super) unclosed: AtomicBool,
    n_written: AtomicU64,
    n_written_bytes: AtomicU64,
    n_lost: AtomicU64,
}

impl Peer {
    pub(super) fn new(id: PeerId, n_most: u32, n_active: u32) -> Self {
        let busy = Arc::new(AtomicBool::new(false));
        let switch = {
            let busy = busy.clone();
            Box::new(move |pressed| busy.store(pressed, Relaxed))
        };
        Self {
            id,
            streams: Streams::with_limits(n_most, n_active, LIMITS, switch),
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
        let lanes = self.streams.lanes();
        PeerStats {
            peer: self.id,
            // Before what is queued, so that it is never more.
            n_written: self.n_written.load(Relaxed),
            n_written_bytes: self.n_written_bytes.load(Relaxed),
            n_lost: self.n_lost.load(Relaxed),
            n_accepted: lanes.iter().map(|lane| lane.n_offered.load(Relaxed)).sum(),
            n_streams: self.streams.n_active(),
            n_open_streams: lanes.iter().filter(|lane| lane.open.load(Relaxed)).count() as u32,
        }
    }
}

/// Writes what waits for one of the peer's streams, until `finish` is cancelled and nothing does.
pub(super) async fn send<P: StreamPool>(
    pool: Arc<P>,
    peer: Arc<Peer>,
    stream: StreamIndex,
    finish: CancellationToken,
) {
    let Some(lane) = peer.streams.lane(stream) else {
        return;
    };
    let mut backoff = Backoff::new(FIRST_RETRY, LAST_RETRY);
    loop {
        tokio::select! {
            () = lane.outbox.ready() => {}
            () = finish.cancelled() => {}
        }
        if lane.outbox.is_empty() {
            if finish.is_cancelled() {
                return;
            }
            continue;
        }
        let before = peer.n_written.load(Relaxed);
        match send_until_closed(pool.as_ref(), &peer, lane, &finish).await {
            Ok(()) => backoff.handle_success(),
            Err(error) => {
                if peer.n_written.load(Relaxed) > before {
                    backoff.handle_success();
                }
                if finish.is_cancelled() {
                    peer.unclosed.store(true, Relaxed);
                }
                let cause = std::error::Error::source(&error).map(ToString::to_string);
                debug!(peer = %peer.id, stream = stream.0, ?cause, %error, "stream failed, opening another");
                tokio::time::sleep(backoff.handle_failure()).await;
            }
        }
    }
}

async fn send_until_closed<P: StreamPool>(
    pool: &P,
    peer: &Peer,
    lane: &Lane,
    finish: &CancellationToken,
) -> Result<(), PoolError> {
    let mut stream = pool.open(peer.id).await?;
    let _open = lane.mark_open();
    let mut written = None;
    loop {
        let (batch, _) = lane.outbox.swap(written.take());
        let Some(batch) = batch else {
            stream.flush().await.map_err(PoolError::new)?;
            tokio::select! {
                () = lane.outbox.ready() => continue,
                () = lane.close.notified() => {}
                () = finish.cancelled() => {}
            }
            if lane.outbox.is_empty() {
                return pool.close(peer.id, stream).await;
            }
            continue;
        };
        let in_hand = InHand::new(batch, |n| peer.add_lost(n));
        let batch = in_hand.write(&mut stream).await.map_err(PoolError::new)?;
        let (n_frames, n_bytes) = (u64::from(batch.n_frames()), batch.bytes().len() as u64);
        peer.n_written.fetch_add(n_frames, Relaxed);
        peer.n_written_bytes.fetch_add(n_bytes, Relaxed);
        written = Some(batch);
    }
}
