//! How long connections have been without use.

use std::{collections::HashMap, time::Duration};

use libp2p::swarm::ConnectionId;
use tokio::time::Instant;

/// Time between two looks at the connections.
const LOOK_INTERVAL: Duration = Duration::from_secs(10);

/// What was last seen of every connection.
#[derive(Debug)]
pub(super) struct IdleWatch {
    seen: HashMap<ConnectionId, Seen>,
    next_look: Instant,
}

#[derive(Clone, Copy, Debug)]
struct Seen {
    n_uses: u64,
    since: Instant,
}

impl IdleWatch {
    /// Makes a watch that first looks a while after `now`.
    pub(super) fn new(now: Instant) -> Self {
        Self {
            seen: HashMap::new(),
            next_look: now + LOOK_INTERVAL,
        }
    }

    /// Returns when [`IdleWatch::look`] has to be called next; `None` if no connection is there to look at.
    pub(super) fn poll_due(&self, n_connections: usize) -> Option<Instant> {
        (n_connections > 0).then_some(self.next_look)
    }

    /// Looks at the connections if it is time to, each with its number of uses. Returns for how long each has not been
    /// used, to the interval of the looks.
    pub(super) fn look(
        &mut self,
        connections: impl Iterator<Item = (ConnectionId, u64)>,
        now: Instant,
    ) -> Vec<(ConnectionId, Duration)> {
        if now < self.next_look {
            return Vec::new();
        }
        self.next_look = now + LOOK_INTERVAL;
        let before = std::mem::take(&mut self.seen);
        let mut idle = Vec::new();
        for (connection, n_uses) in connections {
            let unused = before.get(&connection).filter(|seen| seen.n_uses == n_uses);
            let seen = unused.copied().unwrap_or(Seen { n_uses, since: now });
            self.seen.insert(connection, seen);
            idle.push((connection, now.saturating_duration_since(seen.since)));
        }
        idle
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_is_idle_from_the_look_that_saw_its_last_use() {
        let start = Instant::now();
        let mut watch = IdleWatch::new(start);
        let id = ConnectionId::new_unchecked;
        let mut look = |n: u32, uses: [u64; 2]| {
            let connections = [(id(1), uses[0]), (id(2), uses[1])].into_iter();
            let idle = watch.look(connections, start + n * LOOK_INTERVAL);
            idle.into_iter().map(|(_, time)| time).collect::<Vec<_>>()
        };

        assert_eq!(look(0, [1, 1]), Vec::<Duration>::new());
        assert_eq!(look(1, [1, 1]), [Duration::ZERO; 2]);
        assert_eq!(look(2, [1, 2]), [LOOK_INTERVAL, Duration::ZERO]);
        assert_eq!(look(3, [1, 2]), [2 * LOOK_INTERVAL, LOOK_INTERVAL]);
        assert_eq!(look(4, [2, 2]), [Duration::ZERO, 2 * LOOK_INTERVAL]);
    }

    #[test]
    fn nothing_is_due_without_connections() {
        let start = Instant::now();
        let watch = IdleWatch::new(start);

        assert_eq!(watch.poll_due(0), None);
        assert_eq!(watch.poll_due(1), Some(start + LOOK_INTERVAL));
    }
}
