//! Listening for TCP connections, at one address or at all of the host.
//!
//! libp2p's own listener makes its socket itself, and has no place for an option that the socket must have before its first
//! connection comes: its answer to the first packet is sent by the kernel.

use std::{
    io,
    net::SocketAddr,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use libp2p::{
    Multiaddr,
    core::transport::{ListenerId, TransportEvent},
    multiaddr::Protocol,
};
use tokio::{
    net::{TcpListener, TcpStream},
    time::{Sleep, sleep},
};

use super::listen_addresses::ListenAddresses;
use super::tcp_sockets::TcpSockets;
use crate::p2p::address::host_part;

/// Pause after a connection could not be accepted, as without a descriptor the next cannot either.
const PAUSE: Duration = Duration::from_millis(100);

/// A socket that connections are accepted at.
pub(super) struct Listener {
    pub(super) id: ListenerId,
    socket: TcpListener,
    /// Where it listens.
    addresses: ListenAddresses,
    pause: Option<Pin<Box<Sleep>>>,
    closed: bool,
}

impl Listener {
    /// Listens at `at`; port 0 stands for any that is free.
    pub(super) fn new(id: ListenerId, at: SocketAddr, sockets: &TcpSockets) -> io::Result<Self> {
        let socket = sockets.listen(at)?;
        let at = socket.local_addr()?;
        Ok(Self {
            id,
            socket,
            addresses: ListenAddresses::new(id, at, address)?,
            pause: None,
            closed: false,
        })
    }

    /// Returns where it listens; the address may stand for all of the host.
    pub(super) fn at(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    /// Lets the next poll say that it is closed.
    pub(super) fn close(&mut self) {
        self.closed = true;
    }

    /// Returns what has happened: an address that has come or gone, a connection, or a failure to accept one.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<TransportEvent<TcpStream, io::Error>> {
        let listener_id = self.id;
        if self.closed {
            return Poll::Ready(TransportEvent::ListenerClosed {
                listener_id,
                reason: Ok(()),
            });
        }
        if let Poll::Ready(event) = self.addresses.poll(cx) {
            return Poll::Ready(event);
        }
        if let Some(pause) = &mut self.pause {
            if pause.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            self.pause = None;
        }
        let accepted = match self.socket.poll_accept(cx) {
            Poll::Ready(accepted) => accepted,
            Poll::Pending => return Poll::Pending,
        };
        let accepted = accepted.and_then(|(stream, remote)| Ok((stream.local_addr()?, remote, stream)));
        Poll::Ready(match accepted {
            Ok((local, remote, stream)) => TransportEvent::Incoming {
                listener_id,
                upgrade: stream,
                local_addr: address(local),
                send_back_addr: address(remote),
            },
            Err(error) => {
                self.pause = Some(Box::pin(sleep(PAUSE)));
                TransportEvent::ListenerError { listener_id, error }
            }
        })
    }
}

fn address(at: SocketAddr) -> Multiaddr {
    host_part(at).with(Protocol::Tcp(at.port()))
}

#[cfg(test)]
mod tests {
    use std::{future::poll_fn, num::NonZeroU32};

    use nix::sys::socket::{getsockopt, sockopt};

    use super::*;
    use crate::p2p::transport::{marks::SocketMarks, test_network::in_own_network};

    #[test]
    fn what_is_accepted_has_the_mark_of_the_listening_socket_and_its_addresses_are_named() {
        in_own_network(|| {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .expect("runtime");
            runtime.block_on(async {
                let marks = SocketMarks {
                    fwmark: NonZeroU32::new(7),
                    ..SocketMarks::default()
                };
                let any = SocketAddr::from(([127, 0, 0, 1], 0));
                let mut listener = Listener::new(ListenerId::next(), any, &TcpSockets::with_marks(marks)).expect("listens");
                let named = poll_fn(|cx| listener.poll(cx)).await;
                let at = listener.socket.local_addr().expect("it is bound");
                assert!(
                    matches!(&named, TransportEvent::NewAddress { listen_addr, .. } if *listen_addr == address(at)),
                    "{named:?}"
                );
                let dialler = TcpStream::connect(at).await.expect("connects");

                let event = poll_fn(|cx| listener.poll(cx)).await;

                let TransportEvent::Incoming {
                    upgrade,
                    local_addr,
                    send_back_addr,
                    ..
                } = event
                else {
                    panic!("{event:?}")
                };
                assert_eq!(getsockopt(&upgrade, sockopt::Mark), Ok(7));
                assert_eq!(local_addr, address(at));
                assert_eq!(send_back_addr, address(dialler.local_addr().expect("address")));
                listener.close();
                let closed = poll_fn(|cx| listener.poll(cx)).await;
                assert!(matches!(closed, TransportEvent::ListenerClosed { .. }), "{closed:?}");
            });
        });
    }

    #[test]
    fn a_port_that_is_taken_is_refused() {
        in_own_network(|| {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .expect("runtime");
            runtime.block_on(async {
                let any = SocketAddr::from(([127, 0, 0, 1], 0));
                let first = Listener::new(ListenerId::next(), any, &TcpSockets::default()).expect("listens");

                let second = Listener::new(
                    ListenerId::next(),
                    first.socket.local_addr().expect("it is bound"),
                    &TcpSockets::default(),
                );

                let error = second.err().expect("the port is taken");
                assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
            });
        });
    }
}
