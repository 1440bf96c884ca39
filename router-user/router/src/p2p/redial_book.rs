//! The redial book: which configured peers are dialled, when, and which failures of it are news.

mod agenda;
mod standby;

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    net::IpAddr,
};

use libp2p::{Multiaddr, PeerId, swarm::ConnectionId};
use tokio::time::Instant;

use super::{
    config::{ConnectMode, PeerConfig},
    redial::Redial,
    snapshot::ConnectionDirection,
    uplink::{UplinkId, Uplinks},
};
pub(super) use agenda::Lead;
use agenda::{Agenda, Appointment};
use standby::Standby;

/// Most different failures of one peer that are news while the peer is away.
const MAX_NEW_FAILURES: usize = 8;

/// The dialling of every configured peer.
#[derive(Debug)]
pub(super) struct RedialBook {
    local_peer: PeerId,
    uplinks: Uplinks,
    peers: BTreeMap<PeerId, RedialEntry>,
    agenda: Agenda,
    standby: Standby,
}

/// The dialling of one peer.
#[derive(Debug)]
struct RedialEntry {
    /// By each uplink.
    redials: Vec<Redial>,
    failures: FailureNews,
}

impl RedialEntry {
    fn redial(&self, uplink: UplinkId) -> Option<&Redial> {
        self.redials.get(uplink.index())
    }
}

impl RedialBook {
    /// Creates a book of `peers`, all of them absent at `now`, that are dialled by each of `uplinks`.
    pub(super) fn new(local_peer: PeerId, uplinks: Uplinks, peers: Vec<PeerConfig>, now: Instant) -> Self {
        let mut book = Self {
            local_peer,
            standby: Standby::new(&uplinks),
            uplinks,
            peers: BTreeMap::new(),
            agenda: Agenda::default(),
        };
        for peer in peers {
            book.set_peer(peer, |_| false, now);
        }
        book
    }

    /// Says whether the peer is configured.
    pub(super) fn contains(&self, peer: PeerId) -> bool {
        self.peers.contains_key(&peer)
    }

    /// Returns the configured peers.
    pub(super) fn peers(&self) -> impl Iterator<Item = PeerId> {
        self.peers.keys().copied()
    }

    /// Changes the dialling of a peer by an uplink, if it is configured. There is no other way to, so that the agenda is always
    /// true.
    fn change<T>(&mut self, (peer, uplink): Lead, change: impl FnOnce(&mut Redial) -> T) -> Option<T> {
        let redial = self.peers.get_mut(&peer)?.redials.get_mut(uplink.index())?;
        let before = Appointment::of(redial);
        let changed = change(redial);
        self.agenda
            .replace((peer, uplink), before, Appointment::of(redial));
        self.standby.handle_change(peer);
        Some(changed)
    }

    /// Changes the dialling of a peer by every uplink.
    fn change_all(&mut self, peer: PeerId, mut change: impl FnMut(UplinkId, &mut Redial)) {
        for uplink in self.uplinks.ids() {
            self.change((peer, uplink), |redial| change(uplink, redial));
        }
    }

    /// Removes the peers that are not among `known`, and returns them.
    pub(super) fn retain(&mut self, known: &HashSet<PeerId>) -> Vec<PeerId> {
        let gone = self.peers.extract_if(.., |peer, _| !known.contains(peer));
        let gone = gone.map(|(peer, entry)| {
            for (uplink, redial) in self.uplinks.ids().zip(&entry.redials) {
                let before = Appointment::of(redial);
                self.agenda
                    .replace((peer, uplink), before, Appointment::default());
            }
            self.standby.remove(peer);
            peer
        });
        gone.collect()
    }

    /// Sets the configured addresses of a peer, which is present by some uplinks. Returns whether the peer is new to the book.
    pub(super) fn set_peer(
        &mut self,
        config: PeerConfig,
        is_present: impl Fn(UplinkId) -> bool,
        now: Instant,
    ) -> bool {
        let PeerConfig {
            peer,
            addresses,
            connect,
        } = config;
        let uplinks = self.uplinks.clone();
        let of = |uplink| led_to(&uplinks, uplink, &addresses);
        if self.contains(peer) {
            self.change_all(peer, |uplink, redial| {
                redial.set_mode(connect, now);
                redial.set_addresses(of(uplink), is_present(uplink), now);
            });
            return false;
        }
        let yields = self.local_peer > peer;
        let redials = uplinks
            .ids()
            .map(|uplink| Redial::new(of(uplink), connect, yields, now));
        let redials: Vec<_> = redials.collect();
        for (uplink, redial) in uplinks.ids().zip(&redials) {
            let appointment = Appointment::of(redial);
            self.agenda
                .replace((peer, uplink), Appointment::default(), appointment);
        }
        let failures = FailureNews::default();
        self.peers.insert(peer, RedialEntry { redials, failures });
        self.standby.handle_change(peer);
        true
    }

