//! Leaves out repeats of log lines, and says how many they were.
//!
//! What others can cause, they can cause without end: a peer that reconnects 500 times a second, and a stranger who is refused
//! as often. The more a line is meant for people the fewer repeats are written.

use std::collections::HashMap;
use std::collections::hash_map::{DefaultHasher, Entry};
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tracing::callsite::Identifier;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Metadata, Subscriber, debug, warn};
use tracing_subscriber::layer::Context;

/// Time in which repeats of a line are counted together.
const INTERVAL: Duration = Duration::from_secs(60);

/// What may be logged of one place in the program in that time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Allowance {
    /// Times that the same line may be logged.
    n_same: u32,
    /// Different lines that may be logged.
    n_different: usize,
    /// What tells a line from others of its place.
    told_by: ToldBy,
}

/// What tells a line from others of its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ToldBy {
    /// All values but numbers, which are measured and seldom the same.
    Values,
    /// The peer that it is about; without one, as by [`ToldBy::Values`].
    Peer,
    /// Nothing: all lines of a place are the same.
    Nothing,
}

impl Allowance {
    fn of(level: Level) -> Self {
        let allow = |n_same, n_different, told_by| Self {
            n_same,
            n_different,
            told_by,
        };
        match level {
            // Who can cause a warning may be able to cause many, none like the other.
            Level::ERROR | Level::WARN => allow(1, 16, ToldBy::Values),
            // A peer may come and go a few times, and every peer may. That is bounded by the memory of it.
            Level::INFO => allow(10, 4096, ToldBy::Peer),
            // Ten a second.
            Level::DEBUG => allow(600, 1, ToldBy::Nothing),
            // A hundred a second.
            _ => allow(6000, 1, ToldBy::Nothing),
        }
    }
}

/// Log target that is never suppressed: its lines answer an operator.
pub(crate) const ANSWERS: &str = "stream_router_node::node::reload";

/// Lines that were logged.
#[derive(Default)]
pub(super) struct Repeats {
    places: Mutex<HashMap<Identifier, Place>>,
}

/// A place in the program that logs. There are as many as the program has, so their number needs no bound.
struct Place {
    /// The events, by the hash of their values.
    said: HashMap<u64, Said>,
    /// Number of events that there was no room for in `said`.
    others: u64,
    message: String,
    level: Level,
}

/// A line that was logged.
#[derive(Debug)]
struct Said {
    /// When it was logged first.
    since: Instant,
    /// Times that it was logged since then.
    n: u32,
    /// Times that it was left out, and nobody was told of it.
    n_suppressed: u64,
}

/// The repeats left out at a place.
#[derive(Debug, PartialEq, Eq)]
struct Left {
    message: String,
    level: Level,
    n_suppressed: u64,
}

impl Said {
    /// Says whether the line may be logged once more, and counts it.
    fn is_due(&mut self, now: Instant, n_same: u32) -> bool {
        if !self.is_recent(now) {
            self.since = now;
            self.n = 0;
        }
        let is_due = self.n < n_same;
        match is_due {
            true => self.n += 1,
            false => self.n_suppressed += 1,
        }
        is_due
    }

    fn is_recent(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.since) < INTERVAL
    }
}

impl Repeats {
    /// Returns whether an event may be logged now. Two events are the same if their places and their keys are.
    fn is_due(&self, place: Identifier, level: Level, key: u64, message: &str, now: Instant) -> bool {
        let allowance = Allowance::of(level);
        let mut places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        let place = places.entry(place).or_insert_with(|| Place {
            said: HashMap::new(),
            others: 0,
            message: message.to_owned(),
            level,
        });
        let has_room = place.said.len() < allowance.n_different;
        let said = match place.said.entry(key) {
            Entry::Occupied(said) => said.into_mut(),
            Entry::Vacant(free) if has_room => free.insert(Said {
                since: now,
                n: 0,
                n_suppressed: 0,
            }),
            Entry::Vacant(_) => {
                place.others += 1;
                return false;
            }
        };
        said.is_due(now, allowance.n_same)
    }

