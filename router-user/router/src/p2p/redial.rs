//! The dialling of an absent peer: when, and at which of its addresses.
//!
//! An attempt at a peer that is away can hang: its first packet is lost, and TCP repeats it at growing intervals. So soon
//! after the loss of a peer a new attempt is made every second, whatever the older ones are doing: most peers are back
//! then. Later the rounds become rare, and a packet for the peer, or news of it, makes them frequent again.

use std::{collections::BTreeMap, net::IpAddr, time::Duration};

use libp2p::{Multiaddr, multiaddr::Protocol, swarm::ConnectionId};
use tokio::time::Instant;

use super::{
    address::{TransportKind, ip_of, transport_kind},
    circuit::Circuit,
    config::ConnectMode,
    names::NamedAddress,
};

/// Time between two rounds through the addresses of a peer that has not been absent for long, or is wanted.
const ROUND: Duration = Duration::from_millis(900);

/// Most random time that is added to [`ROUND`], so that nodes that lost each other at one moment do not stay in step.
const JITTER: Duration = Duration::from_millis(200);

/// How long rounds follow each other quickly, from the loss of a peer or the last time that it was wanted.
const QUICK: Duration = Duration::from_secs(10);

/// The longest time between two rounds. The time is doubled after each round; a random part of it is left out, up to a
/// fifth.
const LONGEST_ROUND: Duration = Duration::from_secs(30);

/// Time between the attempts at two addresses of a peer, so that an earlier address wins when both work.
const STAGGER: Duration = Duration::from_millis(150);

/// How long the peer with the larger id leaves dialling to the other, lest both connect at once.
const HEAD_START: Duration = Duration::from_millis(300);

/// Most attempts at one address at a time. Each ends after 4 s, unless the host has connected.
const MAX_ATTEMPTS_PER_ADDRESS: usize = 5;

/// Time from the look at the connections that found a better address of a connected peer to the attempt at it, and between
/// two attempts; a random part of it is left out, up to a fifth. The looks are 10 s apart, so that it is tried within 30 s, and
/// within 20 s where the peer is connected through a relay.
const BETTER_INTERVAL: Duration = Duration::from_secs(20);

/// The longest that time becomes, and of how long the attempts have been in vain it is one part.
const LONGEST_BETTER_INTERVAL: Duration = Duration::from_secs(5 * 60);
const BETTER_PART: u32 = 30;

/// The place of the first address through a relay: no direct way is worse.
const RELAYED: usize = usize::MAX / 2;

/// The dialling of one peer.
#[derive(Debug)]
pub(super) struct Redial {
    /// The given addresses, with what names in them stand for, then the found ones.
    addresses: Vec<Multiaddr>,
    given: Vec<Multiaddr>,
    /// What the given addresses stand for that begin with a name.
    answers: BTreeMap<Multiaddr, Vec<Multiaddr>>,
    found: Vec<Multiaddr>,
    mode: ConnectMode,
    yields: bool,
    is_present: bool,
    /// Whether packets wait for the peer.
    is_wanted: bool,
    /// Those that have not ended, and since when they go on.
    attempts: BTreeMap<ConnectionId, Instant>,
    next: usize,
    /// Whether a round has begun in which names have not been looked up.
    asks: bool,
    /// Until when rounds follow each other quickly.
    quick_until: Instant,
    /// Time from the beginning of the last round to that of the next.
    round: Duration,
    /// `None` while connected, for a peer without addresses, and for one that is dialled on demand and not wanted.
    due: Option<Instant>,
    /// Whether the peer is connected, and dialled only until it answers there.
    is_doubted: bool,
    /// Whether the uplink is not to be used, as one of a lower cost leads to the peer.
    is_held: bool,
    better: Option<Better>,
}

/// The dialling of better addresses than that of this rank, at which the peer is connected.
#[derive(Clone, Copy, Debug)]
struct Better {
    rank: usize,
    since: Instant,
    due: Instant,
    turn: usize,
}

