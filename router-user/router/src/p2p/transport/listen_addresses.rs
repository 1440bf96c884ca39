//! The addresses that a listening socket has: one, or those of the host, which come and go.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    task::{Context, Poll},
};

use if_watch::{IfEvent, tokio::IfWatcher};
use libp2p::{
    Multiaddr,
    core::transport::{ListenerId, TransportEvent},
};

/// Names the addresses at which a socket listens.
pub(super) struct ListenAddresses {
    listener_id: ListenerId,
    at: SocketAddr,
    /// Writes an address as the transport has it.
    address: fn(SocketAddr) -> Multiaddr,
    /// Names the addresses of the host, when the socket is bound to all of them.
    watcher: Option<IfWatcher>,
    /// The only address, until it is told.
    own_address: Option<Multiaddr>,
}

impl ListenAddresses {
    /// Makes those of a socket that is bound to `at`.
    pub(super) fn new(
        listener_id: ListenerId,
        at: SocketAddr,
        address: fn(SocketAddr) -> Multiaddr,
    ) -> io::Result<Self> {
        let is_any = at.ip().is_unspecified();
        Ok(Self {
            listener_id,
            at,
            address,
            watcher: is_any.then(IfWatcher::new).transpose()?,
            own_address: (!is_any).then(|| address(at)),
        })
    }

    /// Names an address that has come or gone.
    pub(super) fn poll<U, E: From<io::Error>>(&mut self, cx: &mut Context<'_>) -> Poll<TransportEvent<U, E>> {
        let listener_id = self.listener_id;
        if let Some(listen_addr) = self.own_address.take() {
            return Poll::Ready(TransportEvent::NewAddress {
                listener_id,
                listen_addr,
            });
        }
        let (at, address) = (self.at, self.address);
        let of_family =
            |ip: IpAddr| (ip.is_ipv4() == at.is_ipv4()).then(|| address(SocketAddr::new(ip, at.port())));
        while let Some(watcher) = &mut self.watcher
            && let Poll::Ready(event) = watcher.poll_if_event(cx)
        {
            match event {
                Ok(IfEvent::Up(net)) => {
                    if let Some(listen_addr) = of_family(net.addr()) {
                        return Poll::Ready(TransportEvent::NewAddress {
                            listener_id,
                            listen_addr,
                        });
                    }
                }
                Ok(IfEvent::Down(net)) => {
                    if let Some(listen_addr) = of_family(net.addr()) {
                        return Poll::Ready(TransportEvent::AddressExpired {
                            listener_id,
                            listen_addr,
                        });
                    }
                }
                Err(error) => {
                    return Poll::Ready(TransportEvent::ListenerError {
                        listener_id,
                        error: error.into(),
                    });
                }
            }
        }
        Poll::Pending
    }
}
