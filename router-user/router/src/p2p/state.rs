//! The state of the network that others than the driver read: the behaviour adds established connections, the driver
//! what it learns, and the handle reads it.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, hash_map::Entry},
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, atomic::Ordering::Relaxed},
    time::{Duration, SystemTime},
};

use libp2p::{Multiaddr, PeerId, swarm::ConnectionId};
use tokio::{
    runtime::Handle,
    sync::{mpsc, oneshot},
};

use super::{
    address::{TransportKind, ip_of},
    counters::LiveNetworkCounters,
    error::OpenError,
    found::FoundAddress,
    handshakes::Handshakes,
    life::{Doubt, SignsOfLife},
    losses::Losses,
    punch::Relayed,
    reach::{FailedDial, FailedPunch, ReachSnapshot, Served},
    redial_book::Lead,
    snapshot::{ConnectionDirection, ConnectionSnapshot, NetworkSnapshot, PeerSnapshot},
    spare_connections::Standing,
    stream::DataStream,
    stream_slots::{ConnectionSlots, StreamSlot, StreamSlots},
    transport::SegmentBook,
    uplink::{UplinkId, Uplinks, Way},
};
use crate::egress::lane_stream::LaneStream;

/// Most addresses of a peer whose failures are remembered; any more replace the oldest.
const MAX_FAILED: usize = 32;

/// The shared state of the network.
#[derive(Debug)]
pub(super) struct NetworkState {
    pub(super) local_peer: PeerId,
    /// A random number of this network, which peers tell from those of one that ran before.
    pub(super) run: u64,
    pub(super) counters: Arc<LiveNetworkCounters>,
    pub(super) handshakes: Arc<Handshakes>,
    /// What is learnt of paths that lose large packets.
    pub(super) segments: Arc<SegmentBook>,
    pub(super) uplinks: Uplinks,
    /// What this node relays, if it does.
    served: OnceLock<Arc<Served>>,
    tables: Mutex<Tables>,
    /// The last peer that was refused as it is not configured, for the log.
    last_refused: Mutex<Option<PeerId>>,
}

#[derive(Debug, Default)]
struct Tables {
    connections: BTreeMap<ConnectionId, ConnectionEntry>,
    /// What the connections are used for, from their handshakes on.
    lives: HashMap<ConnectionId, Arc<SignsOfLife>>,
    /// The slots of their streams, likewise.
    slots: HashMap<ConnectionId, ConnectionSlots>,
    listening: Vec<Multiaddr>,
    mapped: Vec<Multiaddr>,
    reach: ReachSnapshot,
    /// The connections of each peer that has any. There may be as many as there are peers.
    by_peer: HashMap<PeerId, BTreeSet<ConnectionId>>,
    /// The configured peers in order of configuration.
    peers: Vec<PeerEntry>,
    /// Where they are in it.
    places: HashMap<PeerId, usize>,
}

/// What is known of a configured peer.
#[derive(Debug)]
struct PeerEntry {
    peer: PeerId,
    last_dial_error: Option<String>,
    /// Where dialling it failed since it was last reached.
    failed: Vec<FailedDial>,
    /// Why it has no direct connection, while it has one through a relay alone.
    failed_punch: Option<FailedPunch>,
    /// Whether it refused this node, the last time it was dialled, as one that it does not know.
    refuses: bool,
    /// How many connections are to stand.
    n_wanted: usize,
    /// Where this node last reached it over TCP.
    reached_over_tcp: Option<Multiaddr>,
    found: Vec<FoundAddress>,
}

impl PeerEntry {
    fn new(peer: PeerId) -> Self {
        Self {
            peer,
            last_dial_error: None,
            failed: Vec::new(),
            failed_punch: None,
            refuses: false,
            n_wanted: 1,
            reached_over_tcp: None,
            found: Vec::new(),
        }
    }
}

impl PeerEntry {
    /// Forgets what failed at the address of the last failure before, and the oldest if there is one too many.
    fn forget_failed(&mut self) {
        let Some(last) = self.failed.pop() else { return };
        self.failed.retain(|other| other.address != last.address);
        if self.failed.len() == MAX_FAILED {
            self.failed.remove(0);
        }
        self.failed.push(last);
    }
}

/// How far apart the two connections come up that both sides have dialled at once, over a slow link too.
const DIALLED_AT_ONCE: Duration = Duration::from_secs(3);

