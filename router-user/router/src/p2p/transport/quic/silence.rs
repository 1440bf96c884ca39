//! Looks whether anything comes of a peer to which something is sent that it has to acknowledge.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use tokio::time::{Instant, Sleep, sleep};

use crate::p2p::losses::{Losses, Packets};
use crate::p2p::transport::segments::{SegmentBook, Stall};

/// How often it is looked while something is sent.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);

/// How long nothing may come until the connection is doubted; never less than so many round trips.
const DOUBTED_AFTER: Duration = Duration::from_millis(400);
const DOUBTED_ROUND_TRIPS: u32 = 4;

/// Looks at one connection.
#[derive(Debug)]
pub(super) struct SilenceWatch {
    segments: Arc<SegmentBook>,
    losses: Arc<Losses>,
    /// Ends at the next look; `None` while nothing is sent.
    next_look: Option<Pin<Box<Sleep>>>,
    silence: Silence,
}

/// What a connection has sent and received.
#[derive(Clone, Copy, Debug, Default)]
struct Traffic {
    /// Frames that have to be acknowledged.
    n_sent: u64,
    /// Datagrams.
    n_received: u64,
    rtt: Duration,
}

impl Traffic {
    fn of(connection: &quinn::Connection) -> Self {
        let stats = connection.stats();
        Self {
            n_sent: stats.frame_tx.stream + stats.frame_tx.ping,
            n_received: stats.udp_rx.datagrams,
            rtt: stats.path.rtt,
        }
    }
}

/// Since when something was sent, and nothing has come.
#[derive(Debug, Default)]
struct Silence {
    seen: Traffic,
    since: Option<Instant>,
    is_told: bool,
    /// Whether something was sent before the last look, or has not been answered.
    is_active: bool,
}

impl SilenceWatch {
    pub(super) fn new(segments: Arc<SegmentBook>, losses: Arc<Losses>) -> Self {
        Self {
            segments,
            losses,
            next_look: None,
            silence: Silence::default(),
        }
    }

    /// Looks at the connection if it is time to; `cx` is woken when it next is.
    pub(super) fn poll_look(&mut self, connection: &quinn::Connection, cx: &mut Context<'_>) {
        loop {
            let Some(next_look) = &mut self.next_look else {
                if !self.silence.may_begin(Traffic::of(connection)) {
                    return;
                }
                self.next_look = Some(Box::pin(sleep(LOOK_INTERVAL)));
                continue;
            };
            if next_look.as_mut().poll(cx) == Poll::Pending {
                return;
            }
            self.next_look = None;
            let path = connection.stats().path;
            let packets = Packets {
                n_sent: path.sent_packets,
                n_lost: path.lost_packets,
            };
            self.losses.handle_counts(packets, Instant::now());
            if self.silence.look(Traffic::of(connection), Instant::now()) {
                let host = connection.remote_address().ip().to_canonical();
                self.segments.handle_stalled(host, Stall::Dark, Instant::now());
            }
        }
    }
}

impl Silence {
    /// Says whether there is anything to look for.
    fn may_begin(&self, traffic: Traffic) -> bool {
        self.is_active || traffic.n_sent != self.seen.n_sent
    }

    /// Takes in what the connection has sent and received until `now`. Returns whether nothing has come for so long that it is
    /// doubted, once in each silence.
    fn look(&mut self, traffic: Traffic, now: Instant) -> bool {
        let is_answered = traffic.n_received != self.seen.n_received;
        let has_sent = traffic.n_sent != self.seen.n_sent;
        self.seen = traffic;
        self.is_active = has_sent || !is_answered && self.since.is_some();
        if is_answered {
            (self.since, self.is_told) = (None, false);
            return false;
        }
        if has_sent {
            self.since.get_or_insert(now);
        }
        let limit = DOUBTED_AFTER.max(traffic.rtt * DOUBTED_ROUND_TRIPS);
        let is_over = self
            .since
            .is_some_and(|since| now.saturating_duration_since(since) >= limit);
        is_over && !std::mem::replace(&mut self.is_told, true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    /// Looks at a connection of 10 ms at the times of these looks, in milliseconds, with what was sent and received until
    /// then, and returns those at which it was doubted.
    fn doubted(looks: &[(u32, u64, u64)], rtt: Duration) -> Vec<u32> {
        let (mut silence, start) = (Silence::default(), Instant::now());
        let traffic = |n_sent, n_received| Traffic {
            n_sent,
            n_received,
            rtt,
        };
        let doubted = looks
            .iter()
            .filter(|(at, n_sent, n_received)| silence.look(traffic(*n_sent, *n_received), start + *at * MS));
        doubted.map(|(at, ..)| *at).collect()
    }

    #[test]
    fn what_is_answered_is_not_doubted_and_neither_is_a_peer_to_which_nothing_is_sent() {
        assert_eq!(
            doubted(&[(0, 1, 1), (300, 9, 2), (600, 20, 3), (900, 30, 4)], 10 * MS),
            [0_u32; 0]
        );
        assert_eq!(
            doubted(&[(0, 1, 1), (300, 1, 1), (900, 1, 1), (9000, 1, 1)], 10 * MS),
            [0_u32; 0]
        );
    }

    #[test]
    fn a_silence_is_told_of_once() {
        let silent = [(0, 1, 1), (300, 5, 1), (600, 6, 1), (900, 6, 1), (1200, 7, 1)];
        assert_eq!(doubted(&silent, 10 * MS), [900]);

        let heard = [(1500, 8, 2), (1800, 9, 2), (2100, 9, 2), (2400, 9, 2)];
        assert_eq!(doubted(&[&silent[..], &heard].concat(), 10 * MS), [900, 2400]);
    }

    #[test]
    fn it_is_looked_on_while_something_is_sent_or_waits_for_an_answer_and_no_longer() {
        let (mut silence, now) = (Silence::default(), Instant::now());
        let traffic = |n_sent, n_received| Traffic {
            n_sent,
            n_received,
            rtt: MS,
        };
        assert!(silence.may_begin(traffic(1, 0)));
        for (n_sent, n_received, goes_on) in [
            (1, 1, true),
            (1, 1, false),
            (2, 1, true),
            (2, 1, true),
            (2, 2, false),
        ] {
            silence.look(traffic(n_sent, n_received), now);
            let may_begin = silence.may_begin(traffic(n_sent, n_received));
            assert_eq!(may_begin, goes_on, "{n_sent} {n_received}");
        }
    }

    #[test]
    fn a_long_path_has_more_time() {
        let silent = [(0, 1, 1), (300, 5, 1), (1000, 6, 1), (1900, 6, 1), (2300, 7, 1)];
        assert_eq!(doubted(&silent, 500 * MS), [2300]);
    }
}
