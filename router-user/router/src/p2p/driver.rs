//! The task that drives the swarm: dials absent peers, watches present ones, reports what changes.
//!
//! What is decided stands in the types that the driver joins: [`RedialBook`] says whom to dial and when,
//! [`PeerConnections`] who is present, [`AddressDiscovery`] which addresses are found, [`EventBacklog`] which events
//! wait, and [`ListenerLog`] which warnings are due.

use std::{
    sync::{Arc, atomic::Ordering::Relaxed},
    time::{Duration, SystemTime},
};

use futures::StreamExt;
use libp2p::{
    Multiaddr, PeerId, Swarm,
    core::ConnectedPoint,
    kad::{self, GetRecordError, GetRecordOk, InboundRequest, QueryResult},
    metrics::{Metrics, Recorder, Registry},
    ping,
    swarm::{ConnectionError, ConnectionId, DialError, ListenError, SwarmEvent},
};
use tokio::{
    sync::mpsc,
    time::{Instant, sleep_until, timeout_at},
};
use tokio_util::sync::CancellationToken;

use super::{
    address::{tcp_destination, transport_kind},
    address_discovery::{AddressDiscovery, FoundChange},
    behaviour::ConnectionRefusal,
    config::PeerConfig,
    departure::{DepartureEvent, Word},
    dht::LookupReply,
    dial_error::{DialFailure, dial_error_text},
    error::LookupError,
    event::NetworkEvent,
    event_backlog::EventBacklog,
    handle::DriverRequest,
    host_addresses::HostAddresses,
    idle_watch::IdleWatch,
    keepalive::{KeepaliveEvent, Sign},
    listener_log::ListenerLog,
    local_network::LocalEvent,
    node_behaviour::{NodeBehaviour, NodeBehaviourEvent, dial_options, event_span},
    peer_connections::{PeerConnections, WentDown},
    redial_book::RedialBook,
    snapshot::ConnectionDirection,
    spare_connections::spare,
    state::NetworkState,
    transport::is_refusal,
};
use stream_router_engine::causes::with_sources;

/// How long closing all connections may take at the end; each has 1 s.
const STOP_TIMEOUT: Duration = Duration::from_secs(2);

/// The time without use after which a connection to a peer on demand is closed.
const IDLE_TIME: Duration = Duration::from_secs(5 * 60);

/// The time without use after which a connection is closed that the peer does not know is to be left.
const SPARE_IDLE_TIME: Duration = Duration::from_secs(60);

/// Time between two attempts at a better address of a connected peer, up to a tenth more or less.
const BETTER_INTERVAL: Duration = Duration::from_secs(30);

/// The task of a network.
pub(super) struct Driver {
    swarm: Swarm<NodeBehaviour>,
    state: Arc<NetworkState>,
    redials: RedialBook,
    connections: PeerConnections,
    discovery: AddressDiscovery,
    backlog: EventBacklog,
    listener_log: ListenerLog,
    idle_watch: IdleWatch,
    /// When better addresses than the present ones are dialled next, and the number of that turn.
    next_better: Instant,
    better_turn: usize,
    requests: mpsc::Receiver<DriverRequest>,
    stop: CancellationToken,
    metrics: Metrics,
    registry: Registry,
}

impl Driver {
    pub(super) fn new(
        swarm: Swarm<NodeBehaviour>,
        peers: Vec<PeerConfig>,
        discovery: AddressDiscovery,
        state: Arc<NetworkState>,
        events: mpsc::Sender<NetworkEvent>,
        requests: mpsc::Receiver<DriverRequest>,
        stop: CancellationToken,
    ) -> Self {
        let mut registry = Registry::default();
        let metrics = Metrics::new(&mut registry);
        Self {
            redials: RedialBook::new(*swarm.local_peer_id(), peers, Instant::now()),
            swarm,
            state,
            connections: PeerConnections::default(),
            discovery,
            backlog: EventBacklog::new(events),
            listener_log: ListenerLog::default(),
            idle_watch: IdleWatch::new(Instant::now()),
            next_better: Instant::now() + BETTER_INTERVAL,
            better_turn: 0,
            requests,
            stop,
            metrics,
            registry,
        }
    }

    pub(super) fn take_metrics(&mut self) -> Registry {
        std::mem::take(&mut self.registry)
    }

