//! The packets of a tap as the pcapng that the control socket sends.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use futures::StreamExt;
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;

use super::tap::{Batch, Tap};
use crate::control::{CaptureEncoder, CaptureStream};

/// How soon a client hears of packets that there was no room for.
const REPORT_INTERVAL: Duration = Duration::from_millis(500);

/// Why a capture ends that its client did not end.
const STOPPING: &str = "the node is stopping";

struct Blocks<G> {
    tap: Arc<Tap>,
    _open: G,
    encoder: CaptureEncoder,
    queue: mpsc::Receiver<Batch>,
    stopping: watch::Receiver<bool>,
    n_reported: u64,
    ended: bool,
}

/// Returns the packets of `tap` behind what `encoder` has begun with; its batches come from `queue`. The end of
/// the stream drops `open`, with which the tap is closed.
pub(super) fn stream(
    tap: Arc<Tap>,
    open: impl Send + 'static,
    queue: mpsc::Receiver<Batch>,
    stopping: watch::Receiver<bool>,
    mut encoder: CaptureEncoder,
) -> CaptureStream {
    let description = Bytes::from(encoder.take());
    let blocks = Blocks {
        tap,
        _open: open,
        encoder,
        queue,
        stopping,
        n_reported: 0,
        ended: false,
    };
    let packets = futures::stream::unfold(blocks, |mut blocks| async move {
        let bytes = blocks.next().await?;
        Some((bytes, blocks))
    });
    Box::pin(futures::stream::iter([description]).chain(packets))
}

impl<G> Blocks<G> {
    async fn next(&mut self) -> Option<Bytes> {
        loop {
            if self.ended {
                return None;
            }
            // Before the packets that came later.
            let n_dropped = self.tap.n_dropped();
            if n_dropped != self.n_reported {
                self.n_reported = n_dropped;
                self.encoder.put_statistics(n_dropped, None);
                return Some(self.encoder.take().into());
            }
            if let Ok(batch) = self.queue.try_recv() {
                return Some(self.encode(&batch));
            }
            if *self.stopping.borrow_and_update() {
                self.ended = true;
                self.encoder.put_statistics(n_dropped, Some(STOPPING));
                return Some(self.encoder.take().into());
            }
            let wake_up = async {
                tokio::select! {
                    batch = self.queue.recv() => batch,
                    _ = self.stopping.changed() => None,
                }
            };
            if let Ok(Some(batch)) = timeout(REPORT_INTERVAL, wake_up).await {
                return Some(self.encode(&batch));
            }
        }
    }

    fn encode(&mut self, batch: &Batch) -> Bytes {
        self.tap.handle_taken(batch);
        for packet in batch.packets() {
            self.encoder.put_packet(&packet);
        }
        self.encoder.take().into()
    }
}
