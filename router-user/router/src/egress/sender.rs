//! The sender: one task for each lane, which writes the lane's outbox to one stream at a time.

use std::error::Error;
use std::io;
use std::time::Duration;

use futures::{AsyncWrite, AsyncWriteExt};
use tracing::debug;

use super::cancellation::CancellationToken;
use super::in_flight::InFlightBatch;
use super::lane_stream::LaneStream;
use super::lanes::Lane;
use stream_router_engine::backoff::Backoff;
use stream_router_engine::causes::with_sources;
use stream_router_engine::queue::AqmActions;

const FIRST_RETRY: Duration = Duration::from_millis(50);
const LAST_RETRY: Duration = Duration::from_secs(1);

/// Where the streams of a sender come from, and where it reports what became of its frames.
pub trait StreamSource {
    /// A stream that is open. One that is dropped without [`StreamSource::close`] has failed.
    type Stream: AsyncWrite + Unpin + Send;
    /// Why a stream could not be opened, written or closed.
    type Error: Error + From<io::Error> + Send;

    /// Opens a stream, which is `place` among those of its lane.
    fn open(&self, place: LaneStream) -> impl Future<Output = Result<Self::Stream, Self::Error>> + Send;

    /// Says whether the peer reads the next stream of the lane after this one, wherever it is opened.
    fn keeps_order(&self, _stream: &Self::Stream) -> bool {
        false
    }

    /// Closes a stream after everything was written to it.
    fn close(&self, stream: Self::Stream) -> impl Future<Output = Result<(), Self::Error>> + Send;

    /// Counts frames that were written.
    fn handle_written(&self, n_frames: u64, n_bytes: u64);

    /// Counts frames that went down with a stream.
    fn handle_lost(&self, n_frames: u64);

    /// Counts frames that the outbox dropped or marked because they had waited too long.
    fn handle_aqm(&self, actions: AqmActions);

    /// Hears that a stream failed; `finishing` if the sender was to end with it.
    fn handle_failed(&self, finishing: bool);
}

/// How a sender is ended in order. Dropping its task ends it at once.
#[derive(Clone, Default)]
pub struct SenderControl {
    /// The sender ends as soon as it has no open stream, whatever waits.
    pub leave: CancellationToken,
    /// The sender closes its stream as soon as it may without a loss of order, whatever waits.
    pub hurry: CancellationToken,
    /// The sender ends once nothing waits, and closes its stream before.
    pub finish: CancellationToken,
}

/// Writes the outbox of `lane` to a stream of `source`, opened when there is something to write and opened again when it
/// fails, until the task is dropped or `control` ends it.
pub async fn run<S: StreamSource>(lane: &Lane, source: &S, control: &SenderControl) {
    let SenderControl { leave, finish, .. } = control;
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
        let mut progress = false;
        let Err(error) = write_until_closed(lane, source, control, &mut progress).await else {
            backoff.handle_success();
            continue;
        };
        if progress {
            backoff.handle_success();
        }
        source.handle_failed(finish.is_cancelled());
        debug!(error = with_sources(&error), "stream failed, opening another");
        tokio::time::sleep(backoff.handle_failure()).await;
    }
}

/// Opens a stream and writes to it. Returns once the lane is to be closed or `finish` is cancelled, the outbox is empty
/// and the stream closed, or once the stream was closed as the sender is in a hurry; `progress` says whether anything was written.
async fn write_until_closed<S: StreamSource>(
    lane: &Lane,
    source: &S,
    control: &SenderControl,
    progress: &mut bool,
) -> Result<(), S::Error> {
    let SenderControl { hurry, finish, .. } = control;
    let mut stream = source.open(lane.next_stream()).await?;
    let keeps_order = source.keeps_order(&stream);
    let _open = lane.mark_open();
    let mut written = None;
    loop {
        if keeps_order && hurry.is_cancelled() {
            source.close(stream).await?;
            lane.handle_closed();
            return Ok(());
        }
        lane.outbox.paced().await;
        let (batch, actions) = lane.outbox.swap(written.take());
        if actions != AqmActions::default() {
            count_aqm(lane, source, actions);
        }
        let Some(batch) = batch else {
            stream.flush().await?;
            tokio::select! {
                () = lane.outbox.ready() => continue,
                () = hurry.cancelled(), if keeps_order => continue,
                () = lane.close.notified() => {}
                () = finish.cancelled() => {}
            }
            if lane.outbox.is_empty() {
                source.close(stream).await?;
                lane.handle_closed();
                return Ok(());
            }
            continue;
        };
        let in_flight = InFlightBatch::new(batch, |n| source.handle_lost(n));
        let batch = in_flight.write(&mut stream).await?;
        source.handle_written(u64::from(batch.n_frames()), batch.bytes().len() as u64);
        *progress = true;
        written = Some(batch);
    }
}

fn count_aqm<S: StreamSource>(lane: &Lane, source: &S, actions: AqmActions) {
    use std::sync::atomic::Ordering::Relaxed;

    lane.n_aged.fetch_add(u64::from(actions.n_dropped), Relaxed);
    lane.n_marked.fetch_add(u64::from(actions.n_marked), Relaxed);
    source.handle_aqm(actions);
}

#[cfg(test)]
mod tests;
