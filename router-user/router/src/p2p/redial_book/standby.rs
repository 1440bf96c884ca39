//! Which uplinks wait until those of a lower cost lead to a peer no more.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use libp2p::PeerId;
use tokio::time::Instant;

use crate::p2p::{
    redial::Redial,
    uplink::{UplinkId, Uplinks},
};

/// How long a peer is dialled in vain until the uplinks of the next cost are used too. Most connections come up in less.
const IN_VAIN: Duration = Duration::from_millis(500);

/// The costs up to which uplinks are used, of each peer.
#[derive(Debug)]
pub(super) struct Standby {
    /// The place of each uplink's cost among all costs, the lowest being 0.
    tiers: Vec<(UplinkId, usize)>,
    n_tiers: usize,
    /// Those whose dialling has changed.
    changed: BTreeSet<PeerId>,
    peers: BTreeMap<PeerId, Allowed>,
    due: BTreeSet<(Instant, PeerId)>,
}

/// What is used to dial a peer.
#[derive(Clone, Copy, Debug, Default)]
struct Allowed {
    /// Uplinks of a higher tier are held.
    tier: usize,
    /// When the next tier is used too.
    next_at: Option<Instant>,
}

impl Standby {
    pub(super) fn new(uplinks: &Uplinks) -> Self {
        let costs: BTreeSet<_> = uplinks.ids().map(|id| uplinks.cost(id)).collect();
        let tier = |id| costs.iter().take_while(|cost| **cost < uplinks.cost(id)).count();
        Self {
            tiers: uplinks.ids().map(|id| (id, tier(id))).collect(),
            n_tiers: costs.len(),
            changed: BTreeSet::new(),
            peers: BTreeMap::new(),
            due: BTreeSet::new(),
        }
    }

    /// Records that the dialling of a peer has changed.
    pub(super) fn handle_change(&mut self, peer: PeerId) {
        if self.n_tiers > 1 {
            self.changed.insert(peer);
        }
    }

    /// Forgets a peer.
    pub(super) fn remove(&mut self, peer: PeerId) {
        self.changed.remove(&peer);
        let allowed = self.peers.remove(&peer);
        if let Some(next_at) = allowed.and_then(|allowed| allowed.next_at) {
            self.due.remove(&(next_at, peer));
        }
    }

    /// Returns when [`Standby::poll`] has to be called next, unless dialling changes before.
    pub(super) fn poll_due(&self) -> Option<Instant> {
        self.due.first().map(|(due, _)| *due)
    }

    /// Returns the peers to settle at `now`.
    pub(super) fn poll(&mut self, now: Instant) -> BTreeSet<PeerId> {
        let mut peers = std::mem::take(&mut self.changed);
        peers.extend(
            self.due
                .iter()
                .take_while(|(due, _)| *due <= now)
                .map(|(_, peer)| *peer),
        );
        peers
    }

    /// Decides which uplinks are used to dial a peer, of which `redials` tell. Returns those to hold, and to release (false).
    pub(super) fn settle(&mut self, peer: PeerId, redials: &[Redial], now: Instant) -> Vec<(UplinkId, bool)> {
        let before = self.peers.get(&peer).copied();
        let allowed = before.unwrap_or_default();
        let of_tier = |wanted: &dyn Fn(usize) -> bool, is: fn(&Redial) -> bool| {
            let mut redials = self.tiers.iter().zip(redials);
            redials.any(|((_, tier), redial)| wanted(*tier) && is(redial))
        };
        let well = (0..self.n_tiers).find(|tier| of_tier(&|other| other == *tier, Redial::is_well));
        let is_dialled = of_tier(&|tier| tier <= allowed.tier, |redial| redial.poll_due().is_some());
        let has_next = allowed.tier + 1 < self.n_tiers;
        let after = match (well, allowed.next_at) {
            (Some(tier), _) => Allowed { tier, next_at: None },
            // Nothing is wanted of the peer, or it has no address.
            (None, _) if !is_dialled => Allowed::default(),
            (None, _) if !has_next => Allowed {
                next_at: None,
                ..allowed
            },
            (None, None) => Allowed {
                next_at: Some(now + IN_VAIN),
                ..allowed
            },
            (None, Some(next_at)) if next_at > now => allowed,
            (None, Some(_)) => {
                let tier = allowed.tier + 1;
                let next_at = (tier + 1 < self.n_tiers).then_some(now + IN_VAIN);
                Allowed { tier, next_at }
            }
        };
        if let Some(next_at) = allowed.next_at {
            self.due.remove(&(next_at, peer));
        }
        if let Some(next_at) = after.next_at {
            self.due.insert((next_at, peer));
        }
        self.peers.insert(peer, after);
        let held = |allowed: Option<Allowed>, tier| allowed.is_some_and(|allowed| tier > allowed.tier);
        let changed = self
            .tiers
            .iter()
            .filter(|(_, tier)| held(before, *tier) != held(Some(after), *tier));
        changed
            .map(|(uplink, tier)| (*uplink, held(Some(after), *tier)))
            .collect()
    }
}
