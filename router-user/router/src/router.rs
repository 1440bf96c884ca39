//! The router for programs that bring their own packets, streams and discovery.
//!
//! # How to embed it
//! 1. Say where streams come from: a [`StreamPool`]. The node's own network is one (`p2p::NetworkHandle`, with the feature
//!    `libp2p`); any reliable byte stream will do.
//! 2. Say whose an address is: a [`PeerDiscovery`]. Those that [ship](crate::discovery) can be chained with your own; a
//!    node's configuration is a [`StaticDiscovery`](crate::discovery::StaticDiscovery).
//! 3. Make a [`StreamRouterConfig`], a [`StreamRouter`] in a tokio runtime, and call
//!    [`StreamRouter::dispatch_packet`] with each IP packet, from as many tasks and threads as you like.
//! 4. On the other side [receive](crate::receive): read each stream's frames, and check that the source of a packet is the
//!    sending peer's.
//! 5. In the end [`StreamRouter::shutdown`].
//!
//! The [start page](crate) has a whole program.
//!
//! The path of a packet:
//!
//! 1. `dispatch_packet` parses it to a flow, and looks up whose its destination is.
//! 2. The cache of flows says which worker the flow has; a new flow gets one by a keyed hash over 1024 slots, of which
//!    each worker has its share. The packet is copied into the queue of that worker.
//! 3. The worker takes its packets in order, finds the flow's stream, and lays frames before that stream, those of flows
//!    that send little first.
//! 4. One task per stream writes them, 64 KiB at a time.
//!
//! Sequential: everything of one flow. Parallel: dispatchers, workers, streams. Packets of a flow stay in the order of
//! their `dispatch_packet` calls, where these have one, however workers and streams come and go: a flow has its worker
//! and its stream for as long as no pause between two packets is longer than `connection_ttl`. More flows at a time than
//! `max_connections` may have the longest idle one placed anew.
//!
//! # The first packet to a destination
//! Discovery is never on the path of a packet: what it answers is remembered, 60 s for an owner (and asked for again
//! while packets go there), 5 s for nobody, 1 s for a failure ([`DispatchError::DiscoveryFailed`]). An
//! [answer](crate::discovery::Answer) about a network is remembered for every address in it. Until the first answer
//! `dispatch_packet` returns [`DispatchError::Resolving`] and counts that; nothing is held back inside, where it would
//! need a bound of its own and could change the order. The caller still has the packet: it can await
//! [`StreamRouter::resolve`] and dispatch again, or leave it to its sender.
//!
//! # What is dropped
//! Nothing that was taken, but for what goes down with a stream that fails ([`PeerStats::n_lost`]). When a worker or a
//! peer is behind, packets are refused at the door ([`DispatchError::QueueFull`], [`DispatchError::PeerBusy`]), as the
//! caller knows best what to do then. For the same reason there is no CoDel here, as the node has.
//!
//! # Examples
//! `cargo run -p stream-router --example NAME`: `in_memory`, `custom_discovery`, `two_routers`, `tun_device`,
//! `usage`.

mod destinations;
mod error;
mod manager;
#[cfg(feature = "libp2p")]
mod network_pool;
mod networks;
mod peer;
mod pool;
mod queue;
mod resolver;
mod stats;
mod sync;
#[cfg(test)]
mod tests;
mod worker;

use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use libp2p_identity::PeerId;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};

pub use crate::config::{
    FieldProblem, StreamRouterConfig, StreamRouterConfigBuilder, StreamRouterConfigError,
};
use crate::discovery::PeerDiscovery;
use crate::egress::cancellation::{AbortOnDrop, CancellationToken};
use destinations::Destinations;
pub use error::DispatchError;
use manager::Manager;
use peer::RouterPeer;
pub use pool::{PoolError, StreamPool};
use queue::{Refused, Tag};
use resolver::{Ask, MAX_ASKS, Resolver};
use router_common::flow_hash::{HashKey, flow_hash};
use router_common::frame::{MAX_PACKET_LEN, MIN_PACKET_LEN};
use router_common::packet::{Parsed, parse};
use router_common::reason::Reason;
use router_common::slots::{MAX_WORKERS, SLOT_COUNT, slot};
use stats::RouterCounters;
pub use stats::{PeerStats, RefusedPackets, RouterStats, ShutdownReport};
use stream_router_engine::flow_cache::{FlowCache, StreamIndex, Tick};
use stream_router_engine::fragments::FragmentTable;
use worker::WorkerInbox;

