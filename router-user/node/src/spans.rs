//! Spans: what takes time and is rare, such as a start or the run of a hook. Nothing here is for packets.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant, SystemTime};

use tokio::sync::mpsc;

/// Longest value; errors of other crates have no bound of their own.
const MAX_VALUE_LEN: usize = 512;

/// Something that took time, and has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Span {
    pub(crate) name: &'static str,
    pub(crate) began: SystemTime,
    pub(crate) took: Duration,
    pub(crate) attributes: Vec<(&'static str, String)>,
    /// Why it failed, if it did.
    pub(crate) error: Option<String>,
}

/// Takes spans, if there is somebody who sends them. It never waits.
#[derive(Clone, Debug, Default)]
pub(crate) struct Spans(Option<Arc<Queue>>);

#[derive(Debug)]
struct Queue {
    waiting: mpsc::Sender<Span>,
    n_lost: AtomicU64,
}

/// Something that goes on. It ends as it is dropped.
#[derive(Debug)]
pub(crate) struct OpenSpan<'a> {
    spans: &'a Spans,
    name: &'static str,
    began: (SystemTime, Instant),
    attributes: Vec<(&'static str, String)>,
    error: Option<String>,
}

impl Spans {
    /// Returns where spans are told, and where they come out; `n_most` may wait.
    #[cfg(any(feature = "otlp", test))]
    pub(crate) fn channel(n_most: usize) -> (Self, mpsc::Receiver<Span>) {
        let (waiting, receiver) = mpsc::channel(n_most);
        let n_lost = AtomicU64::new(0);
        (Self(Some(Arc::new(Queue { waiting, n_lost }))), receiver)
    }

    /// Returns how many were lost since the last call, as too many waited.
    #[cfg(any(feature = "otlp", test))]
    pub(crate) fn take_lost(&self) -> u64 {
        self.0.as_ref().map_or(0, |queue| queue.n_lost.swap(0, Relaxed))
    }

    /// Begins one.
    pub(crate) fn begin(&self, name: &'static str) -> OpenSpan<'_> {
        OpenSpan {
            spans: self,
            name,
            began: (SystemTime::now(), Instant::now()),
            attributes: Vec::new(),
            error: None,
        }
    }

    fn tell(&self, span: Span) {
        if let Some(queue) = &self.0
            && queue.waiting.try_send(span).is_err()
        {
            queue.n_lost.fetch_add(1, Relaxed);
        }
    }
}

impl OpenSpan<'_> {
    /// Says something of it.
    pub(crate) fn set(&mut self, key: &'static str, value: impl ToString) {
        if self.spans.0.is_some() {
            self.attributes.push((key, bounded(value.to_string())));
        }
    }

    /// Says why it fails.
    pub(crate) fn fail(&mut self, error: impl ToString) {
        if self.spans.0.is_some() {
            self.error = Some(bounded(error.to_string()));
        }
    }

    /// Lets it have begun earlier.
    pub(crate) fn began_before(&mut self, time: Duration) {
        let (wall, clock) = self.began;
        self.began = (
            wall.checked_sub(time).unwrap_or(wall),
            clock.checked_sub(time).unwrap_or(clock),
        );
    }
}

impl Drop for OpenSpan<'_> {
    fn drop(&mut self) {
        let (began, clock) = self.began;
        self.spans.tell(Span {
            name: self.name,
            began,
            took: clock.elapsed(),
            attributes: std::mem::take(&mut self.attributes),
            error: self.error.take(),
        });
    }
}

fn bounded(mut text: String) -> String {
    text.truncate(text.floor_char_boundary(MAX_VALUE_LEN));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_span_has_its_time_and_what_was_said_of_it() {
        let (spans, mut ended) = Spans::channel(1);
        let mut span = spans.begin("a");
        span.began_before(Duration::from_secs(7));
        span.set("key", "\u{e9}".repeat(MAX_VALUE_LEN));
        span.fail("why");
        drop(span);

        let span = ended.try_recv().unwrap();

        assert_eq!((span.name, span.error.as_deref()), ("a", Some("why")));
        assert_eq!(
            span.attributes,
            [("key", "\u{e9}".repeat(MAX_VALUE_LEN / 2))],
            "long values are cut between characters"
        );
        assert!(span.took >= Duration::from_secs(7) && span.began < SystemTime::now());
    }

    #[test]
    fn spans_that_have_no_room_are_counted_and_nobody_waits() {
        let (spans, mut ended) = Spans::channel(2);
        for _ in 0..5 {
            drop(spans.begin("a"));
        }
        assert_eq!((spans.take_lost(), spans.take_lost()), (3, 0));
        assert!(ended.try_recv().is_ok() && ended.try_recv().is_ok() && ended.try_recv().is_err());

        drop(Spans::default().begin("to nobody"));
    }
}