/// A connection as it was established.
#[derive(Debug)]
pub(super) struct ConnectionEntry {
    pub(super) peer: PeerId,
    pub(super) address: Multiaddr,
    pub(super) direction: ConnectionDirection,
    pub(super) transport: TransportKind,
    pub(super) since: SystemTime,
    pub(super) rtt: Option<Duration>,
    pub(super) runtime: Handle,
    pub(super) opener: StreamOpener,
    pub(super) inbound_slots: Arc<StreamSlots>,
    pub(super) life: Arc<SignsOfLife>,
    /// Whether the peer is known to have taken the connection in. Until then it is shown to nobody.
    pub(super) is_proven: bool,
    /// Whether the connection is to be left.
    pub(super) is_leaving: bool,
    /// Whether the peer does not answer on it.
    pub(super) is_silent: bool,
    /// Whether nothing passes on it: another is tried beside it until the peer answers, or is silent.
    pub(super) is_dark: bool,
    /// Whether both sides have dialled at once, as they had agreed through a relay. A NAT lets no other connection pass.
    pub(super) is_punched: bool,
    /// Whether this node has dialled it from its listening port, which the peer so sees.
    pub(super) is_from_listening_port: bool,
    /// The uplink that it counts for.
    pub(super) uplink: UplinkId,
    /// Whether it is known to be of that one.
    pub(super) is_of_uplink: bool,
    /// What counts its packets.
    pub(super) losses: Arc<Losses>,
}

/// The way to the task of a connection, which opens streams.
#[derive(Clone, Debug)]
pub(super) struct StreamOpener {
    /// Holds as many requests as there are slots, so that the holder of a slot can always send.
    pub(super) requests: mpsc::Sender<OpenStreamRequest>,
    pub(super) slots: Arc<StreamSlots>,
}

/// A request to open a stream. Dropping it unanswered says that the connection is gone.
#[derive(Debug)]
pub(super) struct OpenStreamRequest {
    /// Which of its lane's streams it is, if it is one of a lane.
    pub(super) place: Option<LaneStream>,
    pub(super) slot: StreamSlot,
    pub(super) reply: oneshot::Sender<Result<DataStream, OpenError>>,
}

impl NetworkState {
    pub(super) fn new(local_peer: PeerId, peers: impl IntoIterator<Item = PeerId>, uplinks: Uplinks) -> Self {
        let counters = Arc::<LiveNetworkCounters>::default();
        Self {
            local_peer,
            run: rand::random(),
            handshakes: Arc::new(Handshakes::new(Arc::clone(&counters))),
            counters,
            segments: Arc::default(),
            uplinks,
            served: OnceLock::new(),
            tables: Mutex::new({
                let mut tables = Tables::default();
                tables.set_peers(peers);
                tables
            }),
            last_refused: Mutex::default(),
        }
    }

    pub(super) fn insert_connection(&self, connection: ConnectionId, entry: ConnectionEntry) {
        let mut tables = self.tables();
        if entry.was_dialled_over_tcp()
            && let Some(peer) = tables.peer_mut(entry.peer)
        {
            peer.reached_over_tcp = Some(entry.address.clone());
        }
        tables.by_peer.entry(entry.peer).or_default().insert(connection);
        tables.connections.insert(connection, entry);
    }

    /// Records that the peer has moved to another address, and the connection with it. The others of the peer are pinged soon:
    /// they may be left where it was.
    pub(super) fn handle_moved(&self, connection: ConnectionId, address: &Multiaddr) {
        let mut tables = self.tables();
        let Some(entry) = tables.connections.get_mut(&connection) else {
            return;
        };
        entry.address.clone_from(address);
        let peer = entry.peer;
        let others = tables.of_peer(peer).filter(|(id, _)| *id != connection);
        others.for_each(|(_, entry)| entry.life.doubt(Doubt::Chance));
    }

    pub(super) fn remove_connection(&self, connection: ConnectionId) {
        let mut tables = self.tables();
        if let Some(entry) = tables.connections.remove(&connection)
            && let Entry::Occupied(mut of_peer) = tables.by_peer.entry(entry.peer)
        {
            of_peer.get_mut().remove(&connection);
            if of_peer.get().is_empty() {
                of_peer.remove();
            }
        }
        tables.lives.remove(&connection);
        tables.slots.remove(&connection);
    }