/// Requests for another number of workers or streams that may wait.
const MAX_REQUESTS: usize = 16;

/// Routes packets to peers. Cheap to clone; all clones are one router, which ends when the last one is dropped.
///
/// ```
/// use futures::future::BoxFuture;
/// use stream_router::discovery::StaticDiscovery;
/// use stream_router::{DispatchError, PeerId, PoolError, StreamPool, StreamRouter, StreamRouterConfig};
///
/// struct Sink;
///
/// impl StreamPool for Sink {
///     type Stream = futures::io::Sink;
///
///     fn open(&self, _: PeerId) -> BoxFuture<'_, Result<Self::Stream, PoolError>> {
///         Box::pin(async { Ok(futures::io::sink()) })
///     }
///
///     fn list(&self, _: PeerId) -> Vec<String> {
///         Vec::new()
///     }
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let discovery = StaticDiscovery::new([("10.0.0.0/8".parse()?, PeerId::random())]);
/// let router = StreamRouter::new(StreamRouterConfig::default(), Sink, discovery);
/// assert!(matches!(router.dispatch_packet(b"hello"), Err(DispatchError::Malformed { .. })));
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct StreamRouter(Arc<Inner>);

struct Inner {
    shared: Arc<Shared>,
    asks: mpsc::Sender<Ask>,
    requests: mpsc::Sender<ScaleRequest>,
    list: Box<dyn Fn(PeerId) -> Vec<String> + Send + Sync>,
    tasks: Mutex<Option<Tasks>>,
}

/// Aborted when dropped.
struct Tasks {
    manager: AbortOnDrop<()>,
    resolver: AbortOnDrop<JoinSet<()>>,
    stop: CancellationToken,
    finish: CancellationToken,
}

/// A request for a number of workers or streams, whatever the load says.
enum ScaleRequest {
    Workers(u32),
    Streams(u32),
}

/// What the tasks and the dispatchers share.
struct Shared {
    config: StreamRouterConfig,
    hash_key: HashKey,
    fragments: FragmentTable,
    counters: RouterCounters,
    destinations: Destinations,
    peers: ArcSwap<Vec<Arc<RouterPeer>>>,
    /// Workers, by flow.
    workers_of_flows: FlowCache,
    streams_of_flows: FlowCache,
    /// Now, for dispatchers, which read no clock.
    tick: AtomicU32,
    slots: Vec<AtomicU8>,
    inboxes: Vec<OnceLock<Arc<WorkerInbox>>>,
    closing: AtomicBool,
    n_workers: AtomicU32,
    n_retired_workers: AtomicU32,
    n_flows: AtomicU64,
}

impl StreamRouter {
    /// Starts the initial workers on the current runtime.
    ///
    /// # Panics
    /// Outside a tokio runtime with time enabled.
    pub fn new(
        config: StreamRouterConfig,
        stream_pool: impl StreamPool,
        peer_discovery: impl PeerDiscovery,
    ) -> Self {
        let shared = Arc::new(Shared::new(config));
        let (stop, finish) = (CancellationToken::new(), CancellationToken::new());
        let (asks, asked) = mpsc::channel(MAX_ASKS);
        let (requests, requested) = mpsc::channel(MAX_REQUESTS);
        let stream_pool = Arc::new(stream_pool);
        let list = {
            let stream_pool = stream_pool.clone();
            Box::new(move |peer| stream_pool.list(peer))
        };
        let resolver = Resolver::new(shared.clone(), stream_pool, peer_discovery, finish.clone());
        let tasks = Tasks {
            manager: AbortOnDrop(tokio::spawn(
                Manager::new(shared.clone()).run(requested, stop.clone()),
            )),
            resolver: AbortOnDrop(tokio::spawn(resolver.run(asked, stop.clone()))),
            stop,
            finish,
        };
        Self(Arc::new(Inner {
            shared,
            asks,
            requests,
            list,
            tasks: Mutex::new(Some(tasks)),
        }))
    }

