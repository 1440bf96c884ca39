//! Asks whose a destination is, beside the path of packets, and remembers the answers.

#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use ipnet::IpNet;
use libp2p_identity::PeerId;
use tokio::sync::{mpsc, oneshot};
use tokio::task::{self, JoinError, JoinSet};
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};
use tracing::{debug, warn};

use super::destinations::Known;
use super::networks::{NetworkAnswer, Networks};
use super::peer::{self, RouterPeer};
use super::{DispatchError, Shared, StreamPool};
use crate::discovery::{Answer, DiscoveryError, PeerDiscovery};
use crate::egress::cancellation::CancellationToken;
use stream_router_engine::flow_cache::StreamIndex;
use stream_router_engine::log_rate_limit::LogRateLimit;

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
/// Between two reports that there is no room.
const REPORT_INTERVAL: Duration = Duration::from_secs(10);
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
struct Remembered {
    known: Known,
    /// When the last question was answered, or failed.
    asked: Instant,
    /// When it was last answered.
    answered: Instant,
    /// The network that the answer was about, if it was about more than this destination.
    network: Option<IpNet>,
}

/// A question that the discovery has been asked.
#[derive(Clone, Copy)]
struct Question {
    destination: IpAddr,
    /// The network whose answer is to be renewed.
    network: Option<IpNet>,
}

/// What came of one of the look-ups.
type Ended = Result<(task::Id, Result<Answer, DiscoveryError>), JoinError>;

/// Asks the discovery, and starts the senders of each peer it names.
pub(super) struct Resolver<P, D> {
    shared: Arc<Shared>,
    pool: Arc<P>,
    discovery: Arc<D>,
    finish: CancellationToken,
    remembered: HashMap<IpAddr, Remembered>,
    /// From which destinations that nobody has asked for yet get their answer.
    networks: Networks,
    by_id: HashMap<PeerId, u32>,
    lookups: JoinSet<Result<Answer, DiscoveryError>>,
    asking: HashMap<task::Id, Question>,
    waiting: HashMap<IpAddr, Vec<Reply>>,
    senders: JoinSet<()>,
    no_room: LogRateLimit,
}

impl<P: StreamPool, D: PeerDiscovery> Resolver<P, D> {
    /// Senders end, with nothing waiting, once `finish` is cancelled.
    pub(super) fn new(shared: Arc<Shared>, pool: Arc<P>, discovery: D, finish: CancellationToken) -> Self {
        Self {
            shared,
            pool,
            discovery: Arc::new(discovery),
            finish,
            remembered: HashMap::new(),
            networks: Networks::default(),
            by_id: HashMap::new(),
            lookups: JoinSet::new(),
            asking: HashMap::new(),
            waiting: HashMap::new(),
            senders: JoinSet::new(),
            no_room: LogRateLimit::default(),
        }
    }

