//! What is connected: shared by the behaviour, which fills it, and the handle, which reads it.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, SystemTime},
};

use libp2p::{Multiaddr, PeerId, core::Endpoint, swarm::ConnectionId};
use tokio::{
    runtime::Handle,
    sync::{Semaphore, mpsc, oneshot},
};

use super::{FoundAddress, MAX_STREAMS_PER_SIDE, OpenError, TransportKind, stream::DataStream};

/// Who opened a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// The peer dialled us.
    Inbound,
    /// We dialled the peer.
    Outbound,
}

/// The state of the network at one moment.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// Our own id.
    pub local_peer: PeerId,
    /// The addresses we listen on.
    pub listening: Vec<Multiaddr>,
    /// Every configured peer, in order of configuration.
    pub peers: Vec<PeerSnapshot>,
    /// What was refused or failed since the start.
    pub counters: Counters,
}

/// A configured peer at one moment.
#[derive(Clone, Debug)]
pub struct PeerSnapshot {
    /// Its id.
    pub peer: PeerId,
    /// Its connections, oldest first.
    pub connections: Vec<ConnectionSnapshot>,
    /// Why the last attempt to dial it failed, if none succeeded since.
    pub last_dial_error: Option<String>,
    /// Addresses that were found and not configured, the nearest first.
    pub found: Vec<FoundAddress>,
}

/// A connection at one moment.
#[derive(Clone, Debug)]
pub struct ConnectionSnapshot {
    /// Its id, unique in this process.
    pub connection: ConnectionId,
    /// The peer's address.
    pub address: Multiaddr,
    /// Who dialled.
    pub direction: Direction,
    /// What carries it.
    pub transport: TransportKind,
    /// When it was established.
    pub since: SystemTime,
    /// The last measured round trip.
    pub rtt: Option<Duration>,
    /// Live streams of our protocol that the peer opened.
    pub n_inbound_streams: usize,
    /// Live streams of our protocol that we opened.
    pub n_outbound_streams: usize,
}

/// What was refused or failed since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Connections of peers that are not configured.
    pub unknown_peers_refused: u64,
    /// Connections beyond what one peer may have.
    pub connections_refused: u64,
    /// Inbound connections beyond what may be brought up at a time.
    pub handshakes_refused: u64,
    /// Inbound connections that failed before they were up.
    pub inbound_failures: u64,
    /// Dial attempts that failed.
    pub dial_failures: u64,
    /// Inbound streams beyond what one connection may have.
    pub streams_refused: u64,
    /// Records of the DHT that were neither believed nor kept.
    pub records_refused: u64,
}

/// [`Counters`] as they count.
#[derive(Debug, Default)]
pub(super) struct LiveCounters {
    pub(super) unknown_peers_refused: AtomicU64,
    pub(super) connections_refused: AtomicU64,
    pub(super) handshakes_refused: AtomicU64,
    pub(super) inbound_failures: AtomicU64,
    pub(super) dial_failures: AtomicU64,
    pub(super) streams_refused: AtomicU64,
    pub(super) records_refused: AtomicU64,
}

/// The established connections of all peers.
#[derive(Debug)]
pub(super) struct Connections {
    pub(super) local_peer: PeerId,
    pub(super) counters: LiveCounters,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    by_id: BTreeMap<ConnectionId, Entry>,
    listening: Vec<Multiaddr>,
    peers: Vec<(PeerId, Option<String>)>,
    found: HashMap<PeerId, Vec<FoundAddress>>,
}

/// A connection as it was established.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) peer: PeerId,
    pub(super) address: Multiaddr,
    pub(super) direction: Direction,
    pub(super) transport: TransportKind,
    pub(super) since: SystemTime,
    pub(super) rtt: Option<Duration>,
    pub(super) runtime: Handle,
    pub(super) opener: Opener,
    pub(super) inbound_slots: Arc<Semaphore>,
}

/// The way to the task of a connection.
#[derive(Clone, Debug)]
pub(super) struct Opener {
    /// Holds as many requests as there are slots, so whoever has a slot can send.
    pub(super) requests: mpsc::Sender<OpenRequest>,
    pub(super) slots: Arc<Semaphore>,
}

/// A wish for a stream. Dropping it unanswered says that the connection is gone.
#[derive(Debug)]
pub(super) struct OpenRequest {
    pub(super) slot: tokio::sync::OwnedSemaphorePermit,
    pub(super) reply: oneshot::Sender<Result<DataStream, OpenError>>,
}

impl Connections {
    pub(super) fn new(local_peer: PeerId, peers: impl IntoIterator<Item = PeerId>) -> Self {
        let peers = peers.into_iter().map(|peer| (peer, None)).collect();
        let state = Mutex::new(State {
            peers,
            ..State::default()
        });
        Self {
            local_peer,
            counters: LiveCounters::default(),
            state,
        }
    }

    pub(super) fn insert(&self, connection: ConnectionId, entry: Entry) {
        self.state().by_id.insert(connection, entry);
    }

    pub(super) fn remove(&self, connection: ConnectionId) -> bool {
        self.state().by_id.remove(&connection).is_some()
    }