    /// Takes an IP packet, from its IP header on, to be written to a stream of the peer that its destination belongs to.
    ///
    /// Copies the packet and never blocks; may be called from any thread.
    ///
    /// # Errors
    /// The packet was not taken; each reason is counted.
    pub fn dispatch_packet(&self, packet: &[u8]) -> Result<(), DispatchError> {
        let shared = &self.0.shared;
        match self.dispatch(packet, |destination| self.route(destination)) {
            Ok(worker) => {
                if let Some(inbox) = shared.inbox(worker) {
                    inbox.wake();
                }
                Ok(())
            }
            Err(error) => Err(shared.counters.refuse(error)),
        }
    }

    /// Takes many packets, in order; `handle_refused` gets the index of each that was not taken, and why. Returns how many
    /// were taken.
    ///
    /// Costs less than one call for each: workers are woken once.
    pub fn dispatch_batch<'a>(
        &self,
        packets: impl IntoIterator<Item = &'a [u8]>,
        mut handle_refused: impl FnMut(usize, DispatchError),
    ) -> usize {
        let shared = &self.0.shared;
        let (mut n_taken, mut to_wake) = (0, 0_u32);
        let mut recent = Recent::new(shared);
        for (index, packet) in packets.into_iter().enumerate() {
            let find = |destination| {
                recent
                    .route(destination)
                    .unwrap_or_else(|| recent.keep(destination, self.route(destination)))
            };
            match self.dispatch(packet, find) {
                Ok(worker) => {
                    n_taken += 1;
                    to_wake |= 1 << worker;
                }
                Err(error) => handle_refused(index, shared.counters.refuse(error)),
            }
        }
        for worker in (0..MAX_WORKERS).filter(|worker| to_wake & 1 << worker != 0) {
            if let Some(inbox) = shared.inbox(worker) {
                inbox.wake();
            }
        }
        n_taken
    }

    /// Waits until the owner of `destination` is known, so that packets to it are taken.
    ///
    /// # Errors
    /// [`DispatchError::UnknownPeer`]; [`DispatchError::DiscoveryFailed`] with the cause, until a second has passed;
    /// [`DispatchError::Resolving`] if too many wait for this destination; [`DispatchError::ShuttingDown`].
    pub async fn resolve(&self, destination: IpAddr) -> Result<PeerId, DispatchError> {
        let known = self
            .0
            .shared
            .destinations
            .look_up(destination, |known| known.map(|known| known.owner(destination)));
        if let Some(owner) = known {
            return owner;
        }
        let (reply, answer) = oneshot::channel();
        let ask = Ask {
            destination,
            reply: Some(reply),
        };
        if self.0.asks.send(ask).await.is_err() {
            return Err(DispatchError::ShuttingDown);
        }
        match answer.await {
            Ok(answer) => answer,
            Err(_dropped) if self.0.shared.closing.load(Relaxed) => Err(DispatchError::ShuttingDown),
            Err(_dropped) => Err(DispatchError::Resolving { destination }),
        }
    }

    /// Lets `n` workers take new flows, within `min_workers` and `max_workers`, until the next decision by load.
    pub async fn set_workers(&self, n: u32) {
        // A router that has ended has no workers to set.
        let _ended = self.0.requests.send(ScaleRequest::Workers(n)).await;
    }

    /// Lets `n` streams to each peer take new flows, within the configured bounds, until the next decision by load.
    pub async fn set_streams(&self, n: u32) {
        // A router that has ended has no streams to set.
        let _ended = self.0.requests.send(ScaleRequest::Streams(n)).await;
    }

    /// Returns the streams to `peer` that its pool has open.
    pub fn list_streams(&self, peer: PeerId) -> Vec<String> {
        (self.0.list)(peer)
    }

    /// Returns what was counted so far.
    pub fn stats(&self) -> RouterStats {
        let shared = &self.0.shared;
        RouterStats {
            n_processed: shared
                .inboxes()
                .map(|inbox| inbox.n_processed.load(Relaxed))
                .sum(),
            n_waiting: shared
                .inboxes()
                .map(|inbox| u64::from(inbox.queue.n_waiting()))
                .sum(),
            refused: shared.counters.refused(),
            n_workers: shared.n_workers.load(Relaxed),
            n_retired_workers: shared.n_retired_workers.load(Relaxed),
            n_flows: shared.n_flows.load(Relaxed),
            n_destinations: shared.destinations.len() as u64,
            n_lookups: shared.counters.n_lookups.load(Relaxed),
            n_failed_lookups: shared.counters.n_failed_lookups.load(Relaxed),
            n_refused_answers: shared.counters.n_refused_answers.load(Relaxed),
            n_fragments_alone: shared.counters.n_fragments_alone.load(Relaxed),
            peers: shared.peers.load().iter().map(|peer| peer.stats()).collect(),
        }
    }

    /// Takes no more packets, writes those that were taken, and closes every stream; gives up after `within`.
    ///
    /// Other clones get [`DispatchError::ShuttingDown`] from now on. A second call reports what the first one has done so
    /// far.
    pub async fn shutdown(self, within: Duration) -> ShutdownReport {
        let deadline = Instant::now() + within;
        let shared = &self.0.shared;
        shared.closing.store(true, Relaxed);
        let tasks = self.0.tasks.lock().unwrap_or_else(PoisonError::into_inner).take();
        let mut closed = false;
        if let Some(tasks) = tasks {
            closed = tasks.end(deadline).await;
        }
        let peers = shared.peers.load();
        let stats: Vec<_> = peers.iter().map(|peer| peer.stats()).collect();
        ShutdownReport {
            n_written: stats.iter().map(|peer| peer.n_written).sum(),
            undelivered: stats
                .iter()
                .map(|peer| (peer.peer, peer.n_accepted.saturating_sub(peer.n_written)))
                .filter(|(_, n)| *n > 0)
                .collect(),
            closed: closed && peers.iter().all(|peer| !peer.unclosed.load(Relaxed)),
        }
    }

    /// Queues a packet; returns the worker that may have to be woken. `find` says which peer it goes to.
    fn dispatch(
        &self,
        packet: &[u8],
        find: impl FnOnce(IpAddr) -> Result<u32, DispatchError>,
    ) -> Result<u32, DispatchError> {
        let parsed = whole_packet(packet).map_err(|reason| DispatchError::Malformed {
            reason: reason.name(),
        })?;
        let peer = find(parsed.key.destination_addr())?;
        let shared = &self.0.shared;
        let mut key = parsed.key;
        if parsed.fragment {
            match shared.fragments.flow_key(&parsed) {
                Some(of_packet) => key = of_packet,
                None => shared.counters.handle_fragment_alone(),
            }
        }
        let tag = Tag {
            flow_hash: flow_hash(&shared.hash_key, &key),
            peer,
        };
        shared.push(tag, packet)
    }

    /// Returns the index of the peer that a packet to `destination` goes to.
    fn route(&self, destination: IpAddr) -> Result<u32, DispatchError> {
        self.0
            .shared
            .destinations
            .look_up(destination, |known| match known {
                Some(known) => known.route(destination),
                None => Err(self.ask(destination)),
            })
    }

    /// Asks for the owner of `destination`, without waiting for the answer.
    #[cold]
    fn ask(&self, destination: IpAddr) -> DispatchError {
        if self.0.shared.closing.load(Relaxed) {
            return DispatchError::ShuttingDown;
        }
        let ask = Ask {
            destination,
            reply: None,
        };
        // When too many questions wait the next packet asks again.
        let _ = self.0.asks.try_send(ask);
        DispatchError::Resolving { destination }
    }
}

