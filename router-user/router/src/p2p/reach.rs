//! What is known of the ways between this node and its peers: where this node is seen, and which tries failed and why.

use std::{
    sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed},
    time::SystemTime,
};

use libp2p::{Multiaddr, PeerId};

/// Most bytes of an error that is kept; it may hold what a peer says.
const MAX_ERROR: usize = 512;

/// How this node is reached beside where it listens.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ReachSnapshot {
    /// The relays through which it is reached, as configured.
    pub relays: Vec<RelaySnapshot>,
    /// Where relays see it, each with the relay that says so.
    pub seen: Vec<(PeerId, Multiaddr)>,
    /// The addresses that peers are told, through a relay, for a direct connection.
    pub told: Vec<Multiaddr>,
    /// What this node relays for its peers, if it does.
    pub serves: Option<ServedSnapshot>,
}

/// What a node relays for its peers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ServedSnapshot {
    /// Places that peers have at it now, one for each connection.
    pub n_reservations: usize,
    /// Connections between peers that it relays now, with those that are about to begin.
    pub n_circuits: usize,
    /// Bytes that it has relayed since its start, of both directions.
    pub n_bytes: u64,
}

/// The [`ServedSnapshot`] while it changes.
#[derive(Debug, Default)]
pub(super) struct Served {
    n_reservations: AtomicUsize,
    n_circuits: AtomicUsize,
    n_bytes: AtomicU64,
}

impl Served {
    pub(super) fn show(&self, n_reservations: usize, n_circuits: usize) {
        self.n_reservations.store(n_reservations, Relaxed);
        self.n_circuits.store(n_circuits, Relaxed);
    }

    pub(super) fn count(&self, n_bytes: usize) {
        self.n_bytes.fetch_add(n_bytes as u64, Relaxed);
    }

    pub(super) fn snapshot(&self) -> ServedSnapshot {
        ServedSnapshot {
            n_reservations: self.n_reservations.load(Relaxed),
            n_circuits: self.n_circuits.load(Relaxed),
            n_bytes: self.n_bytes.load(Relaxed),
        }
    }
}

/// A relay through which this node is to be reached.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RelaySnapshot {
    /// The relay.
    pub relay: PeerId,
    /// Whether peers reach this node through it.
    pub is_held: bool,
    /// Why the relay gave no place the last time, or gives none any more, if there is none now.
    pub last_error: Option<String>,
}

/// An attempt to dial an address that failed.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct FailedDial {
    /// The address.
    pub address: Multiaddr,
    /// Why it failed.
    pub error: String,
    /// When it failed.
    pub at: SystemTime,
}

/// The last try of a direct connection with a peer that is connected through a relay, if it failed.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct FailedPunch {
    /// Why there is no direct connection.
    pub error: String,
    /// When that turned out.
    pub at: SystemTime,
    /// The addresses that the peer has named and this node has dialled, each with its error; at most eight.
    pub tried: Vec<(Multiaddr, String)>,
}

impl RelaySnapshot {
    /// Says what is known of a relay; also for tests of what reads it.
    pub fn new(relay: PeerId, is_held: bool, last_error: Option<String>) -> Self {
        Self {
            relay,
            is_held,
            last_error: last_error.map(short),
        }
    }
}

impl FailedDial {
    /// Says that an attempt failed at this moment; also for tests of what reads it.
    pub fn now(address: Multiaddr, error: String) -> Self {
        Self {
            address,
            error: short(error),
            at: SystemTime::now(),
        }
    }
}

impl FailedPunch {
    /// Says that a try failed at this moment; also for tests of what reads it.
    pub fn now(error: String, tried: Vec<(Multiaddr, String)>) -> Self {
        let tried = tried.into_iter().map(|(address, error)| (address, short(error)));
        Self {
            error: short(error),
            at: SystemTime::now(),
            tried: tried.collect(),
        }
    }
}

/// Cuts a text that is longer than what is kept.
fn short(mut text: String) -> String {
    if text.len() > MAX_ERROR {
        text.truncate(text.floor_char_boundary(MAX_ERROR));
        text.push_str("...");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_peer_says_at_length_is_cut() {
        let address: Multiaddr = "/ip4/192.0.2.1/tcp/1".parse().expect("an address");
        let long = "ü".repeat(MAX_ERROR);

        let failed = FailedPunch::now(long.clone(), vec![(address, long)]);

        for kept in [&failed.error, &failed.tried[0].1] {
            assert_eq!(kept.len(), MAX_ERROR + 3, "{kept}");
            assert!(kept.ends_with("ü..."));
        }
        assert_eq!(short("gone".to_owned()), "gone");
    }
}