    pub(super) fn set_rtt(&self, connection: ConnectionId, rtt: Duration) {
        if let Some(entry) = self.state().by_id.get_mut(&connection) {
            entry.rtt = Some(rtt);
        }
    }

    pub(super) fn set_listening(&self, listening: Vec<Multiaddr>) {
        self.state().listening = listening;
    }

    pub(super) fn set_peers(&self, peers: impl IntoIterator<Item = PeerId>) {
        let mut state = self.state();
        let mut errors: HashMap<_, _> = std::mem::take(&mut state.peers).into_iter().collect();
        state.peers = peers
            .into_iter()
            .map(|peer| (peer, errors.remove(&peer).flatten()))
            .collect();
        let State { peers, found, .. } = &mut *state;
        found.retain(|peer, _| peers.iter().any(|known| known.0 == *peer));
    }

    pub(super) fn set_found(&self, peer: PeerId, found: Vec<FoundAddress>) {
        self.state().found.insert(peer, found);
    }

    pub(super) fn set_dial_error(&self, peer: PeerId, error: Option<String>) {
        if let Some(known) = self.state().peers.iter_mut().find(|known| known.0 == peer) {
            known.1 = error;
        }
    }

    pub(super) fn opener(&self, connection: ConnectionId) -> Option<Opener> {
        self.state()
            .by_id
            .get(&connection)
            .map(|entry| entry.opener.clone())
    }

    /// The runtime of a connection, and the peer's address.
    pub(super) fn place(&self, connection: ConnectionId) -> Option<(Handle, Multiaddr)> {
        self.state()
            .by_id
            .get(&connection)
            .map(|entry| (entry.runtime.clone(), entry.address.clone()))
    }

    /// The runtimes of a peer's connections.
    pub(super) fn runtimes(&self, peer: PeerId) -> Vec<Handle> {
        let state = self.state();
        let of_peer = state.by_id.values().filter(|entry| entry.peer == peer);
        of_peer.map(|entry| entry.runtime.clone()).collect()
    }

    /// Where the oldest TCP connection leads that we dialled to a peer.
    pub(super) fn dialled_over_tcp(&self, peer: PeerId) -> Option<Multiaddr> {
        let state = self.state();
        let dialled = state.by_id.values().filter(|entry| {
            (entry.peer, entry.direction, entry.transport) == (peer, Direction::Outbound, TransportKind::Tcp)
        });
        Some(dialled.min_by_key(|entry| entry.since)?.address.clone())
    }

    /// How many connections a peer has, and how many of them we dialled.
    pub(super) fn count(&self, peer: PeerId) -> (usize, usize) {
        let state = self.state();
        let of_peer = || state.by_id.values().filter(|entry| entry.peer == peer);
        (
            of_peer().count(),
            of_peer()
                .filter(|entry| entry.direction == Direction::Outbound)
                .count(),
        )
    }

    pub(super) fn snapshot(&self) -> Snapshot {
        let state = self.state();
        let peer_snapshot = |(peer, error): &(PeerId, Option<String>)| {
            let of_peer = state.by_id.iter().filter(|(_, entry)| entry.peer == *peer);
            let mut connections: Vec<_> = of_peer.map(|(id, entry)| entry.snapshot(*id)).collect();
            connections.sort_by_key(|connection| connection.since);
            PeerSnapshot {
                peer: *peer,
                connections,
                last_dial_error: error.clone(),
                found: state.found.get(peer).cloned().unwrap_or_default(),
            }
        };
        Snapshot {
            local_peer: self.local_peer,
            listening: state.listening.clone(),
            peers: state.peers.iter().map(peer_snapshot).collect(),
            counters: self.counters.read(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Entry {
    fn snapshot(&self, connection: ConnectionId) -> ConnectionSnapshot {
        let in_use = |slots: &Semaphore| MAX_STREAMS_PER_SIDE.saturating_sub(slots.available_permits());
        ConnectionSnapshot {
            connection,
            address: self.address.clone(),
            direction: self.direction,
            transport: self.transport,
            since: self.since,
            rtt: self.rtt,
            n_inbound_streams: in_use(&self.inbound_slots),
            n_outbound_streams: in_use(&self.opener.slots),
        }
    }
}

impl LiveCounters {
    fn read(&self) -> Counters {
        Counters {
            unknown_peers_refused: self.unknown_peers_refused.load(Relaxed),
            connections_refused: self.connections_refused.load(Relaxed),
            handshakes_refused: self.handshakes_refused.load(Relaxed),
            inbound_failures: self.inbound_failures.load(Relaxed),
            dial_failures: self.dial_failures.load(Relaxed),
            streams_refused: self.streams_refused.load(Relaxed),
            records_refused: self.records_refused.load(Relaxed),
        }
    }
}

impl From<Endpoint> for Direction {
    fn from(endpoint: Endpoint) -> Self {
        match endpoint {
            Endpoint::Dialer => Self::Outbound,
            Endpoint::Listener => Self::Inbound,
        }
    }
}
