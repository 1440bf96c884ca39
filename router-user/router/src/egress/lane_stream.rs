//! Which of a lane's streams one is, by which the other side knows their order.

use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

/// The name of a lane, by which a peer tells it from all others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct LaneId {
    /// A random number that the lanes of one sender have in common.
    pub set: u64,
    /// The lane's index among them.
    pub index: u16,
}

/// One of the streams that a lane opens, one after another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LaneStream {
    /// The lane.
    pub lane: LaneId,
    /// Number of the stream in its lane: 1 for the first, and higher for each that is opened later.
    pub number: u64,
    /// Whether the stream before this one was lost, so that nothing says where it ends.
    pub after_loss: bool,
}

/// Numbers the streams of a lane.
#[derive(Debug)]
pub(super) struct StreamNumbers {
    lane: LaneId,
    n_opened: AtomicU64,
    /// Whether the last stream was closed with all that was written to it.
    closed: AtomicBool,
}

impl StreamNumbers {
    /// Begins to number the streams of a lane.
    pub(super) fn new(lane: LaneId) -> Self {
        Self {
            lane,
            n_opened: AtomicU64::new(0),
            closed: AtomicBool::new(true),
        }
    }

    /// Numbers the next stream, which counts as lost until [`StreamNumbers::handle_closed`].
    pub(super) fn next(&self) -> LaneStream {
        LaneStream {
            lane: self.lane,
            number: self.n_opened.fetch_add(1, Relaxed) + 1,
            after_loss: !self.closed.swap(false, Relaxed),
        }
    }

    /// Notes that the last stream was closed with all that was written to it.
    pub(super) fn handle_closed(&self) {
        self.closed.store(true, Relaxed);
    }
}

/// Returns a number for the lanes of a new sender, of what the standard library takes from the system for its own maps.
pub(super) fn random_set() -> u64 {
    RandomState::new().hash_one(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_are_numbered_from_one_and_say_whether_the_one_before_was_lost() {
        let lane = LaneId { set: 7, index: 3 };
        let numbers = StreamNumbers::new(lane);
        let stream = |number, after_loss| LaneStream {
            lane,
            number,
            after_loss,
        };

        assert_eq!(numbers.next(), stream(1, false));
        assert_eq!(numbers.next(), stream(2, true));
        numbers.handle_closed();
        assert_eq!(numbers.next(), stream(3, false));
        assert_eq!(numbers.next(), stream(4, true));
    }

    #[test]
    fn the_lanes_of_each_sender_have_a_number_of_their_own() {
        assert_ne!(random_set(), random_set());
    }
}