impl Redial {
    /// Creates the dialling of a peer that is absent at `now`. With `yields`, the peer is left to dial first.
    pub(super) fn new(addresses: Vec<Multiaddr>, mode: ConnectMode, yields: bool, now: Instant) -> Self {
        let mut redial = Self {
            given: addresses,
            addresses: Vec::new(),
            answers: BTreeMap::new(),
            asks: false,
            found: Vec::new(),
            mode,
            yields,
            is_present: false,
            is_wanted: false,
            attempts: BTreeMap::new(),
            next: 0,
            quick_until: now,
            round: ROUND,
            due: None,
            is_doubted: false,
            is_held: false,
            better: None,
        };
        redial.merge();
        if mode == ConnectMode::Always {
            redial.handle_absent(now);
        }
        redial
    }

    /// Records that the peer is connected.
    pub(super) fn handle_present(&mut self) {
        self.is_present = true;
        self.is_wanted = false;
        self.is_doubted = false;
        self.due = None;
    }

    /// Records that the peer is connected no more, and dials it.
    pub(super) fn handle_absent(&mut self, now: Instant) {
        self.is_present = false;
        self.begin(if self.yields { HEAD_START } else { Duration::ZERO }, now);
    }

    /// Has the peer dialled no more, as an uplink of a lower cost leads to it.
    pub(super) fn hold(&mut self) {
        self.is_held = true;
        self.due = None;
    }

    /// Has the peer dialled again, unless it is connected.
    pub(super) fn release(&mut self, now: Instant) {
        self.is_held = false;
        if !self.is_present {
            self.begin(Duration::ZERO, now);
        }
    }

    /// Says whether the peer is connected, and answers.
    pub(super) fn is_well(&self) -> bool {
        self.is_present && (self.due.is_none() || self.is_doubted)
    }

    /// Says whether the peer is dialled only until it answers.
    pub(super) fn is_doubted(&self) -> bool {
        self.is_doubted
    }

    /// Dials the peer at once if it is to be dialled at all: the host's addresses have changed.
    pub(super) fn handle_host_change(&mut self, now: Instant) {
        if self.due.is_some() {
            self.begin(Duration::ZERO, now);
        }
    }

    /// Records that the peer does not answer on its connections, and dials it beside them.
    pub(super) fn handle_silent(&mut self, now: Instant) {
        // The round that a doubt has begun goes on.
        if !std::mem::take(&mut self.is_doubted) {
            self.begin(Duration::ZERO, now);
        }
    }

    /// Records that nothing passes on the peer's connections at a host, which may be over in a moment: the peer is dialled at other
    /// hosts, if it has any, until it answers.
    pub(super) fn handle_stalled(&mut self, host: IpAddr, now: Instant) {
        let is_elsewhere = |address: &Multiaddr| !is_relayed(address) && ip_of(address) != Some(host);
        if self.is_present
            && self.due.is_none()
            && let Some(other) = self.addresses.iter().position(is_elsewhere)
        {
            self.begin(Duration::ZERO, now);
            self.is_doubted = true;
            self.next = other;
        }
    }

    /// Records that the peer answers on a connection.
    pub(super) fn handle_answer(&mut self) {
        if std::mem::take(&mut self.is_doubted) {
            self.due = None;
        }
    }

    /// Records that the last connection to the peer is left as nothing was sent on it. One that is dialled on demand is left
    /// alone until it is wanted.
    pub(super) fn handle_rest(&mut self, now: Instant) {
        self.is_present = false;
        match self.mode {
            ConnectMode::Always => self.handle_absent(now),
            ConnectMode::OnDemand => self.due = None,
        }
    }

    /// Records that packets wait for the peer: it is dialled at once, and every second for a while.
    pub(super) fn handle_wanted(&mut self, now: Instant) {
        if !self.is_present {
            self.is_wanted = true;
            self.hasten(now);
        }
    }

