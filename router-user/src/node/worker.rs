//! A worker: one ring, drained in order by one task.

use std::io;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::forwarder::Forwarder;
use crate::kernel::RingConsumer;

/// Bytes taken from the ring in one turn, so that the stream's sender and connection get theirs.
const TURN_BYTES: usize = 256 * 1024;

/// A wake-up that the kernel side and we both missed would cost no more than this.
const SAFETY_TIMEOUT: Duration = Duration::from_millis(100);

/// Drains `ring` into `forwarder` until `stop`, then drains what is left.
///
/// # Errors
/// The ring's descriptor cannot be waited for.
pub(super) async fn run(
    ring: RingConsumer,
    mut forwarder: Forwarder,
    stop: CancellationToken,
) -> io::Result<()> {
    let mut ring = ring.into_async()?;
    loop {
        let n_records = ring
            .get_mut()
            .drain(TURN_BYTES, |record| forwarder.handle_record(record));
        forwarder.flush();
        if n_records > 0 {
            tokio::task::yield_now().await;
        } else if stop.is_cancelled() {
            return Ok(());
        } else if ring.get_mut().prepare_sleep() {
            tokio::select! {
                guard = ring.readable() => guard?.clear_ready(),
                () = tokio::time::sleep(SAFETY_TIMEOUT) => {}
                () = stop.cancelled() => {}
            }
        }
    }
}
