//! The word that a connection is to be left, which its dialler says to the peer: there is a better one, or one is enough.
//!
//! To say it is to open a stream of [`LEAVE_PROTOCOL`], which carries nothing.

use std::{
    collections::VecDeque,
    fmt,
    task::{Context, Poll},
};

use libp2p::{
    Multiaddr, PeerId, StreamProtocol,
    core::{Endpoint, transport::PortUse, upgrade::ReadyUpgrade},
    swarm::{
        ConnectionDenied, ConnectionHandler, ConnectionHandlerEvent, ConnectionId, FromSwarm,
        NetworkBehaviour, NotifyHandler, SubstreamProtocol, THandler, THandlerInEvent, THandlerOutEvent,
        ToSwarm,
        handler::{ConnectionEvent, FullyNegotiatedInbound, FullyNegotiatedOutbound},
    },
};

use super::limits::OPEN_TIMEOUT;

/// Name and version of the protocol whose stream says that the connection is to be left.
pub const LEAVE_PROTOCOL: StreamProtocol = StreamProtocol::new("/stream-router/leave/1");

/// What became of a connection that is to be left.
#[derive(Debug)]
pub(super) struct DepartureEvent {
    pub(super) peer: PeerId,
    pub(super) connection: ConnectionId,
    pub(super) word: Word,
}

/// A word about a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Word {
    /// The peer knows now that the connection is to be left.
    Told,
    /// The peer was not told, most likely as it does not know the protocol.
    NotTold,
    /// The peer says that the connection is to be left.
    Heard,
}

/// Tells peers which connections are to be left, and hears it from them.
#[derive(Default)]
pub(super) struct DepartureBehaviour {
    pending: VecDeque<ToSwarm<DepartureEvent, Leave>>,
}

/// The command to tell the peer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Leave;

impl DepartureBehaviour {
    /// Tells the peer that a connection is to be left; an event says what became of it.
    pub(super) fn leave(&mut self, peer: PeerId, connection: ConnectionId) {
        self.pending.push_back(ToSwarm::NotifyHandler {
            peer_id: peer,
            handler: NotifyHandler::One(connection),
            event: Leave,
        });
    }
}

impl NetworkBehaviour for DepartureBehaviour {
    type ConnectionHandler = DepartureHandler;
    type ToSwarm = DepartureEvent;

    fn handle_established_inbound_connection(
        &mut self,
        _connection: ConnectionId,
        _peer: PeerId,
        _local: &Multiaddr,
        _remote: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(DepartureHandler::default())
    }

    fn handle_established_outbound_connection(
        &mut self,
        _connection: ConnectionId,
        _peer: PeerId,
        _address: &Multiaddr,
        _role: Endpoint,
        _port: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(DepartureHandler::default())
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

/// Tells the peer of one connection, and hears it.
#[derive(Debug, Default)]
pub(super) struct DepartureHandler {
    is_to_tell: bool,
    words: VecDeque<Word>,
    was_heard: bool,
}

impl ConnectionHandler for DepartureHandler {
    type FromBehaviour = Leave;
    type ToBehaviour = Word;
    type InboundProtocol = ReadyUpgrade<StreamProtocol>;
    type OutboundProtocol = ReadyUpgrade<StreamProtocol>;
    type InboundOpenInfo = ();
    type OutboundOpenInfo = ();

    fn listen_protocol(&self) -> SubstreamProtocol<Self::InboundProtocol> {
        SubstreamProtocol::new(ReadyUpgrade::new(LEAVE_PROTOCOL), ()).with_timeout(OPEN_TIMEOUT)
    }

    fn poll(
        &mut self,
        _cx: &mut Context<'_>,
    ) -> Poll<ConnectionHandlerEvent<Self::OutboundProtocol, (), Word>> {
        if let Some(word) = self.words.pop_front() {
            return Poll::Ready(ConnectionHandlerEvent::NotifyBehaviour(word));
        }
        if std::mem::take(&mut self.is_to_tell) {
            let upgrade = ReadyUpgrade::new(LEAVE_PROTOCOL);
            let protocol = SubstreamProtocol::new(upgrade, ()).with_timeout(OPEN_TIMEOUT);
            return Poll::Ready(ConnectionHandlerEvent::OutboundSubstreamRequest { protocol });
        }
        Poll::Pending
    }

    fn on_behaviour_event(&mut self, Leave: Leave) {
        self.is_to_tell = true;
    }

    fn on_connection_event(
        &mut self,
        event: ConnectionEvent<'_, Self::InboundProtocol, Self::OutboundProtocol>,
    ) {
        match event {
            // A peer can say it as often as it likes.
            ConnectionEvent::FullyNegotiatedInbound(FullyNegotiatedInbound { .. }) if !self.was_heard => {
                self.was_heard = true;
                self.words.push_back(Word::Heard);
            }
            ConnectionEvent::FullyNegotiatedOutbound(FullyNegotiatedOutbound { .. }) => {
                self.words.push_back(Word::Told);
            }
            ConnectionEvent::DialUpgradeError(_) => self.words.push_back(Word::NotTold),
            _ => {}
        }
    }
}