    /// Records that a relay has become usable: a peer that may be there too is dialled soon.
    pub(super) fn handle_relay(&mut self, now: Instant) {
        if !self.is_present && !self.rests() && self.addresses.iter().any(is_relayed) {
            self.hasten(now);
        }
    }

    /// Says whether packets wait for the peer, which so comes before others.
    pub(super) fn is_wanted(&self) -> bool {
        self.is_wanted
    }

    /// Says whether names are to be looked up when the peer is due.
    pub(super) fn asks(&self) -> bool {
        self.asks
    }

    /// Returns the place of an address among those of the peer, the best being 0. One that is not among them comes last.
    pub(super) fn rank(&self, address: &Multiaddr) -> usize {
        // What was dialled ends in the id of the peer, and what is configured may.
        let plain = |address: &Multiaddr| -> Multiaddr {
            let parts = address.iter();
            parts.filter(|part| !matches!(part, Protocol::P2p(_))).collect()
        };
        let relay = Circuit::of(address).map(|circuit| circuit.relay);
        if relay.is_some() {
            let is_same = |known: &Multiaddr| Circuit::of(known).map(|circuit| circuit.relay) == relay;
            // Relays are as good as each other, but for one that does not lead to the peer any more.
            return RELAYED
                + match self.addresses.iter().any(is_same) {
                    true => self.n_direct(),
                    false => self.addresses.len(),
                };
        }
        let address = plain(address);
        let known = self.addresses.iter().position(|known| plain(known) == address);
        known.unwrap_or(self.addresses.len())
    }

    /// Returns how many addresses lead to the peer without a relay; they come first.
    fn n_direct(&self) -> usize {
        self.addresses
            .iter()
            .filter(|address| !is_relayed(address))
            .count()
    }

    /// Returns the place of the address from which the peer has dialled: that of the first address that is at the same host
    /// and of the same transport, as the port says nothing. A peer may dial from an address that it does not listen on (a
    /// temporary one, that of a NAT): it then counts as the first of its transport, and of its
    /// family if there is one.
    pub(super) fn rank_of_inbound(&self, address: &Multiaddr) -> usize {
        if is_relayed(address) {
            return self.rank(address);
        }
        let host = |of: &Multiaddr| Some((ip_of(of)?, transport_kind(of)));
        let family = |of: &Multiaddr| Some((ip_of(of)?.is_ipv4(), transport_kind(of)));
        let first = |is_like: &dyn Fn(&Multiaddr) -> bool| self.addresses.iter().position(is_like);
        first(&|known| host(known) == host(address))
            .or_else(|| first(&|known| family(known) == family(address)))
            .or_else(|| first(&|known| transport_kind(known) == transport_kind(address)))
            .unwrap_or(self.addresses.len())
    }

    /// Returns an address that is better than that of this rank, at which the peer is connected, if one is to be dialled at
    /// `now`: one at a time and each in its turn, ever more rarely while none works. With no room it waits; `random` is
    /// in 0..=1.
    pub(super) fn poll_better(
        &mut self,
        rank: usize,
        has_room: bool,
        now: Instant,
        random: f64,
    ) -> Option<Multiaddr> {
        let n_better = rank
            .checked_sub(RELAYED)
            .unwrap_or_else(|| rank.min(self.n_direct()));
        let wait = |since: Instant| {
            let waited = now.saturating_duration_since(since);
            (waited / BETTER_PART)
                .clamp(BETTER_INTERVAL, LONGEST_BETTER_INTERVAL)
                .mul_f64(1.0 - random.clamp(0.0, 1.0) / 5.0)
        };
        let Some(better) = self.better.as_mut().filter(|better| better.rank == rank) else {
            // Through a relay is slower than any other way, so that the next look does not wait.
            let first_wait = if rank >= RELAYED {
                Duration::ZERO
            } else {
                wait(now)
            };
            self.better = (n_better > 0).then(|| Better {
                rank,
                since: now,
                due: now + first_wait,
                turn: 0,
            });
            return None;
        };
        if better.due > now || !has_room || !self.attempts.is_empty() {
            return None;
        }
        better.due = now + wait(better.since);
        let turn = better.turn;
        better.turn += 1;
        self.addresses.get(turn.checked_rem(n_better)?).cloned()
    }

