//! Direct connections between two peers that are each behind a NAT, agreed on through a relay.
//!
//! The protocol is DCUtR of libp2p. Both sides say on a stream of the relayed connection where they are seen from outside, and
//! then send at one moment, from their listening ports, so that each NAT takes what comes from the other for answers. Over TCP
//! both connect, over QUIC the one that has dialled the relay; the other sends a few datagrams that only its NAT looks at.

mod book;
mod candidates;
mod handler;
mod message;

use std::{
    collections::VecDeque,
    fmt,
    sync::Arc,
    task::{Context, Poll},
};

use either::Either;
use libp2p::{
    Multiaddr, PeerId, StreamProtocol,
    core::{Endpoint, transport::PortUse},
    swarm::{
        ConnectionDenied, ConnectionId, FromSwarm, NetworkBehaviour, NotifyHandler, THandler,
        THandlerInEvent, THandlerOutEvent, ToSwarm, dummy,
    },
};

pub(super) use book::{DialEnd, PunchBook, Refusal, Relayed, Round};
pub(super) use candidates::{Candidates, usable};
use handler::PunchHandler;

use super::circuit::Circuit;

/// Name of the protocol in which two peers agree to connect directly.
pub const PUNCH_PROTOCOL: StreamProtocol = StreamProtocol::new("/libp2p/dcutr");

/// What became of an exchange with a peer.
#[derive(Debug)]
pub(super) struct PunchEvent {
    pub(super) peer: PeerId,
    pub(super) connection: ConnectionId,
    pub(super) word: PunchWord,
}

/// What became of an exchange.
#[derive(Debug)]
pub(super) enum PunchWord {
    /// Both sides dial now. The addresses are the peer's, as it says.
    Agreed {
        /// Whether this node has begun. It then is the accepting side of the connection.
        is_own: bool,
        addresses: Vec<Multiaddr>,
    },
    /// The exchange that this node has begun failed.
    Failed(String),
    /// The exchange that this node has begun gave way to one of the peer.
    GaveWay,
}

/// Agrees with peers, through relayed connections, to connect directly.
pub(super) struct PunchBehaviour {
    local_peer: PeerId,
    candidates: Arc<Candidates>,
    pending: VecDeque<ToSwarm<PunchEvent, Either<(), std::convert::Infallible>>>,
}

impl PunchBehaviour {
    pub(super) fn new(local_peer: PeerId, candidates: Arc<Candidates>) -> Self {
        Self {
            local_peer,
            candidates,
            pending: VecDeque::new(),
        }
    }

    /// Begins an exchange on a relayed connection; an event says what becomes of it, unless the connection ends.
    pub(super) fn begin(&mut self, peer: PeerId, connection: ConnectionId) {
        self.pending.push_back(ToSwarm::NotifyHandler {
            peer_id: peer,
            handler: NotifyHandler::One(connection),
            event: Either::Left(()),
        });
    }

    fn handler(&self, peer: PeerId, address: &Multiaddr) -> THandler<Self> {
        match Circuit::of(address) {
            Some(_) => Either::Left(PunchHandler::new(
                self.local_peer > peer,
                Arc::clone(&self.candidates),
            )),
            None => Either::Right(dummy::ConnectionHandler),
        }
    }
}

impl NetworkBehaviour for PunchBehaviour {
    type ConnectionHandler = Either<PunchHandler, dummy::ConnectionHandler>;
    type ToSwarm = PunchEvent;

    fn handle_established_inbound_connection(
        &mut self,
        _connection: ConnectionId,
        peer: PeerId,
        _local: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(self.handler(peer, remote))
    }

    fn handle_established_outbound_connection(
        &mut self,
        _connection: ConnectionId,
        peer: PeerId,
        address: &Multiaddr,
        _role: Endpoint,
        _port: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(self.handler(peer, address))
    }

    fn on_swarm_event(&mut self, _event: FromSwarm<'_>) {}

    fn on_connection_handler_event(
        &mut self,
        peer: PeerId,
        connection: ConnectionId,
        event: THandlerOutEvent<Self>,
    ) {
        let word = match event {
            Either::Left(word) => word,
            Either::Right(never) => match never {},
        };
        self.pending.push_back(ToSwarm::GenerateEvent(PunchEvent {
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

impl fmt::Debug for PunchBehaviour {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PunchBehaviour")
            .field("candidates", &self.candidates)
            .finish_non_exhaustive()
    }
}
