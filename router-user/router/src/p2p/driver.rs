//! The task that drives the swarm: dials absent peers, watches present ones, reports what changes.

mod finding;
mod report;

use std::{
    collections::{BTreeMap, HashMap, HashSet, VecDeque, btree_map},
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use futures::StreamExt;
use libp2p::{
    Multiaddr, PeerId, Swarm,
    core::ConnectedPoint,
    kad::{self, store::MemoryStore},
    metrics::{Metrics, Recorder, Registry},
    ping,
    swarm::{
        ConnectionError, ConnectionId, DialError, ListenError, NetworkBehaviour, SwarmEvent,
        behaviour::toggle::Toggle,
        dial_opts::{DialOpts, PeerCondition},
    },
};
use tokio::{
    sync::mpsc,
    time::{Instant, sleep_until, timeout_at},
};
use tokio_util::sync::CancellationToken;

use super::{
    Direction, NetworkEvent, PeerConfig,
    address::transport_kind,
    behaviour::{Refusal, Streams},
    connections::Connections,
    dht::Dht,
    found::Found,
    handle::Request,
    local_network::LocalNetwork,
    redial::Redial,
};
pub(super) use finding::Finding;
use report::{PeerLog, REPORT_INTERVAL, dial_error};
use stream_router_engine::{causes::with_sources, log_rate_limit::LogRateLimit};

/// Events that may wait here for room in the channel before the swarm has to wait too.
const MAX_BACKLOG: usize = 256;

/// How long closing all connections may take at the end; each has 1 s.
const STOP_TIMEOUT: Duration = Duration::from_secs(2);

/// [`Streams`] must be the last field: it knows then that nobody else refuses what it admits.
#[derive(NetworkBehaviour)]
pub(super) struct Behaviour {
    pub(super) ping: ping::Behaviour,
    pub(super) local_network: Toggle<LocalNetwork>,
    pub(super) kad: Toggle<kad::Behaviour<MemoryStore>>,
    pub(super) streams: Streams,
}

pub(super) struct Driver {
    swarm: Swarm<Behaviour>,
    connections: Arc<Connections>,
    peers: BTreeMap<PeerId, Peer>,
    links: HashMap<ConnectionId, Link>,
    finding: Finding,
    backlog: VecDeque<NetworkEvent>,
    events: mpsc::Sender<NetworkEvent>,
    requests: mpsc::Receiver<Request>,
    stop: CancellationToken,
    refusals: LogRateLimit,
    listener_errors: LogRateLimit,
    metrics: Metrics,
    registry: Registry,
}

struct Peer {
    redial: Redial,
    found: Found,
    log: PeerLog,
}

impl Peer {
    fn new(local_peer: PeerId, PeerConfig { peer, addresses }: PeerConfig, now: Instant) -> Self {
        Self {
            redial: Redial::new(addresses, local_peer > peer, now),
            found: Found::default(),
            log: PeerLog::default(),
        }
    }
}

/// An established connection.
struct Link {
    peer: PeerId,
    /// Reported as up and not yet as down.
    live: bool,
}

impl Driver {
    pub(super) fn new(
        swarm: Swarm<Behaviour>,
        peers: Vec<PeerConfig>,
        connections: Arc<Connections>,
        finding: Finding,
        events: mpsc::Sender<NetworkEvent>,
        requests: mpsc::Receiver<Request>,
        stop: CancellationToken,
    ) -> Self {
        let now = Instant::now();
        let local_peer = *swarm.local_peer_id();
        let mut registry = Registry::default();
        let metrics = Metrics::new(&mut registry);
        let peers = peers
            .into_iter()
            .map(|peer| (peer.peer, Peer::new(local_peer, peer, now)));
        Self {
            peers: peers.collect(),
            swarm,
            connections,
            links: HashMap::new(),
            finding,
            backlog: VecDeque::new(),
            events,
            requests,
            stop,
            refusals: LogRateLimit::default(),
            listener_errors: LogRateLimit::default(),
            metrics,
            registry,
        }
    }

    pub(super) fn take_metrics(&mut self) -> Registry {
        std::mem::take(&mut self.registry)
    }

    pub(super) async fn run(mut self) {
        let (stop, events) = (self.stop.clone(), self.events.clone());
        loop {
            let redials = self.peers.values().filter_map(|peer| peer.redial.poll_due());
            let due = redials
                .chain(self.finding.dht.as_ref().and_then(Dht::poll_due))
                .min();
            tokio::select! {
                () = stop.cancelled() => break,
                request = self.requests.recv() => match request {
                    Some(Request::Close(connection)) => { self.swarm.close_connection(connection); }
                    Some(Request::DialAnother(peer)) => self.dial_another(peer),
                    Some(Request::FindAnnouncement(peer, reply)) => self.find_announcement(peer, reply),
                    Some(Request::SetPeers(peers, done)) => {
                        self.set_peers(peers, Instant::now());
                        // Whoever asked may have gone.
                        let _ = done.send(());
                    }
                    // Every handle is gone.
                    None => break,
                },
                room = events.reserve(), if !self.backlog.is_empty() => match room {
                    Ok(room) => if let Some(event) = self.backlog.pop_front() { room.send(event) },
                    Err(_closed) => self.backlog.clear(),
                },
                event = self.swarm.select_next_some(), if self.backlog.len() < MAX_BACKLOG => {
                    self.handle_event(event, Instant::now());
                }
                () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {
                    self.dial(Instant::now());
                    self.run_dht(Instant::now());
                }
            }
        }
        self.close_all().await;
    }

    async fn close_all(mut self) {
        let deadline = Instant::now() + STOP_TIMEOUT;
        for peer in self.peers.keys() {
            // An error says that it was not connected; attempts to dial it are given up all the same.
            let _not_connected = self.swarm.disconnect_peer_id(*peer);
        }
        while !self.links.is_empty() {
            let Ok(event) = timeout_at(deadline, self.swarm.select_next_some()).await else {
                tracing::debug!(
                    connections = self.links.len(),
                    "not all connections closed in time"
                );
                break;
            };
            if let SwarmEvent::ConnectionEstablished { connection_id, .. } = event {
                self.swarm.close_connection(connection_id);
            }
            self.handle_event(event, Instant::now());
        }
        for event in std::mem::take(&mut self.backlog) {
            if !matches!(timeout_at(deadline, self.events.send(event)).await, Ok(Ok(()))) {
                break;
            }
        }
    }

    fn dial(&mut self, now: Instant) {
        for (id, peer) in &mut self.peers {
            let Some(address) = peer.redial.poll_attempt(now, rand::random()) else {
                continue;
            };
            let options = dial_options(*id, &address);
            let connection = options.connection_id();
            let streams = &mut self.swarm.behaviour_mut().streams;
            streams.handle_dial(connection);
            streams.handle_redial(connection);
            tracing::debug!(peer = %id, %connection, %address, "dialling");
            match self.swarm.dial(options) {
                Ok(()) => peer.redial.handle_attempt(connection),
                Err(error) => {
                    self.connections.counters.dial_failures.fetch_add(1, Relaxed);
                    let text = dial_error(&error);
                    peer.log.dial_failed(*id, &text);
                    self.connections.set_dial_error(*id, Some(text));
                }
            }
        }
    }

    fn set_peers(&mut self, peers: Vec<PeerConfig>, now: Instant) {
        let known: HashSet<_> = peers.iter().map(|peer| peer.peer).collect();
        self.connections.set_peers(peers.iter().map(|peer| peer.peer));
        let gone: Vec<_> = self.peers.extract_if(.., |id, _| !known.contains(id)).collect();
        self.swarm.behaviour_mut().streams.set_peers(known);
        for (id, _) in gone {
            let of_peer = self.links.iter().filter(|(_, link)| link.peer == id);
            for connection in of_peer.map(|(connection, _)| *connection).collect::<Vec<_>>() {
                self.handle_down(connection, "the peer is configured no more".to_owned(), now);
            }
            // An error says that it was not connected; attempts to dial it are given up all the same.
            let _not_connected = self.swarm.disconnect_peer_id(id);
            self.forget_peer(id);
        }
        let local_peer = *self.swarm.local_peer_id();
        let mut new_peers = Vec::new();
        for config in peers {
            let id = config.peer;
            let present = self.is_present(id);
            match self.peers.entry(id) {
                btree_map::Entry::Occupied(known) => {
                    known
                        .into_mut()
                        .redial
                        .set_addresses(config.addresses, present, now);
                }
                btree_map::Entry::Vacant(new) => {
                    new.insert(Peer::new(local_peer, config, now));
                    new_peers.push(id);
                }
            }
        }
        self.find_new_peers(&new_peers, now);
    }

    fn is_present(&self, peer: PeerId) -> bool {
        self.links.values().any(|link| link.peer == peer && link.live)
    }

    fn dial_another(&mut self, peer: PeerId) {
        let Some(address) = self.connections.dialled_over_tcp(peer) else {
            return;
        };
        let options = dial_options(peer, &address);
        let connection = options.connection_id();
        self.swarm.behaviour_mut().streams.handle_dial(connection);
        tracing::debug!(%peer, %connection, %address, "dialling another connection");
        if let Err(error) = self.swarm.dial(options) {
            self.connections.counters.dial_failures.fetch_add(1, Relaxed);
            tracing::debug!(%peer, error = dial_error(&error), "cannot dial another connection");
        }
    }

    fn handle_event(&mut self, event: SwarmEvent<BehaviourEvent>, now: Instant) {
        self.metrics.record(&event);
        match event {
            SwarmEvent::Behaviour(BehaviourEvent::Ping(ping)) => {
                self.metrics.record(&ping);
                self.handle_ping(ping, now);
            }
            SwarmEvent::Behaviour(BehaviourEvent::LocalNetwork(event)) => self.handle_local(event, now),
            SwarmEvent::Behaviour(BehaviourEvent::Kad(event)) => {
                self.metrics.record(&event);
                self.handle_kad(event, now);
            }
            SwarmEvent::ConnectionEstablished {
                peer_id,
                connection_id,
                endpoint,
                established_in,
                ..
            } => {
                self.handle_established(peer_id, connection_id, &endpoint, established_in, now);
            }
            SwarmEvent::ConnectionClosed {
                connection_id, cause, ..
            } => {
                let cause = match &cause {
                    None => "closed by this node".to_owned(),
                    Some(ConnectionError::IO(error)) => with_sources(error),
                    Some(error) => with_sources(error),
                };
                self.handle_down(connection_id, cause, now);
                self.links.remove(&connection_id);
            }
            SwarmEvent::OutgoingConnectionError {
                connection_id,
                peer_id,
                error,
            } => {
                self.handle_dial_failure(connection_id, peer_id, &error);
            }
            SwarmEvent::IncomingConnectionError {
                send_back_addr,
                error,
                ..
            } => {
                self.handle_inbound_failure(&send_back_addr, &error, now);
            }
            SwarmEvent::NewListenAddr { address, .. } => {
                tracing::info!(%address, "listening");
                self.connections
                    .set_listening(self.swarm.listeners().cloned().collect());
                self.backlog.push_back(NetworkEvent::Listening { address });
                self.announce_change(now);
            }
            SwarmEvent::ExpiredListenAddr { address, .. } => {
                tracing::info!(%address, "no longer listening");
                self.connections
                    .set_listening(self.swarm.listeners().cloned().collect());
                self.announce_change(now);
            }
            SwarmEvent::ListenerError { error, .. } => {
                let n_before = self.listener_errors.due(now.into_std(), REPORT_INTERVAL);
                if let Some(suppressed) = n_before {
                    tracing::warn!(error = with_sources(&error), suppressed, "a listener has trouble");
                }
            }
            SwarmEvent::ListenerClosed {
                addresses,
                reason: Err(error),
                ..
            } => {
                tracing::error!(
                    ?addresses,
                    error = with_sources(&error),
                    "a listener failed; restart the node"
                );
                self.connections
                    .set_listening(self.swarm.listeners().cloned().collect());
            }
            _ => {}
        }
    }

    fn handle_established(
        &mut self,
        peer: PeerId,
        connection: ConnectionId,
        endpoint: &ConnectedPoint,
        took: Duration,
        now: Instant,
    ) {
        let Some((runtime, address)) = self.connections.place(connection) else {
            tracing::error!(%peer, %connection, "an unknown connection is closed");
            self.swarm.close_connection(connection);
            return;
        };
        if !self.peers.contains_key(&peer) {
            tracing::debug!(%peer, %connection, "a peer that is configured no more is disconnected");
            self.swarm.close_connection(connection);
            return;
        }
        let direction = Direction::from(endpoint.to_endpoint());
        let transport = transport_kind(&address);
        tracing::info!(%peer, %connection, %address, ?direction, ?took, "connected");
        if let Some(peer) = self.peers.get_mut(&peer) {
            peer.redial.handle_attempt_ended(connection);
            peer.redial.handle_present();
            peer.log.connected();
        }
        self.connections.set_dial_error(peer, None);
        if !self.is_present(peer) {
            self.handle_neighbour(peer, &address, now);
        }
        self.links.insert(connection, Link { peer, live: true });
        self.backlog.push_back(NetworkEvent::Connected {
            peer,
            connection,
            address,
            direction,
            transport,
            runtime,
        });
    }

    /// Takes a connection for down, which may be some time before it has closed.
    fn handle_down(&mut self, connection: ConnectionId, cause: String, now: Instant) {
        self.connections.remove(connection);
        let Some(link) = self.links.get_mut(&connection).filter(|link| link.live) else {
            return;
        };
        link.live = false;
        let id = link.peer;
        tracing::info!(peer = %id, %connection, cause, "disconnected");
        self.backlog.push_back(NetworkEvent::Disconnected {
            peer: id,
            connection,
            cause,
        });
        if !self.is_present(id) {
            if let Some(peer) = self.peers.get_mut(&id) {
                peer.redial.handle_absent(now);
            }
            self.handle_neighbour_gone(id, now);
        }
    }

    fn handle_ping(&mut self, ping: ping::Event, now: Instant) {
        let ping::Event {
            peer,
            connection,
            result,
        } = ping;
        match result {
            Ok(rtt) => {
                self.connections.set_rtt(connection, rtt);
                let live = self.links.get(&connection).is_some_and(|link| link.live);
                if live && self.backlog.is_empty() {
                    self.backlog.push_back(NetworkEvent::Rtt {
                        peer,
                        connection,
                        rtt,
                    });
                }
            }
            Err(ping::Failure::Unsupported) => {
                tracing::debug!(%peer, %connection, "the peer does not answer pings");
            }
            Err(failure) => {
                self.handle_down(connection, with_sources(&failure), now);
                self.swarm.close_connection(connection);
            }
        }
    }

    fn handle_dial_failure(&mut self, connection: ConnectionId, peer: Option<PeerId>, error: &DialError) {
        let Some((id, peer)) = peer.and_then(|id| Some((id, self.peers.get_mut(&id)?))) else {
            return;
        };
        peer.redial.handle_attempt_ended(connection);
        if let DialError::Denied { cause } = error
            && let Some(Refusal::Superseded) = cause.downcast_ref()
        {
            return;
        }
        self.connections.counters.dial_failures.fetch_add(1, Relaxed);
        // An old attempt may fail long after a newer one succeeded.
        if peer.redial.poll_due().is_none() {
            return;
        }
        let text = dial_error(error);
        peer.log.dial_failed(id, &text);
        self.connections.set_dial_error(id, Some(text));
    }

    fn handle_inbound_failure(&mut self, address: &Multiaddr, error: &ListenError, now: Instant) {
        let ListenError::Denied { cause } = error else {
            self.connections.counters.inbound_failures.fetch_add(1, Relaxed);
            tracing::debug!(%address, error = with_sources(error), "an inbound connection failed");
            return;
        };
        // The counters have been raised where the decision was made.
        let reason = cause
            .downcast_ref::<Refusal>()
            .map_or_else(|| with_sources(cause), ToString::to_string);
        match self.refusals.due(now.into_std(), REPORT_INTERVAL) {
            Some(suppressed) => tracing::warn!(%address, reason, suppressed, "refused an inbound connection"),
            None => tracing::debug!(%address, reason, "refused an inbound connection"),
        }
    }
}

fn dial_options(peer: PeerId, address: &Multiaddr) -> DialOpts {
    DialOpts::peer_id(peer)
        .condition(PeerCondition::Always)
        .addresses(vec![address.clone()])
        // From the listening port two peers that dial each other at once would share one TCP connection, in which both
        // think they are the dialler.
        .allocate_new_port()
        .build()
}