    /// Returns when the peer is dialled.
    pub(super) fn mode(&self) -> ConnectMode {
        self.mode
    }

    /// Sets when the peer is dialled.
    pub(super) fn set_mode(&mut self, mode: ConnectMode, now: Instant) {
        let before = std::mem::replace(&mut self.mode, mode);
        if before != mode && mode == ConnectMode::Always && !self.is_present && self.due.is_none() {
            self.handle_absent(now);
        }
    }

    /// Sets the configured addresses of the peer.
    pub(super) fn set_addresses(&mut self, addresses: Vec<Multiaddr>, present: bool, now: Instant) {
        if self.given != addresses {
            self.given = addresses;
            self.answers
                .retain(|named, _addresses| self.given.contains(named));
            self.merge();
            self.next = 0;
            if !present && !self.rests() {
                self.handle_absent(now);
            }
        }
    }

    /// Returns the given addresses whose names are to be looked up at `now`, as a round begins.
    pub(super) fn poll_names(&mut self, now: Instant) -> Vec<Multiaddr> {
        if !self.asks || self.due.is_none_or(|due| due > now) {
            return Vec::new();
        }
        self.asks = false;
        self.names().cloned().collect()
    }

    /// Sets what a name stands for, `None` if that is not to be known. The current round goes on; what is new is dialled
    /// soon.
    pub(super) fn set_answer(
        &mut self,
        named: Multiaddr,
        answer: Option<Vec<Multiaddr>>,
        present: bool,
        now: Instant,
    ) {
        // The configuration may have changed since the name was asked for.
        if !self.given.contains(&named) {
            return;
        }
        let before = self.addresses.clone();
        match answer {
            Some(addresses) => self.answers.insert(named, addresses),
            None => self.answers.remove(&named),
        };
        self.take_in(&before, present, now);
    }

    fn names(&self) -> impl Iterator<Item = &Multiaddr> {
        let is_name = |address: &&Multiaddr| NamedAddress::of(address).is_some();
        self.given.iter().filter(is_name)
    }

    /// Sets the found addresses of the peer, which are dialled after the configured ones. The current round goes on; a
    /// peer that had no address is dialled at once, and so is one of which another address becomes known.
    pub(super) fn set_found(&mut self, found: Vec<Multiaddr>, present: bool, now: Instant) {
        let before = self.addresses.clone();
        self.found = found;
        self.take_in(&before, present, now);
    }

    /// Merges addresses of which some have changed since they were `before`.
    fn take_in(&mut self, before: &[Multiaddr], present: bool, now: Instant) {
        self.merge();
        let is_news = self.addresses.iter().any(|address| !before.contains(address));
        if self.next >= self.addresses.len() {
            self.next = 0;
        }
        if !self.has_addresses() {
            self.due = None;
        } else if before.is_empty() && self.due.is_some() {
            self.due = Some(now);
        } else if !present && !self.rests() {
            if self.due.is_none() {
                self.handle_absent(now);
            } else if is_news {
                self.hasten(now);
            }
        }
    }

    /// Takes the given addresses and the found ones for those of the peer.
    fn merge(&mut self) {
        let mut merged: Vec<Multiaddr> = Vec::new();
        for address in self
            .given
            .iter()
            .flat_map(|given| self.stands_for(given))
            .chain(&self.found)
        {
            if !merged.contains(address) {
                merged.push(address.clone());
            }
        }
        // Through a relay is the last choice, whoever knows a better one.
        merged.sort_by_key(is_relayed);
        if merged != self.addresses {
            self.addresses = merged;
            // What is better is another question now.
            self.better = None;
        }
    }

