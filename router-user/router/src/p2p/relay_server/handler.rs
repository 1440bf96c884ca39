//! The streams of a connection in which a peer asks of the relay, and those in which the relay hands over circuits.

use std::{
    convert::Infallible,
    sync::{Arc, atomic::Ordering::Relaxed},
    task::{Context, Poll},
};

use libp2p::{
    Stream, StreamProtocol,
    core::upgrade::ReadyUpgrade,
    relay::{HOP_PROTOCOL_NAME, STOP_PROTOCOL_NAME},
    swarm::{
        ConnectionHandler, ConnectionHandlerEvent, SubstreamProtocol,
        handler::{ConnectionEvent, DialUpgradeError, FullyNegotiatedInbound, FullyNegotiatedOutbound},
    },
};
use tokio::{runtime::Handle, sync::Semaphore};
use tracing::Instrument;

use super::{
    hop::{HandOver, Office},
    ledger::End,
    message::Status,
};
use crate::p2p::limits::{MAX_STREAMS_PER_SIDE, OPEN_TIMEOUT};

/// Most requests of one connection at a time that are not answered; more are dropped.
const MAX_REQUESTS: usize = MAX_STREAMS_PER_SIDE;

/// Serves a peer on one of its connections.
pub(in crate::p2p) struct RelayHandler {
    end: End,
    office: Arc<Office>,
    room: Arc<Semaphore>,
    /// Circuits to be handed over. There are no more of them than circuits.
    asked: Vec<HandOver>,
}

impl RelayHandler {
    pub(super) fn new(end: End, office: Arc<Office>) -> Self {
        Self {
            end,
            office,
            room: Arc::new(Semaphore::new(MAX_REQUESTS)),
            asked: Vec::new(),
        }
    }

    fn handle_request(&self, stream: Stream) {
        let Ok(permit) = Arc::clone(&self.room).try_acquire_owned() else {
            let counters = &self.office.state.counters;
            counters.relay_requests_refused.fetch_add(1, Relaxed);
            tracing::debug!(peer = %self.end.0, "a peer asks too much at a time");
            return;
        };
        let (office, end) = (Arc::clone(&self.office), self.end);
        let request = async move {
            office.serve(end, stream).await;
            drop(permit);
        };
        Handle::current().spawn(request.in_current_span());
    }
}

impl ConnectionHandler for RelayHandler {
    type FromBehaviour = HandOver;
    type ToBehaviour = Infallible;
    type InboundProtocol = ReadyUpgrade<StreamProtocol>;
    type OutboundProtocol = ReadyUpgrade<StreamProtocol>;
    type InboundOpenInfo = ();
    type OutboundOpenInfo = HandOver;

    fn listen_protocol(&self) -> SubstreamProtocol<Self::InboundProtocol> {
        SubstreamProtocol::new(ReadyUpgrade::new(HOP_PROTOCOL_NAME), ()).with_timeout(OPEN_TIMEOUT)
    }

    fn poll(
        &mut self,
        _cx: &mut Context<'_>,
    ) -> Poll<ConnectionHandlerEvent<Self::OutboundProtocol, HandOver, Infallible>> {
        // The connection polls again after a word of the behaviour.
        self.asked.pop().map_or(Poll::Pending, |hand_over| {
            let upgrade = ReadyUpgrade::new(STOP_PROTOCOL_NAME);
            let protocol = SubstreamProtocol::new(upgrade, hand_over).with_timeout(OPEN_TIMEOUT);
            Poll::Ready(ConnectionHandlerEvent::OutboundSubstreamRequest { protocol })
        })
    }

    fn on_behaviour_event(&mut self, hand_over: HandOver) {
        self.asked.push(hand_over);
    }

    fn on_connection_event(
        &mut self,
        event: ConnectionEvent<'_, Self::InboundProtocol, Self::OutboundProtocol, (), HandOver>,
    ) {
        match event {
            ConnectionEvent::FullyNegotiatedInbound(FullyNegotiatedInbound { protocol, .. }) => {
                self.handle_request(protocol);
            }
            ConnectionEvent::FullyNegotiatedOutbound(FullyNegotiatedOutbound { protocol, info }) => {
                Handle::current().spawn(info.run(protocol).in_current_span());
            }
            ConnectionEvent::DialUpgradeError(DialUpgradeError { info, error }) => {
                tracing::debug!(peer = %self.end.0, %error, "a peer takes no circuit");
                info.end(Err(Status::ConnectionFailed));
            }
            _ => {}
        }
    }
}
