//! The dialling of an absent peer: when, and at which of its addresses.
//!
//! An attempt at a peer that is away can hang: its first packet is lost, and TCP repeats it at growing intervals. So soon
//! after the loss of a peer a new attempt is made every second, whatever the older ones are doing: most peers are back
//! then. Later the rounds become rare, and a packet for the peer, or news of it, makes them frequent again.

use std::{collections::BTreeSet, time::Duration};

use libp2p::{Multiaddr, multiaddr::Protocol, swarm::ConnectionId};
use tokio::time::Instant;

use super::config::ConnectMode;

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

/// The dialling of one peer.
#[derive(Debug)]
pub(super) struct Redial {
    /// The given addresses, then the found ones.
    addresses: Vec<Multiaddr>,
    given: Vec<Multiaddr>,
    found: Vec<Multiaddr>,
    mode: ConnectMode,
    yields: bool,
    is_present: bool,
    /// Whether packets wait for the peer.
    is_wanted: bool,
    attempts: BTreeSet<ConnectionId>,
    next: usize,
    /// Until when rounds follow each other quickly.
    quick_until: Instant,
    /// Time from the beginning of the last round to that of the next.
    round: Duration,
    /// `None` while connected, for a peer without addresses, and for one that is dialled on demand and not wanted.
    due: Option<Instant>,
}

impl Redial {
    /// Creates the dialling of a peer that is absent at `now`. With `yields`, the peer is left to dial first.
    pub(super) fn new(addresses: Vec<Multiaddr>, mode: ConnectMode, yields: bool, now: Instant) -> Self {
        let mut redial = Self {
            given: addresses.clone(),
            addresses,
            found: Vec::new(),
            mode,
            yields,
            is_present: false,
            is_wanted: false,
            attempts: BTreeSet::new(),
            next: 0,
            quick_until: now,
            round: ROUND,
            due: None,
        };
        if mode == ConnectMode::Always {
            redial.handle_absent(now);
        }
        redial
    }

    /// Records that the peer is connected.
    pub(super) fn handle_present(&mut self) {
        self.is_present = true;
        self.is_wanted = false;
        self.due = None;
    }

    /// Records that the peer is connected no more, and dials it.
    pub(super) fn handle_absent(&mut self, now: Instant) {
        self.is_present = false;
        self.begin(if self.yields { HEAD_START } else { Duration::ZERO }, now);
    }

    /// Records that this node has closed the connections to the peer as nothing was sent on them. One that is dialled on
    /// demand is left alone until it is wanted.
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

    /// Says whether packets wait for the peer, which so comes before others.
    pub(super) fn is_wanted(&self) -> bool {
        self.is_wanted
    }

    /// Returns the place of an address among those of the peer, the best being 0. One that is not among them comes last.
    pub(super) fn rank(&self, address: &Multiaddr) -> usize {
        // What was dialled ends in the id of the peer, and what is configured may.
        let plain = |address: &Multiaddr| -> Multiaddr {
            let parts = address.iter();
            parts.filter(|part| !matches!(part, Protocol::P2p(_))).collect()
        };
        let address = plain(address);
        let known = self.addresses.iter().position(|known| plain(known) == address);
        known.unwrap_or(self.addresses.len())
    }