    /// Sets the addresses of a peer that were found beyond the configured ones.
    pub(super) fn set_found(
        &mut self,
        peer: PeerId,
        found: &[Multiaddr],
        is_present: impl Fn(UplinkId) -> bool,
        now: Instant,
    ) {
        let uplinks = self.uplinks.clone();
        self.change_all(peer, |uplink, redial| {
            redial.set_found(led_to(&uplinks, uplink, found), is_present(uplink), now);
        });
    }

    /// Sets what a name among the configured addresses of a peer stands for, `None` if that is not to be known.
    pub(super) fn set_answer(
        &mut self,
        peer: PeerId,
        named: &Multiaddr,
        answer: Option<&[Multiaddr]>,
        is_present: impl Fn(UplinkId) -> bool,
        now: Instant,
    ) {
        let uplinks = self.uplinks.clone();
        self.change_all(peer, |uplink, redial| {
            let answer = answer.map(|addresses| led_to(&uplinks, uplink, addresses));
            redial.set_answer(named.clone(), answer, is_present(uplink), now);
        });
    }

    /// Returns the names to look up at `now`, as rounds of dialling their peers begin.
    pub(super) fn poll_names(&mut self, now: Instant) -> BTreeSet<(PeerId, Multiaddr)> {
        let mut names = BTreeSet::new();
        for lead in self.agenda.asking(now) {
            let of_peer = self.change(lead, |redial| redial.poll_names(now));
            names.extend(of_peer.into_iter().flatten().map(|named| (lead.0, named)));
        }
        names
    }

    /// Decides which uplinks are used to dial the peers whose dialling has changed, and those whose dialling has been in vain
    /// until `now`.
    pub(super) fn settle(&mut self, now: Instant) {
        for peer in self.standby.poll(now) {
            let Some(entry) = self.peers.get(&peer) else {
                continue;
            };
            for (uplink, holds) in self.standby.settle(peer, &entry.redials, now) {
                self.change((peer, uplink), |redial| match holds {
                    true => redial.hold(),
                    false => redial.release(now),
                });
            }
        }
    }

    /// Returns when [`RedialBook::settle`] and [`RedialBook::poll_attempts`] have to be called next.
    pub(super) fn poll_due(&self) -> Option<Instant> {
        let due = self.agenda.first(self.agenda.n_attempts());
        let due = due.map(|(due, _)| due);
        due.into_iter().chain(self.standby.poll_due()).min()
    }

    /// Returns the peers to dial at `now`, each with the address to dial it at; `random` returns values in 0..=1. Peers
    /// that packets wait for come first, and of the others those that have waited longest.
    pub(super) fn poll_attempts(
        &mut self,
        now: Instant,
        mut random: impl FnMut() -> f64,
    ) -> Vec<(Lead, Multiaddr)> {
        let mut attempts = Vec::new();
        // A peer that is polled is due later or not at all.
        while let Some((due, lead)) = self
            .agenda
            .first_wanted(self.agenda.n_attempts() + attempts.len(), now)
            && due <= now
        {
            let address = self.change(lead, |redial| redial.poll_attempt(now, random()));
            attempts.extend(address.flatten().map(|address| (lead, address)));
        }
        attempts
    }

    /// Records that the attempt to dial a peer has begun.
    pub(super) fn handle_attempt(&mut self, lead: Lead, attempt: ConnectionId, now: Instant) {
        self.change(lead, |redial| redial.handle_attempt(attempt, now));
    }

    /// Records that an attempt to dial a peer has ended, in success or failure. Returns by which uplink it was, and when it
    /// began.
    pub(super) fn handle_attempt_ended(
        &mut self,
        peer: PeerId,
        attempt: ConnectionId,
    ) -> Option<(UplinkId, Instant)> {
        let mut uplinks = self.uplinks.ids();
        uplinks.find_map(|uplink| {
            let ended = self.change((peer, uplink), |redial| redial.handle_attempt_ended(attempt));
            Some((uplink, ended.flatten()?))
        })
    }

    /// Records that a connection to a peer is up: the peer is present and every failure is news again.
    pub(super) fn handle_present(&mut self, lead: Lead) {
        self.change(lead, Redial::handle_present);
        if let Some(entry) = self.peers.get_mut(&lead.0) {
            entry.failures.clear();
        }
    }

