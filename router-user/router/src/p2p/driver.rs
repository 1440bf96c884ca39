//! The task that drives the swarm: dials absent peers, watches present ones, reports what changes.
//!
//! What is decided stands in the types that the driver joins: [`RedialBook`] says whom to dial and when,
//! [`PeerConnections`] who is present, [`AddressDiscovery`] which addresses are found, [`EventBacklog`] which events
//! wait, and [`ListenerLog`] which warnings are due.

mod choice;
mod names;
mod punches;
mod records;
mod relays;
mod silence;

use std::{
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use futures::StreamExt;
use libp2p::{
    Multiaddr, PeerId, Swarm,
    core::{ConnectedPoint, transport::PortUse},
    metrics::{Metrics, Recorder, Registry},
    ping,
    swarm::{ConnectionError, ConnectionId, DialError, ListenError, SwarmEvent, dial_opts::DialOpts},
};
use tokio::{
    sync::mpsc,
    time::{Instant, sleep_until, timeout_at},
};
use tokio_util::sync::CancellationToken;

use super::{
    address::{begins_with_tls, tcp_destination, transport_kind},
    address_discovery::{AddressDiscovery, FoundChange},
    behaviour::ConnectionRefusal,
    config::{PeerConfig, with_relays},
    departure::Leave,
    dial_error::DialFailure,
    event::NetworkEvent,
    event_backlog::EventBacklog,
    handle::DriverRequest,
    host_changes::HostChanges,
    idle_watch::IdleWatch,
    keepalive::{KeepaliveEvent, Sign},
    listener_log::ListenerLog,
    local_network::LocalEvent,
    names::Lookups,
    next_connection::NextConnection,
    node_behaviour::{NodeBehaviour, NodeBehaviourEvent, dial_options, event_span},
    peer_connections::{PeerConnections, WentDown},
    redial_book::{Lead, RedialBook},
    reservations::Reservations,
    snapshot::ConnectionDirection,
    state::NetworkState,
    transport::{is_port_taken, is_refusal, no_port_for},
    uplink::{UplinkId, Uplinks},
};
use stream_router_engine::causes::with_sources;

pub(super) use punches::Punches;
use punches::dial_failures;

/// How long closing all connections may take at the end; each has 1 s.
const STOP_TIMEOUT: Duration = Duration::from_secs(2);

/// The task of a network.
pub(super) struct Driver {
    swarm: Swarm<NodeBehaviour>,
    state: Arc<NetworkState>,
    redials: RedialBook,
    connections: PeerConnections,
    discovery: AddressDiscovery,
    lookups: Lookups,
    reservations: Reservations,
    punches: Punches,
    uplinks: Uplinks,
    next_connection: NextConnection,
    host_changes: HostChanges,
    backlog: EventBacklog,
    listener_log: ListenerLog,
    idle_watch: IdleWatch,
    /// The time without use after which a connection to a peer on demand is left.
    idle_time: Duration,
    requests: mpsc::Receiver<DriverRequest>,
    stop: CancellationToken,
    metrics: Metrics,
    registry: Registry,
}

/// What joins a driver with its handles.
pub(super) struct Channels {
    pub(super) events: mpsc::Sender<NetworkEvent>,
    pub(super) requests: mpsc::Receiver<DriverRequest>,
    pub(super) stop: CancellationToken,
}

/// What leads to peers beside their addresses.
pub(super) struct Ways {
    pub(super) lookups: Lookups,
    pub(super) reservations: Reservations,
    pub(super) punches: Punches,
    pub(super) next_connection: NextConnection,
}

impl Driver {
    pub(super) fn new(
        swarm: Swarm<NodeBehaviour>,
        peers: Vec<PeerConfig>,
        discovery: AddressDiscovery,
        ways: Ways,
        state: Arc<NetworkState>,
        channels: Channels,
        idle_time: Duration,
    ) -> Self {
        let Ways {
            lookups,
            reservations,
            punches,
            next_connection,
        } = ways;
        let Channels {
            events,
            requests,
            stop,
        } = channels;
        let mut registry = Registry::default();
        let metrics = Metrics::new(&mut registry);
        Self {
            redials: RedialBook::new(
                *swarm.local_peer_id(),
                state.uplinks.clone(),
                peers,
                Instant::now(),
            ),
            uplinks: state.uplinks.clone(),
            next_connection,
            swarm,
            state,
            connections: PeerConnections::default(),
            discovery,
            lookups,
            reservations,
            punches,
            host_changes: HostChanges::new(),
            backlog: EventBacklog::new(events),
            listener_log: ListenerLog::default(),
            idle_watch: IdleWatch::new(idle_time, Instant::now()),
            idle_time,
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
            self.redials.settle(Instant::now());
            let due = self
                .redials
                .poll_due()
                .into_iter()
                .chain(self.discovery.poll_due())
                .chain(self.host_changes.poll_due())
                .chain(
                    self.reservations
                        .poll_due(|relay| self.state.is_directly_connected(relay)),
                )
                .chain(self.punches.book.poll_due())
                .chain(self.idle_watch.poll_due(self.connections.len()))
                .min();
            tokio::select! {
                () = stop.cancelled() => break,
                request = self.requests.recv() => match request {
                    Some(request) => self.handle_request(request, Instant::now()),
                    // Every handle is gone.
                    None => break,
                },
                () = self.backlog.forward(), if !self.backlog.is_empty() => {}
                stalled = self.state.segments.stalled() => self.handle_stalled(&stalled, Instant::now()),
                () = self.host_changes.next() => self.host_changes.handle_change(Instant::now()),
                Some(answer) = self.lookups.next(), if !self.lookups.is_empty() => {
                    self.handle_name(answer, Instant::now());
                }
                event = self.swarm.select_next_some(), if self.backlog.has_room() => {
                    self.handle_event(event, Instant::now());
                }
                () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {
                    self.dial(Instant::now());
                    self.reserve(Instant::now());
                    self.punch(Instant::now());
                    self.run_dht(Instant::now());
                    self.look(Instant::now());
                    if self.host_changes.take_due(Instant::now()) {
                        self.state.doubt_all();
                        if self.uplinks.are_configured() {
                            self.redials.handle_host_change(Instant::now());
                        }
                    }
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
            DriverRequest::DialAnother(peer) => self.dial_another(peer, now),
            DriverRequest::DialWanted(peer) => self.redials.handle_wanted(peer, now),
            DriverRequest::FindAnnouncement(peer, reply) => self.find_announcement(peer, reply),
            DriverRequest::SetMapped(addresses) => self.set_mapped(&addresses, now),
            DriverRequest::SetRelayRates(rates) => self.set_relay_rates(rates),
            DriverRequest::SetPeers(peers, via, done) => {
                if let Some(via) = via {
                    self.set_relays(&via, now);
                }
                self.set_peers(peers, now);
                // The caller may have gone.
                let _ = done.send(());
            }
        }
    }

    /// Dials the absent peers that are due.
    fn dial(&mut self, now: Instant) {
        for (peer, named) in self.redials.poll_names(now) {
            self.lookups.ask(peer, named);
        }
        for (lead, address) in self.redials.poll_attempts(now, rand::random) {
            let peer = lead.0;
            if let Some(failure) = self.relay_trouble(&address) {
                // It is reported for the relay, which is a peer itself.
                let DialFailure {
                    text,
                    refuses,
                    address,
                } = failure;
                self.state.set_dial_error(peer, address, text, refuses);
                continue;
            }
            let port = self.port_to(peer, &address);
            self.redial(lead, &address, port, now);
        }
    }

    /// Returns from which port a peer is dialled at an address: a relay is to see the listening port, where peers are told that this
    /// node is.
    pub(super) fn port_to(&self, peer: PeerId, address: &Multiaddr) -> PortUse {
        // What is behind a proxy sees the proxy's address, and not this node's.
        let shows_port = self.punches.shows_port && !begins_with_tls(address);
        match shows_port && self.reservations.is_relay(peer) {
            true => PortUse::Reuse,
            false => PortUse::New,
        }
    }

    /// Dials an absent peer.
    fn redial(&mut self, lead: Lead, address: &Multiaddr, port: PortUse, now: Instant) {
        let (peer, uplink) = lead;
        let options = dial_options(peer, address, port);
        let connection = options.connection_id();
        let _span = tracing::debug_span!("dial", %peer, %connection).entered();
        let streams = &mut self.swarm.behaviour_mut().streams;
        streams.handle_dial_by(connection, uplink);
        streams.handle_redial(connection);
        tracing::debug!(%peer, %connection, %address, ?port, "dialling");
        match self.dial_by(uplink, options) {
            Ok(()) => self.redials.handle_attempt(lead, connection, now),
            Err(error) => self.handle_redial_failure(lead, &error, None, now),
        }
    }

    /// Begins a dial that leaves by an uplink.
    pub(super) fn dial_by(&mut self, uplink: UplinkId, options: DialOpts) -> Result<(), DialError> {
        let by = self.uplinks.get(uplink).map(|uplink| uplink.by.clone());
        let (swarm, connection) = (&mut self.swarm, options.connection_id());
        let (begun, losses) = self.next_connection.during(by, || swarm.dial(options));
        if begun.is_ok() {
            swarm.behaviour_mut().streams.handle_begun(connection, losses);
        }
        begun
    }

    /// Takes in that a peer could not be dialled: it is from another port if the listening one does not lead there, and else the
    /// operator is told if the peer is absent.
    fn handle_redial_failure(&mut self, lead: Lead, error: &DialError, began: Option<Instant>, now: Instant) {
        let peer = lead.0;
        if let Some(address) = no_port_for(error) {
            tracing::debug!(%peer, %address, "the listening port does not lead to a relay; dialling from another");
            return match self.redials.is_dialled(lead) {
                true => self.redial(lead, &address, PortUse::New, now),
                false => self.dial_beside(lead, &address, PortUse::New, now),
            };
        }
        self.state.counters.dial_failures.fetch_add(1, Relaxed);
        // An old attempt may fail long after a newer one succeeded.
        let failure = self.by_uplink(lead.1, DialFailure::of_dial(error));
        if self.redials.is_dialled(lead) {
            self.report_dial_failure(peer, failure, began, now);
        } else if self.state.relayed_alone(peer).is_some()
            && let Some(address) = failure.address
        {
            self.state.set_address_error(peer, address, failure.text);
        }
    }

    /// Has a failure say by which uplink it was.
    fn by_uplink(&self, uplink: UplinkId, mut failure: DialFailure) -> DialFailure {
        if let Some(uplink) = self.uplinks.get(uplink) {
            failure.text = format!("by uplink {}: {}", uplink.by, failure.text);
        }
        failure
    }

    /// Tells the operator once per absence of a peer why an attempt that has begun then, if it has, failed; repeats are for
    /// debugging.
    fn report_dial_failure(
        &mut self,
        peer: PeerId,
        failure: DialFailure,
        began: Option<Instant>,
        now: Instant,
    ) {
        let DialFailure {
            text: error,
            refuses,
            address,
        } = failure;
        if self.redials.is_new_failure(peer, &error) {
            tracing::warn!(%peer, error, "cannot reach a peer; trying on");
            // Of many peers at once the log tells more.
            if self.backlog.has_room() {
                self.backlog.push(NetworkEvent::Unreached {
                    peer,
                    error: error.clone(),
                    took: began.map_or(Duration::ZERO, |began| now.saturating_duration_since(began)),
                });
            }
        } else {
            tracing::debug!(%peer, error, "cannot reach a peer");
        }
        // Of a peer that is connected by another uplink it is no trouble of the peer.
        if !self.uplinks.are_configured() || !self.connections.is_present(peer) {
            self.state.set_dial_error(peer, address, error, refuses);
        }
    }

    fn set_peers(&mut self, peers: Vec<PeerConfig>, now: Instant) {
        let peers = with_relays(peers, &self.reservations.relays());
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
            let connections = &self.connections;
            let is_present = |uplink| connections.is_present_by((peer, uplink));
            if self.redials.set_peer(config, is_present, now) {
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

    /// Dials the found addresses of peers from now on.
    fn use_found(&mut self, changes: impl IntoIterator<Item = FoundChange>, now: Instant) {
        for FoundChange { peer, found } in changes {
            let addresses: Vec<_> = found.iter().map(|found| found.address.clone()).collect();
            // Every host on the local network can provoke it.
            tracing::debug!(%peer, ?addresses, "found addresses of a peer");
            let connections = &self.connections;
            let is_present = |uplink| connections.is_present_by((peer, uplink));
            self.redials.set_found(peer, &addresses, is_present, now);
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
                Sign::Silent { since } => self.handle_silent(peer, connection, since, now),
                Sign::Heard => self.handle_heard(peer, connection, now),
            },
            SwarmEvent::Behaviour(NodeBehaviourEvent::Departure(event)) => {
                self.handle_departure(event, now);
            }
            SwarmEvent::Behaviour(NodeBehaviourEvent::LocalNetwork(event)) => {
                let changes = self.discovery.handle_local(event);
                self.use_found(changes, now);
            }
            SwarmEvent::Behaviour(NodeBehaviourEvent::Identify(event)) => {
                self.handle_identify(&event, now);
            }
            SwarmEvent::Behaviour(NodeBehaviourEvent::Punch(event)) => self.handle_punch(event, now),
            SwarmEvent::Behaviour(NodeBehaviourEvent::Circuits(event)) => self.handle_circuits(event, now),
            SwarmEvent::Behaviour(NodeBehaviourEvent::Relay(event)) => {
                self.metrics.record(&event);
                self.handle_relay(&event);
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
                self.handle_unproven_end(connection_id, &cause, refuses, now);
                self.handle_down(connection_id, cause, now);
                self.connections.handle_closed(connection_id);
                self.handle_unseen(connection_id, now);
            }
            SwarmEvent::OutgoingConnectionError {
                connection_id,
                peer_id,
                error,
            } => {
                self.handle_dial_failure(connection_id, peer_id, &error, now);
            }
            SwarmEvent::IncomingConnectionError {
                send_back_addr,
                error,
                ..
            } => {
                self.handle_inbound_failure(&send_back_addr, &error, now);
            }
            SwarmEvent::NewListenAddr { address, .. } => {
                // A place with a relay comes once for each address of the relay.
                if !self.state.listening().contains(&address) {
                    tracing::info!(%address, "listening");
                }
                self.handle_listening_change(now);
                self.backlog.push(NetworkEvent::Listening { address });
            }
            SwarmEvent::ExpiredListenAddr { address, .. } => {
                if !self.swarm.listeners().any(|other| *other == address) {
                    tracing::info!(%address, "no longer listening");
                }
                self.handle_listening_change(now);
            }
            SwarmEvent::ListenerError { error, .. } => {
                if let Some(suppressed) = self.listener_log.error_due(now) {
                    tracing::warn!(error = with_sources(&error), suppressed, "a listener has trouble");
                }
            }
            SwarmEvent::ListenerClosed {
                listener_id,
                addresses,
                reason,
            } => {
                let error = reason.err();
                if self.handle_place_lost(listener_id, error.as_ref().map(|error| with_sources(error)), now) {
                    return;
                }
                let Some(error) = error else {
                    return;
                };
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
        self.show_relay_addresses();
        self.show_candidates(now);
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
        match punches::accepts(endpoint) {
            false => {
                let lead = (peer, self.state.uplink(connection));
                self.connections.handle_dialled(connection, lead, took);
            }
            true => self.handle_proven(peer, connection, ConnectionDirection::Inbound, took, now),
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
        let (transport, way) = (transport_kind(&address), self.state.way(connection));
        let by = way
            .uplink
            .as_ref()
            .map(|uplink| tracing::field::display(&uplink.by));
        tracing::info!(%peer, %connection, %address, ?direction, ?took, uplink = by, "connected");
        let lead = (peer, self.state.uplink(connection));
        self.redials.handle_attempt_ended(peer, connection);
        self.redials.handle_present(lead);
        self.state.clear_dial_error(peer, transport);
        self.state.set_proven(connection);
        self.state.doubt_others(peer, connection, took);
        self.handle_way(peer, connection, now);
        if self.connections.handle_established(connection, lead) {
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
            way,
            took,
            runtime,
        });
        self.close_silent(peer, now);
        if direction == ConnectionDirection::Outbound {
            self.close_larger(connection, now);
        }
    }

    /// Takes what has come of the peer for a sign that it has taken the connection in.
    fn handle_life(&mut self, connection: ConnectionId, now: Instant) {
        if let Some((peer, took)) = self.connections.take_unproven(connection) {
            self.handle_proven(peer, connection, ConnectionDirection::Outbound, took, now);
            // It may be at a better address than another.
            self.leave_spare(now);
        }
    }

    /// Takes an unproven connection for a dial that failed.
    fn handle_unproven_end(&mut self, connection: ConnectionId, cause: &str, refuses: bool, now: Instant) {
        let lead = self.connections.uplink(connection);
        let Some((peer, _)) = self.connections.take_unproven(connection) else {
            return;
        };
        let lead = (peer, lead);
        let at = self.state.runtime_and_address(connection);
        self.state.remove_connection(connection);
        let tried = || {
            at.map(|(_, address)| (address, cause.to_owned()))
                .into_iter()
                .collect()
        };
        if self.handle_punch_failure(peer, connection, false, || (cause.to_owned(), tried()), now) {
            return;
        }
        let began = self
            .redials
            .handle_attempt_ended(peer, connection)
            .map(|(_, began)| began);
        self.state.counters.dial_failures.fetch_add(1, Relaxed);
        if self.redials.is_dialled(lead) {
            let failure = self.by_uplink(lead.1, DialFailure::unproven(cause, refuses));
            self.report_dial_failure(peer, failure, began, now);
        }
    }

    /// Takes a connection for down, which may be some time before it has closed.
    fn handle_down(&mut self, connection: ConnectionId, cause: String, now: Instant) {
        let left = self.connections.leaving(connection).map(|leaving| leaving.why);
        self.state.remove_connection(connection);
        let Some(down) = self.connections.handle_down(connection) else {
            return;
        };
        let WentDown {
            peer,
            uplink,
            was_last,
            was_last_of_uplink,
            rests,
        } = down;
        self.handle_way_lost(peer, now);
        self.keep_needed(peer);
        let cause = left.map_or(cause, |why| why.cause().to_owned());
        match left {
            Some(Leave::Spare) => tracing::info!(%peer, %connection, cause, "left a connection"),
            Some(Leave::Rest) | None => tracing::info!(%peer, %connection, cause, "disconnected"),
        }
        self.backlog.push(NetworkEvent::Disconnected {
            peer,
            connection,
            cause,
        });
        // One that rests was given up when that began, and may be wanted again.
        if was_last_of_uplink && !rests {
            self.redials.handle_absent((peer, uplink), now);
        }
        if was_last {
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
                self.handle_heard(peer, connection, now);
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
                self.handle_unproven_end(connection, &with_sources(&failure), false, now);
                self.handle_down(connection, with_sources(&failure), now);
                self.swarm.close_connection(connection);
            }
        }
    }

    fn handle_dial_failure(
        &mut self,
        connection: ConnectionId,
        peer: Option<PeerId>,
        error: &DialError,
        now: Instant,
    ) {
        let Some(peer) = peer.filter(|peer| self.redials.contains(*peer)) else {
            return;
        };
        let is_port_taken = is_port_taken(error);
        if self.handle_punch_failure(peer, connection, is_port_taken, || dial_failures(error), now) {
            return;
        }
        let (uplink, began) = self.redials.handle_attempt_ended(peer, connection).unzip();
        let lead = (peer, uplink.unwrap_or(UplinkId::FIRST));
        if let DialError::Denied { cause } = error
            && let Some(ConnectionRefusal::Superseded) = cause.downcast_ref()
        {
            return;
        }
        self.handle_redial_failure(lead, error, began, now);
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
