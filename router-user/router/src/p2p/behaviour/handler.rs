//! The handler of one connection's streams, which runs in the connection's task.

use std::{
    convert::Infallible,
    io,
    sync::{Arc, atomic::Ordering::Relaxed},
    task::{Context, Poll},
};

use libp2p::{
    PeerId,
    swarm::{
        ConnectionHandler, ConnectionHandlerEvent, ConnectionId, StreamUpgradeError, SubstreamProtocol,
        handler::{ConnectionEvent, DialUpgradeError, FullyNegotiatedInbound, FullyNegotiatedOutbound},
    },
};
use tokio::sync::mpsc;

use super::upgrade::{AcceptUpgrade, Accepted, OpenUpgrade, Opened};
use crate::p2p::{
    error::OpenError,
    inbound::InboundStreams,
    life::SignsOfLife,
    limits::OPEN_TIMEOUT,
    preamble::{self, Preamble},
    state::{NetworkState, OpenStreamRequest},
    stream::DataStream,
    stream_order::StreamOrder,
    stream_slots::ConnectionSlots,
};

/// Opens and accepts the streams of one connection.
pub(in crate::p2p) struct StreamHandler {
    pub(super) peer: PeerId,
    pub(super) connection: ConnectionId,
    pub(super) open_requests: mpsc::Receiver<OpenStreamRequest>,
    pub(super) inbound: Arc<dyn InboundStreams>,
    pub(super) slots: ConnectionSlots,
    pub(super) order: Arc<StreamOrder>,
    pub(super) life: Arc<SignsOfLife>,
    pub(super) state: Arc<NetworkState>,
}

impl StreamHandler {
    fn accept(&self, accepted: Accepted) {
        let Accepted { stream, preamble } = accepted;
        let slot = self.slots.inbound.take();
        self.slots.inbound.handle_opened();
        let Ok(slot) = slot else {
            self.state.counters.streams_refused.fetch_add(1, Relaxed);
            tracing::debug!(peer = %self.peer, connection = %self.connection, "reset a stream, the peer has too many");
            return;
        };
        let life = Arc::clone(&self.life);
        let stream = match preamble.map(|bytes| preamble::decode(&bytes)) {
            None => DataStream::new(stream, slot, life),
            Some(place) => match place.and_then(|place| self.order.place(place).ok()) {
                Some(place) => DataStream::in_place(stream, slot, life, place),
                None => {
                    self.state.counters.lane_streams_refused.fetch_add(1, Relaxed);
                    tracing::debug!(
                        peer = %self.peer, connection = %self.connection, ?place,
                        "reset a stream, which has no such place in a lane"
                    );
                    return;
                }
            },
        };
        self.inbound.accept(self.peer, self.connection, stream);
    }
}

impl ConnectionHandler for StreamHandler {
    type FromBehaviour = Infallible;
    type ToBehaviour = Infallible;
    type InboundProtocol = AcceptUpgrade;
    type OutboundProtocol = OpenUpgrade;
    type InboundOpenInfo = ();
    type OutboundOpenInfo = OpenStreamRequest;

    fn listen_protocol(&self) -> SubstreamProtocol<AcceptUpgrade> {
        SubstreamProtocol::new(AcceptUpgrade, ()).with_timeout(OPEN_TIMEOUT)
    }

    fn connection_keep_alive(&self) -> bool {
        true
    }

    fn poll(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<ConnectionHandlerEvent<OpenUpgrade, OpenStreamRequest, Infallible>> {
        while let Poll::Ready(Some(request)) = self.open_requests.poll_recv(cx) {
            if request.reply.is_closed() {
                continue;
            }
            let run = self.state.run;
            let upgrade = OpenUpgrade(request.place.map(|stream| Preamble { run, stream }));
            let protocol = SubstreamProtocol::new(upgrade, request).with_timeout(OPEN_TIMEOUT);
            return Poll::Ready(ConnectionHandlerEvent::OutboundSubstreamRequest { protocol });
        }
        Poll::Pending
    }

    fn on_behaviour_event(&mut self, event: Infallible) {
        match event {}
    }

    fn on_connection_event(
        &mut self,
        event: ConnectionEvent<'_, AcceptUpgrade, OpenUpgrade, (), OpenStreamRequest>,
    ) {
        match event {
            ConnectionEvent::FullyNegotiatedInbound(FullyNegotiatedInbound { protocol, .. }) => {
                self.accept(protocol);
            }
            ConnectionEvent::FullyNegotiatedOutbound(FullyNegotiatedOutbound { protocol, info }) => {
                let OpenStreamRequest { slot, reply, .. } = info;
                // The caller may have given up; then the stream is dropped, which resets it.
                let Opened { stream, is_in_lane } = protocol;
                let opened = DataStream::opened(stream, slot, Arc::clone(&self.life), is_in_lane);
                self.slots.outbound.handle_opened();
                drop(reply.send(Ok(opened)));
            }
            ConnectionEvent::DialUpgradeError(DialUpgradeError { info, error }) => {
                let error = match error {
                    StreamUpgradeError::Timeout => OpenError::TimedOut,
                    StreamUpgradeError::NegotiationFailed => OpenError::Unsupported,
                    StreamUpgradeError::Io(error) if error.kind() == io::ErrorKind::TimedOut => {
                        OpenError::TimedOut
                    }
                    StreamUpgradeError::Io(error) | StreamUpgradeError::Apply(error) => OpenError::Io(error),
                };
                drop(info.reply.send(Err(error)));
            }
            _ => {}
        }
    }
}