    /// Records that the peer has taken a connection in.
    pub(super) fn set_proven(&self, connection: ConnectionId) {
        if let Some(entry) = self.tables().connections.get_mut(&connection) {
            entry.is_proven = true;
        }
    }

    pub(super) fn is_configured(&self, peer: PeerId) -> bool {
        self.tables().places.contains_key(&peer)
    }

    /// Says whether a peer is configured, and counts one that is not and knocks.
    pub(super) fn admits(&self, peer: PeerId) -> bool {
        let is_known = self.is_configured(peer);
        if !is_known {
            self.counters.unknown_peers_refused.fetch_add(1, Relaxed);
            *self.last_refused() = Some(peer);
        }
        is_known
    }

    /// Takes the last peer that [`NetworkState::admits`] has refused.
    pub(super) fn take_refused(&self) -> Option<PeerId> {
        self.last_refused().take()
    }

    fn last_refused(&self) -> MutexGuard<'_, Option<PeerId>> {
        self.last_refused.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn set_rtt(&self, connection: ConnectionId, rtt: Duration) {
        if let Some(entry) = self.tables().connections.get_mut(&connection) {
            entry.rtt = Some(rtt);
            entry.is_dark = false;
        }
    }

    /// Returns what a connection is used for, which is the same for all that ask until the connection is removed.
    pub(super) fn life(&self, connection: ConnectionId) -> Arc<SignsOfLife> {
        Arc::clone(self.tables().lives.entry(connection).or_default())
    }

    /// Returns the slots of a connection's streams, which are the same for all that ask until the connection is removed.
    pub(super) fn slots(&self, connection: ConnectionId) -> ConnectionSlots {
        self.tables().slots.entry(connection).or_default().clone()
    }

    /// Has the other connections of a peer pinged soon: a peer that connects anew may have lost them. Those that came up while
    /// the new one did, which took so long, or just before it are not in doubt.
    pub(super) fn doubt_others(&self, peer: PeerId, new: ConnectionId, took: Duration) {
        let is_older = |entry: &ConnectionEntry| {
            // If the clock was set back, nothing is known of its age.
            let age = entry.since.elapsed().ok();
            age.is_none_or(|age| age >= took + DIALLED_AT_ONCE)
        };
        let tables = self.tables();
        let others = tables.of_peer(peer).filter(|(id, _)| *id != new);
        let older = others.filter(|(_, entry)| is_older(entry));
        older.for_each(|(_, entry)| entry.life.doubt(Doubt::Chance));
    }

    /// Has all connections of a peer pinged at once.
    pub(super) fn doubt_peer(&self, peer: PeerId) {
        let tables = self.tables();
        tables
            .of_peer(peer)
            .for_each(|(_, entry)| entry.life.doubt(Doubt::Chance));
    }

    /// Has the connections of the peers at a host, to which they stall, pinged at once, of which others may lead elsewhere. Returns
    /// those peers, with the uplinks to the host.
    pub(super) fn doubt_host(&self, host: IpAddr, doubt: Doubt) -> BTreeSet<Lead> {
        let mut tables = self.tables();
        let is_there = |entry: &ConnectionEntry| ip_of(&entry.address) == Some(host);
        if doubt == Doubt::Stall {
            let there = tables.connections.values_mut().filter(|entry| is_there(entry));
            there.for_each(|entry| entry.is_dark = true);
        }
        let stalling = tables.connections.values().filter(|entry| is_there(entry));
        let leads: BTreeSet<_> = stalling.map(|entry| (entry.peer, entry.uplink)).collect();
        let peers: BTreeSet<_> = leads.iter().map(|(peer, _)| *peer).collect();
        let doubted = peers.into_iter().flat_map(|peer| tables.of_peer(peer));
        doubted.for_each(|(_, entry)| match is_there(entry) {
            true => entry.life.doubt(doubt),
            false => entry.life.doubt(Doubt::Chance),
        });
        leads
    }

    /// Returns the connections of a peer that are over TCP at the host of another, and older than that.
    pub(super) fn older_over_tcp(&self, connection: ConnectionId, age: Duration) -> Vec<ConnectionId> {
        let tables = self.tables();
        let Some(new) = tables.connections.get(&connection) else {
            return Vec::new();
        };
        let is_older = |entry: &ConnectionEntry| {
            // If the clock was set back, nothing is known of its age.
            let is_older = entry.since.elapsed().ok().is_none_or(|since| since > age);
            let is_there = entry.uplink == new.uplink && ip_of(&entry.address) == ip_of(&new.address);
            is_older && is_there && entry.transport == TransportKind::Tcp
        };
        let others = tables.of_peer(new.peer).filter(|(id, _)| *id != connection);
        let older = others.filter(|(_, entry)| is_older(entry));
        older.map(|(id, _)| id).collect()
    }

