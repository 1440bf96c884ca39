//! What of it an operator reads.

use std::{collections::BTreeSet, error::Error, time::Duration};

use libp2p::{PeerId, swarm::DialError};
use tokio::time::Instant;

/// Time between two reports of one kind that strangers can provoke.
const REPORT_INTERVAL: Duration = Duration::from_secs(60);

/// Different failures of one peer that are worth a warning while it is away.
const MAX_WARNINGS: usize = 8;

/// Lets one of many through.
#[derive(Debug, Default)]
pub(super) struct Occasional {
    last: Option<Instant>,
    n_suppressed: u64,
}

impl Occasional {
    /// When it is time for a report: how many were left out since the last.
    pub(super) fn due(&mut self, now: Instant) -> Option<u64> {
        if self.last.is_some_and(|last| now - last < REPORT_INTERVAL) {
            self.n_suppressed += 1;
            return None;
        }
        self.last = Some(now);
        Some(std::mem::take(&mut self.n_suppressed))
    }
}

/// Warns of each failure to dial a peer once per absence; repeats are for debugging.
#[derive(Debug, Default)]
pub(super) struct PeerLog {
    warned: BTreeSet<String>,
}

impl PeerLog {
    pub(super) fn connected(&mut self) {
        self.warned.clear();
    }

    pub(super) fn dial_failed(&mut self, peer: PeerId, error: &str) {
        if self.is_new(error) {
            tracing::warn!(%peer, error, "cannot reach a peer; trying on every second");
        } else {
            tracing::debug!(%peer, error, "cannot reach a peer");
        }
    }

    fn is_new(&mut self, error: &str) -> bool {
        self.warned.len() < MAX_WARNINGS && self.warned.insert(error.to_owned())
    }
}

/// Why dialling one address failed.
pub(super) fn dial_error(error: &DialError) -> String {
    match error {
        DialError::WrongPeerId { obtained, address } => {
            format!("another peer, {obtained}, answers at {address}; correct its id or address")
        }
        DialError::Transport(attempts) => {
            let text = attempts
                .iter()
                .map(|(address, error)| format!("{address}: {}", with_sources(error)));
            text.collect::<Vec<_>>().join("; ")
        }
        DialError::NoAddresses => "its address is one of this node".to_owned(),
        error => with_sources(error),
    }
}

/// An error with what caused it, leaving out what it says itself already.
pub(super) fn with_sources(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        let more = error.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        source = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    #[test]
    fn one_report_a_minute_says_how_many_were_left_out() {
        let start = Instant::now();
        let mut occasional = Occasional::default();
        assert_eq!(occasional.due(start), Some(0));
        assert_eq!(occasional.due(start + Duration::from_secs(1)), None);
        assert_eq!(occasional.due(start + Duration::from_secs(59)), None);
        assert_eq!(occasional.due(start + REPORT_INTERVAL), Some(2));
        assert_eq!(occasional.due(start + REPORT_INTERVAL), None);
    }

    #[test]
    fn failure_is_new_once_until_the_peer_was_there() {
        let mut log = PeerLog::default();
        assert!(log.is_new("refused"));
        assert!(!log.is_new("refused"));
        assert!(log.is_new("timed out"));
        assert!(!log.is_new("refused"));
        log.connected();
        assert!(log.is_new("refused"));
    }

    #[test]
    fn endless_different_failures_stop_being_warned_of() {
        let mut log = PeerLog::default();
        let n_new = (0..100).filter(|n| log.is_new(&n.to_string())).count();
        assert_eq!(n_new, MAX_WARNINGS);
    }

    #[test]
    fn sources_are_told_once() {
        #[derive(Debug, thiserror::Error)]
        #[error("cannot dial")]
        struct Outer(#[source] io::Error);

        let error = Outer(io::Error::other("no route"));
        assert_eq!(with_sources(&error), "cannot dial: no route");
        assert_eq!(with_sources(&io::Error::other(error)), "cannot dial: no route");
    }
}
