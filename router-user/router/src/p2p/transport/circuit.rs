//! Connections through a relay: a stock circuit, secured and multiplexed end to end like a TCP connection, so that the relay
//! sees no plaintext and can put in nothing.

use std::{
    collections::HashMap,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use futures::{FutureExt, future::BoxFuture};
use libp2p::{
    Multiaddr, PeerId, Transport,
    core::{
        muxing::StreamMuxerBox,
        transport::{DialOpts, ListenerId, TransportError, TransportEvent},
    },
    multiaddr::Protocol,
    relay::client,
};
use tokio::sync::Semaphore;

use super::{
    security::Security,
    tcp::{INBOUND_STEP_LIMIT, TcpError, secure_inbound, secure_outbound},
};
use crate::p2p::circuit::Circuit;

/// Most circuits of peers that are in their handshake at a time. A relay is a configured peer, so that no stranger can take
/// them all.
const MAX_HANDSHAKES: usize = 32;

/// Connections through relays.
pub(super) struct CircuitTransport {
    circuits: client::Transport,
    security: Security,
    /// The relay of each listener.
    relays: HashMap<ListenerId, PeerId>,
    handshakes: Arc<Semaphore>,
}

/// Why a connection through a relay could not be brought up.
#[derive(Debug, thiserror::Error)]
pub(super) enum CircuitError {
    #[error(transparent)]
    Circuit(#[from] client::transport::Error),
    #[error(transparent)]
    Upgrade(#[from] TcpError),
    #[error("too many connections through relays are in their handshake")]
    TooMany,
}

type Established = (PeerId, StreamMuxerBox);

impl CircuitTransport {
    /// Makes the transport of one identity. Streams in records are for a TCP socket, which any task may poll; a circuit is a
    /// stream of the connection to the relay, and wakes the last reader and the last writer only.
    pub(super) fn new(circuits: client::Transport, security: Security) -> Self {
        let security = Security {
            tls: security.tls.without_record_streams(),
            ..security
        };
        Self {
            circuits,
            security,
            relays: HashMap::new(),
            handshakes: Arc::new(Semaphore::new(MAX_HANDSHAKES)),
        }
    }
}

/// Returns an address as the stock transport wants it, which insists on an address of the relay. It uses none, as the relay is
/// connected: this node dials its peers itself.
fn stock_address(address: &Multiaddr) -> Option<(PeerId, Multiaddr)> {
    let relay = Circuit::of(address)?.relay;
    let nowhere = Multiaddr::from(Protocol::Memory(1));
    Some((relay, nowhere.iter().chain(address.iter()).collect()))
}

fn stock_error(error: TransportError<client::transport::Error>) -> TransportError<CircuitError> {
    error.map(CircuitError::Circuit)
}

impl Transport for CircuitTransport {
    type Output = Established;
    type Error = CircuitError;
    type ListenerUpgrade = BoxFuture<'static, Result<Established, CircuitError>>;
    type Dial = BoxFuture<'static, Result<Established, CircuitError>>;

    fn listen_on(&mut self, id: ListenerId, address: Multiaddr) -> Result<(), TransportError<CircuitError>> {
        let Some((relay, stock)) = stock_address(&address) else {
            return Err(TransportError::MultiaddrNotSupported(address));
        };
        self.circuits.listen_on(id, stock).map_err(stock_error)?;
        self.relays.insert(id, relay);
        Ok(())
    }

    fn remove_listener(&mut self, id: ListenerId) -> bool {
        self.circuits.remove_listener(id)
    }

    fn dial(
        &mut self,
        address: Multiaddr,
        options: DialOpts,
    ) -> Result<Self::Dial, TransportError<CircuitError>> {
        let Some((_, stock)) = stock_address(&address) else {
            return Err(TransportError::MultiaddrNotSupported(address));
        };
        let dial = self.circuits.dial(stock, options).map_err(stock_error)?;
        let security = self.security.clone();
        Ok(async move {
            let circuit = dial.await?;
            let secured = secure_outbound(circuit, Arc::default(), None, security, INBOUND_STEP_LIMIT);
            Ok(secured.await?)
        }
        .boxed())
    }

    fn poll(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<TransportEvent<Self::ListenerUpgrade, CircuitError>> {
        loop {
            let Poll::Ready(event) = Pin::new(&mut self.circuits).poll(cx) else {
                return Poll::Pending;
            };
            let event = match event {
                TransportEvent::Incoming {
                    listener_id,
                    upgrade,
                    send_back_addr,
                    ..
                } => {
                    let Some(relay) = self.relays.get(&listener_id).copied() else {
                        continue;
                    };
                    let (security, room) = (self.security.clone(), Arc::clone(&self.handshakes));
                    let upgrade = async move {
                        let _room = room.try_acquire_owned().map_err(|_full| CircuitError::TooMany)?;
                        let circuit = upgrade.await?;
                        Ok(secure_inbound(circuit, Arc::default(), None, security, None).await?)
                    };
                    let local_addr = Circuit::listen_address(relay);
                    TransportEvent::Incoming {
                        listener_id,
                        upgrade: upgrade.boxed(),
                        send_back_addr: local_addr.iter().chain(send_back_addr.iter()).collect(),
                        local_addr,
                    }
                }
                // What the relay says of where it is, is not where this node looks for it.
                TransportEvent::NewAddress { listener_id, .. } => {
                    let Some(relay) = self.relays.get(&listener_id) else {
                        continue;
                    };
                    TransportEvent::NewAddress {
                        listener_id,
                        listen_addr: Circuit::listen_address(*relay),
                    }
                }
                TransportEvent::ListenerClosed { listener_id, reason } => {
                    self.relays.remove(&listener_id);
                    TransportEvent::ListenerClosed {
                        listener_id,
                        reason: reason.map_err(CircuitError::Circuit),
                    }
                }
                TransportEvent::AddressExpired {
                    listener_id,
                    listen_addr,
                } => TransportEvent::AddressExpired {
                    listener_id,
                    listen_addr,
                },
                TransportEvent::ListenerError { listener_id, error } => TransportEvent::ListenerError {
                    listener_id,
                    error: error.into(),
                },
            };
            return Poll::Ready(event);
        }
    }
}