    /// Has all connections pinged at once: the host's addresses have changed, and some may lead nowhere.
    pub(super) fn doubt_all(&self) {
        let tables = self.tables();
        tables
            .connections
            .values()
            .for_each(|entry| entry.life.doubt(Doubt::Chance));
    }

    /// Returns every connection with a number that is another one whenever packets have come or gone on it.
    pub(super) fn uses(&self) -> Vec<(ConnectionId, u64)> {
        let tables = self.tables();
        let connections = tables.connections.iter();
        connections
            .map(|(id, entry)| (*id, entry.life.n_uses()))
            .collect()
    }

    /// Records whether a connection is to be left.
    pub(super) fn set_leaving(&self, connection: ConnectionId, is_leaving: bool) {
        if let Some(entry) = self.tables().connections.get_mut(&connection) {
            entry.is_leaving = is_leaving;
        }
    }

    /// Records whether the peer does not answer on a connection.
    pub(super) fn set_silent(&self, connection: ConnectionId, is_silent: bool) {
        if let Some(entry) = self.tables().connections.get_mut(&connection) {
            entry.is_silent = is_silent;
        }
    }

    /// Returns the proven connections of every peer that are not to be left, and how many of them are to stand: none while one of them
    /// is dark. `rank`
    /// gives the place of the address of a connection to a peer, and `cost` what an uplink costs.
    pub(super) fn standing(
        &self,
        rank: impl Fn(Lead, &Multiaddr, ConnectionDirection) -> usize,
        cost: impl Fn(UplinkId) -> u32,
    ) -> Vec<(PeerId, usize, Vec<Standing>)> {
        let tables = self.tables();
        let of_peer = |peer: &PeerEntry| {
            // Which one is needed shows when the doubt is over.
            let in_doubt = |(_, entry): (_, &ConnectionEntry)| entry.is_dark && !entry.is_silent;
            let is_clear = !tables.of_peer(peer.peer).any(in_doubt);
            let standing = tables
                .of_peer(peer.peer)
                .filter(|(_, entry)| is_clear && entry.is_proven && !entry.is_leaving);
            let standing = standing.map(|(connection, entry)| Standing {
                connection,
                rank: rank((peer.peer, entry.uplink), &entry.address, entry.direction),
                is_own: entry.direction == ConnectionDirection::Outbound,
                is_relayed: entry.transport == TransportKind::Relay,
                // A clock that was set back makes it younger.
                age: entry.since.elapsed().unwrap_or_default(),
                uplink: entry.uplink,
                cost: cost(entry.uplink),
                is_silent: entry.is_silent,
                is_from_listening_port: entry.is_from_listening_port,
            });
            (peer.peer, peer.n_wanted, standing.collect::<Vec<_>>())
        };
        // Most peers of a large mesh have no connection.
        let places = tables.by_peer.keys().filter_map(|peer| tables.places.get(peer));
        let places: BTreeSet<_> = places.collect();
        let known = places.into_iter().filter_map(|place| tables.peers.get(*place));
        known.map(of_peer).collect()
    }

    /// Sets how many connections to a peer are to stand.
    pub(super) fn set_wanted(&self, peer: PeerId, n_wanted: usize) {
        if let Some(entry) = self.tables().peer_mut(peer) {
            entry.n_wanted = n_wanted;
        }
    }

    /// Records that one connection more than there are is to stand.
    pub(super) fn want_another(&self, peer: PeerId) {
        let mut tables = self.tables();
        let n_standing = tables
            .of_peer(peer)
            .filter(|(_, entry)| !entry.is_leaving)
            .count();
        if let Some(entry) = tables.peer_mut(peer) {
            entry.n_wanted = entry.n_wanted.max(n_standing + 1);
        }
    }

    /// Returns the peer of a connection that this node has dialled.
    pub(super) fn dialled_peer(&self, connection: ConnectionId) -> Option<PeerId> {
        let tables = self.tables();
        let entry = tables.connections.get(&connection)?;
        (entry.direction == ConnectionDirection::Outbound).then_some(entry.peer)
    }