    /// Returns the repeats left out since the last call, and forgets events that were logged long ago.
    fn take_left(&self, now: Instant) -> Vec<Left> {
        let mut places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        let mut left = Vec::new();
        for place in places.values_mut() {
            let said = place.said.values_mut();
            let suppressed = said.map(|said| std::mem::take(&mut said.n_suppressed));
            let n_suppressed = std::mem::take(&mut place.others) + suppressed.sum::<u64>();
            place.said.retain(|_, said| said.is_recent(now));
            if n_suppressed > 0 {
                left.push(Left {
                    message: place.message.clone(),
                    level: place.level,
                    n_suppressed,
                });
            }
        }
        left
    }

    /// Logs from time to time how many were left out; does not return.
    pub(super) async fn report(&self) {
        loop {
            tokio::time::sleep(INTERVAL).await;
            for Left {
                message,
                level,
                n_suppressed,
            } in self.take_left(Instant::now())
            {
                // Where nobody reads the lines themselves, nobody misses them.
                if level <= Level::INFO {
                    warn!(
                        what = message,
                        n_suppressed, "said again meanwhile, and left out here"
                    );
                } else {
                    debug!(
                        what = message,
                        n_suppressed, "said again meanwhile, and left out here"
                    );
                }
            }
        }
    }
}

/// The filter before the layer that writes the log.
pub(super) struct Layer(pub(super) Arc<Repeats>);

impl<S: Subscriber> tracing_subscriber::Layer<S> for Layer {
    fn event_enabled(&self, event: &Event<'_>, _context: Context<'_, S>) -> bool {
        let metadata = event.metadata();
        if !can_repeat(metadata) {
            return true;
        }
        let level = *metadata.level();
        let mut values = Values::default();
        let key = match Allowance::of(level).told_by {
            ToldBy::Nothing => {
                values.message = metadata.name().to_owned();
                0
            }
            ToldBy::Peer => {
                event.record(&mut values);
                values.peer.unwrap_or_else(|| values.key.finish())
            }
            ToldBy::Values => {
                event.record(&mut values);
                values.key.finish()
            }
        };
        self.0
            .is_due(metadata.callsite(), level, key, &values.message, Instant::now())
    }
}

fn can_repeat(metadata: &Metadata<'_>) -> bool {
    // What is said here is no repeat.
    ![module_path!(), ANSWERS].contains(&metadata.target())
}

/// The values that tell an event from others of its place, and its text.
#[derive(Default)]
struct Values {
    key: DefaultHasher,
    /// The hash of the peer alone, if there is one.
    peer: Option<u64>,
    message: String,
}

impl Visit for Values {
    fn record_f64(&mut self, _field: &Field, _value: f64) {}

    fn record_i64(&mut self, _field: &Field, _value: i64) {}

