//! Who gets a connection, where it runs, and the streams on it.

mod handler;

use std::{
    collections::{HashMap, HashSet},
    fmt,
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError, atomic::Ordering::Relaxed},
    task::{Context, Poll},
    time::SystemTime,
};

use libp2p::{
    Multiaddr, PeerId,
    core::{Endpoint, transport::PortUse},
    multiaddr::Protocol,
    swarm::{
        ConnectionDenied, ConnectionId, FromSwarm, NetworkBehaviour, THandler, THandlerInEvent,
        THandlerOutEvent, ToSwarm,
    },
};
use tokio::{
    runtime::Handle,
    sync::{Semaphore, mpsc},
};

use super::{
    DataStream, MAX_CONNECTIONS_PER_PEER, MAX_STREAMS_PER_SIDE,
    address::transport_kind,
    connections::{Connections, Entry, Opener},
};
use handler::Handler;

/// Most inbound connections that may be in their handshake at a time.
const MAX_HANDSHAKES: usize = 128;

/// Most of them from one IP address, so that one host cannot take them all.
const MAX_HANDSHAKES_PER_ADDRESS: usize = 16;

/// Receives the streams that peers open.
pub trait InboundStreams: Send + Sync {
    /// Takes a stream.
    ///
    /// Called on the task of its connection, so `tokio::spawn` here puts the reader on the connection's runtime.
    /// Must return soon: the connection stands still meanwhile.
    fn accept(&self, peer: PeerId, connection: ConnectionId, stream: DataStream);
}

/// Names the runtime a new connection of a peer runs on, given those of its others. It must have I/O and time enabled.
pub type Placement = Arc<dyn Fn(PeerId, &[Handle]) -> Handle + Send + Sync>;

/// Where the next task of the swarm goes, when it is the task of a connection.
///
/// The swarm spawns it right after the last behaviour has agreed to the connection, on the same thread.
#[derive(Clone, Default)]
pub(super) struct NextTask(Arc<Mutex<Option<Handle>>>);

impl NextTask {
    pub(super) fn take(&self) -> Option<Handle> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn set(&self, runtime: Handle) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(runtime);
    }
}

/// Why a connection was refused.
#[derive(Debug, thiserror::Error)]
pub(super) enum Refusal {
    #[error("peer {0} is not configured")]
    UnknownPeer(PeerId),
    #[error("peer {0} has {MAX_CONNECTIONS_PER_PEER} connections already")]
    TooManyConnections(PeerId),
    #[error("too many inbound connections are in their handshake")]
    TooManyHandshakes,
    #[error("an earlier attempt to reach the peer succeeded")]
    Superseded,
    #[error("nobody but the node's own dialling opens connections")]
    NotOurDial,
}

/// Admits connections of configured peers and gives each a [`Handler`].
///
/// Must be the last of the behaviours of its swarm, see [`NextTask`].
pub(super) struct Streams {
    peers: HashSet<PeerId>,
    connections: Arc<Connections>,
    inbound: Arc<dyn InboundStreams>,
    placement: Placement,
    next_task: NextTask,
    handshakes: HashMap<ConnectionId, Option<IpAddr>>,
    dials: HashSet<ConnectionId>,
    redials: HashSet<ConnectionId>,
}

impl Streams {
    pub(super) fn new(
        peers: HashSet<PeerId>,
        connections: Arc<Connections>,
        inbound: Arc<dyn InboundStreams>,
        placement: Placement,
        next_task: NextTask,
    ) -> Self {
        Self {
            peers,
            connections,
            inbound,
            placement,
            next_task,
            handshakes: HashMap::new(),
            dials: HashSet::new(),
            redials: HashSet::new(),
        }
    }

    /// Admits connections of these peers from now on.
    pub(super) fn set_peers(&mut self, peers: HashSet<PeerId>) {
        self.peers = peers;
    }

    /// Lets this dial begin. No other may: the DHT would dial whomever its nodes name, wherever they say.
    pub(super) fn handle_dial(&mut self, connection: ConnectionId) {
        self.dials.insert(connection);
    }

    /// Marks a dial that is wanted only as long as we have not reached the peer otherwise.
    pub(super) fn handle_redial(&mut self, connection: ConnectionId) {
        self.redials.insert(connection);
    }

