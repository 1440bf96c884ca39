//! `stream-router events`

use std::time::{Duration, UNIX_EPOCH};

use humantime::format_rfc3339_seconds;

use super::request::or_dash;
use super::table::TextTable;
use super::units::short_name;
use crate::control::EventList;

/// Returns a row for each event.
pub(super) fn lines(events: &EventList) -> String {
    let time = |seconds: f64| {
        let since = Duration::try_from_secs_f64(seconds).unwrap_or_default();
        // A time that does not fit is no time of a node.
        let time = UNIX_EPOCH.checked_add(since).unwrap_or(UNIX_EPOCH);
        format_rfc3339_seconds(time).to_string()
    };
    TextTable::new(&events.events)
        .left("time", |event| time(event.unix_seconds))
        .left("what", |event| event.kind)
        .left("peer", |event| {
            let peer = event.peer.as_deref();
            or_dash(peer.map(|peer| short_name(event.peer_name.as_deref(), peer)))
        })
        .left("how or why", |event| or_dash(event.detail.as_deref()))
        .text()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::{Event, EventKind};

    #[test]
    fn an_event_is_a_row_with_its_time_and_reason() {
        let event = Event {
            number: 1,
            unix_seconds: 86_400.5,
            kind: EventKind::PeerDown,
            peer: Some("12D3KooWPeer".to_owned()),
            peer_name: Some("rome".to_owned()),
            detail: Some("timed out".to_owned()),
        };
        let up = Event {
            kind: EventKind::Up,
            peer: None,
            peer_name: None,
            detail: None,
            unix_seconds: f64::INFINITY,
            ..event.clone()
        };

        let text = lines(&EventList {
            events: vec![event, up],
        });

        let rows: Vec<_> = text
            .lines()
            .map(|line| line.split_whitespace().collect::<Vec<_>>())
            .collect();
        assert_eq!(rows[1], ["1970-01-02T00:00:00Z", "lost", "rome", "timed", "out"]);
        assert_eq!(rows[2], ["1970-01-01T00:00:00Z", "node", "is", "up", "-", "-"]);
    }
}
