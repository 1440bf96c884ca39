//! The redial book: which configured peers are dialled, when, and which failures of it are news.

mod agenda;
mod standby;

use std::collections::{BTreeMap, BTreeSet, HashSet};

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
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::{agenda::MAX_ATTEMPTS, *};
    use crate::p2p::uplink::{UplinkBy, UplinkConfig};

    fn address(port: u16) -> Multiaddr {
        format!("/ip4/192.0.2.1/tcp/{port}").parse().expect("an address")
    }

    fn by(peer: PeerId) -> Lead {
        (peer, UplinkId::FIRST)
    }

    fn config(peer: PeerId, ports: &[u16]) -> PeerConfig {
        PeerConfig::new(peer, ports.iter().map(|port| address(*port)).collect())
    }

    /// Returns two ids, the smaller one first, so that the smaller one dials the larger one without a head start.
    fn local_and_peer() -> (PeerId, PeerId) {
        let (a, b) = (PeerId::random(), PeerId::random());
        (a.min(b), a.max(b))
    }

    #[test]
    fn only_absent_peers_with_addresses_are_dialled() {
        let (start, (local, peer)) = (Instant::now(), local_and_peer());
        let silent = PeerId::random();
        let peers = vec![config(peer, &[1]), config(silent, &[])];
        let mut book = RedialBook::new(local, Uplinks::default(), peers, start);

        assert_eq!(book.poll_due(), Some(start));
        assert_eq!(book.poll_attempts(start, || 0.0), [(by(peer), address(1))]);
        assert!(book.is_dialled(by(peer)) && !book.is_dialled(by(silent)));

        book.handle_present(by(peer));
        assert_eq!(book.poll_due(), None);
        assert!(!book.is_dialled(by(peer)));

        let later = start + Duration::from_secs(60);
        book.handle_absent(by(peer), later);
        assert_eq!(book.poll_attempts(later, || 0.0), [(by(peer), address(1))]);
    }

    #[test]
    fn the_side_with_the_larger_id_dials_later() {
        let (start, (small, large)) = (Instant::now(), local_and_peer());

        let of_small = RedialBook::new(small, Uplinks::default(), vec![config(large, &[1])], start);
        let of_large = RedialBook::new(large, Uplinks::default(), vec![config(small, &[1])], start);

        assert_eq!(of_small.poll_due(), Some(start));
        assert!(of_large.poll_due() > Some(start));
    }

    #[test]
    fn attempts_that_have_not_ended_bound_further_ones() {
        let (start, (local, peer)) = (Instant::now(), local_and_peer());
        let mut book = RedialBook::new(local, Uplinks::default(), vec![config(peer, &[1])], start);
        let mut n_attempts = 0;
        let dial_for_a_minute = |book: &mut RedialBook, n_attempts: &mut usize, from_s: u64| {
            for second in from_s..from_s + 60 {
                for _ in book.poll_attempts(start + Duration::from_secs(2 * second), || 0.0) {
                    *n_attempts += 1;
                    book.handle_attempt(by(peer), ConnectionId::new_unchecked(*n_attempts), start);
                }
            }
        };

        dial_for_a_minute(&mut book, &mut n_attempts, 0);
        let n_most = n_attempts;
        book.handle_attempt_ended(peer, ConnectionId::new_unchecked(1));
        dial_for_a_minute(&mut book, &mut n_attempts, 60);

        assert!(n_most < 10, "{n_most}");
        assert_eq!(n_attempts, n_most + 1);
    }

    #[test]
    fn attempts_are_bounded_over_all_peers_with_room_for_those_that_packets_wait_for() {
        let (start, (local, wanted)) = (Instant::now(), local_and_peer());
        let mut peers: Vec<_> = (0..1000).map(|_| config(PeerId::random(), &[1, 2])).collect();
        peers.push(config(wanted, &[3]));
        let mut book = RedialBook::new(local, Uplinks::default(), peers, start);
        let mut attempts = Vec::new();
        let dial = |book: &mut RedialBook, attempts: &mut Vec<(PeerId, ConnectionId)>, now: Instant| {
            for ((peer, _), _) in book.poll_attempts(now, || 0.0) {
                let attempt = ConnectionId::new_unchecked(attempts.len());
                book.handle_attempt(by(peer), attempt, now);
                attempts.push((peer, attempt));
            }
        };

        for ms in 0..2000 {
            dial(&mut book, &mut attempts, start + Duration::from_millis(ms));
        }
        assert_eq!(attempts.len(), MAX_ATTEMPTS);
        assert_eq!(book.poll_due(), None, "nothing can be dialled, so nothing is due");

        let now = start + Duration::from_secs(2);
        book.handle_wanted(wanted, now);
        dial(&mut book, &mut attempts, now);
        assert_eq!(attempts.len(), MAX_ATTEMPTS + 1);
        assert_eq!(attempts[MAX_ATTEMPTS].0, wanted);

        let (peer, attempt) = attempts[0];
        book.handle_attempt_ended(peer, attempt);
        let (peer, attempt) = attempts[1];
        book.handle_attempt_ended(peer, attempt);
        assert!(book.poll_due().is_some());
        let before: BTreeSet<_> = attempts.iter().map(|(peer, _)| *peer).collect();
        dial(&mut book, &mut attempts, now);
        assert!(
            !before.contains(&attempts[MAX_ATTEMPTS + 1].0),
            "one that has waited"
        );
    }

    /// Returns the agenda that a look at every peer makes.
    fn looked_at(book: &RedialBook) -> Agenda {
        let mut agenda = Agenda::default();
        for (peer, entry) in &book.peers {
            agenda.replace(
                by(*peer),
                Appointment::default(),
                Appointment::of(&entry.redials[0]),
            );
        }
        agenda
    }

    proptest! {
        #[test]
        fn the_agenda_says_what_a_look_at_every_peer_says(
            steps in prop::collection::vec((0..14_u8, 0..6_usize, 0..3000_u64), 0..120),
        ) {
            let ids: Vec<_> = (0..6).map(|_| PeerId::random()).collect();
            let named: Multiaddr = "/dns4/vpn.example.org/tcp/1".parse().expect("an address");
            let addresses = |n: usize| [named.clone(), address(1), address(2)][..n % 4].to_vec();
            let mut now = Instant::now();
            let mut book = RedialBook::new(PeerId::random(), Uplinks::default(), Vec::new(), now);
            let mut attempts: Vec<(PeerId, ConnectionId)> = Vec::new();
            for (n, (step, at, ms)) in steps.into_iter().enumerate() {
                let peer = ids[at];
                match step {
                    0 => now += Duration::from_millis(ms),
                    1 | 2 => {
                        let mut config = PeerConfig::new(peer, addresses(ms as usize));
                        config.connect = match ms % 2 {
                            0 => ConnectMode::Always,
                            _ => ConnectMode::OnDemand,
                        };
                        book.set_peer(config, |_| false, now);
                    }
                    3 => book.set_found(peer, &addresses(ms as usize + 1), |_| false, now),
                    4 => book.set_answer(peer, &named, Some(&[address(3)]), |_| false, now),
                    5 => book.handle_present(by(peer)),
                    6 => book.handle_absent(by(peer), now),
                    7 => book.handle_silent(by(peer), now),
                    8 => book.handle_rest(peer, now),
                    9 => book.handle_wanted(peer, now),
                    10 => drop(book.retain(&ids.iter().copied().filter(|other| *other != peer).collect())),
                    11 => drop(book.poll_names(now)),
                    12 => for ((peer, _), _) in book.poll_attempts(now, || 0.5) {
                        let attempt = ConnectionId::new_unchecked(1000 * n + attempts.len());
                        book.handle_attempt(by(peer), attempt, now);
                        attempts.push((peer, attempt));
                    },
                    _ => if let Some((peer, attempt)) = attempts.pop() {
                        book.handle_attempt_ended(peer, attempt);
                    },
                }
                prop_assert_eq!(&book.agenda, &looked_at(&book), "after step {}", step);
            }
            let dues = book.peers.values().filter_map(|entry| entry.redials[0].poll_due());
            prop_assert_eq!(book.poll_due(), dues.min());
        }
    }

    #[test]
    fn a_costlier_uplink_is_dialled_once_the_others_have_led_nowhere_for_a_while() {
        let (start, (local, peer)) = (Instant::now(), local_and_peer());
        let uplink = |cost: u32| UplinkConfig {
            by: UplinkBy::Device(format!("wan{cost}")),
            weight: 1,
            cost,
        };
        let uplinks = Uplinks::new(vec![uplink(0), uplink(7)]);
        let [cheap, costly] = [0, 1].map(|at| uplinks.ids().nth(at).expect("there are two"));
        let mut book = RedialBook::new(local, uplinks, vec![config(peer, &[1])], start);
        let ms = Duration::from_millis;
        let dialled = |book: &mut RedialBook, now: Instant| {
            book.settle(now);
            let attempts = book.poll_attempts(now, || 0.0);
            attempts.into_iter().map(|(lead, _)| lead.1).collect::<Vec<_>>()
        };

        assert_eq!(dialled(&mut book, start), [cheap]);
        assert_eq!(book.poll_due(), Some(start + ms(500)));
        assert_eq!(dialled(&mut book, start + ms(499)), []);
        assert_eq!(dialled(&mut book, start + ms(500)), [costly]);

        book.handle_present((peer, costly));
        assert_eq!(dialled(&mut book, start + ms(1000)), [cheap], "it is dialled on");
        book.handle_present((peer, cheap));
        book.handle_absent((peer, costly), start + ms(1500));
        let later = start + ms(100_000);
        assert_eq!(dialled(&mut book, later), [], "the cheaper one works");

        book.handle_silent((peer, cheap), later);
        assert_eq!(dialled(&mut book, later), [cheap]);
        assert_eq!(dialled(&mut book, later + ms(500)), [costly]);
        book.handle_present((peer, cheap));
        assert_eq!(dialled(&mut book, later + ms(5000)), [], "it is heard again");
        assert_eq!(book.poll_due(), None);
    }

    #[test]
    fn peers_come_go_and_change_with_the_configuration() {
        let (start, (local, stays)) = (Instant::now(), local_and_peer());
        let (goes, comes) = (PeerId::random(), PeerId::random());
        let mut book = RedialBook::new(
            local,
            Uplinks::default(),
            vec![config(stays, &[1]), config(goes, &[2])],
            start,
        );

        assert_eq!(book.retain(&HashSet::from([stays, comes])), [goes]);
        assert!(!book.set_peer(config(stays, &[3]), |_| false, start));
        assert!(book.set_peer(config(comes, &[]), |_| false, start));

        assert!(book.contains(stays) && book.contains(comes) && !book.contains(goes));
        assert_eq!(book.poll_attempts(start, || 0.0), [(by(stays), address(3))]);
    }

    #[test]
    fn a_peer_without_configured_addresses_is_dialled_where_it_is_found() {
        let (start, (local, peer)) = (Instant::now(), local_and_peer());
        let mut book = RedialBook::new(local, Uplinks::default(), vec![config(peer, &[])], start);

        book.set_found(peer, &[address(7)], |_| false, start);

        assert_eq!(book.poll_attempts(start, || 0.0), [(by(peer), address(7))]);
    }

    #[test]
    fn failure_is_new_once_until_the_peer_was_there() {
        let (start, (local, peer)) = (Instant::now(), local_and_peer());
        let mut book = RedialBook::new(local, Uplinks::default(), vec![config(peer, &[1])], start);

        assert!(book.is_new_failure(peer, "refused"));
        assert!(!book.is_new_failure(peer, "refused"));
        assert!(book.is_new_failure(peer, "timed out"));
        assert!(!book.is_new_failure(peer, "refused"));
        book.handle_present(by(peer));
        assert!(book.is_new_failure(peer, "refused"));
    }

    #[test]
    fn endless_different_failures_stop_being_new() {
        let mut failures = FailureNews::default();
        let n_new = (0..100).filter(|n| failures.is_new(&n.to_string())).count();
        assert_eq!(n_new, MAX_NEW_FAILURES);
    }
}
