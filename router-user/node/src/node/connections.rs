//! Follows the peers' connections: which stand, and which of them carries which of the peer's senders.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use libp2p::Multiaddr;
use libp2p::multiaddr::Protocol;
use tokio::runtime::Handle;
use tokio::sync::{Notify, mpsc};
use tokio_util::task::AbortOnDropHandle;

use super::counters::{PacketCounter, PacketCounters};
use super::data_path::DataPath;
use super::demand;
use super::event_log::EventLog;
use super::hooks::{HookPeer, PeerEvents};
use super::lane_homes::{LaneHomes, Usable};
use super::peers::{LivePeers, NodePeer};
use super::sender;
use crate::control::EventKind;
use crate::spans::Spans;
use stream_router::egress::cancellation::CancellationToken;
use stream_router::egress::sender::SenderControl;
use stream_router::p2p::{ConnectionDirection, ConnectionId, NetworkEvent, NetworkHandle, PeerId};
use stream_router_engine::flow_cache::StreamIndex;

/// How long packets that were queued just as their peer came to rest are kept for the next connection.
const MAX_LEFT: Duration = Duration::from_secs(3);

/// Senders that may wait for another connection to be given to them.
const LEAVERS_CAPACITY: usize = 64;

/// Why a peer without another connection goes, when it is left.
const RESTS: &str = "its last connection is being left";

/// Why it comes back, when it is not left after all.
const STAYS: &str = "the connection that was being left stays";

/// Connections of one peer, oldest first, and the sender of each lane; none without a connection.
struct PeerConnections {
    /// The peer, which may be configured no more.
    peer: Arc<NodePeer>,
    /// What hooks are told of it.
    told: Arc<HookPeer>,
    connections: Vec<PeerConnection>,
    senders: Vec<LaneSender>,
}

/// A connection that stands.
struct PeerConnection {
    id: ConnectionId,
    runtime: Handle,
    /// Whether it is to be left.
    is_leaving: bool,
    /// What tells which lanes are on it.
    usable: Usable,
}

/// The running sender of a lane.
struct LaneSender {
    on: ConnectionId,
    control: SenderControl,
    task: AbortOnDropHandle<()>,
}

impl PeerConnections {
    /// The places of the lanes on the usable connections, when `n_most` are used of each way.
    fn homes(&self, n_most: usize) -> LaneHomes {
        let usable = self.usable().map(|connection| connection.usable.clone());
        LaneHomes::of(&usable.collect::<Vec<_>>(), n_most)
    }

    /// The connection that a lane belongs on.
    fn home(&self, lane: usize, homes: &LaneHomes) -> Option<&PeerConnection> {
        self.usable().nth(homes.of_lane(lane)?)
    }

    /// The connections that are not to be left. If there are only others, the peer comes to rest.
    fn usable(&self) -> impl Iterator<Item = &PeerConnection> {
        let connections = self.connections.iter();
        connections.filter(|connection| !connection.is_leaving)
    }

    /// Says whether a lane is to leave a connection at once: that is to be left, or goes another way than the lane's.
    fn is_left(&self, id: ConnectionId, lane: usize, homes: &LaneHomes) -> bool {
        let place = self.usable().position(|connection| connection.id == id);
        let home = homes.of_lane(lane);
        place
            .zip(home)
            .is_none_or(|(place, home)| homes.is_elsewhere(place, home))
    }
}

/// Keeps exactly one sender for each lane of each connected peer. The lanes take turns at the peer's oldest connections;
/// a lane changes its connection while it has no stream, so that no flow has frames on two.
pub(super) struct Connections {
    peers: Arc<LivePeers>,
    counters: Arc<PacketCounters>,
    network: NetworkHandle,
    demand: Arc<Notify>,
    hooks: PeerEvents,
    events: Arc<EventLog>,
    spans: Spans,
    n_most: usize,
    finish: CancellationToken,
    links: HashMap<PeerId, PeerConnections>,
    /// When peers have come to rest, unless that is long ago.
    resting: HashMap<PeerId, Instant>,
    left: mpsc::Sender<(PeerId, StreamIndex)>,
    leavers: mpsc::Receiver<(PeerId, StreamIndex)>,
}

