//! How many bytes a connection may have in flight so that a queue of the path stays short.
//!
//! Congestion control by loss fills every queue of a path before it slows down. This bound follows the round trip
//! instead: once all round trips for a while are longer than the shortest one by more than `TARGET`, only what the
//! path delivers within the shortest and the target stays in flight.
//!
//! A queue that others keep full would leave nothing to a connection that makes room for them. It shows in this: fewer
//! bytes in flight make the connection slower, and the round trip no shorter. Then the bound is ten times as wide for a
//! while, within which congestion control by loss competes.

use std::time::{Duration, Instant};

/// How long a queue may be kept up.
const TARGET: Duration = Duration::from_millis(50);

/// The same beside others that keep a queue up.
const COMPETING_TARGET: Duration = Duration::from_millis(500);

/// How long the shortest round trip counts: after that the path may be another one.
const BASE_LIFE: Duration = Duration::from_secs(10);

/// The least window, in packets: with fewer, an acknowledgement that comes late stops everything.
const LEAST_PACKETS: u64 = 4;

/// The shortest round: a queue of a fast path says nothing in less.
const LEAST_ROUND: Duration = Duration::from_millis(10);

/// The share of its rate that a connection gives up before it takes a queue for that of others.
const SLOWER: f64 = 0.5;

/// For how many rounds in a row.
const SLOWER_ROUNDS: u32 = 3;

/// The bound of one connection, from the acknowledgements of what it has sent.
#[derive(Clone, Debug)]
pub struct DelayWindow {
    packet: u64,
    /// Most bytes in flight; `None` until a queue stands.
    window: Option<u64>,
    /// The shortest round trip that counts, and since when it does.
    base: Option<(Duration, Instant)>,
    /// The shortest round trip since then.
    base_shortest: Duration,
    /// Bytes per second of the last round.
    rate: f64,
    round: Option<Round>,
    mode: Mode,
    /// The highest rate while the present queue stood.
    standing_rate: f64,
    /// How many rounds the rate was far below that.
    n_slower: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    /// The queue is kept short.
    Short,
    /// Little is in flight until then, so that the queue empties and the round trip of the path shows.
    Drain(Instant),
    /// Others keep a queue up: until then so many bytes are the bound.
    Compete(Instant, u64),
}

/// What was acknowledged since a time.
#[derive(Clone, Copy, Debug)]
struct Round {
    since: Instant,
    n_bytes: u64,
    shortest: Duration,
    /// Whether the window was used: else it says nothing about more.
    is_full: bool,
}

impl DelayWindow {
    /// Makes the bound of a connection with packets of `packet` bytes.
    pub fn new(packet: u16) -> Self {
        Self {
            packet: packet.into(),
            window: None,
            base: None,
            base_shortest: Duration::MAX,
            rate: 0.0,
            round: None,
            mode: Mode::Short,
            standing_rate: 0.0,
            n_slower: 0,
        }
    }

    /// Returns the most bytes that may be in flight; `None` while there is no bound.
    pub fn window(&self) -> Option<u64> {
        match self.mode {
            Mode::Short => self.window,
            Mode::Drain(_) => Some(self.bytes_within(self.base_rtt() / 2)),
            Mode::Compete(_, window) => Some(window),
        }
    }

    /// Sets the size of a packet.
    pub fn set_packet(&mut self, packet: u16) {
        self.packet = packet.into();
    }

    /// Takes note that `n_bytes` sent at `sent` are acknowledged. `app_limited` says that no more was there to be sent.
    pub fn handle_ack(&mut self, sent: Instant, n_bytes: u64, app_limited: bool, now: Instant) {
        let rtt = now.saturating_duration_since(sent);
        self.base_shortest = self.base_shortest.min(rtt);
        match &mut self.base {
            Some((base, since)) if rtt <= *base => (*base, *since) = (rtt, now),
            Some(_) => {}
            None => self.base = Some((rtt, now)),
        }
        let round = self.round.get_or_insert(Round {
            since: now,
            n_bytes: 0,
            shortest: Duration::MAX,
            is_full: false,
        });
        // What the first acknowledgement is about left before the round.
        if now > round.since {
            round.n_bytes += n_bytes;
        }
        round.shortest = round.shortest.min(rtt);
        round.is_full |= !app_limited;
        let elapsed = now.saturating_duration_since(round.since);
        if elapsed >= round.shortest.max(LEAST_ROUND) {
            let round = *round;
            self.round = None;
            self.handle_round(round, elapsed, now);
        }
    }

