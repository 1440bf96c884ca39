//! What of it an operator reads.

use std::{collections::BTreeSet, time::Duration};

use libp2p::{PeerId, swarm::DialError};

use stream_router_engine::causes::with_sources;

/// Time between two reports of one kind that strangers can provoke.
pub(super) const REPORT_INTERVAL: Duration = Duration::from_secs(60);

/// Different failures of one peer that are worth a warning while it is away.
const MAX_WARNINGS: usize = 8;

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

#[cfg(test)]
mod tests {
    use super::*;

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
}