impl Connections {
    /// Uses `n_most` connections to a peer. Senders stop, with their outboxes empty, once `finish` is cancelled.
    pub(super) fn new(
        data_path: DataPath,
        network: NetworkHandle,
        hooks: PeerEvents,
        (events, spans): (Arc<EventLog>, Spans),
        n_most: u32,
        finish: CancellationToken,
    ) -> Self {
        let (left, leavers) = mpsc::channel(LEAVERS_CAPACITY);
        Self {
            peers: data_path.peers,
            demand: data_path.demand,
            counters: data_path.counters,
            network,
            hooks,
            events,
            spans,
            n_most: n_most as usize,
            finish,
            links: HashMap::new(),
            resting: HashMap::new(),
            left,
            leavers,
        }
    }

    /// Follows `events` until `finish` is cancelled, then waits for every sender to finish.
    pub(super) async fn run(mut self, mut events: mpsc::Receiver<NetworkEvent>) {
        let finish = self.finish.clone();
        let mut demand = pin!(demand::run(
            self.peers.clone(),
            self.demand.clone(),
            self.network.clone()
        ));
        loop {
            tokio::select! {
                () = finish.cancelled() => break,
                never = &mut demand => match never {},
                event = events.recv() => match event {
                    Some(event) => self.handle_event(event).await,
                    None => break,
                },
                Some((peer, stream)) = self.leavers.recv() => self.handle_left(peer, stream),
            }
        }
        // Nobody waits for room in it any more.
        self.leavers.close();
        for sender in self.links.into_values().flat_map(|link| link.senders) {
            // A sender that panicked has said so itself; there is nothing left to wait for.
            let _panicked = sender.task.await;
        }
    }

    async fn handle_event(&mut self, event: NetworkEvent) {
        match event {
            NetworkEvent::Connected {
                peer,
                connection,
                runtime,
                address,
                direction,
                transport,
                way,
                took,
            } => {
                let mut span = self.spans.begin("peer.connect");
                span.began_before(took);
                span.set("stream_router.peer.id", peer);
                span.set("network.transport", transport);
                drop(span);
                let address: Multiaddr = address
                    .iter()
                    .filter(|part| !matches!(part, Protocol::P2p(_)))
                    .collect();
                let how = match direction {
                    ConnectionDirection::Outbound => format!("dialled at {address}"),
                    ConnectionDirection::Inbound => format!("it dialled from {address}"),
                };
                if let Some(link) = self.link(peer) {
                    link.connections.push(PeerConnection {
                        id: connection,
                        runtime,
                        is_leaving: false,
                        usable: Usable {
                            way,
                            is_inbound: direction == ConnectionDirection::Inbound,
                        },
                    });
                    self.place_senders(peer, None, &how).await;
                }
            }
            NetworkEvent::Unreached { peer, error, took } => {
                let mut span = self.spans.begin("peer.connect");
                span.began_before(took);
                span.set("stream_router.peer.id", peer);
                span.fail(error);
            }
            NetworkEvent::Leaving { peer, connection } => self.set_leaving(peer, connection, true).await,
            NetworkEvent::Staying { peer, connection } => self.set_leaving(peer, connection, false).await,
            NetworkEvent::Disconnected {
                peer,
                connection,
                cause,
            } => {
                if let Some(link) = self.links.get_mut(&peer) {
                    link.connections.retain(|other| other.id != connection);
                    self.place_senders(peer, Some(connection), &cause).await;
                }
            }
            _ => {}
        }
    }

    async fn set_leaving(&mut self, peer: PeerId, connection: ConnectionId, is_leaving: bool) {
        if let Some(link) = self.links.get_mut(&peer) {
            let mut connections = link.connections.iter_mut();
            if let Some(left) = connections.find(|other| other.id == connection) {
                left.is_leaving = is_leaving;
            }
            let why = if is_leaving { RESTS } else { STAYS };
            self.place_senders(peer, None, why).await;
        }
    }

    /// The link of a peer; none if it was configured when it connected, and now is no more.
    fn link(&mut self, id: PeerId) -> Option<&mut PeerConnections> {
        match self.links.entry(id) {
            Entry::Occupied(link) => Some(link.into_mut()),
            Entry::Vacant(place) => {
                let peers = self.peers.load();
                let configured = peers.configured(&id)?;
                Some(place.insert(PeerConnections {
                    peer: configured.peer.clone(),
                    told: HookPeer::of(configured),
                    connections: Vec::new(),
                    senders: Vec::new(),
                }))
            }
        }
    }