    fn handle_round(&mut self, round: Round, elapsed: Duration, now: Instant) {
        let rate = round.n_bytes as f64 / elapsed.as_secs_f64();
        match self.mode {
            Mode::Short => {}
            Mode::Drain(until) => {
                if now >= until {
                    self.mode = Mode::Short;
                    self.base = Some((self.base_shortest, now));
                    self.base_shortest = Duration::MAX;
                }
                return;
            }
            Mode::Compete(until, _) => {
                self.rate = rate;
                if now >= until {
                    self.drain(now);
                }
                return;
            }
        }
        let base = self.base_rtt();
        let is_standing = round.shortest > base + TARGET;
        if is_standing || round.is_full {
            self.rate = rate;
        }
        if self.is_queue_of_others(is_standing && round.is_full) {
            self.rate = self.standing_rate;
            let window = self.bytes_within(base + COMPETING_TARGET);
            (self.mode, self.window) = (Mode::Compete(now + BASE_LIFE, window), Some(window));
        } else if is_standing {
            self.window = Some(self.bytes_within(base + TARGET));
        } else if let Some(window) = self.window
            && round.is_full
        {
            // A quarter more each round in which all of it was used.
            self.window = Some(window.saturating_add(window / 4));
        }
        if self.mode == Mode::Short
            && let Some((_, since)) = self.base
            && now.saturating_duration_since(since) >= BASE_LIFE
        {
            self.handle_old_base(now);
        }
    }

    /// Says whether a queue stands although this connection has made room for long enough.
    fn is_queue_of_others(&mut self, is_standing: bool) -> bool {
        if !is_standing {
            (self.standing_rate, self.n_slower) = (0.0, 0);
            return false;
        }
        self.standing_rate = self.standing_rate.max(self.rate);
        if self.rate < self.standing_rate * SLOWER {
            self.n_slower += 1;
        } else {
            self.n_slower = 0;
        }
        self.n_slower >= SLOWER_ROUNDS
    }

    /// The shortest round trip has grown old. It is renewed by what was measured since, if no queue of our own can
    /// have been part of that; else the queue has to be emptied first.
    fn handle_old_base(&mut self, now: Instant) {
        if self.window.is_some() && self.base_shortest > self.base_rtt() + TARGET / 4 {
            self.drain(now);
        } else {
            self.base = Some((self.base_shortest, now));
            self.base_shortest = Duration::MAX;
        }
    }

    fn drain(&mut self, now: Instant) {
        self.mode = Mode::Drain(now + 2 * self.base_rtt() + 2 * TARGET);
        self.base_shortest = Duration::MAX;
        (self.standing_rate, self.n_slower) = (0.0, 0);
    }

    fn base_rtt(&self) -> Duration {
        self.base.map_or(Duration::ZERO, |(base, _)| base)
    }

