//! Captures: taps on the data path that copy matching packets for clients of the control socket.
//!
//! While there is no tap, a turn of a worker and a read of a receiver cost one load of a flag. A tap never waits: what its
//! queue has no room for is counted.

mod packet_view;
mod stream;
mod tap;

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use arc_swap::ArcSwap;
use libp2p::PeerId;
use tokio::sync::watch;
use tokio::time::timeout;

use crate::control::{CaptureEncoder, CaptureQuery, CaptureStream};
pub(super) use packet_view::PacketView;
use router_common::packet::{Parsed, parse};
use stream_router_engine::capture_filter::CaptureFilter;
use tap::{Batch, Tap};

/// Captures at a time.
const MAX_TAPS: usize = 4;

/// How long a stopping node waits for the last packets to reach the clients.
const END_TIMEOUT: Duration = Duration::from_millis(500);

/// The taps of a node.
#[derive(Debug)]
pub(super) struct CaptureTaps {
    /// Partner: none; a turn that reads the flag late misses its packets, as it would have a moment before.
    any: AtomicBool,
    taps: ArcSwap<Vec<Arc<Tap>>>,
    /// Held while `taps` is replaced.
    changing: Mutex<()>,
    n_taps: watch::Sender<usize>,
    stopping: watch::Sender<bool>,
}

/// So many captures run that no more may.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TooMany;

/// Takes a tap away as it is dropped.
struct OpenTap {
    taps: Arc<CaptureTaps>,
    tap: Arc<Tap>,
}

impl Drop for OpenTap {
    fn drop(&mut self) {
        self.taps.close(&self.tap);
    }
}

/// The taps for one turn of a worker or one read of a receiver, with what they have taken in it.
pub(super) struct CaptureTurn {
    taps: Arc<Vec<Arc<Tap>>>,
    batches: Vec<Batch>,
}

impl Default for CaptureTaps {
    fn default() -> Self {
        Self {
            any: AtomicBool::new(false),
            taps: ArcSwap::default(),
            changing: Mutex::default(),
            n_taps: watch::Sender::new(0),
            stopping: watch::Sender::new(false),
        }
    }
}

impl CaptureTaps {
    /// Returns the taps for a turn; `None`, for the price of a load, while there are none.
    pub(super) fn begin_turn(&self) -> Option<CaptureTurn> {
        if !self.any.load(Relaxed) {
            return None;
        }
        let taps = self.taps.load_full();
        Some(CaptureTurn {
            batches: taps.iter().map(|_| Batch::default()).collect(),
            taps,
        })
    }

    /// Begins a capture with the query's filter for peers by id, whose packets `encoder` writes; packets are taken from now on.
    ///
    /// # Errors
    /// There are [`MAX_TAPS`] already.
    pub(super) fn open(
        self: &Arc<Self>,
        query: &CaptureQuery,
        filter: Option<CaptureFilter<PeerId>>,
        encoder: CaptureEncoder,
    ) -> Result<CaptureStream, TooMany> {
        let (tap, queue) = Tap::new(query, filter);
        let tap = Arc::new(tap);
        self.change(|taps| {
            if taps.len() == MAX_TAPS {
                return Err(TooMany);
            }
            taps.push(tap.clone());
            Ok(())
        })?;
        let open = OpenTap {
            taps: self.clone(),
            tap: tap.clone(),
        };
        Ok(stream::stream(
            tap,
            open,
            queue,
            self.stopping.subscribe(),
            encoder,
        ))
    }

    /// Ends every capture, and waits, but not for long, until the last packets are on their way.
    pub(super) async fn end(&self) {
        self.stopping.send_replace(true);
        let mut n_taps = self.n_taps.subscribe();
        // A client that is slower than that sees the connection break.
        let _ = timeout(END_TIMEOUT, n_taps.wait_for(|n_taps| *n_taps == 0)).await;
    }

    fn close(&self, tap: &Arc<Tap>) {
        let closed: Result<(), TooMany> = self.change(|taps| {
            taps.retain(|other| !Arc::ptr_eq(other, tap));
            Ok(())
        });
        debug_assert_eq!(closed, Ok(()));
    }

    fn change(&self, change: impl FnOnce(&mut Vec<Arc<Tap>>) -> Result<(), TooMany>) -> Result<(), TooMany> {
        let _changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut taps = Vec::clone(&self.taps.load());
        change(&mut taps)?;
        let n_taps = taps.len();
        self.taps.store(Arc::new(taps));
        self.any.store(n_taps > 0, Relaxed);
        self.n_taps.send_replace(n_taps);
        Ok(())
    }
}

impl CaptureTurn {
    /// Copies the packet for every tap that wants it.
    pub(super) fn take(&mut self, view: PacketView<'_>) {
        let parsed = parse(view.packet, view.packet.len() as u32);
        self.take_parsed(view, parsed.ok().as_ref());
    }

    /// Copies a packet that has been parsed for every tap that wants it.
    pub(super) fn take_parsed(&mut self, view: PacketView<'_>, parsed: Option<&Parsed>) {
        let mut time_ns = None;
        for (tap, batch) in self.taps.iter().zip(&mut self.batches) {
            if tap.wants(&view, parsed) {
                let time_ns = *time_ns.get_or_insert_with(now_ns);
                tap.take(&view, time_ns, batch);
            }
        }
    }
}

/// Hands over what was taken.
impl Drop for CaptureTurn {
    fn drop(&mut self) {
        for (tap, batch) in self.taps.iter().zip(&mut self.batches) {
            tap.hand_over(batch);
        }
    }
}

/// Reads the clock, in nanoseconds since 1970; one that stands before then says 0.
fn now_ns() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
