//! The absence of a peer: when it began, how much waits for its end, and whether packets want it to end.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// Most packets that may wait for one peer, in all workers together: the first packets of as many flows.
const MAX_PACKETS: u32 = 256;

/// Most bytes of them, with frame headers: four super-packets.
const MAX_BYTES: u32 = 256 * 1024;

/// Time without a packet after which the first packet for a peer on demand is one to wait again.
const QUIET: Duration = Duration::from_secs(30);

/// Says that no packet has come since the absence began.
const NEVER: u64 = u64::MAX;

/// The present or last absence of a peer, and what waits for its end.
#[derive(Debug)]
pub(super) struct Absence {
    made: Instant,
    /// When it began, in milliseconds from `made`.
    since_ms: AtomicU64,
    /// When the last packet for the peer came, in milliseconds from `made`.
    last_packet_ms: AtomicU64,
    /// Whether a packet has come that the network was not told of.
    is_wanted: AtomicBool,
    n_packets: AtomicU32,
    n_bytes: AtomicU32,
}

impl Absence {
    /// An absence that begins at `now`.
    pub(super) fn new(now: Instant) -> Self {
        Self {
            made: now,
            since_ms: AtomicU64::new(0),
            last_packet_ms: AtomicU64::new(NEVER),
            is_wanted: AtomicBool::new(false),
            n_packets: AtomicU32::new(0),
            n_bytes: AtomicU32::new(0),
        }
    }

    /// Records that the peer is absent from `now` on.
    pub(super) fn begin(&self, now: Instant) {
        self.since_ms.store(self.ms(now), Relaxed);
        self.last_packet_ms.store(NEVER, Relaxed);
    }

    /// Records a packet for the peer at `now`. Returns whether the network has to be told.
    pub(super) fn want(&self, now: Instant) -> bool {
        self.last_packet_ms.store(self.ms(now), Relaxed);
        // The network is told of one packet of many: looking costs nothing, and changing a shared word does.
        !self.is_wanted.load(Relaxed) && !self.is_wanted.swap(true, Relaxed)
    }

    /// Says whether a packet has come since the last time that this was asked.
    pub(super) fn take_wanted(&self) -> bool {
        self.is_wanted.swap(false, Relaxed)
    }

    /// Says whether a packet has come shortly before `now`.
    pub(super) fn is_in_demand(&self, now: Instant) -> bool {
        let last = self.last_packet_ms.load(Relaxed);
        last != NEVER && self.ms(now).saturating_sub(last) < QUIET.as_millis() as u64
    }

    fn ms(&self, now: Instant) -> u64 {
        now.saturating_duration_since(self.made).as_millis() as u64
    }

    /// Says whether the absence is at `now` still shorter than `time`.
    pub(super) fn is_shorter_than(&self, time: Duration, now: Instant) -> bool {
        let since = Duration::from_millis(self.since_ms.load(Relaxed));
        now.saturating_duration_since(self.made).saturating_sub(since) < time
    }

    /// Reserves the room of a packet that is to wait. Returns whether there was room.
    pub(super) fn reserve(&self, len: usize) -> bool {
        // The two bounds are kept apart: a packet more than one of them allows gives back what it took.
        let n_packets = self.n_packets.fetch_add(1, Relaxed);
        let n_bytes = self.n_bytes.fetch_add(len as u32, Relaxed);
        let has_room = n_packets < MAX_PACKETS && n_bytes.saturating_add(len as u32) <= MAX_BYTES;
        if !has_room {
            self.release(len);
        }
        has_room
    }

    /// Gives back the room of a packet that waits no more.
    pub(super) fn release(&self, len: usize) {
        self.n_packets.fetch_sub(1, Relaxed);
        self.n_bytes.fetch_sub(len as u32, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_absence_is_as_long_as_from_its_last_beginning() {
        let now = Instant::now();
        let seconds = |n| now + Duration::from_secs(n);
        let absence = Absence::new(now);
        let time = Duration::from_secs(3);

        assert!(absence.is_shorter_than(time, seconds(2)));
        assert!(!absence.is_shorter_than(time, seconds(3)));
        absence.begin(seconds(10));
        assert!(absence.is_shorter_than(time, seconds(12)));
        assert!(!absence.is_shorter_than(time, seconds(13)));
        assert!(!absence.is_shorter_than(Duration::ZERO, seconds(10)));
    }

    #[test]
    fn a_packet_is_told_of_once_until_it_was_asked_for_and_makes_demand_for_a_while() {
        let now = Instant::now();
        let absence = Absence::new(now);
        assert!(!absence.is_in_demand(now));

        assert!(absence.want(now));
        assert!(!absence.want(now));
        assert!(absence.is_in_demand(now + QUIET / 2));
        assert!(!absence.is_in_demand(now + QUIET));

        assert!(absence.take_wanted());
        assert!(!absence.take_wanted());
        assert!(absence.want(now));
        absence.begin(now);
        assert!(!absence.is_in_demand(now), "nothing has come since it began");
    }

    #[test]
    fn what_waits_is_bounded_in_packets_and_in_bytes_and_leaving_makes_room() {
        let absence = Absence::new(Instant::now());
        let n_small = (0..1000).filter(|_| absence.reserve(100)).count();
        assert_eq!(n_small, MAX_PACKETS as usize);
        for _ in 0..n_small {
            absence.release(100);
        }

        let n_large = (0..1000).filter(|_| absence.reserve(64 * 1024)).count();
        assert_eq!(n_large, 4);
        assert!(!absence.reserve(1));
        absence.release(64 * 1024);
        assert!(absence.reserve(1));
    }
}
