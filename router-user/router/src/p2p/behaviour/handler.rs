//! The handler of one connection's streams, which runs in the connection's task.

use std::{
    convert::Infallible,
    io,
    sync::{Arc, atomic::Ordering::Relaxed},
    task::{Context, Poll},
};

use libp2p::{
    PeerId, Stream, StreamProtocol,
    core::upgrade::ReadyUpgrade,
    swarm::{
        ConnectionHandler, ConnectionHandlerEvent, ConnectionId, StreamUpgradeError, SubstreamProtocol,
        handler::{ConnectionEvent, DialUpgradeError, FullyNegotiatedInbound, FullyNegotiatedOutbound},
    },
};
use tokio::sync::{Semaphore, mpsc};

use crate::p2p::{
    error::OpenError,
    inbound::InboundStreams,
    limits::OPEN_TIMEOUT,
    state::{NetworkState, OpenStreamRequest},
    stream::{DataStream, IP_PROTOCOL},
};

type Upgrade = ReadyUpgrade<StreamProtocol>;

/// Opens and accepts the streams of one connection.
pub(in crate::p2p) struct StreamHandler {
    pub(super) peer: PeerId,
    pub(super) connection: ConnectionId,
    pub(super) open_requests: mpsc::Receiver<OpenStreamRequest>,
    pub(super) inbound: Arc<dyn InboundStreams>,
    pub(super) inbound_slots: Arc<Semaphore>,
    pub(super) state: Arc<NetworkState>,
}

impl StreamHandler {
    fn accept(&self, stream: Stream) {
        match Arc::clone(&self.inbound_slots).try_acquire_owned() {
            Ok(slot) => self
                .inbound
                .accept(self.peer, self.connection, DataStream::new(stream, slot)),
            Err(_all_taken) => {
                self.state.counters.streams_refused.fetch_add(1, Relaxed);
                tracing::debug!(peer = %self.peer, connection = %self.connection, "reset a stream, the peer has too many");
            }
        }
    }
}

impl ConnectionHandler for StreamHandler {
    type FromBehaviour = Infallible;
    type ToBehaviour = Infallible;
    type InboundProtocol = Upgrade;
    type OutboundProtocol = Upgrade;
    type InboundOpenInfo = ();
    type OutboundOpenInfo = OpenStreamRequest;

    fn listen_protocol(&self) -> SubstreamProtocol<Upgrade> {
        SubstreamProtocol::new(ReadyUpgrade::new(IP_PROTOCOL), ()).with_timeout(OPEN_TIMEOUT)
    }

    fn connection_keep_alive(&self) -> bool {
        true
    }

    fn poll(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<ConnectionHandlerEvent<Upgrade, OpenStreamRequest, Infallible>> {
        while let Poll::Ready(Some(request)) = self.open_requests.poll_recv(cx) {
            if request.reply.is_closed() {
                continue;
            }
            let protocol =
                SubstreamProtocol::new(ReadyUpgrade::new(IP_PROTOCOL), request).with_timeout(OPEN_TIMEOUT);
            return Poll::Ready(ConnectionHandlerEvent::OutboundSubstreamRequest { protocol });
        }
        Poll::Pending
    }

    fn on_behaviour_event(&mut self, event: Infallible) {
        match event {}
    }

    fn on_connection_event(&mut self, event: ConnectionEvent<'_, Upgrade, Upgrade, (), OpenStreamRequest>) {
        match event {
            ConnectionEvent::FullyNegotiatedInbound(FullyNegotiatedInbound { protocol, .. }) => {
                self.accept(protocol);
            }
            ConnectionEvent::FullyNegotiatedOutbound(FullyNegotiatedOutbound { protocol, info }) => {
                let OpenStreamRequest { slot, reply } = info;
                // The caller may have given up; then the stream is dropped, which resets it.
                drop(reply.send(Ok(DataStream::new(protocol, slot))));
            }
            ConnectionEvent::DialUpgradeError(DialUpgradeError { info, error }) => {
                let error = match error {
                    StreamUpgradeError::Timeout => OpenError::TimedOut,
                    StreamUpgradeError::NegotiationFailed => OpenError::Unsupported,
                    StreamUpgradeError::Io(error) if error.kind() == io::ErrorKind::TimedOut => {
                        OpenError::TimedOut
                    }
                    StreamUpgradeError::Io(error) => OpenError::Io(error),
                    StreamUpgradeError::Apply(never) => match never {},
                };
                drop(info.reply.send(Err(error)));
            }
            _ => {}
        }
    }
}
