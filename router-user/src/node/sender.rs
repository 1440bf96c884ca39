//! The sender: one task per connected peer that writes its outbox to one stream.

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
use crate::engine::backoff::Backoff;
use crate::engine::queue::Batch;
use crate::p2p::{ConnectionId, DataStream, NetworkHandle, OpenError};

const FIRST_RETRY: Duration = Duration::from_millis(50);
const LAST_RETRY: Duration = Duration::from_secs(1);

/// Writes `peer`'s outbox to a stream on `connection`, opened when there is something to write and re-opened when it
/// fails, until the task is dropped or, once `finish` is cancelled, the outbox is empty.
pub(super) async fn run(
    peer: Arc<Peer>,
    connection: ConnectionId,
    network: NetworkHandle,
    counters: Arc<Counters>,
    finish: CancellationToken,
) {
    let mut backoff = Backoff::new(FIRST_RETRY, LAST_RETRY);
    loop {
        tokio::select! {
            () = peer.outbox.ready() => {}
            () = finish.cancelled() => {}
        }
        if peer.outbox.is_empty() {
            if finish.is_cancelled() {
                return;
            }
            continue;
        }
        let error: SendError = match network.open_stream(connection).await {
            Ok(stream) => {
                let written = peer.traffic.tx_bytes.load(Relaxed);
                match write_until_empty(&peer, stream, &counters, &finish).await {
                    Ok(()) => return,
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

/// Returns once `finish` is cancelled, the outbox is empty and the stream closed.
async fn write_until_empty(
    peer: &Peer,
    mut stream: DataStream,
    counters: &Counters,
    finish: &CancellationToken,
) -> io::Result<()> {
    let _open = OpenStream::new(&peer.traffic);
    let mut written = None;
    loop {
        let Some(batch) = peer.outbox.swap(written.take()) else {
            stream.flush().await?;
            tokio::select! {
                () = peer.outbox.ready() => continue,
                () = finish.cancelled() => {}
            }
            if peer.outbox.is_empty() {
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

/// A batch that counts as lost unless it was written whole.
struct InHand<'a> {
    batch: Option<Batch>,
    counters: &'a Counters,
}

impl InHand<'_> {
    async fn write(mut self, stream: &mut DataStream, peer: &Peer) -> io::Result<Batch> {
        if let Some(batch) = &self.batch {
            stream.write_all(&batch.bytes).await?;
        }
        let batch = self.batch.take().unwrap_or_default();
        peer.traffic
            .tx_packets
            .fetch_add(u64::from(batch.n_frames), Relaxed);
        peer.traffic.tx_bytes.fetch_add(batch.bytes.len() as u64, Relaxed);
        Ok(batch)
    }
}

impl Drop for InHand<'_> {
    fn drop(&mut self) {
        if let Some(batch) = &self.batch {
            self.counters
                .add(Counter::TxStreamLost, u64::from(batch.n_frames));
        }
    }
}
