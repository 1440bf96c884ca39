//! How a connection is left in order: word first, then each side reads what the other has sent, then it is closed.
//!
//! The side that has dialled says the word, on a stream of [`LEAVE_PROTOCOL`]: there is a better connection, or one is
//! enough, or nothing was sent for long. From then on neither side opens a stream for packets. Each says how many it has
//! opened once they are over, the peer only when it has read all of the dialler's. So nothing is on its way any more when
//! the dialler has read the peer's, and closes the connection. Until then either side takes the word back by ending the
//! stream.

mod handler;

use std::{
    collections::VecDeque,
    fmt,
    sync::Arc,
    task::{Context, Poll},
};

use libp2p::{
    Multiaddr, PeerId, StreamProtocol,
    core::{Endpoint, transport::PortUse},
    swarm::{
        ConnectionDenied, ConnectionId, FromSwarm, NetworkBehaviour, NotifyHandler, THandler,
        THandlerInEvent, THandlerOutEvent, ToSwarm,
    },
};

use super::state::NetworkState;
use handler::DepartureHandler;

/// Name and version of the protocol in which the sides of a connection agree to leave it.
pub const LEAVE_PROTOCOL: StreamProtocol = StreamProtocol::new("/stream-router/leave/2");

/// Why a connection is to be left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Leave {
    /// There is another connection, and it is better, or one is enough.
    Spare,
    /// Nothing was sent for long, to a peer that is connected on demand.
    Rest,
}

impl Leave {
    /// Returns what the end of the connection is said to be due to.
    pub(super) fn cause(self) -> &'static str {
        match self {
            Self::Spare => "another connection is used",
            Self::Rest => "nothing was sent on it for long",
        }
    }
}

/// What was said of a connection.
#[derive(Debug)]
pub(super) struct DepartureEvent {
    pub(super) peer: PeerId,
    pub(super) connection: ConnectionId,
    pub(super) word: Word,
}

/// A word about a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Word {
    /// The peer was not told, most likely as it does not know the protocol.
    NotTold,
    /// The peer keeps the connection.
    Refused,
    /// All that either side has sent was read, and nothing comes any more: the connection can be closed.
    Agreed,
    /// The peer says that the connection is to be left.
    Heard(Leave),
    /// The peer has taken its word back.
    TakenBack,
}

/// What a handler is to do.
#[derive(Clone, Copy, Debug)]
pub(super) enum Command {
    Leave(Leave),
    Stay,
}

impl Leave {
    fn to_byte(self) -> u8 {
        match self {
            Self::Spare => 0,
            Self::Rest => 1,
        }
    }

    fn from_byte(byte: u8) -> Option<Self> {
        [Self::Spare, Self::Rest]
            .into_iter()
            .find(|leave| leave.to_byte() == byte)
    }
}

/// Agrees with peers which connections are left.
pub(super) struct DepartureBehaviour {
    state: Arc<NetworkState>,
    pending: VecDeque<ToSwarm<DepartureEvent, Command>>,
}

impl DepartureBehaviour {
    pub(super) fn new(state: Arc<NetworkState>) -> Self {
        Self {
            state,
            pending: VecDeque::new(),
        }
    }

    /// Opens no stream for packets on a connection any more, and tells the peer; events say what becomes of it.
    pub(super) fn leave(&mut self, peer: PeerId, connection: ConnectionId, leave: Leave) {
        self.command(peer, connection, Command::Leave(leave));
    }

    /// Takes the word back, or does not agree to that of the peer.
    pub(super) fn stay(&mut self, peer: PeerId, connection: ConnectionId) {
        self.command(peer, connection, Command::Stay);
    }

    fn command(&mut self, peer: PeerId, connection: ConnectionId, command: Command) {
        self.pending.push_back(ToSwarm::NotifyHandler {
            peer_id: peer,
            handler: NotifyHandler::One(connection),
            event: command,
        });
    }
}

impl NetworkBehaviour for DepartureBehaviour {
    type ConnectionHandler = DepartureHandler;
    type ToSwarm = DepartureEvent;

    fn handle_established_inbound_connection(
        &mut self,
        connection: ConnectionId,
        _peer: PeerId,
        _local: &Multiaddr,
        _remote: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(DepartureHandler::new(self.state.slots(connection)))
    }

    fn handle_established_outbound_connection(
        &mut self,
        connection: ConnectionId,
        _peer: PeerId,
        _address: &Multiaddr,
        _role: Endpoint,
        _port: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(DepartureHandler::new(self.state.slots(connection)))
    }

    fn on_swarm_event(&mut self, _event: FromSwarm<'_>) {}

    fn on_connection_handler_event(
        &mut self,
        peer: PeerId,
        connection: ConnectionId,
        word: THandlerOutEvent<Self>,
    ) {
        self.pending.push_back(ToSwarm::GenerateEvent(DepartureEvent {
            peer,
            connection,
            word,
        }));
    }

    fn poll(&mut self, _cx: &mut Context<'_>) -> Poll<ToSwarm<Self::ToSwarm, THandlerInEvent<Self>>> {
        // The swarm polls again after a request of the driver, and after an event of a handler.
        self.pending.pop_front().map_or(Poll::Pending, Poll::Ready)
    }
}

impl fmt::Debug for DepartureBehaviour {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DepartureBehaviour").finish_non_exhaustive()
    }
}