    pub(super) async fn run(mut self) {
        let stop = self.stop.clone();
        loop {
            let due = self
                .redials
                .poll_due()
                .into_iter()
                .chain(self.discovery.poll_due())
                .chain(self.idle_watch.poll_due(self.connections.len()))
                .chain(self.connections.is_anybody_present().then_some(self.next_better))
                .min();
            tokio::select! {
                () = stop.cancelled() => break,
                request = self.requests.recv() => match request {
                    Some(request) => self.handle_request(request, Instant::now()),
                    // Every handle is gone.
                    None => break,
                },
                () = self.backlog.forward(), if !self.backlog.is_empty() => {}
                event = self.swarm.select_next_some(), if self.backlog.has_room() => {
                    self.handle_event(event, Instant::now());
                }
                () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {
                    self.dial(Instant::now());
                    self.run_dht(Instant::now());
                    self.close_idle(Instant::now());
                    self.dial_better(Instant::now());
                }
            }
        }
        self.close_all().await;
    }

    async fn close_all(mut self) {
        let deadline = Instant::now() + STOP_TIMEOUT;
        for peer in self.redials.peers() {
            // An error says that it was not connected; attempts to dial it are given up all the same.
            let _not_connected = self.swarm.disconnect_peer_id(peer);
        }
        while self.connections.len() > 0 {
            let Ok(event) = timeout_at(deadline, self.swarm.select_next_some()).await else {
                tracing::debug!(
                    connections = self.connections.len(),
                    "not all connections closed in time"
                );
                break;
            };
            if let SwarmEvent::ConnectionEstablished { connection_id, .. } = event {
                self.swarm.close_connection(connection_id);
            }
            self.handle_event(event, Instant::now());
        }
        self.backlog.drain(deadline).await;
    }

    fn handle_request(&mut self, request: DriverRequest, now: Instant) {
        match request {
            DriverRequest::Close(connection) => {
                self.swarm.close_connection(connection);
            }
            DriverRequest::DialAnother(peer) => self.dial_another(peer),
            DriverRequest::DialWanted(peer) => self.redials.handle_wanted(peer, now),
            DriverRequest::FindAnnouncement(peer, reply) => self.find_announcement(peer, reply),
            DriverRequest::SetPeers(peers, done) => {
                self.set_peers(peers, now);
                // The caller may have gone.
                let _ = done.send(());
            }
        }
    }

    /// Dials the absent peers that are due.
    fn dial(&mut self, now: Instant) {
        for (peer, address) in self.redials.poll_attempts(now, rand::random) {
            let options = dial_options(peer, &address);
            let connection = options.connection_id();
            let _span = tracing::debug_span!("dial", %peer, %connection).entered();
            let streams = &mut self.swarm.behaviour_mut().streams;
            streams.handle_dial(connection);
            streams.handle_redial(connection);
            tracing::debug!(%peer, %connection, %address, "dialling");
            match self.swarm.dial(options) {
                Ok(()) => self.redials.handle_attempt(peer, connection),
                Err(error) => {
                    self.state.counters.dial_failures.fetch_add(1, Relaxed);
                    self.report_dial_failure(peer, DialFailure::of_dial(&error));
                }
            }
        }
    }

    /// Closes the connections to peers on demand that this node has dialled and that nothing was sent on for long.
    fn close_idle(&mut self, now: Instant) {
        if self.idle_watch.poll_due(1).is_some_and(|due| due > now) {
            return;
        }
        let looked = self.idle_watch.look(self.state.uses().into_iter(), now);
        self.settle(&looked, now);
        for (connection, idle) in looked {
            let Some(peer) = self.state.dialled_peer(connection) else {
                continue;
            };
            if idle >= IDLE_TIME && self.redials.is_on_demand(peer) {
                self.handle_down(connection, "nothing was sent on it for long".to_owned(), now);
                if !self.connections.is_present(peer) {
                    self.redials.handle_rest(peer, now);
                }
                self.swarm.close_connection(connection);
            }
        }
    }