    pub(super) fn set_listening(&self, listening: Vec<Multiaddr>) {
        self.tables().listening = listening;
    }

    /// Sets the addresses at which routers forward to this node.
    pub(super) fn set_mapped(&self, mapped: Vec<Multiaddr>) {
        self.tables().mapped = mapped;
    }

    pub(super) fn mapped(&self) -> Vec<Multiaddr> {
        self.tables().mapped.clone()
    }

    /// Sets the configured peers. What is known of those that stay is kept.
    pub(super) fn set_peers(&self, peers: impl IntoIterator<Item = PeerId>) {
        self.tables().set_peers(peers);
    }

    pub(super) fn set_found(&self, peer: PeerId, found: Vec<FoundAddress>) {
        if let Some(entry) = self.tables().peer_mut(peer) {
            entry.found = found;
        }
    }

    /// Records that dialling a peer failed; `refuses` says whether the peer refused this node as one that it does not know.
    pub(super) fn set_dial_error(
        &self,
        peer: PeerId,
        address: Option<Multiaddr>,
        error: String,
        refuses: bool,
    ) {
        if let Some(entry) = self.tables().peer_mut(peer) {
            entry
                .failed
                .extend(address.map(|address| FailedDial::now(address, error.clone())));
            entry.forget_failed();
            entry.last_dial_error = Some(error);
            entry.refuses = refuses;
        }
    }

    /// Records that an address did not lead to a peer, which is connected through a relay meanwhile.
    pub(super) fn set_address_error(&self, peer: PeerId, address: Multiaddr, error: String) {
        if let Some(entry) = self.tables().peer_mut(peer) {
            entry.failed.push(FailedDial::now(address, error));
            entry.forget_failed();
        }
    }

    /// Records that a peer was reached. Where it was not stays of interest while no direct way is known.
    pub(super) fn clear_dial_error(&self, peer: PeerId, transport: TransportKind) {
        if let Some(entry) = self.tables().peer_mut(peer) {
            entry.last_dial_error = None;
            if transport != TransportKind::Relay {
                entry.failed.clear();
            }
            entry.refuses = false;
        }
    }

    /// Records why there is no direct connection with a peer; `None` if there is one, or none at all.
    pub(super) fn set_failed_punch(&self, peer: PeerId, failed: Option<FailedPunch>) {
        if let Some(entry) = self.tables().peer_mut(peer) {
            entry.failed_punch = failed;
        }
    }

    /// Returns the peer of a connection.
    pub(super) fn peer_of(&self, connection: ConnectionId) -> Option<PeerId> {
        let tables = self.tables();
        tables.connections.get(&connection).map(|entry| entry.peer)
    }

    /// Returns what counts what this node relays.
    pub(super) fn served(&self) -> Arc<Served> {
        Arc::clone(self.served.get_or_init(Arc::default))
    }

    pub(super) fn reach(&self) -> ReachSnapshot {
        self.with_served(&self.tables().reach)
    }

    fn with_served(&self, reach: &ReachSnapshot) -> ReachSnapshot {
        ReachSnapshot {
            serves: self.served.get().map(|served| served.snapshot()),
            ..reach.clone()
        }
    }

    pub(super) fn set_reach(&self, reach: ReachSnapshot) {
        self.tables().reach = reach;
    }

    pub(super) fn opener(&self, connection: ConnectionId) -> Option<StreamOpener> {
        let tables = self.tables();
        tables
            .connections
            .get(&connection)
            .map(|entry| entry.opener.clone())
    }

    /// Returns the runtime of a connection, and the peer's address.
    pub(super) fn runtime_and_address(&self, connection: ConnectionId) -> Option<(Handle, Multiaddr)> {
        let tables = self.tables();
        let entry = tables.connections.get(&connection)?;
        Some((entry.runtime.clone(), entry.address.clone()))
    }

    /// Returns which way a connection goes.
    pub(super) fn way(&self, connection: ConnectionId) -> Way {
        let tables = self.tables();
        let entry = tables.connections.get(&connection);
        entry.map_or_else(|| Way::new(None, None), |entry| entry.way(&self.uplinks))
    }

