//! Which peers are looked at when: those that are due, and not all of them.

use std::collections::BTreeSet;

use libp2p::PeerId;
use tokio::time::Instant;

use crate::p2p::{redial::Redial, uplink::UplinkId};

/// A peer, and the uplink by which it is dialled.
pub(in crate::p2p) type Lead = (PeerId, UplinkId);

/// Most attempts to dial at a time, over all peers: each may take a descriptor, and sends some packets in vain.
pub(super) const MAX_ATTEMPTS: usize = 96;

/// Attempts beyond [`MAX_ATTEMPTS`] for peers that packets wait for.
const MAX_WANTED_ATTEMPTS: usize = 32;

/// When each peer is to be looked at, so that nobody looks at all of them.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Agenda {
    /// The peers to dial that no packets wait for.
    others: BTreeSet<(Instant, Lead)>,
    /// Those that packets wait for.
    wanted: BTreeSet<(Instant, Lead)>,
    /// Those whose names are to be looked up.
    names: BTreeSet<(Instant, Lead)>,
    /// Attempts that have not ended, of all peers.
    n_attempts: usize,
}

/// What the agenda has of one peer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Appointment {
    due: Option<Instant>,
    is_wanted: bool,
    asks: bool,
    n_attempts: usize,
}

impl Appointment {
    /// Returns what is to be done of a peer.
    pub(super) fn of(redial: &Redial) -> Self {
        Self {
            due: redial.poll_due(),
            is_wanted: redial.is_wanted(),
            asks: redial.asks(),
            n_attempts: redial.n_attempts(),
        }
    }
}

impl Agenda {
    /// Takes what was to be done of a peer `before` for what is to be done `after`.
    pub(super) fn replace(&mut self, lead: Lead, before: Appointment, after: Appointment) {
        if before == after {
            return;
        }
        if let Some(due) = before.due {
            self.dialled(before.is_wanted).remove(&(due, lead));
            self.names.remove(&(due, lead));
        }
        if let Some(due) = after.due {
            self.dialled(after.is_wanted).insert((due, lead));
            if after.asks {
                self.names.insert((due, lead));
            }
        }
        self.n_attempts = self.n_attempts - before.n_attempts + after.n_attempts;
    }

    /// Returns how many attempts have not ended.
    pub(super) fn n_attempts(&self) -> usize {
        self.n_attempts
    }

    /// Says whether a peer that no packets wait for may be dialled.
    pub(super) fn has_room(&self) -> bool {
        self.n_attempts < MAX_ATTEMPTS
    }

    fn dialled(&mut self, is_wanted: bool) -> &mut BTreeSet<(Instant, Lead)> {
        match is_wanted {
            true => &mut self.wanted,
            false => &mut self.others,
        }
    }

    /// Returns the first of those that may be dialled beside `n_attempts`, and when.
    pub(super) fn first(&self, n_attempts: usize) -> Option<(Instant, Lead)> {
        let wanted = self
            .wanted
            .first()
            .filter(|_| n_attempts < MAX_ATTEMPTS + MAX_WANTED_ATTEMPTS);
        let other = self.others.first().filter(|_| n_attempts < MAX_ATTEMPTS);
        wanted.into_iter().chain(other).min().copied()
    }

    /// Returns the first of those that may be dialled beside `n_attempts`; one that packets wait for and that is due at
    /// `now` goes before all others.
    pub(super) fn first_wanted(&self, n_attempts: usize, now: Instant) -> Option<(Instant, Lead)> {
        let has_room = n_attempts < MAX_ATTEMPTS + MAX_WANTED_ATTEMPTS;
        let wanted = self.wanted.first().filter(|(due, _)| has_room && *due <= now);
        wanted.copied().or_else(|| self.first(n_attempts))
    }

    /// Returns those whose names are to be looked up at `now`.
    pub(super) fn asking(&self, now: Instant) -> Vec<Lead> {
        let due = self.names.iter().take_while(|(due, _)| *due <= now);
        due.map(|(_, lead)| *lead).collect()
    }
}