    fn admit_handshake(&mut self, connection: ConnectionId, remote: &Multiaddr) -> Result<(), Refusal> {
        let ip = remote.iter().find_map(|protocol| match protocol {
            Protocol::Ip4(ip) => Some(IpAddr::V4(ip)),
            Protocol::Ip6(ip) => Some(IpAddr::V6(ip)),
            _ => None,
        });
        let n_from_there = self.handshakes.values().filter(|other| **other == ip).count();
        if self.handshakes.len() >= MAX_HANDSHAKES || n_from_there >= MAX_HANDSHAKES_PER_ADDRESS {
            self.connections.counters.handshakes_refused.fetch_add(1, Relaxed);
            return Err(Refusal::TooManyHandshakes);
        }
        self.handshakes.insert(connection, ip);
        Ok(())
    }

    fn admit(&mut self, connection: ConnectionId, peer: PeerId, endpoint: Endpoint) -> Result<(), Refusal> {
        let counters = &self.connections.counters;
        let is_redial = self.redials.remove(&connection);
        if !self.peers.contains(&peer) {
            counters.unknown_peers_refused.fetch_add(1, Relaxed);
            return Err(Refusal::UnknownPeer(peer));
        }
        let (n_connections, n_dialled) = self.connections.count(peer);
        // Only what we dialled counts here. If inbound connections did too, two peers that dial each other at once
        // could each drop the connection the other keeps.
        if endpoint.is_dialer() && is_redial && n_dialled > 0 {
            return Err(Refusal::Superseded);
        }
        if n_connections >= MAX_CONNECTIONS_PER_PEER {
            counters.connections_refused.fetch_add(1, Relaxed);
            return Err(Refusal::TooManyConnections(peer));
        }
        Ok(())
    }

    fn establish(
        &mut self,
        connection: ConnectionId,
        peer: PeerId,
        address: &Multiaddr,
        endpoint: Endpoint,
    ) -> Result<Handler, ConnectionDenied> {
        self.admit(connection, peer, endpoint)
            .map_err(ConnectionDenied::new)?;
        let runtime = (self.placement)(peer, &self.connections.runtimes(peer));
        self.next_task.set(runtime.clone());
        let (requests, open_requests) = mpsc::channel(MAX_STREAMS_PER_SIDE);
        let inbound_slots = Arc::new(Semaphore::new(MAX_STREAMS_PER_SIDE));
        let entry = Entry {
            peer,
            address: address.clone(),
            direction: endpoint.into(),
            transport: transport_kind(address),
            since: SystemTime::now(),
            rtt: None,
            runtime,
            opener: Opener {
                requests,
                slots: Arc::new(Semaphore::new(MAX_STREAMS_PER_SIDE)),
            },
            inbound_slots: Arc::clone(&inbound_slots),
        };
        self.connections.insert(connection, entry);
        Ok(Handler {
            peer,
            connection,
            open_requests,
            inbound: Arc::clone(&self.inbound),
            inbound_slots,
            connections: Arc::clone(&self.connections),
        })
    }
}

impl NetworkBehaviour for Streams {
    type ConnectionHandler = Handler;
    type ToSwarm = std::convert::Infallible;

    fn handle_pending_inbound_connection(
        &mut self,
        connection: ConnectionId,
        _local: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<(), ConnectionDenied> {
        self.admit_handshake(connection, remote)
            .map_err(ConnectionDenied::new)
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
            Err(ConnectionDenied::new(Refusal::NotOurDial))
        }
    }

    fn handle_established_inbound_connection(
        &mut self,
        connection: ConnectionId,
        peer: PeerId,
        _local: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.handshakes.remove(&connection);
        self.establish(connection, peer, remote, Endpoint::Listener)
    }

    fn handle_established_outbound_connection(
        &mut self,
        connection: ConnectionId,
        peer: PeerId,
        address: &Multiaddr,
        _role: Endpoint,
        _port: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.establish(connection, peer, address, Endpoint::Dialer)
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        match event {
            FromSwarm::ListenFailure(failure) => {
                self.handshakes.remove(&failure.connection_id);
            }
            FromSwarm::DialFailure(failure) => {
                self.dials.remove(&failure.connection_id);
                self.redials.remove(&failure.connection_id);
            }
            FromSwarm::ConnectionClosed(closed) => {
                self.connections.remove(closed.connection_id);
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

impl fmt::Debug for Streams {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Streams")
            .field("peers", &self.peers)
            .finish_non_exhaustive()
    }
}
