//! The behaviour that admits connections and carries the streams on them.

mod handler;
mod upgrade;

use std::{
    collections::{HashMap, HashSet},
    fmt,
    sync::{Arc, atomic::Ordering::Relaxed},
    task::{Context, Poll},
    time::SystemTime,
};

use libp2p::{
    Multiaddr, PeerId,
    core::{Endpoint, transport::PortUse},
    swarm::{
        ConnectionDenied, ConnectionId, FromSwarm, NetworkBehaviour, THandler, THandlerInEvent,
        THandlerOutEvent, ToSwarm,
    },
};
use tokio::sync::mpsc;
use tracing::Span;

use super::{
    address::{TransportKind, ip_of, transport_kind},
    inbound::{InboundStreams, NextConnectionTask, Placement},
    limits::{MAX_CONNECTIONS_PER_PEER, MAX_STREAMS_PER_SIDE},
    losses::Losses,
    next_connection::NextConnection,
    redial_book::Lead,
    state::{ConnectionEntry, NetworkState, StreamOpener},
    stream_order::StreamOrder,
    uplink::UplinkId,
};
use handler::StreamHandler;

/// Why a connection was refused.
#[derive(Debug, thiserror::Error)]
pub(super) enum ConnectionRefusal {
    #[error("peer {0} is not configured")]
    UnknownPeer(PeerId),
    #[error("peer {0} has {MAX_CONNECTIONS_PER_PEER} connections already")]
    TooManyConnections(PeerId),
    #[error("an earlier attempt to reach the peer succeeded")]
    Superseded,
    #[error("nobody but the node's own dialling opens connections")]
    NotOurDial,
}

/// Admits connections of configured peers, and gives each a [`StreamHandler`].
///
/// It must be the last of the behaviours of its swarm, see [`NextConnectionTask`].
pub(super) struct StreamBehaviour {
    peers: HashSet<PeerId>,
    state: Arc<NetworkState>,
    inbound: Arc<dyn InboundStreams>,
    placement: Placement,
    next_task: NextConnectionTask,
    /// Where the network was started; the spans of its connections are inside it.
    span: Span,
    /// The order of each peer's streams.
    orders: HashMap<PeerId, Arc<StreamOrder>>,
    dials: HashSet<ConnectionId>,
    redials: HashSet<ConnectionId>,
    punches: HashSet<ConnectionId>,
    /// The uplinks by which dials leave.
    leads: HashMap<ConnectionId, UplinkId>,
    /// What counts the packets of connections that are not up yet.
    losses: HashMap<ConnectionId, Arc<Losses>>,
    next_connection: NextConnection,
}

impl StreamBehaviour {
    pub(super) fn new(
        peers: HashSet<PeerId>,
        state: Arc<NetworkState>,
        inbound: Arc<dyn InboundStreams>,
        placement: Placement,
        next_task: NextConnectionTask,
        next_connection: NextConnection,
    ) -> Self {
        Self {
            peers,
            state,
            inbound,
            placement,
            next_task,
            span: Span::current(),
            orders: HashMap::new(),
            dials: HashSet::new(),
            redials: HashSet::new(),
            punches: HashSet::new(),
            leads: HashMap::new(),
            losses: HashMap::new(),
            next_connection,
        }
    }

    /// Sets the peers whose connections are admitted from now on.
    pub(super) fn set_peers(&mut self, peers: HashSet<PeerId>) {
        self.peers = peers;
        // One that is in use is kept: its peer may come back before the last of its streams has ended.
        self.orders
            .retain(|peer, order| self.peers.contains(peer) || Arc::strong_count(order) > 1);
    }

    /// Records what counts the packets of a dial that has begun.
    pub(super) fn handle_begun(&mut self, connection: ConnectionId, losses: Arc<Losses>) {
        self.losses.insert(connection, losses);
    }

    /// Lets this dial begin by an uplink. No other may: the DHT would dial every peer that its nodes name, at any address they
    /// give.
    pub(super) fn handle_dial_by(&mut self, connection: ConnectionId, uplink: UplinkId) {
        self.dials.insert(connection);
        self.leads.insert(connection, uplink);
    }

    /// Marks a dial that is wanted only as long as this node has not reached the peer otherwise.
    pub(super) fn handle_redial(&mut self, connection: ConnectionId) {
        self.redials.insert(connection);
    }

    /// Lets this dial begin, which was agreed on with the peer: another one to the same address leads nowhere.
    pub(super) fn handle_punch(&mut self, connection: ConnectionId) {
        self.dials.insert(connection);
        self.punches.insert(connection);
    }

    fn admit(
        &mut self,
        connection: ConnectionId,
        (peer, uplink): Lead,
        address: &Multiaddr,
        endpoint: Endpoint,
    ) -> Result<(), ConnectionRefusal> {
        let counters = &self.state.counters;
        let is_redial = self.redials.remove(&connection);
        if !self.peers.contains(&peer) {
            counters.unknown_peers_refused.fetch_add(1, Relaxed);
            return Err(ConnectionRefusal::UnknownPeer(peer));
        }
        let (n_connections, n_dialled) = self.state.n_connections((peer, uplink), transport_kind(address));
        // Only what this node dialled counts here. If inbound connections did too, two peers that dial each other at once
        // could each drop the connection the other keeps.
        if endpoint.is_dialer() && is_redial && n_dialled > 0 {
            return Err(ConnectionRefusal::Superseded);
        }
        if n_connections >= MAX_CONNECTIONS_PER_PEER {
            counters.connections_refused.fetch_add(1, Relaxed);
            return Err(ConnectionRefusal::TooManyConnections(peer));
        }
        Ok(())
    }

