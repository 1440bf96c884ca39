//! The absence of a peer: when it began, and how much waits for its end.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// Most packets that may wait for one peer, in all workers together: the first packets of as many flows.
const MAX_PACKETS: u32 = 256;

/// Most bytes of them, with frame headers: four super-packets.
const MAX_BYTES: u32 = 256 * 1024;

/// The present or last absence of a peer, and what waits for its end.
#[derive(Debug)]
pub(super) struct Absence {
    made: Instant,
    /// When it began, in milliseconds from `made`.
    since_ms: AtomicU64,
    n_packets: AtomicU32,
    n_bytes: AtomicU32,
}

impl Absence {
    /// An absence that begins at `now`.
    pub(super) fn new(now: Instant) -> Self {
        Self {
            made: now,
            since_ms: AtomicU64::new(0),
            n_packets: AtomicU32::new(0),
            n_bytes: AtomicU32::new(0),
        }
    }

    /// Records that the peer is absent from `now` on.
    pub(super) fn begin(&self, now: Instant) {
        let since = now.saturating_duration_since(self.made);
        self.since_ms.store(since.as_millis() as u64, Relaxed);
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
