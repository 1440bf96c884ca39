//! The last things that happened, for operators who come later.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

use crate::control::{Event, EventKind, EventList};
use stream_router::p2p::PeerId;

/// Events that are kept; an older one gives way.
const CAPACITY: usize = 256;

/// Longest detail in characters: a cause may hold what a peer says.
const MAX_DETAIL: usize = 300;

/// Keeps the last events of the node.
#[derive(Debug, Default)]
pub(super) struct EventLog(Mutex<Kept>);

#[derive(Debug, Default)]
struct Kept {
    n_noted: u64,
    events: VecDeque<Event>,
}

impl EventLog {
    /// Notes what happened to the node.
    pub(super) fn note(&self, kind: EventKind, detail: impl Into<Option<String>>) {
        self.add(kind, None, None, detail.into());
    }

    /// Notes what happened to a peer.
    pub(super) fn note_of(&self, kind: EventKind, peer: PeerId, name: Option<&str>, detail: &str) {
        self.add(kind, Some(peer.to_string()), name, Some(detail.to_owned()));
    }

    /// Returns what is kept, the oldest first.
    pub(super) fn list(&self) -> EventList {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        EventList {
            events: kept.events.iter().cloned().collect(),
        }
    }

    fn add(&self, kind: EventKind, peer: Option<String>, name: Option<&str>, detail: Option<String>) {
        // A clock before 1970 says 0.
        let now = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.n_noted += 1;
        let event = Event {
            number: kept.n_noted,
            unix_seconds: now.as_secs_f64(),
            kind,
            peer,
            peer_name: name.map(str::to_owned),
            detail: detail.map(shortened),
        };
        if kept.events.len() == CAPACITY {
            kept.events.pop_front();
        }
        kept.events.push_back(event);
    }
}

/// Returns a text that is short, and on one line.
fn shortened(text: String) -> String {
    let mut text = text.replace(char::is_control, " ");
    if let Some((at, _)) = text.char_indices().nth(MAX_DETAIL) {
        text.truncate(at);
        text.push('…');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_events_are_kept_in_order_with_their_numbers() {
        let (log, peer) = (EventLog::default(), PeerId::random());
        for _ in 0..CAPACITY {
            log.note(EventKind::Reload, None);
        }

        log.note_of(EventKind::PeerDown, peer, Some("rome"), "timed out");

        let events = log.list().events;
        assert_eq!(events.len(), CAPACITY);
        assert_eq!((events[0].number, events[0].detail.as_deref()), (2, None));
        let last = &events[CAPACITY - 1];
        assert_eq!((last.number, last.kind), (257, EventKind::PeerDown));
        assert_eq!(last.peer, Some(peer.to_string()));
        assert_eq!(last.peer_name.as_deref(), Some("rome"));
        assert_eq!(last.detail.as_deref(), Some("timed out"));
        assert!(last.unix_seconds >= events[0].unix_seconds && events[0].unix_seconds > 1e9);
    }

    #[test]
    fn a_long_detail_is_cut_between_two_characters() {
        let log = EventLog::default();

        log.note(EventKind::PutBack, format!("\n{}", "é".repeat(MAX_DETAIL)));

        let detail = log.list().events[0].detail.clone().unwrap();
        assert_eq!(detail, format!(" {}…", "é".repeat(MAX_DETAIL - 1)));
    }
}
