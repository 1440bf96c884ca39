//! How long connections have been without use.

use std::{collections::HashMap, time::Duration};

use libp2p::swarm::ConnectionId;
use tokio::time::Instant;

/// The longest time between two looks at the connections.
const LONGEST_INTERVAL: Duration = Duration::from_secs(10);

/// What was last seen of every connection.
#[derive(Debug)]
pub(super) struct IdleWatch {
    seen: HashMap<ConnectionId, Seen>,
    interval: Duration,
    next_look: Instant,
}

#[derive(Clone, Copy, Debug)]
struct Seen {
    n_uses: u64,
    since: Instant,
}

impl IdleWatch {
    /// Makes a watch that first looks a while after `now`, and tells times as short as `idle_time`.
    pub(super) fn new(idle_time: Duration, now: Instant) -> Self {
        let interval = (idle_time / 4).min(LONGEST_INTERVAL);
        Self {
            seen: HashMap::new(),
            interval,
            next_look: now + interval,
        }
    }

    /// Returns when [`IdleWatch::look`] has to be called next; `None` if no connection is there to look at.
    pub(super) fn poll_due(&self, n_connections: usize) -> Option<Instant> {
        (n_connections > 0).then_some(self.next_look)
    }

    /// Looks at the connections that `connections` returns, each with its number of uses. Returns for how long each has not
    /// been used, to the interval of the looks; `None` if it is not time yet.
    pub(super) fn look(
        &mut self,
        connections: impl FnOnce() -> Vec<(ConnectionId, u64)>,
        now: Instant,
    ) -> Option<HashMap<ConnectionId, Duration>> {
        if now < self.next_look {
            return None;
        }
        self.next_look = now + self.interval;
        let before = std::mem::take(&mut self.seen);
        let mut idle = HashMap::new();
        for (connection, n_uses) in connections() {
            let unused = before.get(&connection).filter(|seen| seen.n_uses == n_uses);
            let seen = unused.copied().unwrap_or(Seen { n_uses, since: now });
            self.seen.insert(connection, seen);
            idle.insert(connection, now.saturating_duration_since(seen.since));
        }
        Some(idle)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const IDLE_TIME: Duration = Duration::from_secs(300);

    #[test]
    fn a_connection_is_idle_from_the_look_that_saw_its_last_use() {
        let start = Instant::now();
        let mut watch = IdleWatch::new(IDLE_TIME, start);
        let ids = [1, 2].map(ConnectionId::new_unchecked);
        let mut look = |n: u32, uses: [u64; 2]| {
            let connections = || ids.into_iter().zip(uses).collect();
            let idle = watch.look(connections, start + n * LONGEST_INTERVAL)?;
            Some(ids.map(|id| idle[&id]))
        };

        assert_eq!(look(0, [1, 1]), None);
        assert_eq!(look(1, [1, 1]), Some([Duration::ZERO; 2]));
        assert_eq!(look(2, [1, 2]), Some([LONGEST_INTERVAL, Duration::ZERO]));
        assert_eq!(look(3, [1, 2]), Some([2 * LONGEST_INTERVAL, LONGEST_INTERVAL]));
        assert_eq!(look(4, [2, 2]), Some([Duration::ZERO, 2 * LONGEST_INTERVAL]));
    }

    #[test]
    fn nothing_is_due_without_connections_and_a_short_time_is_looked_at_often() {
        let start = Instant::now();
        let watch = IdleWatch::new(IDLE_TIME, start);
        assert_eq!(watch.poll_due(0), None);
        assert_eq!(watch.poll_due(1), Some(start + LONGEST_INTERVAL));

        let second = Duration::from_secs(1);
        assert_eq!(
            IdleWatch::new(second, start).poll_due(1),
            Some(start + second / 4)
        );
    }
}