    /// Returns what the path delivers within a time, and at least a few packets.
    fn bytes_within(&self, time: Duration) -> u64 {
        ((self.rate * time.as_secs_f64()) as u64).max(LEAST_PACKETS * self.packet)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use super::*;

    const PACKET: u64 = 1250;
    const MS: Duration = Duration::from_millis(1);

    /// A path with a queue of any length, and a connection that always has something to send.
    struct Path {
        window: DelayWindow,
        /// Bytes per second.
        rate: f64,
        round_trip: Duration,
        /// When the path is free again.
        free: Instant,
        /// When packets were sent, and when they are acknowledged.
        in_flight: VecDeque<(Instant, Instant)>,
        now: Instant,
        n_acked: u64,
        /// The most bytes in flight without the bound: congestion control by loss, without a loss.
        most: u64,
    }

    impl Path {
        fn new(kbit: u32, round_trip: Duration) -> Self {
            let now = Instant::now();
            let mut window = DelayWindow::new(PACKET as u16);
            // The handshake.
            window.handle_ack(now - round_trip, 100, true, now);
            Self {
                window,
                rate: f64::from(kbit) * 125.0,
                round_trip,
                free: now,
                in_flight: VecDeque::new(),
                now,
                n_acked: 0,
                most: 10 * PACKET,
            }
        }

        /// Runs for a time, and returns the mean round trip in it.
        fn run(&mut self, time: Duration) -> Duration {
            let (end, mut sum, mut n) = (self.now + time, Duration::ZERO, 0);
            while self.now < end {
                let most = self.window.window().unwrap_or(u64::MAX).min(self.most);
                while (self.in_flight.len() as u64) * PACKET < most {
                    self.free = self.free.max(self.now) + Duration::from_secs_f64(PACKET as f64 / self.rate);
                    self.in_flight.push_back((self.now, self.free + self.round_trip));
                }
                let Some((sent, acked)) = self.in_flight.pop_front() else {
                    break;
                };
                self.now = self.now.max(acked);
                sum += self.now - sent;
                n += 1;
                self.n_acked += PACKET;
                self.most += PACKET;
                self.window.handle_ack(sent, PACKET, false, self.now);
            }
            sum / n
        }

        /// Runs for a time, and returns which share of the path was used.
        fn share(&mut self, time: Duration) -> f64 {
            let (n_before, then) = (self.n_acked, self.now);
            self.run(time);
            (self.n_acked - n_before) as f64 / (self.rate * (self.now - then).as_secs_f64())
        }
    }

    #[test]
    fn a_queue_stays_short_and_the_path_is_used() {
        for (kbit, round_trip) in [(256, 2), (1000, 2), (1000, 100), (10_000, 20), (100_000, 20)] {
            let mut path = Path::new(kbit, round_trip * MS);
            path.run(10_000 * MS);

            let mean = path.run(30_000 * MS);
            let share = path.share(30_000 * MS);

            let least = Duration::from_secs_f64((LEAST_PACKETS * PACKET) as f64 / path.rate);
            let most = round_trip * MS + (2 * TARGET).max(least * 3 / 2);
            assert!(mean <= most, "{kbit} kbit/s, {round_trip} ms: {mean:?}");
            assert!(share > 0.93, "{kbit} kbit/s, {round_trip} ms: {share}");
        }
    }

    #[test]
    fn a_path_without_a_queue_has_no_bound() {
        let mut path = Path::new(1_000_000, 5 * MS);
        path.most = 100_000;
        for _ in 0..10_000 {
            path.most = 100_000;
            path.run(MS);
        }
        assert_eq!(path.window.window(), None);
    }

    #[test]
    fn a_longer_path_is_used_again_after_the_life_of_the_shortest_round_trip() {
        let mut path = Path::new(10_000, 5 * MS);
        path.run(20_000 * MS);
        path.round_trip = 200 * MS;
        path.run(25_000 * MS);

        let share = path.share(20_000 * MS);

        assert!(share > 0.9, "{share}");
    }

    #[test]
    fn beside_others_that_keep_a_queue_full_a_connection_keeps_its_share() {
        let mut path = Path::new(100_000, 20 * MS);
        path.run(2000 * MS);
        // The queue of the others delays everything, and the connection gets what its window is worth.
        path.round_trip = 450 * MS;
        path.most = 500_000;
        let (n_before, then) = (path.n_acked, path.now);
        for _ in 0..80 {
            path.run(100 * MS);
            path.most = 500_000;
        }

        let rate = (path.n_acked - n_before) as f64 / (path.now - then).as_secs_f64();

        let fair = 500_000.0 / 0.45;
        assert!(rate > fair / 2.0, "{rate} of {fair} bytes per second");
    }

    #[test]
    fn a_faster_path_is_used_within_seconds() {
        let mut path = Path::new(1000, 20 * MS);
        path.run(20_000 * MS);
        path.rate *= 50.0;
        path.run(2000 * MS);

        let share = path.share(9000 * MS);

        assert!(share > 0.9, "{share}");
    }
}
