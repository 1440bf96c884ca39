//! A Kademlia DHT among configured peers, in which they keep what each of them says of itself.
//!
//! The DHT speaks on connections that stand anyway, to admitted peers only, and never opens one: a node asks its
//! neighbours, and those nodes that it is referred to if it is connected to them. So two nodes find each other through any
//! peer that both are connected to. Under the key of a peer there is room for one record, that peer's own
//! [`Announcement`]; any other record that a neighbour sends is refused and counted. So the store holds at most one record
//! for each configured peer.

use std::{
    collections::HashMap,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use libp2p::{
    Multiaddr, PeerId, StreamProtocol,
    identity::Keypair,
    kad::{self, QueryId, Record, store::MemoryStore, store::MemoryStoreConfig},
};
use tokio::{sync::oneshot, time::Instant};

use super::{
    announcement::{Announcement, LIFETIME, MAX_ANNOUNCEMENT_BYTES, key_of},
    config::DhtConfig,
    error::LookupError,
    limits::{LOOKUP_TIMEOUT, MAX_LOOKUPS},
};

/// Name and version of the DHT's protocol: libp2p's Kademlia, with records of Stream Router's own.
pub const DHT_PROTOCOL: StreamProtocol = StreamProtocol::new("/stream-router/kad/1");

/// Most lookups of absent peers that may be open at a time.
const MAX_OWN_LOOKUPS: usize = 4;

/// Time between two rounds of lookups of absent peers.
const ROUND: Duration = Duration::from_secs(1);

/// Time between two lookups of one absent peer.
const LOOKUP_INTERVAL: Duration = Duration::from_secs(5);

/// Time for which changes are collected before they lead to one record or one round of lookups.
const SETTLE: Duration = Duration::from_millis(200);

/// Time between two records of this node.
const RENEW_INTERVAL: Duration = Duration::from_secs(600);

/// Time until the record of this node is published again when no peer took it.
const RETRY_INTERVAL: Duration = Duration::from_secs(30);

/// By how much a sequence is lower than the one before if the clock was set back. Two records of one run of a peer come in
/// another order than they were made in only within the time that bringing one may take.
const SET_BACK_MS: u64 = 2 * LOOKUP_TIMEOUT.as_millis() as u64;

/// Most records in the store, a bound that the number of configured peers does not reach.
const MAX_RECORDS: usize = 4096;

/// The way of the result of a lookup to its caller.
pub(super) type LookupReply = oneshot::Sender<Result<Option<Announcement>, LookupError>>;

/// An open lookup.
struct Lookup {
    peer: PeerId,
    best: Option<Announcement>,
    /// `None` for a lookup that this node begins because a peer is absent.
    reply: Option<LookupReply>,
}

/// Which record of a peer is its newest.
///
/// A sequence comes from the clock of the peer, which may be set back: a host without one starts in 1970 each time. So a
/// record counts that is older by much if the peer itself brings it, and whoever brings it once those before would have
/// expired.
#[derive(Clone, Copy, Debug)]
struct Newest {
    sequence: u64,
    /// The highest sequence that there was, and when it came.
    highest: u64,
    highest_at: Instant,
}

/// This node's part in the DHT: when it publishes its record, when it looks which peer up, and what it knows already.
pub(super) struct DhtClient {
    keypair: Keypair,
    config: DhtConfig,
    sequence: u64,
    /// The newest record of each configured peer, so that an old one does not take its place.
    newest: HashMap<PeerId, Newest>,
    /// When each absent peer was last looked up.
    last_lookup: HashMap<PeerId, Instant>,
    lookups: HashMap<QueryId, Lookup>,
    publish_due: Option<Instant>,
    lookup_due: Option<Instant>,
}

/// Creates the behaviour that carries the DHT.
pub(super) fn behaviour(local_peer: PeerId) -> kad::Behaviour<MemoryStore> {
    let store = MemoryStoreConfig {
        max_records: MAX_RECORDS,
        // The store refuses records of this length, not only longer ones.
        max_value_bytes: MAX_ANNOUNCEMENT_BYTES + 1,
        max_providers_per_key: 0,
        max_provided_keys: 0,
    };
    let mut config = kad::Config::new(DHT_PROTOCOL);
    config
        .set_record_filtering(kad::StoreInserts::FilterBoth)
        .set_record_ttl(Some(LIFETIME))
        // Each node renews its own record.
        .set_replication_interval(None)
        .set_publication_interval(None)
        .set_provider_publication_interval(None)
        .set_caching(kad::Caching::Disabled)
        .set_query_timeout(LOOKUP_TIMEOUT)
        .set_substreams_timeout(LOOKUP_TIMEOUT)
        // The routing table holds the connected peers and no others.
        .set_kbucket_inserts(kad::BucketInserts::Manual)
        .set_periodic_bootstrap_interval(None);
    let store = MemoryStore::with_config(local_peer, store);
    let mut behaviour = kad::Behaviour::with_config(local_peer, store, config);
    behaviour.set_mode(Some(kad::Mode::Server));
    behaviour
}

/// Returns a record as the store takes it, or `None` if it has expired at `now`, which is `time` by the wall clock.
pub(super) fn record(
    peer: PeerId,
    value: Vec<u8>,
    expires: SystemTime,
    now: Instant,
    time: SystemTime,
) -> Option<Record> {
    let left = expires.duration_since(time).ok()?;
    Some(Record {
        key: key_of(peer),
        value,
        publisher: Some(peer),
        expires: Some(now.into_std() + left),
    })
}

impl DhtClient {
    pub(super) fn new(keypair: Keypair, config: DhtConfig) -> Self {
        Self {
            keypair,
            config,
            sequence: 0,
            newest: HashMap::new(),
            last_lookup: HashMap::new(),
            lookups: HashMap::new(),
            publish_due: None,
            lookup_due: None,
        }
    }

    /// Returns when [`DhtClient::poll_publish`] or [`DhtClient::poll_lookups`] has to be called next.
    pub(super) fn poll_due(&self) -> Option<Instant> {
        self.publish_due.into_iter().chain(self.lookup_due).min()
    }

    /// Records that the first connection to a peer is up, which can be told and asked now.
    pub(super) fn handle_neighbour(&mut self, now: Instant) {
        self.last_lookup.clear();
        self.lookup_due = Some(now + SETTLE);
        self.handle_change(now);
    }

    /// Records that what this node says of itself has changed.
    pub(super) fn handle_change(&mut self, now: Instant) {
        self.publish_due = Some(now + SETTLE);
    }

    /// Records that a peer has gone, or is new and not connected yet.
    pub(super) fn handle_absent(&mut self, now: Instant) {
        let soon = now + SETTLE;
        self.lookup_due = Some(self.lookup_due.map_or(soon, |due| due.min(soon)));
    }

    /// Forgets a peer that is not configured any more.
    pub(super) fn remove_peer(&mut self, peer: PeerId) {
        self.newest.remove(&peer);
        self.last_lookup.remove(&peer);
    }

    /// Records that no peer took the record of this node.
    pub(super) fn handle_not_published(&mut self, now: Instant) {
        self.publish_due = Some(now + RETRY_INTERVAL);
    }

    /// Returns the record of this node if one is to be published at `now`, which is `time` by the wall clock.
    /// `listening` are the addresses at which this node is reached unless some are configured.
    pub(super) fn poll_publish(
        &mut self,
        now: Instant,
        time: SystemTime,
        listening: impl FnOnce() -> Vec<Multiaddr>,
    ) -> Option<Record> {
        if self.publish_due.is_none_or(|due| due > now) {
            return None;
        }
        self.publish_due = Some(now + RENEW_INTERVAL);
        let addresses = match self.config.announce.is_empty() {
            true => listening(),
            false => self.config.announce.clone(),
        };
        // After a restart the sequence has to be larger than before, so it starts from the clock.
        let ms = time.duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as u64;
        self.sequence = ms.max(self.sequence + 1);
        let value = Announcement::sign(
            &self.keypair,
            self.sequence,
            &addresses,
            &self.config.networks,
            time,
        );
        match value {
            Ok(value) => record(
                self.keypair.public().to_peer_id(),
                value,
                time + LIFETIME,
                now,
                time,
            ),
            Err(error) => {
                tracing::error!(%error, "cannot sign what this node says of itself");
                None
            }
        }
    }

    /// Returns the absent peers to look up at `now`, those first whose last lookup is the longest ago.
    pub(super) fn poll_lookups(&mut self, now: Instant, mut absent: Vec<PeerId>) -> Vec<PeerId> {
        if self.lookup_due.is_none_or(|due| due > now) {
            return Vec::new();
        }
        self.lookup_due = (!absent.is_empty()).then_some(now + ROUND);
        self.last_lookup.retain(|peer, _| absent.contains(peer));
        let n_open = self
            .lookups
            .values()
            .filter(|lookup| lookup.reply.is_none())
            .count();
        let is_due = |last: &Instant| now >= *last + LOOKUP_INTERVAL;
        absent.retain(|peer| self.last_lookup.get(peer).is_none_or(is_due));
        absent.sort_by_key(|peer| self.last_lookup.get(peer).copied());
        absent.truncate(MAX_OWN_LOOKUPS.saturating_sub(n_open));
        self.last_lookup.extend(absent.iter().map(|peer| (*peer, now)));
        absent
    }

    /// Says whether there is room for another lookup.
    pub(super) fn has_room(&self) -> bool {
        self.lookups.len() < MAX_LOOKUPS
    }

    /// Records that a lookup of a peer has begun; its result goes to `reply`.
    pub(super) fn handle_lookup(&mut self, query: QueryId, peer: PeerId, reply: Option<LookupReply>) {
        let lookup = Lookup {
            peer,
            best: None,
            reply,
        };
        self.lookups.insert(query, lookup);
    }

    /// Returns the peer that a lookup is for.
    pub(super) fn looked_up(&self, query: QueryId) -> Option<PeerId> {
        self.lookups.get(&query).map(|lookup| lookup.peer)
    }

    /// Records an answer to a lookup at `now`; more answers may come.
    pub(super) fn handle_answer(&mut self, query: QueryId, answer: Announcement, now: Instant) {
        let newest = self.newest.get(&answer.peer);
        if let Some(lookup) = self.lookups.get_mut(&query)
            && newest.is_none_or(|newest| {
                answer.sequence == newest.sequence || newest.is_older_than(answer.sequence, false, now)
            })
            && lookup
                .best
                .as_ref()
                .is_none_or(|best| answer.sequence > best.sequence)
        {
            lookup.best = Some(answer);
        }
    }

    /// Records that a lookup has ended, and gives its result to the caller.
    pub(super) fn handle_finished(&mut self, query: QueryId, timed_out: bool) {
        let Some(Lookup {
            best,
            reply: Some(reply),
            ..
        }) = self.lookups.remove(&query)
        else {
            return;
        };
        let answer = match best {
            None if timed_out => Err(LookupError::TimedOut),
            best => Ok(best),
        };
        // The caller may have gone.
        let _ = reply.send(answer);
    }

    /// Records that a configured peer has made a record, which it has brought itself or another node. Returns false if that
    /// record or a newer one is known already.
    pub(super) fn is_news(&mut self, announcement: &Announcement, by_itself: bool, now: Instant) -> bool {
        let sequence = announcement.sequence;
        let before = self.newest.get(&announcement.peer).copied();
        if before.is_some_and(|newest| !newest.is_older_than(sequence, by_itself, now)) {
            return false;
        }
        let still_counts = before.filter(|newest| newest.highest > sequence && !newest.has_lapsed(now));
        let (highest, highest_at) =
            still_counts.map_or((sequence, now), |newest| (newest.highest, newest.highest_at));
        let newest = Newest {
            sequence,
            highest,
            highest_at,
        };
        self.newest.insert(announcement.peer, newest);
        true
    }
}

impl Newest {
    /// Says whether the record with the highest sequence would have expired.
    fn has_lapsed(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.highest_at) >= LIFETIME
    }

    /// Says whether a record of this sequence is newer at `now`, which the peer has brought itself or another node.
    fn is_older_than(&self, sequence: u64, by_itself: bool, now: Instant) -> bool {
        let was_set_back = sequence.saturating_add(SET_BACK_MS) <= self.sequence;
        sequence > self.highest
            || by_itself && (sequence > self.sequence || was_set_back)
            || sequence != self.sequence && self.has_lapsed(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dht() -> DhtClient {
        DhtClient::new(Keypair::generate_ed25519(), DhtConfig::default())
    }

    fn announcement(peer: PeerId, sequence: u64) -> Announcement {
        Announcement {
            peer,
            sequence,
            expires: start_time() + LIFETIME,
            addresses: Vec::new(),
            networks: Vec::new(),
        }
    }

    /// Returns the wall clock when tests begin.
    fn start_time() -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(1_800_000_000)
    }

    #[test]
    fn nothing_is_said_or_asked_without_a_neighbour() {
        assert_eq!(dht().poll_due(), None);
    }

    #[test]
    fn what_is_said_is_renewed_and_each_time_newer() {
        let (mut dht, start) = (dht(), Instant::now());
        let peer = dht.keypair.public().to_peer_id();
        let listening: Vec<Multiaddr> = vec!["/ip4/192.0.2.1/tcp/1".parse().expect("an address")];
        dht.handle_neighbour(start);
        let mut last = 0;
        for due in [start + SETTLE, start + SETTLE + RENEW_INTERVAL] {
            let early = dht.poll_publish(due - SETTLE / 2, start_time(), || listening.clone());
            assert!(early.is_none());

            let record = dht.poll_publish(due, start_time(), || listening.clone());

            let record = record.expect("it is time");
            assert_eq!(record.expires, Some(due.into_std() + LIFETIME));
            let read = Announcement::verify(&record.value, peer, start_time()).expect("genuine");
            assert_eq!(read.addresses, listening);
            assert!(read.sequence > last);
            last = read.sequence;
        }
    }

    #[test]
    fn configured_addresses_are_announced_instead_of_those_listened_on() {
        let announce: Vec<Multiaddr> = vec!["/ip4/203.0.113.7/tcp/1".parse().expect("an address")];
        let config = DhtConfig {
            networks: vec!["10.42.0.1/32".parse().expect("a network")],
            announce: announce.clone(),
        };
        let mut dht = DhtClient::new(Keypair::generate_ed25519(), config.clone());
        let start = Instant::now();
        dht.handle_change(start);

        let listening: Vec<Multiaddr> = vec!["/ip4/192.0.2.1/tcp/1".parse().expect("an address")];
        let record = dht.poll_publish(start + SETTLE, start_time(), || listening);

        let record = record.expect("it is time");
        let peer = dht.keypair.public().to_peer_id();
        let read = Announcement::verify(&record.value, peer, start_time()).expect("genuine");
        assert_eq!((read.addresses, read.networks), (announce, config.networks));
    }

    #[test]
    fn absent_peers_are_asked_for_a_few_at_a_time_and_each_in_its_turn() {
        let (mut dht, start) = (dht(), Instant::now());
        let absent: Vec<_> = (0..6).map(|_| PeerId::random()).collect();
        dht.handle_neighbour(start);

        let now = start + SETTLE;
        let first = dht.poll_lookups(now, absent.clone());
        let second = dht.poll_lookups(now + ROUND, absent.clone());
        let third = dht.poll_lookups(now + 2 * ROUND, absent.clone());
        let later = dht.poll_lookups(now + LOOKUP_INTERVAL, absent.clone());

        assert_eq!(first, absent[..MAX_OWN_LOOKUPS]);
        assert_eq!(second, absent[MAX_OWN_LOOKUPS..]);
        assert_eq!(third, []);
        assert_eq!(later, absent[..MAX_OWN_LOOKUPS]);
        assert_eq!(dht.poll_lookups(now + 2 * LOOKUP_INTERVAL, Vec::new()), []);
        assert_eq!(dht.lookup_due, None, "everybody is there");
    }

    #[test]
    fn a_record_is_news_once_and_an_older_one_never() {
        let (mut dht, peer, now) = (dht(), PeerId::random(), Instant::now());
        let mut is_news = |peer, sequence| dht.is_news(&announcement(peer, sequence), false, now);

        assert!(is_news(peer, 2));
        assert!(!is_news(peer, 2));
        assert!(!is_news(peer, 1));
        assert!(is_news(peer, 3));
        assert!(is_news(PeerId::random(), 1));
    }

    #[test]
    fn a_peer_whose_clock_was_set_back_is_believed_at_once_and_others_about_it_after_an_hour() {
        let (mut dht, peer, start) = (dht(), PeerId::random(), Instant::now());
        let mut is_news =
            |sequence, by_itself, now| dht.is_news(&announcement(peer, sequence), by_itself, now);
        assert!(is_news(90_000, false, start));

        assert!(!is_news(5000, false, start), "another node may bring an old one");
        assert!(!is_news(89_999, true, start), "it was late");
        assert!(is_news(5000, true, start));
        assert!(!is_news(5000, true, start));
        assert!(!is_news(90_000, false, start), "that was before");
        assert!(is_news(5001, true, start) && is_news(90_001, true, start));

        let hour = start + LIFETIME;
        assert!(!is_news(90_001, false, hour));
        assert!(is_news(7000, false, hour) && !is_news(6000, false, hour));
    }
}