    /// Returns the uplink that a connection counts for.
    pub(super) fn uplink(&self, connection: ConnectionId) -> UplinkId {
        let tables = self.tables();
        let entry = tables.connections.get(&connection);
        entry.map_or(UplinkId::FIRST, |entry| entry.uplink)
    }

    /// Returns the remote addresses of all connections.
    pub(super) fn remotes(&self) -> Vec<SocketAddr> {
        let tables = self.tables();
        let remotes = tables.connections.values();
        // Any port does: only the way to the host is looked up.
        remotes
            .filter_map(|entry| Some(SocketAddr::new(ip_of(&entry.address)?, 9)))
            .collect()
    }

    /// Returns the runtimes of a peer's connections.
    pub(super) fn runtimes(&self, peer: PeerId) -> Vec<Handle> {
        let tables = self.tables();
        tables
            .of_peer(peer)
            .map(|(_, entry)| entry.runtime.clone())
            .collect()
    }

    /// Returns the remote address of the oldest TCP connection that this node dialled to a peer. If all of those are
    /// gone, and one that the peer dialled over TCP is not, it is the address of the last one.
    pub(super) fn dialled_over_tcp(&self, peer: PeerId) -> Option<Multiaddr> {
        if self.uplinks.are_configured() {
            // Each uplink has a connection, whatever is sent.
            return None;
        }
        let tables = self.tables();
        let connections = || tables.of_peer(peer).map(|(_, entry)| entry);
        let dialled = connections().filter(|entry| entry.was_dialled_over_tcp());
        if let Some(oldest) = dialled.min_by_key(|entry| entry.since) {
            return Some(oldest.address.clone());
        }
        let over_tcp = connections().any(|entry| entry.transport == TransportKind::Tcp);
        let known = tables.peers.get(*tables.places.get(&peer)?)?;
        known.reached_over_tcp.clone().filter(|_| over_tcp)
    }

    /// Says whether this node has dialled a connection from its listening port.
    pub(super) fn is_from_listening_port(&self, connection: ConnectionId) -> bool {
        let tables = self.tables();
        let entry = tables.connections.get(&connection);
        entry.is_some_and(|entry| entry.is_from_listening_port)
    }

    /// Returns where a peer is that this node has dialled from another port than the listening one alone, and by which uplink.
    pub(super) fn dialled_from_elsewhere(&self, peer: PeerId) -> Option<(UplinkId, Multiaddr)> {
        let tables = self.tables();
        let is_own = |entry: &&ConnectionEntry| {
            entry.direction == ConnectionDirection::Outbound && entry.transport != TransportKind::Relay
        };
        let own = || tables.of_peer(peer).map(|(_, entry)| entry).filter(is_own);
        let oldest = own().min_by_key(|entry| entry.since)?;
        let is_seen = own().any(|entry| entry.is_from_listening_port);
        (!is_seen).then(|| (oldest.uplink, oldest.address.clone()))
    }

    /// Records that a connection was agreed on through a relay.
    pub(super) fn set_punched(&self, connection: ConnectionId) {
        if let Some(entry) = self.tables().connections.get_mut(&connection) {
            entry.is_punched = true;
        }
    }

    /// Returns how a peer is connected through relays; `None` if it is connected directly, or not at all.
    pub(super) fn relayed_alone(&self, peer: PeerId) -> Option<Relayed> {
        let tables = self.tables();
        let proven: Vec<_> = tables
            .of_peer(peer)
            .filter(|(_, entry)| entry.is_proven)
            .collect();
        if proven
            .iter()
            .any(|(_, entry)| entry.transport != TransportKind::Relay)
        {
            return None;
        }
        let of = |direction| proven.iter().find(|(_, entry)| entry.direction == direction);
        let (theirs, own) = (
            of(ConnectionDirection::Inbound),
            of(ConnectionDirection::Outbound),
        );
        Some(Relayed {
            connection: theirs.or(own)?.0,
            is_dialled: theirs.is_some(),
            has_dialled: own.is_some(),
        })
    }

    /// Says whether a peer has a proven connection that does not lead through a relay.
    pub(super) fn is_directly_connected(&self, peer: PeerId) -> bool {
        let tables = self.tables();
        let mut of_peer = tables.of_peer(peer);
        of_peer.any(|(_, entry)| entry.is_proven && entry.transport != TransportKind::Relay)
    }

