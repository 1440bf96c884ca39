//! The sender: one task per lane of a connected peer that writes the lane's outbox to one stream.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use futures::AsyncWriteExt;
use thiserror::Error;
use tokio_util::sync::CancellationToken;
use tracing::debug;

use super::counters::{Counter, Counters};
use super::peers::{OpenStream, Peer};
use stream_router::egress::in_hand::InHand;
use stream_router::egress::streams::Lane;
use stream_router::p2p::{ConnectionId, DataStream, NetworkHandle, OpenError};
use stream_router_engine::backoff::Backoff;
use stream_router_engine::flow_cache::StreamIndex;
use stream_router_engine::queue::AqmActions;

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
    let _lane_open = lane.mark_open();
    let mut written = None;
    loop {
        let (batch, aged) = lane.outbox.swap(written.take());
        if aged != AqmActions::default() {
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
        let lost = |n| counters.add(Counter::TxStreamLost, n);
        let batch = InHand::new(batch, lost).write(&mut stream).await?;
        let (n_frames, n_bytes) = (u64::from(batch.n_frames()), batch.bytes().len() as u64);
        peer.traffic.tx_packets.fetch_add(n_frames, Relaxed);
        peer.traffic.tx_bytes.fetch_add(n_bytes, Relaxed);
        written = Some(batch);
    }
}
