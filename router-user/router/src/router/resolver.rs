//! Asks whose a destination is, beside the path of packets, and remembers the answers.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use libp2p::PeerId;
use tokio::sync::{mpsc, oneshot};
use tokio::task::{self, JoinError, JoinSet};
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::destinations::Destination;
use super::peer::{self, Peer};
use super::{DispatchError, Shared, StreamPool};
use crate::discovery::{DiscoveryError, PeerDiscovery};
use stream_router_engine::flow_cache::StreamIndex;

/// After this time an owner that packets still go to is asked for again; until the answer the old one holds.
const OWNER_TTL: Duration = Duration::from_secs(60);
/// An owner is believed for so long if the question fails again and again.
const OWNER_MOST: Duration = Duration::from_secs(300);
/// How long it is remembered that nobody owns a destination.
const NOBODY_TTL: Duration = Duration::from_secs(5);
/// How long no question is asked after one has failed.
const FAILURE_TTL: Duration = Duration::from_secs(1);
const SWEEP_INTERVAL: Duration = Duration::from_secs(1);
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(5);
const MAX_LOOKUPS: usize = 64;
const MAX_DESTINATIONS: usize = 65_536;
const MAX_PEERS: usize = 4096;
/// Who may wait for one answer.
const MAX_WAITING: usize = 1024;

/// Questions that may wait.
pub(super) const MAX_ASKS: usize = 1024;

/// What comes of a question: the owner, if one is known.
pub(super) type Reply = oneshot::Sender<Result<PeerId, DispatchError>>;

/// A question.
pub(super) struct Ask {
    pub(super) destination: IpAddr,
    pub(super) reply: Option<Reply>,
}

/// What is remembered of a destination.
struct Known {
    /// What packets see; `None` after a failure.
    published: Option<Arc<Destination>>,
    /// When the last question was answered, or failed.
    asked: Instant,
    /// When it was last answered.
    answered: Instant,
}

/// Asks the discovery, and starts the senders of each peer it names.
pub(super) struct Resolver<P, D> {
    shared: Arc<Shared>,
    pool: Arc<P>,
    discovery: Arc<D>,
    finish: CancellationToken,
    known: HashMap<IpAddr, Known>,
    by_id: HashMap<PeerId, u32>,
    lookups: JoinSet<Result<Option<PeerId>, DiscoveryError>>,
    asking: HashMap<task::Id, IpAddr>,
    waiting: HashMap<IpAddr, Vec<Reply>>,
    senders: JoinSet<()>,
}

impl<P: StreamPool, D: PeerDiscovery> Resolver<P, D> {
    /// Senders end, with nothing waiting, once `finish` is cancelled.
    pub(super) fn new(shared: Arc<Shared>, pool: Arc<P>, discovery: D, finish: CancellationToken) -> Self {
        Self {
            shared,
            pool,
            discovery: Arc::new(discovery),
            finish,
            known: HashMap::new(),
            by_id: HashMap::new(),
            lookups: JoinSet::new(),
            asking: HashMap::new(),
            waiting: HashMap::new(),
            senders: JoinSet::new(),
        }
    }

