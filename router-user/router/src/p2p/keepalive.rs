//! Pings, which show that the other side of a connection is there while nothing else does.
//!
//! Each side pings once a second while packets cross the connection, and ever more rarely while none do: an idle connection
//! costs little, and NAT still remembers it. The first packet after a pause makes the pings frequent again, so that a peer
//! that is gone is found soon after somebody misses it. A peer that does not answer on a connection that
//! there is reason to doubt is silent before it is taken for gone, so that another way to it is looked for meanwhile. The side that has dialled pings a little earlier, and the other
//! side is content with its pings.

mod handler;
mod schedule;

use std::{
    collections::VecDeque,
    fmt,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use libp2p::{
    Multiaddr, PeerId,
    core::{Endpoint, transport::PortUse},
    ping,
    swarm::{
        ConnectionDenied, ConnectionId, FromSwarm, NetworkBehaviour, THandler, THandlerInEvent,
        THandlerOutEvent, ToSwarm,
    },
};

use tokio::time::Instant;

use super::state::NetworkState;
use handler::KeepaliveHandler;
use schedule::Schedule;

/// What is heard of the other side of a connection.
#[derive(Debug)]
pub(super) struct KeepaliveEvent {
    pub(super) peer: PeerId,
    pub(super) connection: ConnectionId,
    pub(super) sign: Sign,
}

/// What is heard of the other side.
#[derive(Debug)]
pub(super) enum Sign {
    /// The first ping of the peer has come.
    PeerPings,
    /// A ping was answered, or the peer is taken for gone.
    Ping(Result<Duration, ping::Failure>),
    /// Nothing has come since a ping was sent at `since`, for longer than an answer takes.
    Silent { since: Instant },
    /// Something has come of a peer that was silent.
    Heard,
}

/// Pings peers, and answers their pings.
pub(super) struct KeepaliveBehaviour {
    state: Arc<NetworkState>,
    longest: Duration,
    events: VecDeque<KeepaliveEvent>,
}

impl KeepaliveBehaviour {
    /// Makes a behaviour that lets no more than `longest` pass between two pings.
    pub(super) fn new(state: Arc<NetworkState>, longest: Duration) -> Self {
        Self {
            state,
            longest,
            events: VecDeque::new(),
        }
    }

    fn handler(&self, connection: ConnectionId, endpoint: Endpoint) -> KeepaliveHandler {
        KeepaliveHandler::new(
            self.state.life(connection),
            Schedule::new(self.longest, endpoint.is_dialer()),
        )
    }
}

impl NetworkBehaviour for KeepaliveBehaviour {
    type ConnectionHandler = KeepaliveHandler;
    type ToSwarm = KeepaliveEvent;

    fn handle_established_inbound_connection(
        &mut self,
        connection: ConnectionId,
        _peer: PeerId,
        _local: &Multiaddr,
        _remote: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(self.handler(connection, Endpoint::Listener))
    }

    fn handle_established_outbound_connection(
        &mut self,
        connection: ConnectionId,
        _peer: PeerId,
        _address: &Multiaddr,
        role: Endpoint,
        _port: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(self.handler(connection, role))
    }

    fn on_swarm_event(&mut self, _event: FromSwarm<'_>) {}

    fn on_connection_handler_event(
        &mut self,
        peer: PeerId,
        connection: ConnectionId,
        sign: THandlerOutEvent<Self>,
    ) {
        self.events.push_back(KeepaliveEvent {
            peer,
            connection,
            sign,
        });
    }

    fn poll(&mut self, _cx: &mut Context<'_>) -> Poll<ToSwarm<Self::ToSwarm, THandlerInEvent<Self>>> {
        // The swarm polls again after an event of a handler.
        match self.events.pop_front() {
            Some(event) => Poll::Ready(ToSwarm::GenerateEvent(event)),
            None => Poll::Pending,
        }
    }
}

impl fmt::Debug for KeepaliveBehaviour {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeepaliveBehaviour")
            .field("longest", &self.longest)
            .finish_non_exhaustive()
    }
}