    fn record_u64(&mut self, _field: &Field, _value: u64) {}

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let text = format!("{value:?}");
        text.hash(&mut self.key);
        if field.name() == "peer" {
            let mut peer = DefaultHasher::new();
            text.hash(&mut peer);
            self.peer = Some(peer.finish());
        }
        if field.name() == "message" {
            self.message = text;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

    use tracing::{error, info};
    use tracing_subscriber::layer::SubscriberExt;

    use super::*;

    /// Counts the events that come through.
    #[derive(Clone, Default)]
    struct Heard(Arc<AtomicU32>);

    impl<S: Subscriber> tracing_subscriber::Layer<S> for Heard {
        fn on_event(&self, _event: &Event<'_>, _context: Context<'_, S>) {
            self.0.fetch_add(1, Relaxed);
        }
    }

    /// Returns how many of the events of `say` are heard, and the repeats.
    fn heard(say: impl FnOnce()) -> (u32, Arc<Repeats>) {
        let (heard, repeats) = (Heard::default(), Arc::new(Repeats::default()));
        let subscriber = tracing_subscriber::registry()
            .with(heard.clone())
            .with(Layer(repeats.clone()));
        tracing::subscriber::with_default(subscriber, say);
        (heard.0.load(Relaxed), repeats)
    }

    fn away(peer: &str, attempt: u64) {
        warn!(target: "elsewhere", peer, attempt, "a peer is away");
    }

    #[test]
    fn the_same_warning_is_said_once_whatever_its_numbers_and_counted() {
        let (n_heard, repeats) = heard(|| (0..5).for_each(|attempt| away("a", attempt)));

        assert_eq!(n_heard, 1);
        let left = repeats.take_left(Instant::now());
        assert_eq!(
            left,
            [Left {
                message: "a peer is away".to_owned(),
                level: Level::WARN,
                n_suppressed: 4
            }]
        );
        assert_eq!(repeats.take_left(Instant::now()), []);
    }

    #[test]
    fn warnings_with_other_values_or_of_other_places_are_no_repeats() {
        let (n_heard, repeats) = heard(|| {
            ["a", "b"].iter().for_each(|peer| away(peer, 1));
            error!(target: "elsewhere", peer = "a", "a peer is away");
        });

        assert_eq!(n_heard, 3);
        assert_eq!(repeats.take_left(Instant::now()), []);
    }

    #[test]
    fn what_is_no_warning_may_repeat() {
        let (n_heard, _) = heard(|| (0..5).for_each(|_| info!(target: "elsewhere", "tick")));
        assert_eq!(n_heard, 5);
    }

    #[test]
    fn endless_different_warnings_of_one_place_are_cut() {
        let (n_heard, repeats) = heard(|| (0..100).for_each(|n| away(&n.to_string(), 1)));

        assert_eq!(n_heard, 16);
        assert_eq!(
            repeats.take_left(Instant::now())[0].n_suppressed,
            100 - u64::from(n_heard)
        );
    }

    #[test]
    fn a_warning_is_said_again_after_a_while() {
        let mut place = None;
        let (_, repeats) = heard(|| away("a", 1));
        for identifier in repeats.places.lock().unwrap().keys() {
            place = Some(identifier.clone());
        }
        let (place, start) = (place.unwrap(), Instant::now());

        let is_due = |at| repeats.is_due(place.clone(), Level::WARN, 7, "x", at);
        assert!(is_due(start));
        assert!(!is_due(start + INTERVAL / 2));
        repeats.take_left(start + INTERVAL / 2);
        assert!(!is_due(start + INTERVAL / 2));
        assert!(is_due(start + INTERVAL));
    }

    fn connected(peer: &str, connection: &str) {
        info!(target: "elsewhere", peer, connection, "connected");
    }

    #[test]
    fn a_peer_that_comes_again_and_again_is_named_ten_times_and_then_counted_and_other_peers_are_named() {
        let (n_heard, repeats) = heard(|| {
            (0..500).for_each(|n| connected("restless", &n.to_string()));
            (0..100).for_each(|n| connected(&format!("peer {n}"), "1"));
        });

        assert_eq!(n_heard, 10 + 100);
        let left = repeats.take_left(Instant::now());
        assert_eq!(
            left,
            [Left {
                message: "connected".to_owned(),
                level: Level::INFO,
                n_suppressed: 490
            }]
        );
    }

    #[test]
    fn lines_for_debugging_are_bounded_too() {
        let say = || {
            for n in 0..10_000 {
                tracing::debug!(target: "elsewhere", n, "a detail");
                tracing::trace!(target: "elsewhere", n, "a packet");
            }
        };

        let (n_heard, repeats) = heard(say);

        assert_eq!(n_heard, 600 + 6000);
        let n_left = repeats
            .take_left(Instant::now())
            .iter()
            .map(|left| left.n_suppressed)
            .sum::<u64>();
        assert_eq!(n_left, 20_000 - 6600);
    }
}