    /// Returns how many connections a peer has, and how many of them this node has dialled by an uplink, does not leave, and are
    /// as good as one over `transport`: through a relay is worse than any other way.
    pub(super) fn n_connections(&self, (peer, uplink): Lead, transport: TransportKind) -> (usize, usize) {
        let tables = self.tables();
        let stays = |entry: &ConnectionEntry| {
            let is_as_good = entry.transport != TransportKind::Relay || transport == TransportKind::Relay;
            let is_own = entry.direction == ConnectionDirection::Outbound;
            let is_needed = !entry.is_leaving && !entry.is_silent && !entry.is_dark;
            is_own && entry.uplink == uplink && is_as_good && is_needed
        };
        (
            tables.of_peer(peer).count(),
            tables.of_peer(peer).filter(|(_, entry)| stays(entry)).count(),
        )
    }

    pub(super) fn listening(&self) -> Vec<Multiaddr> {
        self.tables().listening.clone()
    }

    pub(super) fn snapshot(&self) -> NetworkSnapshot {
        let tables = self.tables();
        let peer_snapshot = |entry: &PeerEntry| {
            let of_peer = tables.of_peer(entry.peer).filter(|(_, entry)| entry.is_proven);
            let mut connections: Vec<_> = of_peer
                .map(|(id, entry)| entry.snapshot(id, &self.uplinks))
                .collect();
            connections.sort_by_key(|connection| (connection.is_leaving, connection.since));
            PeerSnapshot {
                peer: entry.peer,
                connections,
                last_dial_error: entry.last_dial_error.clone(),
                failed: entry.failed.clone(),
                failed_punch: entry.failed_punch.clone(),
                refuses: entry.refuses,
                found: entry.found.clone(),
            }
        };
        NetworkSnapshot {
            local_peer: self.local_peer,
            listening: tables.listening.clone(),
            mapped: tables.mapped.clone(),
            reach: self.with_served(&tables.reach),
            peers: tables.peers.iter().map(peer_snapshot).collect(),
            counters: self.counters.read(),
        }
    }

    fn tables(&self) -> MutexGuard<'_, Tables> {
        self.tables.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Tables {
    fn of_peer(&self, peer: PeerId) -> impl Iterator<Item = (ConnectionId, &ConnectionEntry)> {
        let connections = self.by_peer.get(&peer).into_iter().flatten();
        connections.filter_map(|id| Some((*id, self.connections.get(id)?)))
    }

    fn peer_mut(&mut self, peer: PeerId) -> Option<&mut PeerEntry> {
        self.peers.get_mut(*self.places.get(&peer)?)
    }

    /// Sets the configured peers; what is known of those that stay is kept.
    fn set_peers(&mut self, peers: impl IntoIterator<Item = PeerId>) {
        let before = std::mem::take(&mut self.peers);
        let mut before: HashMap<_, _> = before.into_iter().map(|entry| (entry.peer, entry)).collect();
        self.peers = peers
            .into_iter()
            .map(|peer| before.remove(&peer).unwrap_or_else(|| PeerEntry::new(peer)))
            .collect();
        self.places = self.peers.iter().map(|entry| entry.peer).zip(0..).collect();
    }
}

impl ConnectionEntry {
    fn was_dialled_over_tcp(&self) -> bool {
        let is_tcp = (self.direction, self.transport) == (ConnectionDirection::Outbound, TransportKind::Tcp);
        is_tcp && !self.is_leaving && !self.is_punched
    }

    fn way(&self, uplinks: &Uplinks) -> Way {
        let uplink = uplinks.get(self.uplink).filter(|_| self.is_of_uplink);
        let is_direct = self.transport != TransportKind::Relay;
        let host = ip_of(&self.address).filter(|_| is_direct);
        Way::new(uplink.cloned(), host)
    }

    fn snapshot(&self, connection: ConnectionId, uplinks: &Uplinks) -> ConnectionSnapshot {
        ConnectionSnapshot {
            connection,
            address: self.address.clone(),
            direction: self.direction,
            transport: self.transport,
            since: self.since,
            is_punched: self.is_punched,
            uplink: self.way(uplinks).uplink,
            is_silent: self.is_silent,
            is_leaving: self.is_leaving,
            rtt: self.rtt,
            loss: self.losses.share(),
            n_inbound_streams: self.inbound_slots.n_taken(),
            n_outbound_streams: self.opener.slots.n_taken(),
        }
    }
}

#[cfg(test)]
pub(in crate::p2p) mod tests;
