//! A Kademlia DHT among configured peers, in which they keep what each of them says of itself.
//!
//! It speaks on connections that stand anyway, to admitted peers only, and never opens one: a node asks its neighbours,
//! and those it is referred to if it is connected to them. So two nodes find each other through any peer that both are
//! connected to. Under the key of a peer there is room for one record, that peer's own [`Announcement`]; whatever else
//! a neighbour sends is refused and counted. So the store holds at most one record for each configured peer.

use std::{
    collections::HashMap,
    time::{Duration, Instant as StdInstant, SystemTime, UNIX_EPOCH},
};

use ipnet::IpNet;
use libp2p::{
    Multiaddr, PeerId, StreamProtocol,
    identity::Keypair,
    kad::{self, QueryId, Record, store::MemoryStore, store::MemoryStoreConfig},
};
use tokio::{sync::oneshot, time::Instant};

use super::{
    Announcement, AnnouncementError, LookupError, MAX_ANNOUNCEMENT_BYTES,
    announcement::{LIFETIME, key_of},
};

/// Name and version of the DHT's protocol: Kademlia as libp2p has it, with records of our own.
pub const DHT_PROTOCOL: StreamProtocol = StreamProtocol::new("/stream-router/kad/1");

/// How long a question may take.
pub(super) const LOOKUP_TIMEOUT: Duration = Duration::from_millis(1500);

/// Most questions that may be open.
pub(super) const MAX_LOOKUPS: usize = 64;

/// Most questions for absent peers that may be open.
const MAX_SEARCHES: usize = 4;

/// Time between two rounds of questions for absent peers.
const ROUND: Duration = Duration::from_secs(1);

/// Time between two questions for one absent peer.
const ASK_INTERVAL: Duration = Duration::from_secs(5);

/// What happens at the same time is said at once.
const SETTLE: Duration = Duration::from_millis(200);

/// Time between two records of our own.
const RENEW_INTERVAL: Duration = Duration::from_secs(600);

/// Time until the next try when nobody took our record.
const RETRY_INTERVAL: Duration = Duration::from_secs(30);

/// A bound for the store that the number of configured peers does not reach.
const MAX_RECORDS: usize = 4096;

/// What this node says of itself in the DHT.
#[derive(Clone, Debug, Default)]
pub struct DhtConfig {
    /// Networks that it says are behind it.
    pub networks: Vec<IpNet>,
    /// Addresses where it says it is reached; if there are none, those that it listens on.
    pub announce: Vec<Multiaddr>,
}

/// Where an answer goes.
pub(super) type Reply = oneshot::Sender<Result<Option<Announcement>, LookupError>>;

/// An open question.
struct Search {
    peer: PeerId,
    best: Option<Announcement>,
    reply: Option<Reply>,
}

/// When to say and ask what, and what is known already.
pub(super) struct Dht {
    keypair: Keypair,
    config: DhtConfig,
    sequence: u64,
    /// The sequence of the newest record of each configured peer, so that an old one does not take its place.
    newest: HashMap<PeerId, u64>,
    asked: HashMap<PeerId, Instant>,
    searches: HashMap<QueryId, Search>,
    publish_due: Option<Instant>,
    look_due: Option<Instant>,
}

