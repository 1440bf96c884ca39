//! A worker: one ring, and the sockets of gateways if they have any, drained in order by one task.

use std::future::poll_fn;
use std::io;
use std::task::Poll;
use std::time::{Duration, Instant};

use tokio::io::unix::AsyncFd;
use tokio_util::sync::CancellationToken;

use super::forwarder::Forwarder;
use crate::kernel::{RingConsumer, SocketConsumer};

/// Bytes taken from the ring in one turn, so that the stream's sender and connection get theirs.
const TURN_BYTES: usize = 256 * 1024;

/// A wake-up that the kernel side and we both missed would cost no more than this.
const SAFETY_TIMEOUT: Duration = Duration::from_millis(100);

/// Drains `ring` and `sockets` into `forwarder` until `stop`, then drains what is left.
///
/// # Errors
/// A descriptor cannot be waited for.
pub(super) async fn run(
    ring: RingConsumer,
    sockets: Vec<SocketConsumer>,
    mut forwarder: Forwarder,
    stop: CancellationToken,
) -> io::Result<()> {
    let mut ring = ring.into_async()?;
    let mut sockets = sockets
        .into_iter()
        .map(SocketConsumer::into_async)
        .collect::<io::Result<Vec<_>>>()?;
    loop {
        forwarder.handle_turn(Instant::now());
        let mut n_records = ring
            .get_mut()
            .drain(TURN_BYTES, |record| forwarder.handle_record(record));
        for socket in &mut sockets {
            let socket = socket.get_mut();
            n_records += socket.drain(TURN_BYTES, |record| forwarder.handle_record(record));
        }
        forwarder.flush();
        if n_records > 0 {
            tokio::task::yield_now().await;
        } else if stop.is_cancelled() {
            return Ok(());
        } else if ring.get_mut().prepare_sleep() {
            tokio::select! {
                guard = ring.readable() => guard?.clear_ready(),
                ready = any_readable(&sockets), if !sockets.is_empty() => ready?,
                () = tokio::time::sleep(SAFETY_TIMEOUT) => {}
                () = stop.cancelled() => {}
            }
        }
    }
}

/// Waits for a frame at one of the sockets; whoever arrives between two calls is not missed, as the reactor keeps it.
async fn any_readable(sockets: &[AsyncFd<SocketConsumer>]) -> io::Result<()> {
    poll_fn(|context| {
        let mut any = Poll::Pending;
        for socket in sockets {
            if let Poll::Ready(guard) = socket.poll_read_ready(context) {
                guard?.clear_ready();
                any = Poll::Ready(Ok(()));
            }
        }
        any
    })
    .await
}