    /// Answers `asks` until `stop`; returns the senders, which run on.
    pub(super) async fn run(mut self, mut asks: mpsc::Receiver<Ask>, stop: CancellationToken) -> JoinSet<()> {
        let mut sweep = interval(SWEEP_INTERVAL);
        sweep.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = stop.cancelled() => return self.senders,
                Some(ask) = asks.recv(), if self.lookups.len() < MAX_LOOKUPS => self.handle_ask(ask, Instant::now()),
                Some(ended) = self.lookups.join_next_with_id() => self.handle_ended(ended, Instant::now()),
                _ = sweep.tick() => self.sweep(Instant::now()),
            }
        }
    }

    fn handle_ask(&mut self, ask: Ask, now: Instant) {
        let Ask { destination, reply } = ask;
        let answer = match self.remembered.get(&destination) {
            Some(remembered) => Some(remembered.known.owner(destination)),
            None => self.fresh_network(destination, now).map(|answer| {
                let known = self.learn(destination, answer.owner, Some(answer.network), answer.answered);
                known.owner(destination)
            }),
        };
        if let Some(answer) = answer {
            if let Some(reply) = reply {
                // The caller may have gone.
                let _ = reply.send(answer);
            }
            return;
        }
        let waiting = self.waiting.entry(destination).or_default();
        let is_new =
            waiting.is_empty() && !self.asking.values().any(|asked| asked.destination == destination);
        if let Some(reply) = reply
            && waiting.len() < MAX_WAITING
        {
            waiting.push(reply);
        }
        if is_new {
            self.ask(Question {
                destination,
                network: None,
            });
        }
    }

    fn ask(&mut self, question: Question) {
        let Question { destination, .. } = question;
        self.shared.counters.n_lookups.fetch_add(1, Relaxed);
        let discovery = self.discovery.clone();
        let lookup = self.lookups.spawn(async move {
            match timeout(LOOKUP_TIMEOUT, discovery.find_peer(destination)).await {
                Ok(answer) => answer,
                Err(elapsed) => Err(DiscoveryError::new(elapsed)),
            }
        });
        self.asking.insert(lookup.id(), question);
    }

    fn handle_ended(&mut self, ended: Ended, now: Instant) {
        let (id, outcome) = match ended {
            Ok((id, outcome)) => (id, outcome),
            Err(panicked) => (panicked.id(), Err(DiscoveryError::new(panicked))),
        };
        let Some(Question { destination, .. }) = self.asking.remove(&id) else {
            return;
        };
        let known = match outcome.and_then(|answer| self.check(destination, answer)) {
            Ok(answer) => self.handle_answer(destination, answer, now),
            Err(error) => self.handle_failure(destination, error, now),
        };
        let replies = self.waiting.remove(&destination).unwrap_or_default();
        for reply in replies {
            // The caller may have gone.
            let _ = reply.send(known.owner(destination));
        }
    }

    /// Refuses an answer to another question.
    fn check(&self, destination: IpAddr, answer: Answer) -> Result<Answer, DiscoveryError> {
        match answer.prefix {
            Some(prefix) if !prefix.contains(&destination) => {
                self.shared.counters.n_refused_answers.fetch_add(1, Relaxed);
                let error = format!("the answer is about {prefix}, which does not hold {destination}");
                Err(DiscoveryError::new(error))
            }
            _ => Ok(answer),
        }
    }

    fn handle_answer(&mut self, destination: IpAddr, answer: Answer, now: Instant) -> Known {
        // What was to be renewed is either said again or no longer true.
        self.networks.forget(destination, |answer| !is_fresh(answer, now));
        let wide = answer
            .prefix
            .filter(|prefix| prefix.prefix_len() < prefix.max_prefix_len());
        let Some(prefix) = wide else {
            return self.learn(destination, answer.peer, None, now);
        };
        let answer = NetworkAnswer {
            network: prefix.trunc(),
            owner: answer.peer,
            answered: now,
        };
        if !self.networks.insert(answer) {
            self.report_no_room("network");
        }
        // What was said of a longer prefix in the meantime counts for more.
        let answer = self.fresh_network(destination, now).unwrap_or(answer);
        self.learn(destination, answer.owner, Some(answer.network), answer.answered)
    }

    fn handle_failure(&mut self, destination: IpAddr, error: DiscoveryError, now: Instant) -> Known {
        self.shared.counters.n_failed_lookups.fetch_add(1, Relaxed);
        let cause = std::error::Error::source(&error).map(ToString::to_string);
        debug!(cause, "a lookup failed");
        if let Some(remembered) = self.remembered.get_mut(&destination) {
            // What was true before is better than nothing.
            remembered.asked = now;
            return remembered.known.clone();
        }
        let failed = Remembered {
            known: Known::Failed(error),
            asked: now,
            answered: now,
            network: None,
        };
        self.remember(destination, failed)
    }

    /// Returns the answer for the network around `destination` that was asked for not too long ago.
    fn fresh_network(&self, destination: IpAddr, now: Instant) -> Option<NetworkAnswer> {
        let answer = self.networks.covering(destination)?;
        is_fresh(answer, now).then_some(*answer)
    }

    fn learn(
        &mut self,
        destination: IpAddr,
        owner: Option<PeerId>,
        network: Option<IpNet>,
        answered: Instant,
    ) -> Known {
        let owner = owner.and_then(|id| self.peer(id));
        let learned = Remembered {
            known: owner.map_or(Known::Nobody, |(index, peer)| Known::Owner(index, peer)),
            asked: answered,
            answered,
            network,
        };
        self.remember(destination, learned)
    }

    fn remember(&mut self, destination: IpAddr, remembered: Remembered) -> Known {
        let known = remembered.known.clone();
        if self.remembered.len() >= MAX_DESTINATIONS && !self.remembered.contains_key(&destination) {
            self.report_no_room("destination");
            return known;
        }
        self.shared.destinations.set(destination, known.clone());
        self.remembered.insert(destination, remembered);
        known
    }

    fn report_no_room(&mut self, what: &'static str) {
        if let Some(n_suppressed) = self.no_room.due(Instant::now().into_std(), REPORT_INTERVAL) {
            warn!(what, n_suppressed, "no room to remember another answer");
        }
    }

    /// Forgets what is old, and asks anew for owners that packets still go to.
    fn sweep(&mut self, now: Instant) {
        self.networks
            .retain(|answer| now < answer.answered + longest(answer.owner.is_some()));
        let mut again = Vec::new();
        let shared = self.shared.clone();
        self.remembered.retain(|destination, remembered| {
            let keep = match &remembered.known {
                Known::Failed(_) => now < remembered.asked + FAILURE_TTL,
                Known::Nobody => now < remembered.answered + longest(false),
                Known::Owner(..) => {
                    let pause = match remembered.asked > remembered.answered {
                        true => FAILURE_TTL,
                        false => OWNER_TTL,
                    };
                    if now >= remembered.asked + pause {
                        again.push((*destination, remembered.network));
                    }
                    now < remembered.answered + longest(true)
                }
            };
            if !keep {
                shared.destinations.remove(*destination);
            }
            keep
        });
        for (destination, network) in again {
            self.renew(destination, network, now);
        }
    }

    /// Renews the answer for a destination, one question for each network, unless no packets go there.
    fn renew(&mut self, destination: IpAddr, network: Option<IpNet>, now: Instant) {
        if !self.remembered.contains_key(&destination) {
            return;
        }
        if !self.shared.destinations.is_used(destination) {
            self.remembered.remove(&destination);
            self.shared.destinations.remove(destination);
            return;
        }
        // An answer for this destination alone is not given up for one about more.
        if network.is_some()
            && let Some(answer) = self.fresh_network(destination, now)
        {
            self.learn(destination, answer.owner, Some(answer.network), answer.answered);
            return;
        }
        let network = network.filter(|network| self.networks.contains(network));
        let is_asked = self
            .asking
            .values()
            .any(|asked| asked.destination == destination || network.is_some() && asked.network == network);
        if !is_asked && self.lookups.len() < MAX_LOOKUPS {
            self.ask(Question { destination, network });
        }
    }

    /// Returns the peer of this id, with senders for its streams.
    fn peer(&mut self, id: PeerId) -> Option<(u32, Arc<RouterPeer>)> {
        let peers = self.shared.peers.load_full();
        if let Some(index) = self.by_id.get(&id) {
            return Some((*index, peers.get(*index as usize)?.clone()));
        }
        if peers.len() >= MAX_PEERS {
            self.report_no_room("peer");
            return None;
        }
        let streams = self.shared.config.streams().scaling().scaler;
        let peer = Arc::new(RouterPeer::new(id, streams.max, streams.min));
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

/// Says whether nobody has to ask again yet.
fn is_fresh(answer: &NetworkAnswer, now: Instant) -> bool {
    let ttl = if answer.owner.is_some() {
        OWNER_TTL
    } else {
        NOBODY_TTL
    };
    now < answer.answered + ttl
}

/// Returns how long an answer is remembered at most.
fn longest(has_owner: bool) -> Duration {
    if has_owner { OWNER_MOST } else { NOBODY_TTL }
}
