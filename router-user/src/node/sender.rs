//! The sender: one task per lane of a connected peer that writes the lane's outbox to one stream.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use futures::AsyncWriteExt;
use thiserror::Error;
use tokio_util::sync::CancellationToken;
use tracing::debug;

use super::counters::{Counter, Counters};
use super::peers::{OpenStream, Peer};
use super::streams::Lane;
use crate::engine::backoff::Backoff;
use crate::engine::batch::Batch;
use crate::engine::flow_cache::StreamIndex;
use crate::engine::queue::Aged;
use crate::p2p::{ConnectionId, DataStream, NetworkHandle, OpenError};

const FIRST_RETRY: Duration = Duration::from_millis(50);
const LAST_RETRY: Duration = Duration::from_secs(1);

/// Writes the outbox of `peer`'s lane `stream` to a stream on `connection`, opened when there is something to write and
/// re-opened when it fails, until the task is dropped, or `leave` is cancelled while no stream is open, or, once `finish`
/// is cancelled, the outbox is empty.
pub(super) async fn run(
    peer: Arc<Peer>,
    stream: StreamIndex,
    connection: ConnectionId,
    network: NetworkHandle,
    counters: Arc<Counters>,
    leave: CancellationToken,
    finish: CancellationToken,
) {
    let Some(lane) = peer.streams.lane(stream) else {
        return;
    };
    let mut backoff = Backoff::new(FIRST_RETRY, LAST_RETRY);
    loop {
        tokio::select! {
            () = lane.outbox.ready() => {}
            () = leave.cancelled() => {}
            () = finish.cancelled() => {}
        }
        if leave.is_cancelled() {
            return;
        }
        if lane.outbox.is_empty() {
            if finish.is_cancelled() {
                return;
            }
            continue;
        }
        let error: SendError = match network.open_stream(connection).await {
            Ok(stream) => {
                let written = peer.traffic.tx_bytes.load(Relaxed);
                match write_until_closed(&peer, lane, stream, &counters, &finish).await {
                    Ok(()) => continue,
                    Err(error) => {
                        if peer.traffic.tx_bytes.load(Relaxed) > written {
                            backoff.handle_success();
                        }
                        error.into()
                    }
                }
            }
            Err(error) => error.into(),
        };
        debug!(peer = %peer.id, %connection, %error, "stream failed, opening another");
        tokio::time::sleep(backoff.handle_failure()).await;
    }
}

#[derive(Debug, Error)]
enum SendError {
    #[error("cannot open a stream")]
    Open(#[from] OpenError),
    #[error("cannot write to the stream")]
    Write(#[from] io::Error),
}

/// Returns once the lane is to be closed or `finish` is cancelled, the outbox is empty and the stream closed.
async fn write_until_closed(
    peer: &Peer,
    lane: &Lane,
    mut stream: DataStream,
    counters: &Counters,
    finish: &CancellationToken,
) -> io::Result<()> {
    let _open = OpenStream::new(&peer.traffic);
    let _lane_open = OpenLane::new(lane);
    let mut written = None;
    loop {
        let (batch, aged) = lane.outbox.swap(written.take());
        if aged != Aged::default() {
            lane.n_aged.fetch_add(u64::from(aged.n_dropped), Relaxed);
            lane.n_marked.fetch_add(u64::from(aged.n_marked), Relaxed);
            counters.add(Counter::TxAged, u64::from(aged.n_dropped));
            counters.add(Counter::TxEcnMarked, u64::from(aged.n_marked));
        }
        let Some(batch) = batch else {
            stream.flush().await?;
            tokio::select! {
                () = lane.outbox.ready() => continue,
                () = lane.close.notified() => {}
                () = finish.cancelled() => {}
            }
            if lane.outbox.is_empty() {
                return stream.close().await;
            }
            continue;
        };
        let in_hand = InHand {
            batch: Some(batch),
            counters,
        };
        written = Some(in_hand.write(&mut stream, peer).await?);
    }
}

/// Marks a lane's stream as open for as long as it lives.
struct OpenLane<'a>(&'a AtomicBool);

impl<'a> OpenLane<'a> {
    fn new(lane: &'a Lane) -> Self {
        lane.open.store(true, Relaxed);
        Self(&lane.open)
    }
}

impl Drop for OpenLane<'_> {
    fn drop(&mut self) {
        self.0.store(false, Relaxed);
    }
}

/// A batch that counts as lost unless it was written whole.
struct InHand<'a> {
    batch: Option<Batch>,
    counters: &'a Counters,
}

impl InHand<'_> {
    async fn write(mut self, stream: &mut DataStream, peer: &Peer) -> io::Result<Batch> {
        if let Some(batch) = &self.batch {
            stream.write_all(batch.bytes()).await?;
        }
        let batch = self.batch.take().unwrap_or_default();
        peer.traffic
            .tx_packets
            .fetch_add(u64::from(batch.n_frames()), Relaxed);
        peer.traffic
            .tx_bytes
            .fetch_add(batch.bytes().len() as u64, Relaxed);
        Ok(batch)
    }
}

impl Drop for InHand<'_> {
    fn drop(&mut self) {
        if let Some(batch) = &self.batch {
            self.counters
                .add(Counter::TxStreamLost, u64::from(batch.n_frames()));
        }
    }
}