    /// Leaves connections that are not needed or at a worse address than another, and closes those that are left.
    fn settle(&mut self, idle: &[(ConnectionId, Duration)], now: Instant) {
        let local_peer = self.state.local_peer;
        let redials = &self.redials;
        let standing = self.state.standing(|peer, address| redials.rank(peer, address));
        for (peer, n_wanted, standing) in standing {
            for connection in spare(&standing, n_wanted, local_peer < peer) {
                if self.state.set_leaving(connection) {
                    tracing::debug!(%peer, %connection, "a connection is to be left");
                    self.swarm.behaviour_mut().departure.leave(peer, connection);
                }
            }
        }
        for (connection, is_free) in self.state.leaving() {
            let is_idle = idle
                .iter()
                .any(|(id, time)| *id == connection && *time >= SPARE_IDLE_TIME);
            if is_free || is_idle {
                self.handle_down(connection, "another connection is used".to_owned(), now);
                self.swarm.close_connection(connection);
            }
        }
    }

    /// Dials a better address of each peer that this node has reached at another.
    fn dial_better(&mut self, now: Instant) {
        if now < self.next_better {
            return;
        }
        self.next_better = now + BETTER_INTERVAL.mul_f64(0.9 + 0.2 * rand::random::<f64>());
        self.better_turn = self.better_turn.wrapping_add(1);
        let redials = &self.redials;
        let standing = self.state.standing(|peer, address| redials.rank(peer, address));
        for (peer, _, standing) in standing {
            let rank = standing.iter().filter_map(|standing| standing.rank).min();
            let better = rank.and_then(|rank| self.redials.better(peer, rank, self.better_turn));
            if let Some(address) = better {
                self.dial_beside(peer, &address);
            }
        }
    }

    /// Dials a connected peer once more.
    fn dial_beside(&mut self, peer: PeerId, address: &Multiaddr) {
        let options = dial_options(peer, address);
        let connection = options.connection_id();
        let _span = tracing::debug_span!("dial", %peer, %connection).entered();
        self.swarm.behaviour_mut().streams.handle_dial(connection);
        tracing::debug!(%peer, %connection, %address, "dialling another connection");
        if let Err(error) = self.swarm.dial(options) {
            self.state.counters.dial_failures.fetch_add(1, Relaxed);
            tracing::debug!(%peer, error = dial_error_text(&error), "cannot dial another connection");
        }
    }

    fn dial_another(&mut self, peer: PeerId) {
        let Some(address) = self.state.dialled_over_tcp(peer) else {
            return;
        };
        self.dial_beside(peer, &address);
    }

    /// Tells the operator once per absence of a peer why it cannot be dialled; repeats are for debugging.
    fn report_dial_failure(&mut self, peer: PeerId, failure: DialFailure) {
        let DialFailure { text: error, refuses } = failure;
        if self.redials.is_new_failure(peer, &error) {
            tracing::warn!(%peer, error, "cannot reach a peer; trying on");
        } else {
            tracing::debug!(%peer, error, "cannot reach a peer");
        }
        self.state.set_dial_error(peer, error, refuses);
    }

    fn set_peers(&mut self, peers: Vec<PeerConfig>, now: Instant) {
        let known = peers.iter().map(|peer| peer.peer).collect();
        self.state.set_peers(peers.iter().map(|peer| peer.peer));
        self.state.handshakes.set_peers(&peers);
        let gone = self.redials.retain(&known);
        self.swarm.behaviour_mut().streams.set_peers(known);
        for peer in gone {
            for connection in self.connections.of_peer(peer) {
                self.handle_down(connection, "the peer is configured no more".to_owned(), now);
            }
            // An error says that it was not connected; attempts to dial it are given up all the same.
            let _not_connected = self.swarm.disconnect_peer_id(peer);
            self.discovery.remove_peer(peer);
            self.swarm.behaviour_mut().forget_record(peer);
        }
        let mut new_peers = Vec::new();
        for config in peers {
            let peer = config.peer;
            if self
                .redials
                .set_peer(config, self.connections.is_present(peer), now)
            {
                self.discovery.add_peer(peer);
                new_peers.push(peer);
            }
        }
        for peer in &new_peers {
            let seen = self.swarm.behaviour().seen_on_local_network(*peer);
            let changes = self.discovery.handle_local(LocalEvent::Seen(seen));
            self.use_found(changes, now);
        }
        if !new_peers.is_empty() {
            self.look_for_absent(now);
        }
    }

