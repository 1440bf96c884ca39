//! A batch on its way to a stream.

use std::io;

use futures::{AsyncWrite, AsyncWriteExt};

use stream_router_engine::batch::Batch;

/// A batch that is being written. Unless all of it was written, `lost` gets the number of its frames, also when the
/// writer is dropped.
pub(super) struct InFlightBatch<L: FnMut(u64)> {
    batch: Option<Batch>,
    lost: L,
}

impl<L: FnMut(u64)> InFlightBatch<L> {
    /// Takes the batch.
    pub(super) fn new(batch: Batch, lost: L) -> Self {
        Self {
            batch: Some(batch),
            lost,
        }
    }

    /// Writes the batch, and returns it for reuse.
    ///
    /// # Errors
    /// The stream failed; the frames are lost.
    pub(super) async fn write(mut self, stream: &mut (impl AsyncWrite + Unpin)) -> io::Result<Batch> {
        if let Some(batch) = &self.batch {
            stream.write_all(batch.bytes()).await?;
        }
        Ok(self.batch.take().unwrap_or_default())
    }
}

impl<L: FnMut(u64)> Drop for InFlightBatch<L> {
    fn drop(&mut self) {
        if let Some(batch) = &self.batch {
            (self.lost)(u64::from(batch.n_frames()));
        }
    }
}