impl Tasks {
    /// Says whether everything ended in time.
    async fn end(mut self, deadline: Instant) -> bool {
        self.stop.cancel();
        if timeout_at(deadline, &mut self.manager.0).await.is_err() {
            return false;
        }
        let Ok(Ok(mut senders)) = timeout_at(deadline, &mut self.resolver.0).await else {
            return false;
        };
        self.finish.cancel();
        let all = async { while senders.join_next().await.is_some() {} };
        if timeout_at(deadline, all).await.is_ok() {
            return true;
        }
        senders.shutdown().await;
        false
    }
}

/// Most packets of a batch that go by one look at the table.
const MAX_RECENT: u32 = 64;

/// Where the last packet of a batch went, as the next one mostly goes there too.
struct Recent {
    peers: Arc<Vec<Arc<RouterPeer>>>,
    last: Option<(IpAddr, u32)>,
    n_left: u32,
}

impl Recent {
    fn new(shared: &Shared) -> Self {
        Self {
            peers: shared.peers.load_full(),
            last: None,
            n_left: 0,
        }
    }

    fn route(&mut self, destination: IpAddr) -> Option<Result<u32, DispatchError>> {
        let (known, index) = self.last?;
        if known != destination {
            return None;
        }
        self.n_left = self.n_left.checked_sub(1)?;
        // One that was found since has to be looked up.
        let peer = self.peers.get(index as usize)?;
        Some(if peer.busy.load(Relaxed) {
            Err(DispatchError::PeerBusy { peer: peer.id })
        } else {
            Ok(index)
        })
    }

