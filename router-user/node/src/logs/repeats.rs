//! Leaves out repeats of warnings and errors, and says how many they were.

use std::collections::HashMap;
use std::collections::hash_map::{DefaultHasher, Entry};
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tracing::callsite::Identifier;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Metadata, Subscriber, warn};
use tracing_subscriber::layer::Context;

use stream_router_engine::log_rate_limit::LogRateLimit;

/// Time for which a line is not repeated.
const INTERVAL: Duration = Duration::from_secs(60);

/// Different lines of one place in the program that may be logged in that time: who can cause a warning may be able to
/// cause many, none like the other.
const MAX_DIFFERENT: usize = 16;

/// Log target that is never suppressed: its lines answer an operator.
pub(crate) const ANSWERS: &str = "stream_router_node::node::reload";

/// Warnings and errors that were logged.
#[derive(Default)]
pub(super) struct Repeats {
    places: Mutex<HashMap<Identifier, Place>>,
}

/// A place in the program that warns. There are as many as the program has, so their number needs no bound.
struct Place {
    /// The events, by the hash of their values.
    said: HashMap<u64, LogRateLimit>,
    /// Number of events that there was no room for in `said`.
    others: u64,
    message: String,
}

/// The repeats left out at a place.
#[derive(Debug, PartialEq, Eq)]
struct Left {
    message: String,
    n_suppressed: u64,
}

impl Repeats {
    /// Returns whether an event may be logged now. Two events are the same if their places and their values are, except
    /// for numbers, which are measured and seldom the same.
    fn is_due(&self, place: Identifier, key: u64, message: &str, now: Instant) -> bool {
        let mut places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        let place = places.entry(place).or_insert_with(|| Place {
            said: HashMap::new(),
            others: 0,
            message: message.to_owned(),
        });
        let has_room = place.said.len() < MAX_DIFFERENT;
        let said = match place.said.entry(key) {
            Entry::Occupied(said) => said.into_mut(),
            Entry::Vacant(free) if has_room => free.insert(LogRateLimit::default()),
            Entry::Vacant(_) => {
                place.others += 1;
                return false;
            }
        };
        match said.due(now, INTERVAL) {
            Some(n_before) => {
                // Nobody has been told of those.
                place.others += n_before;
                true
            }
            None => false,
        }
    }

    /// Returns the repeats left out since the last call, and forgets events that were logged long ago.
    fn take_left(&self, now: Instant) -> Vec<Left> {
        let mut places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        let mut left = Vec::new();
        for place in places.values_mut() {
            let suppressed = place.said.values_mut().map(LogRateLimit::take_suppressed);
            let n_suppressed = std::mem::take(&mut place.others) + suppressed.sum::<u64>();
            place.said.retain(|_, said| said.is_recent(now, INTERVAL));
            if n_suppressed > 0 {
                left.push(Left {
                    message: place.message.clone(),
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
                n_suppressed,
            } in self.take_left(Instant::now())
            {
                warn!(
                    what = message,
                    n_suppressed, "said again meanwhile, and left out here"
                );
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
        let mut values = Values::default();
        event.record(&mut values);
        let Values { key, message } = values;
        self.0
            .is_due(metadata.callsite(), key.finish(), &message, Instant::now())
    }
}

fn can_repeat(metadata: &Metadata<'_>) -> bool {
    // What is said here is no repeat.
    *metadata.level() <= Level::WARN && ![module_path!(), ANSWERS].contains(&metadata.target())
}

/// The values that tell an event from others of its place, and its text.
#[derive(Default)]
struct Values {
    key: DefaultHasher,
    message: String,
}

impl Visit for Values {
    fn record_f64(&mut self, _field: &Field, _value: f64) {}

    fn record_i64(&mut self, _field: &Field, _value: i64) {}

    fn record_u64(&mut self, _field: &Field, _value: u64) {}

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let text = format!("{value:?}");
        text.hash(&mut self.key);
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

        assert_eq!(n_heard, MAX_DIFFERENT as u32);
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

        assert!(repeats.is_due(place.clone(), 7, "x", start));
        assert!(!repeats.is_due(place.clone(), 7, "x", start + INTERVAL / 2));
        repeats.take_left(start + INTERVAL / 2);
        assert!(!repeats.is_due(place.clone(), 7, "x", start + INTERVAL / 2));
        assert!(repeats.is_due(place, 7, "x", start + INTERVAL));
    }
}
