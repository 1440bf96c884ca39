//! A worker: one ring, and the sockets of gateways if they have any, drained in order by one task.

use std::future::{Future as _, poll_fn};
use std::io;
use std::os::fd::AsRawFd;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use tokio::io::unix::AsyncFd;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::deferred_wakeups::WorkerWakeup;
use super::forwarder::Forwarder;
use super::gateways::NewSockets;
use super::nap_timer::NapTimer;
use super::uncaptured::HOLD_CHECK;
use crate::kernel::{RingConsumer, SocketConsumer};

/// Bytes taken from the ring in one turn, so that the stream's sender and connection get theirs.
const TURN_BYTES: usize = 256 * 1024;

/// A wake-up that the kernel side and we both missed would cost no more than this; sockets of an interface that has come
/// anew are taken over within it.
const SAFETY_TIMEOUT: Duration = Duration::from_millis(500);

/// What a worker has done, from its start.
#[derive(Debug, Default)]
pub(super) struct Meter {
    /// Records drained.
    pub(super) n_packets: AtomicU64,
    /// Their bytes, headers included.
    pub(super) n_bytes: AtomicU64,
    /// Times it slept and was woken because of its ring or a socket.
    pub(super) n_wakeups: AtomicU64,
}

/// Drains `ring`, `sockets` and those that come `later` into `forwarder` until `stop`, then drains what is left. After a packet
/// it looks for the next one for `busy_poll` before it sleeps.
///
/// # Errors
/// A descriptor cannot be waited for.
pub(super) async fn run(
    ring: RingConsumer,
    sockets: Vec<SocketConsumer>,
    later: Arc<NewSockets>,
    mut forwarder: Forwarder,
    meter: Arc<Meter>,
    busy_poll: Duration,
    stop: CancellationToken,
) -> io::Result<()> {
    let wakeup = WorkerWakeup::new(ring.bell());
    let mut ring = ring.into_async()?;
    let mut sockets = sockets
        .into_iter()
        .map(SocketConsumer::into_async)
        .collect::<io::Result<Vec<_>>>()?;
    let mut nap_timer = NapTimer::new()?;
    let mut last_taken: Option<Instant> = None;
    // Made once, since the runtime keeps a list of those who wait for them.
    let mut safety = pin!(sleep(SAFETY_TIMEOUT));
    let mut stopped = pin!(stop.cancelled());
    loop {
        let now = Instant::now();
        forwarder.handle_turn(now);
        for replacement in later.take() {
            sockets.retain(|socket| socket.get_ref().interface() != replacement.gone);
            for socket in replacement.sockets {
                sockets.push(socket.into_async()?);
            }
        }
        let mut n_bytes = 0;
        let mut handle = |record: &[u8]| {
            n_bytes += record.len();
            forwarder.handle_record(record);
        };
        let mut n_records = ring.get_mut().drain(TURN_BYTES, &mut handle);
        for socket in &mut sockets {
            n_records += socket.get_mut().drain(TURN_BYTES, &mut handle);
        }
        forwarder.flush();
        if n_records > 0 {
            meter.n_packets.fetch_add(n_records as u64, Relaxed);
            meter.n_bytes.fetch_add(n_bytes as u64, Relaxed);
            nap_timer.handle_taken(n_records, n_bytes);
            last_taken = Some(now);
            tokio::task::yield_now().await;
        } else if stop.is_cancelled() {
            return Ok(());
        } else if nap_timer.nap(now).await? {
            // Looks again.
        } else if last_taken.is_some_and(|last| now.saturating_duration_since(last) < busy_poll) {
            // Looks again, and so does the reactor, at the sockets of all connections of the thread.
            tokio::task::yield_now().await;
        } else if ring.get_mut().prepare_sleep() {
            if forwarder.holds_packets() {
                let check = tokio::time::Instant::now() + HOLD_CHECK;
                let check = check.min(safety.deadline());
                safety.as_mut().reset(check);
            }
            let woken = poll_fn(|context| {
                if wakeup.poll_woken(context).is_ready()
                    || poll_readable(&ring, context)?.is_ready()
                    || poll_any_readable(&sockets, context)?.is_ready()
                {
                    return Poll::Ready(Ok::<_, io::Error>(true));
                }
                if safety.as_mut().poll(context).is_ready() {
                    safety
                        .as_mut()
                        .reset(tokio::time::Instant::now() + SAFETY_TIMEOUT);
                    return Poll::Ready(Ok(false));
                }
                stopped.as_mut().poll(context).map(|()| Ok(false))
            });
            meter.n_wakeups.fetch_add(u64::from(woken.await?), Relaxed);
        }
    }
}

/// Becomes ready when the kernel has told the reactor, which remembers it, since the last time this was.
fn poll_readable<T: AsRawFd>(source: &AsyncFd<T>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
    source
        .poll_read_ready(context)
        .map_ok(|mut guard| guard.clear_ready())
}

/// Becomes ready when any of the sockets is: all are asked, so that each wakes the worker.
fn poll_any_readable(sockets: &[AsyncFd<SocketConsumer>], context: &mut Context<'_>) -> Poll<io::Result<()>> {
    let mut any = Poll::Pending;
    for socket in sockets {
        if poll_readable(socket, context)?.is_ready() {
            any = Poll::Ready(Ok(()));
        }
    }
    any
}
