//! The records of a tap as the stream that the control socket sends.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;

use super::Taps;
use super::tap::Tap;
use crate::control::{CaptureStream, put_dropped, put_end};

/// How soon whoever captures hears of packets that there was no room for.
const REPORT_INTERVAL: Duration = Duration::from_millis(500);

/// Why a capture ends that nobody ended.
const STOPPING: &str = "the node is stopping";

struct Records {
    open: Open,
    queue: mpsc::Receiver<Bytes>,
    stopping: watch::Receiver<bool>,
    n_reported: u64,
    ended: bool,
}

/// Closes the tap with the stream.
struct Open {
    taps: Arc<Taps>,
    tap: Arc<Tap>,
}

impl Drop for Open {
    fn drop(&mut self) {
        self.taps.close(&self.tap);
    }
}

/// The records of `tap`, whose batches come from `queue`; the end of the stream closes it.
pub(super) fn stream(taps: Arc<Taps>, tap: Arc<Tap>, queue: mpsc::Receiver<Bytes>) -> CaptureStream {
    let records = Records {
        stopping: taps.stopping.subscribe(),
        open: Open { taps, tap },
        queue,
        n_reported: 0,
        ended: false,
    };
    Box::pin(futures::stream::unfold(records, |mut records| async move {
        let bytes = records.next().await?;
        Some((bytes, records))
    }))
}

impl Records {
    async fn next(&mut self) -> Option<Bytes> {
        loop {
            if self.ended {
                return None;
            }
            // Before the packets that came later.
            let n_dropped = self.open.tap.n_dropped();
            if n_dropped != self.n_reported {
                self.n_reported = n_dropped;
                let mut record = Vec::new();
                put_dropped(&mut record, n_dropped);
                return Some(record.into());
            }
            if let Ok(batch) = self.queue.try_recv() {
                self.open.tap.handle_taken(batch.len());
                return Some(batch);
            }
            if *self.stopping.borrow_and_update() {
                self.ended = true;
                let mut record = Vec::new();
                put_end(&mut record, n_dropped, STOPPING);
                return Some(record.into());
            }
            let wake_up = async {
                tokio::select! {
                    batch = self.queue.recv() => batch,
                    _ = self.stopping.changed() => None,
                }
            };
            if let Ok(Some(batch)) = timeout(REPORT_INTERVAL, wake_up).await {
                self.open.tap.handle_taken(batch.len());
                return Some(batch);
            }
        }
    }
}
