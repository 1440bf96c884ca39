//! The dialling of an absent peer: when, and at which of its addresses.
//!
//! An attempt at a peer that is away can hang: its first packet is lost, and TCP repeats it at growing intervals. A new
//! attempt every second finds the peer within a second of its return, whatever the older ones are doing.

use std::{collections::BTreeSet, time::Duration};

use libp2p::{Multiaddr, swarm::ConnectionId};
use tokio::time::Instant;

/// Time between two rounds through the addresses of a peer.
const ROUND: Duration = Duration::from_millis(900);

/// Most random time that is added to [`ROUND`], so that nodes that lost each other at one moment do not stay in step.
const JITTER: Duration = Duration::from_millis(200);

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
    yields: bool,
    attempts: BTreeSet<ConnectionId>,
    next: usize,
    /// `None` while connected, and for a peer without addresses.
    due: Option<Instant>,
}

impl Redial {
    /// Creates the dialling of a peer that is absent at `now`. With `yields`, the peer is left to dial first.
    pub(super) fn new(addresses: Vec<Multiaddr>, yields: bool, now: Instant) -> Self {
        let mut redial = Self {
            given: addresses.clone(),
            addresses,
            found: Vec::new(),
            yields,
            attempts: BTreeSet::new(),
            next: 0,
            due: None,
        };
        redial.handle_absent(now);
        redial
    }

    /// Records that the peer is connected.
    pub(super) fn handle_present(&mut self) {
        self.due = None;
    }

    /// Records that the peer is connected no more.
    pub(super) fn handle_absent(&mut self, now: Instant) {
        let wait = if self.yields { HEAD_START } else { Duration::ZERO };
        self.next = 0;
        self.due = (!self.addresses.is_empty()).then(|| now + wait);
    }

    /// Sets the configured addresses of the peer.
    pub(super) fn set_addresses(&mut self, addresses: Vec<Multiaddr>, present: bool, now: Instant) {
        if self.given != addresses {
            self.given = addresses;
            self.addresses = self.merged();
            if present {
                self.next = 0;
            } else {
                self.handle_absent(now);
            }
        }
    }

    /// Sets the found addresses of the peer, which are dialled after the configured ones. The current round goes on; a
    /// peer that had no address is dialled at once.
    pub(super) fn set_found(&mut self, found: Vec<Multiaddr>, present: bool, now: Instant) {
        self.found = found;
        self.addresses = self.merged();
        if self.next >= self.addresses.len() {
            self.next = 0;
        }
        if self.addresses.is_empty() {
            self.due = None;
        } else if self.due.is_none() && !present {
            self.handle_absent(now);
        }
    }

    fn merged(&self) -> Vec<Multiaddr> {
        let found = self.found.iter().filter(|address| !self.given.contains(address));
        self.given.iter().chain(found).cloned().collect()
    }

    /// Records that an attempt has begun.
    pub(super) fn handle_attempt(&mut self, attempt: ConnectionId) {
        self.attempts.insert(attempt);
    }

    /// Records that an attempt has ended, in success or failure. Returns false if it was no attempt of this type.
    pub(super) fn handle_attempt_ended(&mut self, attempt: ConnectionId) -> bool {
        self.attempts.remove(&attempt)
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
        let address = self.addresses.get(self.next)?.clone();
        self.next += 1;
        if self.next < self.addresses.len() {
            self.due = Some(now + self.stagger());
        } else {
            self.next = 0;
            let spent = self.stagger() * (self.addresses.len() as u32 - 1);
            self.due = Some(now + ROUND - spent + JITTER.mul_f64(random.clamp(0.0, 1.0)));
        }
        let room = self.attempts.len() < MAX_ATTEMPTS_PER_ADDRESS * self.addresses.len();
        room.then_some(address)
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
        let mut redial = Redial::new(addresses(1), false, start);

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
            let mut redial = Redial::new(addresses.clone(), false, start);

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
        let mut redial = Redial::new(addresses(1), false, start);
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
        let mut redial = Redial::new(addresses(2), false, start);
        redial.handle_present();
        assert_eq!(redial.poll_due(), None);
        assert_eq!(run(&mut redial, start, Duration::from_secs(5), |_| {}), []);

        redial.handle_absent(start + Duration::from_secs(5));
        assert_eq!(redial.poll_due(), Some(start + Duration::from_secs(5)));
    }

    #[test]
    fn larger_id_leaves_a_head_start() {
        let start = Instant::now();
        let redial = Redial::new(addresses(1), true, start);
        assert_eq!(redial.poll_due(), Some(start + HEAD_START));
    }

    #[test]
    fn new_addresses_are_dialled_at_once_if_the_peer_is_absent() {
        let start = Instant::now();
        let mut redial = Redial::new(Vec::new(), false, start);

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
        let mut redial = Redial::new(addresses(2)[..1].to_vec(), false, start);

        redial.set_found(addresses(2), false, start);

        let dialled = run(&mut redial, start, ROUND, |_| {});
        let order: Vec<_> = dialled.into_iter().map(|(_, address)| address).collect();
        assert_eq!(order[..2], addresses(2));
    }

    #[test]
    fn peer_without_addresses_is_dialled_as_soon_as_one_is_found_and_no_more_when_it_is_gone() {
        let start = Instant::now();
        let mut redial = Redial::new(Vec::new(), false, start);

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
        let mut redial = Redial::new(Vec::new(), false, start);
        assert_eq!(redial.poll_due(), None);
        assert_eq!(redial.poll_attempt(start, 0.5), None);
        redial.handle_absent(start);
        assert_eq!(redial.poll_due(), None);
    }

    #[test]
    fn attempt_of_another_kind_is_not_counted() {
        let mut redial = Redial::new(addresses(1), false, Instant::now());
        assert!(!redial.handle_attempt_ended(ConnectionId::new_unchecked(7)));
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
