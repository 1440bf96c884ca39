//! Tells the losses of a path that loses packets by itself from those of a queue that is full.
//!
//! Congestion control by loss takes each loss for a full queue, and so stands still on a path that loses one packet of a
//! hundred, as radio links and long ones do. A full queue shows in another way too: the round trip is longer. So losses are
//! tolerated up to a share, while the round trip is about the shortest there was. Above that share they count whatever the
//! round trip: the queue may be too short to show.

use std::time::{Duration, Instant};

/// The share of the bytes that may be lost.
const TOLERATED: f64 = 0.05;

/// Packets beside that share, as a few lost ones of a few sent say little.
const SLACK_PACKETS: u64 = 3;

/// Least packets over which the share is measured.
const LEAST_PACKETS: u64 = 100;

/// How much longer than the shortest a round trip is behind a queue: by this part of it, or by this time, which a busy host
/// alone does not add.
const LONGER_DIVISOR: u32 = 4;
const LONGER: Duration = Duration::from_millis(10);

/// What became of the bytes of one connection lately.
#[derive(Clone, Debug)]
pub struct LossTolerance {
    packet: u64,
    /// What is counted now, and what was before. The share is that of both, so that it never rests on little.
    now: Count,
    before: Count,
    since: Option<Instant>,
    smoothed: Duration,
    shortest: Duration,
}

#[derive(Clone, Copy, Debug, Default)]
struct Count {
    n_acked: u64,
    n_lost: u64,
}

impl Count {
    fn total(self) -> u64 {
        self.n_acked.saturating_add(self.n_lost)
    }
}

impl LossTolerance {
    /// Makes that of a connection with packets of `packet` bytes.
    pub fn new(packet: u16) -> Self {
        Self {
            packet: packet.into(),
            now: Count::default(),
            before: Count::default(),
            since: None,
            smoothed: Duration::ZERO,
            shortest: Duration::ZERO,
        }
    }

    /// Sets the size of a packet.
    pub fn set_packet(&mut self, packet: u16) {
        self.packet = packet.into();
    }

    /// Takes note that bytes were acknowledged, when the round trip was `smoothed`, and at its `shortest` that long.
    pub fn handle_ack(&mut self, n_bytes: u64, smoothed: Duration, shortest: Duration, now: Instant) {
        (self.smoothed, self.shortest) = (smoothed, shortest);
        self.now.n_acked += n_bytes;
        let since = *self.since.get_or_insert(now);
        let is_enough = self.now.total() >= LEAST_PACKETS * self.packet;
        if is_enough && now.saturating_duration_since(since) >= smoothed {
            (self.before, self.now, self.since) = (self.now, Count::default(), Some(now));
        }
    }

    /// Takes note that bytes were lost, and says whether that tells of congestion.
    pub fn handle_loss(&mut self, n_bytes: u64) -> bool {
        self.now.n_lost += n_bytes;
        let n_lost = self.now.n_lost + self.before.n_lost;
        let total = self.now.total() + self.before.total();
        let most = (total as f64 * TOLERATED) as u64 + SLACK_PACKETS * self.packet;
        n_lost > most || self.is_behind_queue()
    }

    fn is_behind_queue(&self) -> bool {
        self.smoothed > self.shortest + LONGER.max(self.shortest / LONGER_DIVISOR)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PACKET: u64 = 1250;
    const MS: Duration = Duration::from_millis(1);

    /// Returns how many losses counted and how many there were when so many of a thousand packets are lost, 10 packets come in
    /// each millisecond, and the round trip is `smoothed`, at its shortest 20 ms.
    fn counted(lost: u64, smoothed: Duration) -> (u32, u32) {
        let mut tolerance = LossTolerance::new(PACKET as u16);
        let start = Instant::now();
        let (mut n_counted, mut n_lost) = (0, 0);
        for n in 0..20_000_u64 {
            let now = start + MS * (n / 10) as u32;
            if n * lost / 1000 == (n + 1) * lost / 1000 {
                tolerance.handle_ack(PACKET, smoothed, 20 * MS, now);
            } else {
                n_lost += 1;
                n_counted += u32::from(tolerance.handle_loss(PACKET));
            }
        }
        (n_counted, n_lost)
    }

    #[test]
    fn a_path_that_loses_some_packets_by_itself_is_not_slowed_down() {
        for lost in [1, 5, 20, 40] {
            let (n_counted, n_lost) = counted(lost, 21 * MS);
            assert!(n_lost >= lost as u32, "{lost}");
            assert_eq!(n_counted, 0, "{lost} of 1000");
        }
    }

    #[test]
    fn more_than_is_tolerated_counts() {
        let (n_counted, n_lost) = counted(100, 21 * MS);
        assert!(n_counted > n_lost * 9 / 10, "{n_counted} of {n_lost}");
    }

    #[test]
    fn whatever_is_lost_behind_a_queue_counts() {
        for smoothed in [31 * MS, 100 * MS] {
            let (n_counted, n_lost) = counted(1, smoothed);
            assert_eq!(n_counted, n_lost, "{smoothed:?}");
        }
    }

    #[test]
    fn a_burst_counts_although_little_was_lost_before() {
        let mut tolerance = LossTolerance::new(PACKET as u16);
        let start = Instant::now();
        for n in 0..1000 {
            tolerance.handle_ack(PACKET, 20 * MS, 20 * MS, start + MS * (n / 10));
        }
        assert!(!tolerance.handle_loss(3 * PACKET));
        assert!(tolerance.handle_loss(60 * PACKET));
    }
}