    fn keep(&mut self, destination: IpAddr, found: Result<u32, DispatchError>) -> Result<u32, DispatchError> {
        self.last = found.as_ref().ok().map(|index| (destination, *index));
        self.n_left = MAX_RECENT;
        found
    }
}

impl Shared {
    fn new(config: StreamRouterConfig) -> Self {
        let connections = config.connections();
        let now = Instant::now().into_std();
        let cache = || {
            FlowCache::new(
                connections.shards(),
                connections.max_entries(),
                connections.ttl(),
                now,
            )
        };
        let hash_key = random_key();
        Self {
            hash_key,
            fragments: FragmentTable::new(hash_key),
            counters: RouterCounters::default(),
            destinations: Destinations::new(connections.shards()),
            peers: ArcSwap::default(),
            workers_of_flows: cache(),
            streams_of_flows: cache(),
            tick: AtomicU32::new(0),
            slots: (0..SLOT_COUNT).map(|_| AtomicU8::new(0)).collect(),
            inboxes: (0..MAX_WORKERS).map(|_| OnceLock::new()).collect(),
            closing: AtomicBool::new(false),
            n_workers: AtomicU32::new(0),
            n_retired_workers: AtomicU32::new(0),
            n_flows: AtomicU64::new(0),
            config,
        }
    }

    fn push(&self, tag: Tag, packet: &[u8]) -> Result<u32, DispatchError> {
        let hash = tag.flow_hash;
        let now = Tick::from_bits(self.tick.load(Relaxed));
        let choose = || {
            let slot = self.slots.get(slot(hash) as usize);
            StreamIndex(slot.map_or(0, |worker| worker.load(Relaxed)))
        };
        loop {
            let chosen = self.workers_of_flows.stream(hash, now, choose);
            let worker = u32::from(chosen.0);
            let Some(inbox) = self.inbox(worker) else {
                return Err(DispatchError::ShuttingDown);
            };
            match inbox.queue.push(tag, packet) {
                Ok(()) => return Ok(worker),
                Err(Refused::Full) => return Err(DispatchError::QueueFull { worker }),
                Err(Refused::Closed) if self.closing.load(Relaxed) || choose() == chosen => {
                    return Err(DispatchError::ShuttingDown);
                }
                // The worker went while this flow began.
                Err(Refused::Closed) => self.workers_of_flows.forget(hash, chosen),
            }
        }
    }

    fn inbox(&self, worker: u32) -> Option<&Arc<WorkerInbox>> {
        self.inboxes.get(worker as usize)?.get()
    }

    fn inbox_or_new(&self, worker: u32) -> Option<Arc<WorkerInbox>> {
        let workers = self.config.workers();
        let new = || {
            Arc::new(WorkerInbox::new(
                workers.queue_size(),
                workers.ring_bytes() as usize,
            ))
        };
        Some(self.inboxes.get(worker as usize)?.get_or_init(new).clone())
    }

    fn inboxes(&self) -> impl Iterator<Item = &Arc<WorkerInbox>> {
        self.inboxes.iter().filter_map(OnceLock::get)
    }
}

/// Makes a key that nobody can know, of what the standard library takes from the system for its own maps.
fn random_key() -> HashKey {
    let random = RandomState::new();
    HashKey {
        k0: random.hash_one(0),
        k1: random.hash_one(1),
    }
}

/// Parses a packet that is neither cut short nor followed by anything.
fn whole_packet(packet: &[u8]) -> Result<Parsed, Reason> {
    if packet.len() < MIN_PACKET_LEN {
        return Err(Reason::Truncated);
    }
    if packet.len() > MAX_PACKET_LEN {
        return Err(Reason::TooLarge);
    }
    let parsed = parse(packet, packet.len() as u32)?;
    if parsed.total_len as usize != packet.len() {
        return Err(Reason::BadTotalLength);
    }
    Ok(parsed)
}