    /// Returns what a given address stands for: itself, or what its name is known to stand for.
    fn stands_for<'a>(&'a self, given: &'a Multiaddr) -> &'a [Multiaddr] {
        match NamedAddress::of(given) {
            Some(_) => self.answers.get(given).map_or(&[], Vec::as_slice),
            None => std::slice::from_ref(given),
        }
    }

    /// Says whether there are addresses, or names that may have some.
    fn has_addresses(&self) -> bool {
        !self.addresses.is_empty() || self.names().next().is_some()
    }

    /// Says whether the peer is one to dial on demand that nothing is sent to.
    fn rests(&self) -> bool {
        self.mode == ConnectMode::OnDemand && !self.is_wanted && self.due.is_none()
    }

    /// Begins to dial the peer in a while.
    fn begin(&mut self, wait: Duration, now: Instant) {
        self.next = 0;
        self.is_doubted = false;
        self.asks = true;
        self.quick_until = now + QUICK;
        self.round = ROUND;
        self.due = (self.has_addresses() && !self.is_held).then(|| now + wait);
    }

    /// Dials the peer at once if the next round is far, and quickly from now on.
    fn hasten(&mut self, now: Instant) {
        if self.due.is_none_or(|due| due > now + ROUND + JITTER) {
            self.begin(Duration::ZERO, now);
        } else {
            self.quick_until = now + QUICK;
            self.round = ROUND;
        }
    }

    /// Records that an attempt has begun.
    pub(super) fn handle_attempt(&mut self, attempt: ConnectionId, now: Instant) {
        self.attempts.insert(attempt, now);
    }

    /// Records that an attempt has ended, in success or failure. Returns when it began; `None` if it was no attempt of this
    /// type.
    pub(super) fn handle_attempt_ended(&mut self, attempt: ConnectionId) -> Option<Instant> {
        self.attempts.remove(&attempt)
    }

    /// Returns how many attempts have not ended.
    pub(super) fn n_attempts(&self) -> usize {
        self.attempts.len()
    }

    /// Returns when [`Redial::poll_attempt`] has to be called next.
    pub(super) fn poll_due(&self) -> Option<Instant> {
        self.due
    }

    /// Returns the address to dial at `now`, if there is one; `random` is in 0..=1.
    pub(super) fn poll_attempt(&mut self, now: Instant, random: f64) -> Option<Multiaddr> {
        if self.due.is_none_or(|due| due > now) {
            return None;
        }
        // While no name is known to stand for any, there is nothing but to ask again in the next round.
        let n_addresses = self.addresses.len().max(1);
        let has_room = self.attempts.len() < MAX_ATTEMPTS_PER_ADDRESS * n_addresses;
        let address = self.addresses.get(self.next).cloned();
        self.next += 1;
        if self.next < self.addresses.len() {
            self.due = Some(now + self.stagger());
        } else {
            self.next = 0;
            self.asks = true;
            self.due = self.next_round(has_room, random.clamp(0.0, 1.0)).map(|wait| {
                let spent = self.stagger() * (n_addresses as u32 - 1);
                now + wait.saturating_sub(spent)
            });
            if now >= self.quick_until {
                self.is_wanted = false;
            }
        }
        address.filter(|_address| has_room)
    }

    /// Returns the time from the beginning of this round to that of the next; `None` if there is none.
    fn next_round(&mut self, has_room: bool, random: f64) -> Option<Duration> {
        let quick = ROUND + JITTER.mul_f64(random);
        // A round in which all attempts hang is none, and is looked at again soon.
        if !has_room || self.quick_until > self.due? {
            return Some(quick);
        }
        if self.mode == ConnectMode::OnDemand {
            return None;
        }
        self.round = (self.round * 2).min(LONGEST_ROUND);
        Some(self.round.mul_f64(1.0 - random / 5.0))
    }

    fn stagger(&self) -> Duration {
        STAGGER.min(ROUND / self.addresses.len().max(1) as u32)
    }
}

fn is_relayed(address: &Multiaddr) -> bool {
    transport_kind(address) == TransportKind::Relay
}

#[cfg(test)]
mod tests;