    /// A sender has left its connection, so that its lane can have one on another.
    fn handle_left(&mut self, id: PeerId, stream: StreamIndex) {
        let Some(link) = self.links.get(&id) else { return };
        let lane = usize::from(stream.0);
        // Its connection may have been lost meanwhile, and a new one started.
        if link
            .senders
            .get(lane)
            .is_some_and(|sender| sender.task.is_finished())
            && let Some(home) = link.home(lane, &link.homes(self.n_most))
        {
            let sender = self.start_sender(&link.peer, stream, home);
            if let Some(link) = self.links.get_mut(&id) {
                link.senders[lane] = sender;
            }
        }
    }

    /// Gives every lane that lacks one a sender where it belongs, and has the others move there when they can. If the peer
    /// comes or goes thereby, `why` says how.
    async fn place_senders(&mut self, id: PeerId, lost: Option<ConnectionId>, why: &str) {
        let Some(mut link) = self.links.remove(&id) else {
            return;
        };
        let peer = link.peer.clone();
        let mut senders = std::mem::take(&mut link.senders).into_iter();
        let (homes, now) = (link.homes(self.n_most), Instant::now());
        let n_used = homes.n_used();
        peer.n_least_streams.store(homes.n_least(), Relaxed);
        let was_connected = peer.connected.load(Relaxed);
        if n_used == 0 && was_connected {
            // From now on packets wait in their workers.
            peer.absence.begin(now);
            peer.connected.store(false, Relaxed);
        }
        // Without a connection nothing waits here, but for what a worker queued just as the last one went away, or was left.
        // Of these the latter goes by the next connection, if that comes soon.
        let is_lost = n_used == 0 && was_connected && link.connections.is_empty();
        let is_new = n_used > 0 && !was_connected;
        self.resting
            .retain(|_, since| now.duration_since(*since) < MAX_LEFT);
        if n_used == 0 && was_connected && !is_lost {
            self.resting.insert(id, now);
        }
        let is_stale = is_lost || is_new && self.resting.remove(&id).is_none();
        for (index, lane) in peer.lanes.all().iter().enumerate() {
            let mut sender = senders.next();
            if let Some(lost) = sender.take_if(|sender| Some(sender.on) == lost) {
                // Gone before the next one starts, or two could write the same flow.
                lost.task.abort();
                let _aborted = lost.task.await;
            }
            if is_stale {
                self.counters
                    .add(PacketCounter::TxStreamLost, lane.outbox.clear());
            }
            let Some(home) = link.home(index, &homes) else {
                if let Some(sender) = sender {
                    // The peer comes to rest: streams close once nothing waits.
                    lane.close.notify_one();
                    link.senders.push(sender);
                } else if !lane.outbox.is_empty() && peer.absence.want(now) {
                    self.demand.notify_one();
                }
                continue;
            };
            let sender = sender.unwrap_or_else(|| self.start_sender(&peer, StreamIndex(index as u8), home));
            if sender.on != home.id {
                sender.control.leave.cancel();
                if link.is_left(sender.on, index, &homes) {
                    sender.control.hurry.cancel();
                }
            }
            link.senders.push(sender);
        }
        peer.connected.store(n_used > 0, Relaxed);
        if was_connected != (n_used > 0) {
            self.hooks.tell(&link.told, n_used > 0);
            let kind = if n_used > 0 {
                EventKind::PeerUp
            } else {
                EventKind::PeerDown
            };
            self.events.note_of(kind, id, link.told.name(), why);
        }
        peer.n_connections.send_replace(n_used as u32);
        if !link.connections.is_empty() {
            self.links.insert(id, link);
        }
    }

    fn start_sender(&self, peer: &Arc<NodePeer>, stream: StreamIndex, home: &PeerConnection) -> LaneSender {
        let (on, runtime) = (home.id, &home.runtime);
        let control = SenderControl {
            leave: CancellationToken::new(),
            hurry: CancellationToken::new(),
            finish: self.finish.clone(),
        };
        let run = sender::run(
            peer.clone(),
            stream,
            on,
            self.network.clone(),
            self.counters.clone(),
            control.clone(),
        );
        let (id, left) = (peer.id, self.left.clone());
        let task = runtime.spawn(async move {
            run.await;
            // Nobody listens when the node stops.
            let _ = left.send((id, stream)).await;
        });
        LaneSender {
            on,
            control,
            task: AbortOnDropHandle::new(task),
        }
    }
}
