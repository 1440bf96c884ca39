//! The lanes of one peer: a place for each of its streams, with what waits for the stream.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed};

use tokio::sync::Notify;

use super::lane_stream::{LaneId, LaneStream, StreamNumbers, random_set};
use super::outbox::{Outbox, Pressure, PressureSwitch};
use super::pacer::Pacer;
use stream_router_engine::flow_cache::StreamIndex;
use stream_router_engine::queue::QueueLimits;

/// A lane for every stream that the peer may have, open or not. The lanes below the active number take new flows. One
/// above it keeps the flows it has, and its stream closes once they are idle.
pub struct PeerLanes {
    lanes: Vec<Lane>,
    n_active: AtomicU32,
    pacer: Arc<Pacer>,
}

/// The way to one stream.
pub struct Lane {
    /// Frames that wait for the stream.
    pub outbox: Outbox,
    /// Frames handed to the outbox, including those that it refused.
    pub n_offered: AtomicU64,
    /// Frames that the outbox refused.
    pub n_refused: AtomicU64,
    /// Frames dropped because they had waited too long.
    pub n_aged: AtomicU64,
    /// Frames marked instead of dropped.
    pub n_marked: AtomicU64,
    /// Whether the stream is open.
    pub open: AtomicBool,
    /// Tells the sender to close the stream once nothing waits.
    pub close: Notify,
    numbers: StreamNumbers,
}

impl Lane {
    /// Marks the stream as open until the returned guard is dropped.
    pub(super) fn mark_open(&self) -> OpenLane<'_> {
        self.open.store(true, Relaxed);
        OpenLane(&self.open)
    }

    /// Numbers the next stream of the lane, which counts as lost until [`Lane::handle_closed`].
    pub fn next_stream(&self) -> LaneStream {
        self.numbers.next()
    }

    /// Notes that the last stream was closed with all that was written to it.
    pub fn handle_closed(&self) {
        self.numbers.handle_closed();
    }
}

/// A lane whose stream is open.
pub(super) struct OpenLane<'a>(&'a AtomicBool);

impl Drop for OpenLane<'_> {
    fn drop(&mut self) {
        self.0.store(false, Relaxed);
    }
}

impl PeerLanes {
    /// Makes `n_most` lanes, `n_active` of them active, with `limits` for what may wait in each. `set_pressure` hears
    /// when any of them has too much waiting, and when none has any more.
    pub fn new(n_most: u32, n_active: u32, limits: QueueLimits, set_pressure: PressureSwitch) -> Self {
        let pressure = Arc::new(Pressure::new(set_pressure));
        let pacer = Arc::new(Pacer::unlimited());
        let set = random_set();
        let lane = |index: u32| Lane {
            outbox: Outbox::new(pressure.clone(), pacer.clone(), limits),
            n_offered: AtomicU64::new(0),
            n_refused: AtomicU64::new(0),
            n_aged: AtomicU64::new(0),
            n_marked: AtomicU64::new(0),
            open: AtomicBool::new(false),
            close: Notify::new(),
            numbers: StreamNumbers::new(LaneId {
                set,
                index: index as u16,
            }),
        };
        Self {
            lanes: (0..n_most).map(lane).collect(),
            n_active: AtomicU32::new(n_active),
            pacer,
        }
    }

    /// Returns the rate that all lanes share.
    pub fn pacer(&self) -> &Pacer {
        &self.pacer
    }

    /// Returns every lane, by index.
    pub fn all(&self) -> &[Lane] {
        &self.lanes
    }

    /// Returns the lane of a stream.
    pub fn get(&self, stream: StreamIndex) -> Option<&Lane> {
        self.lanes.get(usize::from(stream.0))
    }

    /// Returns how many streams are open.
    pub fn n_open(&self) -> u32 {
        self.lanes.iter().filter(|lane| lane.open.load(Relaxed)).count() as u32
    }

    /// Returns how many frames were offered to all lanes together.
    pub fn n_offered(&self) -> u64 {
        self.lanes.iter().map(|lane| lane.n_offered.load(Relaxed)).sum()
    }

    /// Returns how many lanes take new flows.
    pub fn n_active(&self) -> u32 {
        self.n_active.load(Relaxed)
    }

    /// Lets the first `n` lanes take new flows.
    pub fn set_active(&self, n: u32) {
        self.n_active.store(n.clamp(1, self.lanes.len() as u32), Relaxed);
    }

    /// Returns the stream of a new flow: each active one gets an equal share of all hashes.
    pub fn choose(&self, flow_hash: u32) -> StreamIndex {
        // The kernel chooses the worker by the upper bits: mixed, they say nothing about the stream.
        let mixed = flow_hash.wrapping_mul(0x85eb_ca6b).rotate_left(15);
        StreamIndex(((u64::from(mixed) * u64::from(self.n_active())) >> 32) as u8)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use stream_router_engine::queue::QueueLimits;

    const LIMITS: QueueLimits = QueueLimits {
        pressure_at: 1000,
        relief_at: 500,
        full_at: 2000,
        aqm: false,
    };

    #[test]
    fn new_flows_are_spread_over_the_active_lanes_alone() {
        let lanes = PeerLanes::new(8, 3, LIMITS, Box::new(|_| ()));
        let mut n_flows = [0_u32; 8];

        for i in 0..30_000_u32 {
            let stream = lanes.choose(i.wrapping_mul(0x9e37_79b9));
            n_flows[usize::from(stream.0)] += 1;
        }

        assert!(
            n_flows[..3].iter().all(|n| (9_000..11_000).contains(n)),
            "{n_flows:?}"
        );
        assert_eq!(n_flows[3..], [0; 5]);
    }

    #[test]
    fn at_least_one_lane_and_no_more_than_there_are_is_active() {
        let lanes = PeerLanes::new(4, 1, LIMITS, Box::new(|_| ()));
        for (wanted, active) in [(0, 1), (3, 3), (9, 4)] {
            lanes.set_active(wanted);
            assert_eq!(lanes.n_active(), active);
        }
    }

    #[test]
    fn a_lane_is_open_while_its_mark_lives() {
        let lanes = PeerLanes::new(2, 1, LIMITS, Box::new(|_| ()));
        let mark = lanes.all()[1].mark_open();
        assert_eq!(lanes.n_open(), 1);
        drop(mark);
        assert_eq!(lanes.n_open(), 0);
    }
}