    /// Does what is due in the DHT.
    fn run_dht(&mut self, now: Instant) {
        let is_present = |peer| self.connections.is_present(peer);
        let listening = self.swarm.listeners();
        let work = self
            .discovery
            .poll_dht(now, SystemTime::now(), is_present, listening, |listening| {
                HostAddresses::read(self.state.remotes()).by_use(listening)
            });
        if let Some(record) = work.publish {
            self.swarm.behaviour_mut().publish_record(record);
        }
        for peer in work.look_up {
            if let Some(query) = self.swarm.behaviour_mut().look_up_record(peer) {
                self.discovery.handle_lookup(query, peer, None);
            }
        }
        self.use_found(work.changes, now);
    }

    /// Looks up what a peer says of itself.
    fn find_announcement(&mut self, peer: PeerId, reply: LookupReply) {
        let is_connected = self.connections.is_anybody_present();
        let behaviour = self.swarm.behaviour_mut();
        let begun = self
            .discovery
            .check_lookup(is_connected)
            .and_then(|()| behaviour.look_up_record(peer).ok_or(LookupError::Off));
        match begun {
            Ok(query) => self.discovery.handle_lookup(query, peer, Some(reply)),
            // The caller may have gone.
            Err(error) => drop(reply.send(Err(error))),
        }
    }

    /// Dials the found addresses of peers from now on.
    fn use_found(&mut self, changes: impl IntoIterator<Item = FoundChange>, now: Instant) {
        for FoundChange { peer, found } in changes {
            let addresses: Vec<_> = found.iter().map(|found| found.address.clone()).collect();
            // Every host on the local network can provoke it.
            tracing::debug!(%peer, ?addresses, "found addresses of a peer");
            let is_present = self.connections.is_present(peer);
            self.redials.set_found(peer, addresses, is_present, now);
            self.state.set_found(peer, found);
        }
    }

    /// Looks for absent peers soon, if there is a peer to ask.
    fn look_for_absent(&mut self, now: Instant) {
        if self.connections.is_anybody_present() {
            self.discovery.handle_absent(now);
        }
    }

