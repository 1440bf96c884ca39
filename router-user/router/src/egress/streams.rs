//! The streams to one peer as the data path sees them: what waits for each, and how many take new flows.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed};

use tokio::sync::Notify;

use super::outbox::{LIMITS, Outbox, Pressure, PressureSwitch};
use stream_router_engine::flow_cache::StreamIndex;
use stream_router_engine::queue::QueueLimits;

/// Every stream that the peer may have, open or not. Those below the active number take new flows; one above it keeps
/// the flows it has, and closes once they are idle.
pub struct Streams {
    lanes: Vec<Lane>,
    n_active: AtomicU32,
}

/// The way to one stream.
pub struct Lane {
    /// Frames that wait for the stream.
    pub outbox: Outbox,
    /// Frames handed to the outbox, those that it refused too.
    pub n_offered: AtomicU64,
    /// Those that it refused.
    pub n_refused: AtomicU64,
    /// Frames dropped because they had waited too long.
    pub n_aged: AtomicU64,
    /// Frames marked instead.
    pub n_marked: AtomicU64,
    /// Whether the stream is open.
    pub open: AtomicBool,
    /// Tells the sender to close the stream once nothing waits.
    pub close: Notify,
}

impl Lane {
    /// Says that the stream is open, for as long as what it returns lives.
    pub fn mark_open(&self) -> OpenLane<'_> {
        self.open.store(true, Relaxed);
        OpenLane(&self.open)
    }
}

/// A lane whose stream is open.
pub struct OpenLane<'a>(&'a AtomicBool);

impl Drop for OpenLane<'_> {
    fn drop(&mut self) {
        self.0.store(false, Relaxed);
    }
}

impl Streams {
    /// At most `n_most` streams, `n_active` of them active; none is open yet.
    pub fn new(n_most: u32, n_active: u32, set_pressure: PressureSwitch) -> Self {
        Self::with_limits(n_most, n_active, LIMITS, set_pressure)
    }

    /// Likewise, with `limits` for what may wait for each.
    pub fn with_limits(
        n_most: u32,
        n_active: u32,
        limits: QueueLimits,
        set_pressure: PressureSwitch,
    ) -> Self {
        let pressure = Arc::new(Pressure::new(set_pressure));
        let lane = |_| Lane {
            outbox: Outbox::new(pressure.clone(), limits),
            n_offered: AtomicU64::new(0),
            n_refused: AtomicU64::new(0),
            n_aged: AtomicU64::new(0),
            n_marked: AtomicU64::new(0),
            open: AtomicBool::new(false),
            close: Notify::new(),
        };
        Self {
            lanes: (0..n_most).map(lane).collect(),
            n_active: AtomicU32::new(n_active),
        }
    }

    /// Every lane, by index.
    pub fn lanes(&self) -> &[Lane] {
        &self.lanes
    }

    /// The lane of a stream.
    pub fn lane(&self, stream: StreamIndex) -> Option<&Lane> {
        self.lanes.get(usize::from(stream.0))
    }

    /// How many streams take new flows.
    pub fn n_active(&self) -> u32 {
        self.n_active.load(Relaxed)
    }

    /// Has the first `n` streams take new flows.
    pub fn set_active(&self, n: u32) {
        self.n_active.store(n.clamp(1, self.lanes.len() as u32), Relaxed);
    }

    /// The stream of a new flow: each active one gets an equal share of all hashes.
    pub fn choose(&self, flow_hash: u32) -> StreamIndex {
        // The kernel chooses the worker by the upper bits: mixed, they say nothing about the stream.
        let mixed = flow_hash.wrapping_mul(0x85eb_ca6b).rotate_left(15);
        StreamIndex(((u64::from(mixed) * u64::from(self.n_active())) >> 32) as u8)
    }
}