/// The behaviour that carries it.
pub(super) fn behaviour(local_peer: PeerId) -> kad::Behaviour<MemoryStore> {
    let store = MemoryStoreConfig {
        max_records: MAX_RECORDS,
        // The store refuses this length, too.
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
        // Who is connected is in the table, and nobody else.
        .set_kbucket_inserts(kad::BucketInserts::Manual)
        .set_periodic_bootstrap_interval(None);
    let store = MemoryStore::with_config(local_peer, store);
    let mut behaviour = kad::Behaviour::with_config(local_peer, store, config);
    behaviour.set_mode(Some(kad::Mode::Server));
    behaviour
}

/// A record as the store takes it; `None` if it has expired.
pub(super) fn record(peer: PeerId, value: Vec<u8>, expires: SystemTime) -> Option<Record> {
    let left = expires.duration_since(SystemTime::now()).ok()?;
    Some(Record {
        key: key_of(peer),
        value,
        publisher: Some(peer),
        expires: Some(StdInstant::now() + left),
    })
}

impl Dht {
    pub(super) fn new(keypair: Keypair, config: DhtConfig) -> Self {
        Self {
            keypair,
            config,
            sequence: 0,
            newest: HashMap::new(),
            asked: HashMap::new(),
            searches: HashMap::new(),
            publish_due: None,
            look_due: None,
        }
    }

    /// When [`Dht::poll_publish`] or [`Dht::poll_look`] is worth asking.
    pub(super) fn poll_due(&self) -> Option<Instant> {
        self.publish_due.into_iter().chain(self.look_due).min()
    }

    /// There is somebody new to tell and to ask.
    pub(super) fn handle_neighbour(&mut self, now: Instant) {
        self.asked.clear();
        self.look_due = Some(now + SETTLE);
        self.handle_change(now);
    }

    /// What we say of ourselves has changed.
    pub(super) fn handle_change(&mut self, now: Instant) {
        self.publish_due = Some(now + SETTLE);
    }

    /// A peer has gone, or is new and not there yet.
    pub(super) fn handle_absent(&mut self, now: Instant) {
        let soon = now + SETTLE;
        self.look_due = Some(self.look_due.map_or(soon, |due| due.min(soon)));
    }

    /// A peer is configured no more.
    pub(super) fn handle_forgotten(&mut self, peer: PeerId) {
        self.newest.remove(&peer);
        self.asked.remove(&peer);
    }

    /// Nobody took our record.
    pub(super) fn handle_not_published(&mut self, now: Instant) {
        self.publish_due = Some(now + RETRY_INTERVAL);
    }

    /// Our own record, if it is time to publish one. `listening` is where we are reached unless it is configured.
    pub(super) fn poll_publish(&mut self, now: Instant, listening: Vec<Multiaddr>) -> Option<Record> {
        if self.publish_due.is_none_or(|due| due > now) {
            return None;
        }
        self.publish_due = Some(now + RENEW_INTERVAL);
        let addresses = match self.config.announce.is_empty() {
            true => listening,
            false => self.config.announce.clone(),
        };
        let time = SystemTime::now();
        // After a restart it has to be larger than before, which is what clocks are for.
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
            Ok(value) => record(self.keypair.public().to_peer_id(), value, time + LIFETIME),
            Err(error) => {
                tracing::error!(%error, "cannot sign what this node says of itself");
                None
            }
        }
    }

    /// Which of the absent peers to ask for, those first that were not asked for the longest time.
    pub(super) fn poll_look(&mut self, now: Instant, mut absent: Vec<PeerId>) -> Vec<PeerId> {
        if self.look_due.is_none_or(|due| due > now) {
            return Vec::new();
        }
        self.look_due = (!absent.is_empty()).then_some(now + ROUND);
        self.asked.retain(|peer, _| absent.contains(peer));
        let n_open = self
            .searches
            .values()
            .filter(|search| search.reply.is_none())
            .count();
        let is_due = |asked: &Instant| now >= *asked + ASK_INTERVAL;
        absent.retain(|peer| self.asked.get(peer).is_none_or(is_due));
        absent.sort_by_key(|peer| self.asked.get(peer).copied());
        absent.truncate(MAX_SEARCHES.saturating_sub(n_open));
        self.asked.extend(absent.iter().map(|peer| (*peer, now)));
        absent
    }

    /// There is room for another question.
    pub(super) fn has_room(&self) -> bool {
        self.searches.len() < MAX_LOOKUPS
    }

    /// A question was asked.
    pub(super) fn handle_asked(&mut self, query: QueryId, peer: PeerId, reply: Option<Reply>) {
        let search = Search {
            peer,
            best: None,
            reply,
        };
        self.searches.insert(query, search);
    }

    /// Whose record a question is for.
    pub(super) fn asked_for(&self, query: QueryId) -> Option<PeerId> {
        self.searches.get(&query).map(|search| search.peer)
    }

    /// A question was answered; more answers may come.
    pub(super) fn handle_answer(&mut self, query: QueryId, answer: Announcement) {
        let newest = self.newest.get(&answer.peer);
        if let Some(search) = self.searches.get_mut(&query)
            && newest.is_none_or(|newest| answer.sequence >= *newest)
            && search
                .best
                .as_ref()
                .is_none_or(|best| answer.sequence > best.sequence)
        {
            search.best = Some(answer);
        }
    }

    /// No more answers come.
    pub(super) fn handle_finished(&mut self, query: QueryId, timed_out: bool) {
        let Some(Search {
            best,
            reply: Some(reply),
            ..
        }) = self.searches.remove(&query)
        else {
            return;
        };
        let answer = match best {
            None if timed_out => Err(LookupError::TimedOut),
            best => Ok(best),
        };
        // Whoever asked may have gone.
        let _ = reply.send(answer);
    }

    /// Reads a record about `peer`.
    pub(super) fn verify(bytes: &[u8], peer: PeerId) -> Result<Announcement, AnnouncementError> {
        Announcement::verify(bytes, peer, SystemTime::now())
    }

    /// Takes note of a record of a configured peer. False if that, or a newer one, is known.
    pub(super) fn is_news(&mut self, announcement: &Announcement) -> bool {
        let newest = self.newest.entry(announcement.peer).or_default();
        let is_news = announcement.sequence > *newest;
        *newest = announcement.sequence.max(*newest);
        is_news
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dht() -> Dht {
        Dht::new(Keypair::generate_ed25519(), DhtConfig::default())
    }

    fn announcement(peer: PeerId, sequence: u64) -> Announcement {
        Announcement {
            peer,
            sequence,
            expires: SystemTime::now() + LIFETIME,
            addresses: Vec::new(),
            networks: Vec::new(),
        }
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
            assert!(dht.poll_publish(due - SETTLE / 2, listening.clone()).is_none());

            let record = dht.poll_publish(due, listening.clone()).expect("it is time");

            let read = Dht::verify(&record.value, peer).expect("genuine");
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
        let mut dht = Dht::new(Keypair::generate_ed25519(), config.clone());
        dht.handle_change(Instant::now() - SETTLE);

        let listening = vec!["/ip4/192.0.2.1/tcp/1".parse().expect("an address")];
        let record = dht.poll_publish(Instant::now(), listening).expect("it is time");

        let read = Dht::verify(&record.value, dht.keypair.public().to_peer_id()).expect("genuine");
        assert_eq!((read.addresses, read.networks), (announce, config.networks));
    }

    #[test]
    fn absent_peers_are_asked_for_a_few_at_a_time_and_each_in_its_turn() {
        let (mut dht, start) = (dht(), Instant::now());
        let absent: Vec<_> = (0..6).map(|_| PeerId::random()).collect();
        dht.handle_neighbour(start);

        let now = start + SETTLE;
        let first = dht.poll_look(now, absent.clone());
        let second = dht.poll_look(now + ROUND, absent.clone());
        let third = dht.poll_look(now + 2 * ROUND, absent.clone());
        let later = dht.poll_look(now + ASK_INTERVAL, absent.clone());

        assert_eq!(first, absent[..MAX_SEARCHES]);
        assert_eq!(second, absent[MAX_SEARCHES..]);
        assert_eq!(third, []);
        assert_eq!(later, absent[..MAX_SEARCHES]);
        assert_eq!(dht.poll_look(now + 2 * ASK_INTERVAL, Vec::new()), []);
        assert_eq!(dht.look_due, None, "everybody is there");
    }

    #[test]
    fn a_record_is_news_once_and_an_older_one_never() {
        let (mut dht, peer) = (dht(), PeerId::random());

        assert!(dht.is_news(&announcement(peer, 2)));
        assert!(!dht.is_news(&announcement(peer, 2)));
        assert!(!dht.is_news(&announcement(peer, 1)));
        assert!(dht.is_news(&announcement(peer, 3)));
        assert!(dht.is_news(&announcement(PeerId::random(), 1)));
    }
}