    fn handle_event(&mut self, event: SwarmEvent<NodeBehaviourEvent>, now: Instant) {
        let _span = event_span(&event).entered();
        self.metrics.record(&event);
        match event {
            SwarmEvent::Behaviour(NodeBehaviourEvent::Keepalive(KeepaliveEvent {
                peer,
                connection,
                sign,
            })) => match sign {
                Sign::PeerPings => self.handle_life(connection, now),
                Sign::Ping(result) => {
                    let ping = ping::Event {
                        peer,
                        connection,
                        result,
                    };
                    self.metrics.record(&ping);
                    self.handle_ping(ping, now);
                }
            },
            SwarmEvent::Behaviour(NodeBehaviourEvent::Departure(DepartureEvent {
                peer,
                connection,
                word,
            })) => {
                let is_news = word == Word::Told || word == Word::Heard && self.state.set_leaving(connection);
                if is_news && self.connections.is_live(connection) {
                    self.backlog.push(NetworkEvent::Leaving { peer, connection });
                }
            }
            SwarmEvent::Behaviour(NodeBehaviourEvent::LocalNetwork(event)) => {
                let changes = self.discovery.handle_local(event);
                self.use_found(changes, now);
            }
            SwarmEvent::Behaviour(NodeBehaviourEvent::Kad(event)) => {
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
                let refuses = cause.as_ref().is_some_and(|error| is_refusal(error));
                let cause = match &cause {
                    None => "closed by this node".to_owned(),
                    Some(ConnectionError::IO(error)) => with_sources(error),
                    Some(error) => with_sources(error),
                };
                self.handle_unproven_end(connection_id, &cause, refuses);
                self.handle_down(connection_id, cause, now);
                self.connections.handle_closed(connection_id);
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
                self.handle_listening_change(now);
                self.backlog.push(NetworkEvent::Listening { address });
            }
            SwarmEvent::ExpiredListenAddr { address, .. } => {
                tracing::info!(%address, "no longer listening");
                self.handle_listening_change(now);
            }
            SwarmEvent::ListenerError { error, .. } => {
                if let Some(suppressed) = self.listener_log.error_due(now) {
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
                self.show_listening();
            }
            _ => {}
        }
    }

    fn handle_listening_change(&mut self, now: Instant) {
        self.show_listening();
        if self.connections.is_anybody_present() {
            self.discovery.handle_listening_change(now);
        }
    }

    fn show_listening(&self) {
        self.state
            .set_listening(self.swarm.listeners().cloned().collect());
    }

    fn handle_established(
        &mut self,
        peer: PeerId,
        connection: ConnectionId,
        endpoint: &ConnectedPoint,
        took: Duration,
        now: Instant,
    ) {
        if self.state.runtime_and_address(connection).is_none() {
            tracing::error!(%peer, %connection, "an unknown connection is closed");
            self.swarm.close_connection(connection);
            return;
        }
        if !self.redials.contains(peer) {
            tracing::debug!(%peer, %connection, "a peer that is configured no more is disconnected");
            self.swarm.close_connection(connection);
            return;
        }
        match endpoint {
            ConnectedPoint::Dialer { .. } => self.connections.handle_dialled(connection, peer, took),
            ConnectedPoint::Listener { .. } => {
                self.handle_proven(peer, connection, ConnectionDirection::Inbound, took, now);
            }
        }
    }

    /// Takes a connection for up: both sides have taken it in.
    fn handle_proven(
        &mut self,
        peer: PeerId,
        connection: ConnectionId,
        direction: ConnectionDirection,
        took: Duration,
        now: Instant,
    ) {
        let Some((runtime, address)) = self.state.runtime_and_address(connection) else {
            return;
        };
        let transport = transport_kind(&address);
        tracing::info!(%peer, %connection, %address, ?direction, ?took, "connected");
        self.redials.handle_attempt_ended(peer, connection);
        self.redials.handle_present(peer);
        self.state.clear_dial_error(peer);
        self.state.set_proven(connection);
        self.state.doubt_others(peer, connection);
        if self.connections.handle_established(connection, peer) {
            self.discovery.handle_neighbour(now);
            self.swarm
                .behaviour_mut()
                .add_dht_neighbour(peer, address.clone());
        }
        self.backlog.push(NetworkEvent::Connected {
            peer,
            connection,
            address,
            direction,
            transport,
            runtime,
        });
    }

    /// Takes what has come of the peer for a sign that it has taken the connection in.
    fn handle_life(&mut self, connection: ConnectionId, now: Instant) {
        if let Some((peer, took)) = self.connections.take_unproven(connection) {
            self.handle_proven(peer, connection, ConnectionDirection::Outbound, took, now);
            // It may be at a better address than another.
            self.settle(&[], now);
        }
    }

    /// Takes an unproven connection for a dial that failed.
    fn handle_unproven_end(&mut self, connection: ConnectionId, cause: &str, refuses: bool) {
        let Some((peer, _)) = self.connections.take_unproven(connection) else {
            return;
        };
        self.state.remove_connection(connection);
        self.redials.handle_attempt_ended(peer, connection);
        self.state.counters.dial_failures.fetch_add(1, Relaxed);
        if self.redials.is_dialled(peer) {
            self.report_dial_failure(peer, DialFailure::unproven(cause, refuses));
        }
    }

    /// Takes a connection for down, which may be some time before it has closed.
    fn handle_down(&mut self, connection: ConnectionId, cause: String, now: Instant) {
        self.state.remove_connection(connection);
        let Some(WentDown { peer, was_last }) = self.connections.handle_down(connection) else {
            return;
        };
        tracing::info!(%peer, %connection, cause, "disconnected");
        self.backlog.push(NetworkEvent::Disconnected {
            peer,
            connection,
            cause,
        });
        if was_last {
            self.redials.handle_absent(peer, now);
            self.swarm.behaviour_mut().remove_dht_neighbour(peer);
            self.look_for_absent(now);
        }
    }

    fn handle_ping(&mut self, ping: ping::Event, now: Instant) {
        let ping::Event {
            peer,
            connection,
            result,
        } = ping;
        if matches!(&result, Ok(_) | Err(ping::Failure::Unsupported)) {
            self.handle_life(connection, now);
        }
        match result {
            Ok(rtt) => {
                self.state.set_rtt(connection, rtt);
                if self.connections.is_live(connection) {
                    self.backlog.push_if_idle(NetworkEvent::Rtt {
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
                let address = self.state.runtime_and_address(connection);
                if let Some(to) = address.and_then(|(_, address)| tcp_destination(&address)) {
                    self.state.segments.handle_given_up(to.ip(), now);
                }
                self.handle_unproven_end(connection, &with_sources(&failure), false);
                self.handle_down(connection, with_sources(&failure), now);
                self.swarm.close_connection(connection);
            }
        }
    }

    fn handle_kad(&mut self, event: kad::Event, now: Instant) {
        match event {
            kad::Event::InboundRequest {
                request:
                    InboundRequest::PutRecord {
                        source,
                        record: Some(record),
                        ..
                    },
            } => {
                if let Err(reason) = self.keep_record(source, &record, now) {
                    self.refuse_record(source, &reason);
                }
            }
            kad::Event::OutboundQueryProgressed { id, result, step, .. } => {
                let timed_out = matches!(
                    &result,
                    QueryResult::GetRecord(Err(GetRecordError::Timeout { .. }))
                );
                match result {
                    QueryResult::GetRecord(Ok(GetRecordOk::FoundRecord(found))) => {
                        self.handle_answer(id, &found, now);
                    }
                    QueryResult::PutRecord(Err(error)) => {
                        tracing::debug!(%error, "no peer keeps what this node says of itself");
                        self.discovery.handle_not_published(now);
                    }
                    _ => {}
                }
                if step.last {
                    self.discovery.handle_finished(id, timed_out);
                }
            }
            _ => {}
        }
    }

    /// Keeps a record that a peer has brought, if it is believed and new.
    fn keep_record(&mut self, source: PeerId, brought: &kad::Record, now: Instant) -> Result<(), String> {
        let believed = self
            .discovery
            .handle_brought(source, brought, now, SystemTime::now())?;
        self.use_found(believed.change, now);
        let Some(record) = believed.kept else {
            return Ok(());
        };
        let kept = self.swarm.behaviour_mut().keep_record(record);
        kept.map_err(|error| error.to_string())
    }

    fn handle_answer(&mut self, query: kad::QueryId, found: &kad::PeerRecord, now: Instant) {
        match self
            .discovery
            .handle_answer(query, &found.record, SystemTime::now())
        {
            Ok(change) => self.use_found(change, now),
            Err(error) => {
                let source = found.peer.unwrap_or(self.state.local_peer);
                self.refuse_record(source, &with_sources(&error));
            }
        }
    }

    fn refuse_record(&self, source: PeerId, reason: &str) {
        self.state.counters.records_refused.fetch_add(1, Relaxed);
        tracing::debug!(peer = %source, reason, "refused a record of the DHT");
    }

    fn handle_dial_failure(&mut self, connection: ConnectionId, peer: Option<PeerId>, error: &DialError) {
        let Some(peer) = peer.filter(|peer| self.redials.contains(*peer)) else {
            return;
        };
        self.redials.handle_attempt_ended(peer, connection);
        if let DialError::Denied { cause } = error
            && let Some(ConnectionRefusal::Superseded) = cause.downcast_ref()
        {
            return;
        }
        self.state.counters.dial_failures.fetch_add(1, Relaxed);
        // An old attempt may fail long after a newer one succeeded.
        if self.redials.is_dialled(peer) {
            self.report_dial_failure(peer, DialFailure::of_dial(error));
        }
    }

    fn handle_inbound_failure(&mut self, address: &Multiaddr, error: &ListenError, now: Instant) {
        let reason = match error {
            // The counters have been raised where the decision was made.
            ListenError::Denied { cause } => cause
                .downcast_ref::<ConnectionRefusal>()
                .map_or_else(|| with_sources(cause), ToString::to_string),
            ListenError::Transport(error) if is_refusal(error) => {
                let peer = self.state.take_refused().map(ConnectionRefusal::UnknownPeer);
                peer.map_or_else(
                    || "its peer is not configured".to_owned(),
                    |refusal| refusal.to_string(),
                )
            }
            _ => {
                self.state.counters.inbound_failures.fetch_add(1, Relaxed);
                tracing::debug!(%address, error = with_sources(error), "an inbound connection failed");
                return;
            }
        };
        match self.listener_log.refusal_due(now) {
            Some(suppressed) => tracing::warn!(%address, reason, suppressed, "refused an inbound connection"),
            None => tracing::debug!(%address, reason, "refused an inbound connection"),
        }
    }
}