    /// Returns an address of the peer that is better than that of this rank, if there is one, and another at each `turn`.
    pub(super) fn better(&self, rank: usize, turn: usize) -> Option<&Multiaddr> {
        let better = self.addresses.get(..rank).unwrap_or(&self.addresses);
        better.get(turn.checked_rem(better.len())?)
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
            self.addresses = self.merged();
            self.next = 0;
            if !present && !self.rests() {
                self.handle_absent(now);
            }
        }
    }

    /// Sets the found addresses of the peer, which are dialled after the configured ones. The current round goes on; a
    /// peer that had no address is dialled at once, and so is one of which another address becomes known.
    pub(super) fn set_found(&mut self, found: Vec<Multiaddr>, present: bool, now: Instant) {
        let is_news = found.iter().any(|address| !self.addresses.contains(address));
        self.found = found;
        self.addresses = self.merged();
        if self.next >= self.addresses.len() {
            self.next = 0;
        }
        if self.addresses.is_empty() {
            self.due = None;
        } else if !present && !self.rests() {
            if self.due.is_none() {
                self.handle_absent(now);
            } else if is_news {
                self.hasten(now);
            }
        }
    }

    fn merged(&self) -> Vec<Multiaddr> {
        let found = self.found.iter().filter(|address| !self.given.contains(address));
        self.given.iter().chain(found).cloned().collect()
    }

    /// Says whether the peer is one to dial on demand that nothing is sent to.
    fn rests(&self) -> bool {
        self.mode == ConnectMode::OnDemand && !self.is_wanted && self.due.is_none()
    }

    /// Begins to dial the peer in a while.
    fn begin(&mut self, wait: Duration, now: Instant) {
        self.next = 0;
        self.quick_until = now + QUICK;
        self.round = ROUND;
        self.due = (!self.addresses.is_empty()).then(|| now + wait);
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
    pub(super) fn handle_attempt(&mut self, attempt: ConnectionId) {
        self.attempts.insert(attempt);
    }

    /// Records that an attempt has ended, in success or failure. Returns false if it was no attempt of this type.
    pub(super) fn handle_attempt_ended(&mut self, attempt: ConnectionId) -> bool {
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
        let has_room = self.attempts.len() < MAX_ATTEMPTS_PER_ADDRESS * self.addresses.len();
        let address = self.addresses.get(self.next)?.clone();
        self.next += 1;
        if self.next < self.addresses.len() {
            self.due = Some(now + self.stagger());
        } else {
            self.next = 0;
            self.due = self.next_round(has_room, random.clamp(0.0, 1.0)).map(|wait| {
                let spent = self.stagger() * (self.addresses.len() as u32 - 1);
                now + wait.saturating_sub(spent)
            });
            if now >= self.quick_until {
                self.is_wanted = false;
            }
        }
        has_room.then_some(address)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn absent_peer_is_dialled_at_once_and_then_every_second() {
        let start = Instant::now();
        let mut redial = always(addresses(1), false, start);

        let dialled = run(&mut redial, start, Duration::from_secs(10), |_| {});

        assert_eq!(dialled[0].0, Duration::ZERO);
        let longest = dialled
            .windows(2)
            .map(|pair| pair[1].0 - pair[0].0)
            .max()
            .expect("attempts");
        assert!(longest <= ROUND + JITTER, "{longest:?}");
        assert!((9..=12).contains(&dialled.len()), "{}", dialled.len());
    }

    #[test]
    fn every_address_has_its_turn_in_each_round_in_the_given_order() {
        for n_addresses in [2, 3, 8, 40] {
            let start = Instant::now();
            let addresses = addresses(n_addresses);
            let mut redial = always(addresses.clone(), false, start);

            let dialled = run(&mut redial, start, ROUND, |_| {});

            let order: Vec<_> = dialled
                .into_iter()
                .map(|(_, address)| address)
                .take(n_addresses)
                .collect();
            assert_eq!(order, addresses);
        }
    }

    #[test]
    fn hanging_attempts_delay_no_new_one_but_are_bounded() {
        let start = Instant::now();
        let mut redial = always(addresses(1), false, start);
        let mut id = 0;

        let dialled = run(&mut redial, start, Duration::from_secs(60), |redial| {
            id += 1;
            redial.handle_attempt(ConnectionId::new_unchecked(id));
        });

        assert_eq!(dialled.len(), MAX_ATTEMPTS_PER_ADDRESS);
        assert!(redial.handle_attempt_ended(ConnectionId::new_unchecked(1)));
        let later = start + Duration::from_secs(62);
        assert_eq!(run(&mut redial, later, ROUND / 2, |_| {}).len(), 1);
    }

    #[test]
    fn present_peer_is_not_dialled() {
        let start = Instant::now();
        let mut redial = always(addresses(2), false, start);
        redial.handle_present();
        assert_eq!(redial.poll_due(), None);
        assert_eq!(run(&mut redial, start, Duration::from_secs(5), |_| {}), []);

        redial.handle_absent(start + Duration::from_secs(5));
        assert_eq!(redial.poll_due(), Some(start + Duration::from_secs(5)));
    }

    #[test]
    fn larger_id_leaves_a_head_start() {
        let start = Instant::now();
        let redial = always(addresses(1), true, start);
        assert_eq!(redial.poll_due(), Some(start + HEAD_START));
    }

    #[test]
    fn new_addresses_are_dialled_at_once_if_the_peer_is_absent() {
        let start = Instant::now();
        let mut redial = always(Vec::new(), false, start);

        redial.set_addresses(addresses(2), false, start);
        assert_eq!(redial.poll_attempt(start, 0.0), Some(addresses(2)[0].clone()));
        redial.set_addresses(addresses(2), false, start);
        assert_eq!(redial.poll_attempt(start, 0.0), None, "nothing has changed");
        redial.handle_present();
        redial.set_addresses(addresses(1), true, start);
        assert_eq!(redial.poll_due(), None);
        redial.handle_absent(start);
        assert_eq!(redial.poll_attempt(start, 0.0), Some(addresses(1)[0].clone()));
    }

    #[test]
    fn found_addresses_are_dialled_after_the_given_ones() {
        let start = Instant::now();
        let mut redial = always(addresses(2)[..1].to_vec(), false, start);

        redial.set_found(addresses(2), false, start);

        let dialled = run(&mut redial, start, ROUND, |_| {});
        let order: Vec<_> = dialled.into_iter().map(|(_, address)| address).collect();
        assert_eq!(order[..2], addresses(2));
    }

    #[test]
    fn peer_without_addresses_is_dialled_as_soon_as_one_is_found_and_no_more_when_it_is_gone() {
        let start = Instant::now();
        let mut redial = always(Vec::new(), false, start);

        redial.set_found(addresses(1), false, start);
        assert_eq!(redial.poll_attempt(start, 0.0), Some(addresses(1)[0].clone()));
        redial.set_found(Vec::new(), false, start);
        assert_eq!(redial.poll_due(), None);

        redial.handle_present();
        redial.set_found(addresses(1), true, start);
        assert_eq!(redial.poll_due(), None, "it is there");
    }

    #[test]
    fn peer_without_addresses_is_waited_for() {
        let start = Instant::now();
        let mut redial = always(Vec::new(), false, start);
        assert_eq!(redial.poll_due(), None);
        assert_eq!(redial.poll_attempt(start, 0.5), None);
        redial.handle_absent(start);
        assert_eq!(redial.poll_due(), None);
    }

    #[test]
    fn better_addresses_than_the_present_one_take_turns() {
        let redial = always(addresses(3), false, Instant::now());
        let known = addresses(4);
        assert_eq!(redial.rank(&known[2]), 2);
        assert_eq!(redial.rank(&known[3]), 3);
        let dialled = known[1].clone().with(Protocol::P2p(libp2p::PeerId::random()));
        assert_eq!(redial.rank(&dialled), 1);

        let turns: Vec<_> = (0..3).map(|turn| redial.better(2, turn)).collect();
        assert_eq!(turns, [Some(&known[0]), Some(&known[1]), Some(&known[0])]);
        assert_eq!(redial.better(0, 7), None);
        assert_eq!(redial.better(3, 2), Some(&known[2]));
    }

    #[test]
    fn attempt_of_another_kind_is_not_counted() {
        let mut redial = always(addresses(1), false, Instant::now());
        assert!(!redial.handle_attempt_ended(ConnectionId::new_unchecked(7)));
    }

    #[test]
    fn rounds_become_rare_and_are_never_further_apart_than_half_a_minute() {
        let start = Instant::now();
        let mut redial = always(addresses(1), false, start);

        let dialled = run(&mut redial, start, Duration::from_secs(600), |_| {});

        let gaps: Vec<_> = dialled.windows(2).map(|pair| pair[1].0 - pair[0].0).collect();
        assert!(gaps.iter().all(|gap| *gap <= LONGEST_ROUND), "{gaps:?}");
        let late: Vec<_> = gaps.iter().rev().take(10).collect();
        assert!(late.iter().all(|gap| **gap >= LONGEST_ROUND * 4 / 5), "{gaps:?}");
        assert!((30..45).contains(&dialled.len()), "{}", dialled.len());
        for (random, round) in [(0.0, LONGEST_ROUND), (1.0, LONGEST_ROUND * 4 / 5)] {
            let due = redial.poll_due().expect("absent");
            redial.poll_attempt(due, random);
            assert_eq!(redial.poll_due(), Some(due + round), "nodes are not in step");
        }
    }

    #[test]
    fn a_packet_for_a_peer_that_is_long_gone_dials_it_at_once_and_every_second_for_a_while() {
        let (start, minute) = (Instant::now(), Duration::from_secs(60));
        let mut redial = always(addresses(1), false, start);
        run(&mut redial, start, minute, |_| {});
        let wanted_at = start + minute;

        redial.handle_wanted(wanted_at);

        assert!(redial.is_wanted());
        let dialled = run(&mut redial, wanted_at, QUICK, |_| {});
        assert_eq!(dialled[0].0, Duration::ZERO);
        assert!((9..=12).contains(&dialled.len()), "{}", dialled.len());
        run(&mut redial, wanted_at + QUICK, QUICK, |_| {});
        assert!(!redial.is_wanted());
    }

    #[test]
    fn a_stream_of_packets_for_an_absent_peer_makes_no_more_than_a_round_a_second() {
        let start = Instant::now();
        let mut redial = always(addresses(1), false, start);
        let mut n_dialled = 0;
        for step_ms in 0..30_000 {
            let now = start + Duration::from_millis(step_ms);
            redial.handle_wanted(now);
            n_dialled += usize::from(redial.poll_attempt(now, 0.5).is_some());
        }
        assert!((29..=31).contains(&n_dialled), "{n_dialled}");
    }

    #[test]
    fn another_address_of_an_absent_peer_is_dialled_at_once() {
        let (start, minute) = (Instant::now(), Duration::from_secs(60));
        let mut redial = always(addresses(1), false, start);
        run(&mut redial, start, minute, |_| {});
        let now = start + minute;

        redial.set_found(addresses(1), false, now);
        assert_eq!(redial.poll_attempt(now, 0.0), None, "nothing is new");
        redial.set_found(addresses(2)[1..].to_vec(), false, now);

        let order: Vec<_> = run(&mut redial, now, ROUND / 2, |_| {});
        let order: Vec<_> = order.into_iter().map(|(_, address)| address).collect();
        assert_eq!(order, addresses(2));
    }

    #[test]
    fn a_peer_on_demand_is_dialled_for_packets_only() {
        let start = Instant::now();
        let seconds = |n| start + Duration::from_secs(n);
        let minute = Duration::from_secs(60);
        let mut redial = Redial::new(addresses(1), ConnectMode::OnDemand, false, start);
        assert_eq!(redial.poll_due(), None);
        redial.set_addresses(addresses(2), false, start);
        redial.set_found(addresses(3), false, start);
        assert_eq!(redial.poll_due(), None);

        redial.handle_wanted(start);
        let n_dialled = run(&mut redial, start, minute, |_| {}).len();
        assert!((30..40).contains(&n_dialled), "{n_dialled}");
        assert_eq!(redial.poll_due(), None, "nothing is sent to it any more");

        redial.handle_wanted(seconds(60));
        redial.handle_present();
        redial.handle_rest(seconds(400));
        assert_eq!(redial.poll_due(), None);
        // A connection that was lost may have been in use.
        redial.handle_present();
        redial.handle_absent(seconds(500));
        assert_eq!(redial.poll_due(), Some(seconds(500)));
        run(&mut redial, seconds(500), minute, |_| {});
        assert_eq!(redial.poll_due(), None);

        redial.set_mode(ConnectMode::Always, seconds(600));
        assert_eq!(redial.poll_due(), Some(seconds(600)));
    }

    fn always(addresses: Vec<Multiaddr>, yields: bool, now: Instant) -> Redial {
        Redial::new(addresses, ConnectMode::Always, yields, now)
    }

    fn addresses(n: usize) -> Vec<Multiaddr> {
        (0..n)
            .map(|n| {
                format!("/ip4/192.0.2.1/tcp/{}", 4000 + n)
                    .parse()
                    .expect("an address")
            })
            .collect()
    }

    fn run(
        redial: &mut Redial,
        start: Instant,
        length: Duration,
        mut started: impl FnMut(&mut Redial),
    ) -> Vec<(Duration, Multiaddr)> {
        let mut dialled = Vec::new();
        for step_ms in 0..=length.as_millis() as u64 {
            let now = start + Duration::from_millis(step_ms);
            if let Some(address) = redial.poll_attempt(now, step_ms as f64 % 7.0 / 6.0) {
                dialled.push((now - start, address));
                started(redial);
            }
        }
        dialled
    }
}