    fn establish(
        &mut self,
        connection: ConnectionId,
        peer: PeerId,
        address: &Multiaddr,
        endpoint: Endpoint,
        port: PortUse,
        known: Option<UplinkId>,
    ) -> Result<StreamHandler, ConnectionDenied> {
        let is_punched = self.punches.remove(&connection);
        let uplink = known.unwrap_or(UplinkId::FIRST);
        self.admit(connection, (peer, uplink), address, endpoint)
            .map_err(ConnectionDenied::new)?;
        if let Some(ip) = ip_of(address) {
            self.state.handshakes.handle_peer_at(peer, ip);
        }
        let runtime = (self.placement)(peer, &self.state.runtimes(peer));
        let span = tracing::debug_span!(parent: &self.span, "connection", %peer, %connection);
        self.next_task.set(runtime.clone(), span);
        let (requests, open_requests) = mpsc::channel(MAX_STREAMS_PER_SIDE);
        let new_order = || Arc::new(StreamOrder::new(peer, Arc::clone(&self.state)));
        let order = Arc::clone(self.orders.entry(peer).or_insert_with(new_order));
        let life = self.state.life(connection);
        let slots = self.state.slots(connection);
        let losses = self.losses.remove(&connection).unwrap_or_default();
        life.set_socket(Arc::clone(&losses));
        let entry = ConnectionEntry {
            peer,
            address: address.clone(),
            direction: endpoint.into(),
            transport: transport_kind(address),
            since: SystemTime::now(),
            rtt: None,
            runtime,
            opener: StreamOpener {
                requests,
                slots: Arc::clone(&slots.outbound),
            },
            inbound_slots: Arc::clone(&slots.inbound),
            life: Arc::clone(&life),
            is_proven: endpoint.is_listener(),
            is_leaving: false,
            is_silent: false,
            is_dark: false,
            is_punched,
            is_from_listening_port: port == PortUse::Reuse,
            uplink,
            is_of_uplink: known.is_some(),
            losses,
        };
        self.state.insert_connection(connection, entry);
        Ok(StreamHandler {
            peer,
            connection,
            open_requests,
            inbound: Arc::clone(&self.inbound),
            slots,
            order,
            life,
            state: Arc::clone(&self.state),
        })
    }
}

impl NetworkBehaviour for StreamBehaviour {
    type ConnectionHandler = StreamHandler;
    type ToSwarm = std::convert::Infallible;

    fn handle_pending_inbound_connection(
        &mut self,
        connection: ConnectionId,
        _local: &Multiaddr,
        _remote: &Multiaddr,
    ) -> Result<(), ConnectionDenied> {
        self.losses
            .insert(connection, self.next_connection.take_accepted());
        Ok(())
    }

    fn handle_pending_outbound_connection(
        &mut self,
        connection: ConnectionId,
        _peer: Option<PeerId>,
        _addresses: &[Multiaddr],
        _role: Endpoint,
    ) -> Result<Vec<Multiaddr>, ConnectionDenied> {
        if self.dials.remove(&connection) {
            Ok(Vec::new())
        } else {
            Err(ConnectionDenied::new(ConnectionRefusal::NotOurDial))
        }
    }

    fn handle_established_inbound_connection(
        &mut self,
        connection: ConnectionId,
        peer: PeerId,
        local: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        let known = self.state.uplinks.of_local(local);
        self.establish(connection, peer, remote, Endpoint::Listener, PortUse::New, known)
    }

    fn handle_established_outbound_connection(
        &mut self,
        connection: ConnectionId,
        peer: PeerId,
        address: &Multiaddr,
        role: Endpoint,
        port: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        let lead = self.leads.remove(&connection);
        // From the listening port, or through a relay, it leaves as the routes have it.
        let is_bound = port == PortUse::New && transport_kind(address) != TransportKind::Relay;
        self.establish(connection, peer, address, role, port, lead.filter(|_| is_bound))
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        match event {
            FromSwarm::ListenFailure(failure) => {
                self.state.remove_connection(failure.connection_id);
                self.losses.remove(&failure.connection_id);
            }
            FromSwarm::DialFailure(failure) => {
                self.state.remove_connection(failure.connection_id);
                self.dials.remove(&failure.connection_id);
                self.redials.remove(&failure.connection_id);
                self.punches.remove(&failure.connection_id);
                self.leads.remove(&failure.connection_id);
                self.losses.remove(&failure.connection_id);
            }
            FromSwarm::ConnectionClosed(closed) => {
                self.state.remove_connection(closed.connection_id);
            }
            FromSwarm::AddressChange(change) => {
                let address = change.new.get_remote_address();
                tracing::info!(peer = %change.peer_id, connection = %change.connection_id, %address, "a connection moved");
                self.state.handle_moved(change.connection_id, address);
            }
            _ => {}
        }
    }

    fn on_connection_handler_event(
        &mut self,
        _peer: PeerId,
        _connection: ConnectionId,
        event: THandlerOutEvent<Self>,
    ) {
        match event {}
    }

    fn poll(&mut self, _cx: &mut Context<'_>) -> Poll<ToSwarm<Self::ToSwarm, THandlerInEvent<Self>>> {
        Poll::Pending
    }
}

impl fmt::Debug for StreamBehaviour {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StreamBehaviour")
            .field("peers", &self.peers)
            .finish_non_exhaustive()
    }
}