    /// Answers `asks` until `stop`; returns the senders, which run on.
    pub(super) async fn run(mut self, mut asks: mpsc::Receiver<Ask>, stop: CancellationToken) -> JoinSet<()> {
        let mut sweep = interval(SWEEP_INTERVAL);
        sweep.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = stop.cancelled() => return self.senders,
                Some(ask) = asks.recv(), if self.lookups.len() < MAX_LOOKUPS => self.handle_ask(ask),
                Some(ended) = self.lookups.join_next_with_id() => self.handle_ended(ended),
                _ = sweep.tick() => self.sweep(Instant::now()),
            }
        }
    }

    fn handle_ask(&mut self, ask: Ask) {
        let Ask { destination, reply } = ask;
        if let Some(known) = self.known.get(&destination) {
            if let Some(reply) = reply {
                // Whoever asked may have gone.
                let _ = reply.send(answer(destination, known));
            }
            return;
        }
        let waiting = self.waiting.entry(destination).or_default();
        let is_new = waiting.is_empty() && !self.asking.values().any(|asked| *asked == destination);
        if let Some(reply) = reply
            && waiting.len() < MAX_WAITING
        {
            waiting.push(reply);
        }
        if is_new {
            self.ask(destination);
        }
    }

    fn ask(&mut self, destination: IpAddr) {
        self.shared.counters.n_lookups.fetch_add(1, Relaxed);
        let discovery = self.discovery.clone();
        let lookup = self.lookups.spawn(async move {
            match timeout(LOOKUP_TIMEOUT, discovery.find_peer(destination)).await {
                Ok(answer) => answer,
                Err(elapsed) => Err(DiscoveryError::new(elapsed)),
            }
        });
        self.asking.insert(lookup.id(), destination);
    }

    fn handle_ended(&mut self, ended: Result<(task::Id, Result<Option<PeerId>, DiscoveryError>), JoinError>) {
        let (id, outcome) = match ended {
            Ok((id, outcome)) => (id, outcome),
            Err(panicked) => (panicked.id(), Err(DiscoveryError::new(panicked))),
        };
        let Some(destination) = self.asking.remove(&id) else {
            return;
        };
        let now = Instant::now();
        match outcome {
            Ok(owner) => {
                let owner = owner.and_then(|id| self.peer(id));
                self.remember(destination, Destination::new(owner), now);
            }
            Err(error) => {
                self.shared.counters.n_failed_lookups.fetch_add(1, Relaxed);
                let cause = std::error::Error::source(&error).map(ToString::to_string);
                debug!(cause, "a lookup failed");
                let known = self.known.entry(destination).or_insert(Known {
                    published: None,
                    asked: now,
                    answered: now,
                });
                known.asked = now;
            }
        }
        let replies = self.waiting.remove(&destination).unwrap_or_default();
        for reply in replies {
            let answer = match self.known.get(&destination) {
                Some(known) => answer(destination, known),
                None => Err(DispatchError::Resolving { destination }),
            };
            // Whoever asked may have gone.
            let _ = reply.send(answer);
        }
    }

    fn remember(&mut self, destination: IpAddr, published: Arc<Destination>, now: Instant) {
        if self.known.len() >= MAX_DESTINATIONS && !self.known.contains_key(&destination) {
            warn!(
                n_destinations = MAX_DESTINATIONS,
                "no room to remember another destination"
            );
            return;
        }
        self.shared.destinations.set(destination, Some(published.clone()));
        let known = Known {
            published: Some(published),
            asked: now,
            answered: now,
        };
        self.known.insert(destination, known);
    }

    /// Forgets what is old, and asks anew for owners that packets still go to.
    fn sweep(&mut self, now: Instant) {
        let mut again = Vec::new();
        let shared = self.shared.clone();
        self.known.retain(|destination, known| {
            let keep = match &known.published {
                None => now < known.asked + FAILURE_TTL,
                Some(published) if published.owner.is_none() => now < known.answered + NOBODY_TTL,
                Some(_) => {
                    let pause = match known.asked > known.answered {
                        true => FAILURE_TTL,
                        false => OWNER_TTL,
                    };
                    if now >= known.asked + pause {
                        again.push(*destination);
                    }
                    now < known.answered + OWNER_MOST
                }
            };
            if !keep && known.published.is_some() {
                shared.destinations.set(*destination, None);
            }
            keep
        });
        for destination in again {
            let used = self
                .known
                .get(&destination)
                .and_then(|known| known.published.as_ref())
                .is_some_and(|published| published.used.load(Relaxed));
            let asked = self.asking.values().any(|asked| *asked == destination);
            if !used {
                self.known.remove(&destination);
                self.shared.destinations.set(destination, None);
            } else if !asked && self.lookups.len() < MAX_LOOKUPS {
                self.ask(destination);
            }
        }
    }

    /// The peer of this id, with senders for its streams.
    fn peer(&mut self, id: PeerId) -> Option<(u32, Arc<Peer>)> {
        let peers = self.shared.peers.load_full();
        if let Some(index) = self.by_id.get(&id) {
            return Some((*index, peers.get(*index as usize)?.clone()));
        }
        if peers.len() >= MAX_PEERS {
            warn!(peer = %id, n_peers = MAX_PEERS, "no room for another peer");
            return None;
        }
        let streams = self.shared.config.streams().scaling().scaler;
        let peer = Arc::new(Peer::new(id, streams.max, streams.min));
        let index = peers.len() as u32;
        let mut more = Vec::clone(&peers);
        more.push(peer.clone());
        self.shared.peers.store(Arc::new(more));
        self.by_id.insert(id, index);
        for stream in 0..streams.max {
            self.senders.spawn(peer::send(
                self.pool.clone(),
                peer.clone(),
                StreamIndex(stream as u8),
                self.finish.clone(),
            ));
        }
        Some((index, peer))
    }
}

fn answer(destination: IpAddr, known: &Known) -> Result<PeerId, DispatchError> {
    match &known.published {
        None => Err(DispatchError::Resolving { destination }),
        Some(published) => match &published.owner {
            Some((_, peer)) => Ok(peer.id),
            None => Err(DispatchError::UnknownPeer { destination }),
        },
    }
}