    /// Records that the last connection to a peer by an uplink is down.
    pub(super) fn handle_absent(&mut self, lead: Lead, now: Instant) {
        self.change(lead, |redial| redial.handle_absent(now));
    }

    /// Records that a peer does not answer on its connections by an uplink.
    pub(super) fn handle_silent(&mut self, lead: Lead, now: Instant) {
        self.change(lead, |redial| redial.handle_silent(now));
    }

    /// Records that nothing passes on the connections of a peer at a host, by an uplink.
    pub(super) fn handle_stalled(&mut self, lead: Lead, host: IpAddr, now: Instant) {
        self.change(lead, |redial| redial.handle_stalled(host, now));
    }

    /// Records that a peer answers on a connection by an uplink.
    pub(super) fn handle_answer(&mut self, lead: Lead) {
        if self.redial(lead).is_some_and(Redial::is_doubted) {
            self.change(lead, Redial::handle_answer);
        }
    }

    /// Records that the last connection to a peer is left as nothing was sent on it, whichever side leaves it.
    pub(super) fn handle_rest(&mut self, peer: PeerId, now: Instant) {
        self.change_all(peer, |_, redial| redial.handle_rest(now));
    }

    /// Records that packets wait for a peer.
    pub(super) fn handle_wanted(&mut self, peer: PeerId, now: Instant) {
        self.change_all(peer, |_, redial| redial.handle_wanted(now));
    }

    /// Records that a relay has become usable.
    pub(super) fn handle_relay(&mut self, now: Instant) {
        for peer in self.peers().collect::<Vec<_>>() {
            self.change_all(peer, |_, redial| redial.handle_relay(now));
        }
    }

    /// Records that the host's addresses have changed: what did not lead to a peer may now.
    pub(super) fn handle_host_change(&mut self, now: Instant) {
        for peer in self.peers().collect::<Vec<_>>() {
            self.change_all(peer, |_, redial| redial.handle_host_change(now));
        }
    }

    /// Returns the place of the address of a connection among those of a peer, the best being 0.
    pub(super) fn rank(&self, lead: Lead, address: &Multiaddr, direction: ConnectionDirection) -> usize {
        self.redial(lead).map_or(0, |redial| match direction {
            ConnectionDirection::Outbound => redial.rank(address),
            ConnectionDirection::Inbound => redial.rank_of_inbound(address),
        })
    }

    /// Returns an address of a connected peer that is better than that of this rank, if one is to be dialled at `now`;
    /// `random` is in 0..=1.
    pub(super) fn poll_better(
        &mut self,
        lead: Lead,
        rank: usize,
        now: Instant,
        random: f64,
    ) -> Option<Multiaddr> {
        let has_room = self.agenda.has_room();
        self.change(lead, |redial| redial.poll_better(rank, has_room, now, random))?
    }

    /// Returns whether a peer is dialled on demand.
    pub(super) fn is_on_demand(&self, peer: PeerId) -> bool {
        let redial = self.redial((peer, UplinkId::FIRST));
        redial.is_some_and(|redial| redial.mode() == ConnectMode::OnDemand)
    }

    /// Says whether the peer is to be dialled by an uplink, at once or later.
    pub(super) fn is_dialled(&self, lead: Lead) -> bool {
        self.redial(lead)
            .is_some_and(|redial| redial.poll_due().is_some())
    }

    /// Says whether dialling a peer has failed in a way that is new since the peer was last present.
    pub(super) fn is_new_failure(&mut self, peer: PeerId, failure: &str) -> bool {
        let entry = self.peers.get_mut(&peer);
        entry.is_some_and(|entry| entry.failures.is_new(failure))
    }

    fn redial(&self, (peer, uplink): Lead) -> Option<&Redial> {
        self.peers.get(&peer)?.redial(uplink)
    }
}

/// Returns those of a peer's addresses that are dialled by an uplink.
fn led_to(uplinks: &Uplinks, uplink: UplinkId, addresses: &[Multiaddr]) -> Vec<Multiaddr> {
    let leads = addresses
        .iter()
        .filter(|address| uplinks.lead_to(uplink, address));
    leads.cloned().collect()
}

/// The failures to dial a peer since it was last present.
#[derive(Debug, Default)]
struct FailureNews(BTreeSet<String>);

impl FailureNews {
    fn clear(&mut self) {
        self.0.clear();
    }

    fn is_new(&mut self, failure: &str) -> bool {
        self.0.len() < MAX_NEW_FAILURES && self.0.insert(failure.to_owned())
    }
}

#[cfg(test)]
mod tests;
