//! When a connection is pinged.

use std::time::Duration;

use tokio::time::Instant;

/// Time between two pings while packets come and go.
const SHORTEST: Duration = Duration::from_secs(1);

/// How long after a packet that follows a pause the next ping is sent. With the time that a ping has for its answer it is
/// less than 5 s.
const AFTER_PAUSE: Duration = Duration::from_millis(500);

/// The pings of one side of one connection.
#[derive(Debug)]
pub(super) struct Schedule {
    longest: Duration,
    /// Whether this side has dialled, and so is the one to ping while nothing else is sent.
    leads: bool,
    interval: Duration,
    due: Option<Instant>,
    n_uses: u64,
    is_doubted: bool,
}

impl Schedule {
    /// Makes the schedule of a new connection, which is pinged at once.
    pub(super) fn new(longest: Duration, leads: bool) -> Self {
        Self {
            longest,
            leads,
            interval: SHORTEST,
            due: None,
            n_uses: 0,
            is_doubted: false,
        }
    }

    /// Returns when [`Schedule::handle_due`] has to be called next; `None` means at once.
    pub(super) fn due(&self) -> Option<Instant> {
        self.due
    }

    /// Plans what follows, at a time that was due. `n_uses` changes with every packet; `was_pinged` says whether the peer has
    /// pinged since the last time. Returns whether to ping now.
    pub(super) fn handle_due(&mut self, n_uses: u64, was_pinged: bool, now: Instant) -> bool {
        let is_first = self.due.is_none();
        let is_used = std::mem::replace(&mut self.n_uses, n_uses) != n_uses;
        if is_first || is_used {
            self.interval = SHORTEST;
        } else {
            self.interval = (self.interval * 2).min(self.longest);
        }
        let wait = if self.leads {
            self.interval
        } else {
            self.interval * 5 / 4
        };
        self.due = Some(now + wait);
        let is_doubted = std::mem::take(&mut self.is_doubted);
        is_first || is_used || is_doubted || self.leads || !was_pinged
    }

    /// Says whether the next ping is so far that a packet before it has to be told of.
    pub(super) fn rests(&self) -> bool {
        self.interval > SHORTEST
    }

    /// Says whether packets have come or gone since the last time that was due.
    pub(super) fn is_used(&self, n_uses: u64) -> bool {
        self.n_uses != n_uses
    }

    /// Has the connection pinged at once: there is a reason to doubt that it works.
    pub(super) fn handle_doubt(&mut self, now: Instant) {
        self.interval = SHORTEST;
        self.is_doubted = true;
        if let Some(due) = &mut self.due {
            *due = now;
        }
    }

    /// Has the connection pinged soon: a packet was sent after a pause.
    pub(super) fn handle_wake(&mut self, now: Instant) {
        self.interval = SHORTEST;
        if let Some(due) = &mut self.due {
            *due = (*due).min(now + AFTER_PAUSE);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONGEST: Duration = Duration::from_secs(25);

    /// Runs both sides of a connection for `length`. Returns when either pinged, in milliseconds; `uses` says how many
    /// packets there were until a time.
    fn pings(length: Duration, uses: impl Fn(u64) -> u64) -> [Vec<u64>; 2] {
        let start = Instant::now();
        let mut sides = [Schedule::new(LONGEST, true), Schedule::new(LONGEST, false)];
        let mut was_pinged = [false, false];
        let mut sent = [Vec::new(), Vec::new()];
        for ms in 0..length.as_millis() as u64 {
            let now = start + Duration::from_millis(ms);
            for side in 0..2 {
                if sides[side].rests() && sides[side].is_used(uses(ms)) {
                    sides[side].handle_wake(now);
                }
                if sides[side].due().is_none_or(|due| due <= now) {
                    let heard = std::mem::take(&mut was_pinged[side]);
                    if sides[side].handle_due(uses(ms), heard, now) {
                        sent[side].push(ms);
                        was_pinged[1 - side] = true;
                    }
                }
            }
        }
        sent
    }

    #[test]
    fn pings_of_an_idle_connection_become_rare_and_one_side_is_enough() {
        let [dialler, listener] = pings(Duration::from_secs(300), |_| 0);

        assert_eq!(dialler[..7], [0, 1000, 3000, 7000, 15_000, 31_000, 56_000]);
        let late = dialler.windows(2).skip(6);
        assert!(
            late.clone().all(|pair| pair[1] - pair[0] == 25_000),
            "{dialler:?}"
        );
        assert_eq!(listener, [0], "it hears the pings of the other");
    }

    #[test]
    fn pings_are_frequent_while_packets_come_and_go() {
        let [dialler, _] = pings(Duration::from_secs(60), |ms| ms / 100);

        assert!(
            dialler.windows(2).all(|pair| pair[1] - pair[0] <= 1000),
            "{dialler:?}"
        );
    }

    #[test]
    fn a_packet_after_a_pause_is_followed_by_a_ping() {
        let [dialler, listener] = pings(Duration::from_secs(120), |ms| u64::from(ms >= 60_000));

        for pings in [dialler, listener] {
            assert!(pings.contains(&60_500), "{pings:?}");
        }
    }

    #[test]
    fn the_side_that_did_not_dial_pings_once_it_hears_nothing() {
        let start = Instant::now();
        let mut schedule = Schedule::new(LONGEST, false);
        let mut now = start;
        for _ in 0..10 {
            schedule.handle_due(0, true, now);
            now = schedule.due().expect("planned");
        }

        assert!(schedule.handle_due(0, false, now));
    }

    #[test]
    fn a_doubted_connection_is_pinged_at_once_by_either_side() {
        for leads in [true, false] {
            let start = Instant::now();
            let mut schedule = Schedule::new(LONGEST, leads);
            assert!(schedule.handle_due(0, false, start));
            let later = start + SHORTEST / 2;

            schedule.handle_doubt(later);

            assert_eq!(schedule.due(), Some(later));
            assert!(schedule.handle_due(0, true, later), "leads: {leads}");
        }
    }
}
