//! What a gateway says to all hosts when it has started anew, and has forgotten what it forwarded.

use std::future::pending;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddrV4};

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::UdpSocket;

use super::uplink::Uplink;

/// Where PCP and NAT-PMP announce (RFC 6886, section 3.2.1; RFC 6887, section 14.1).
const GROUP: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(224, 0, 0, 1), 5350);

/// Hears the announcements of a gateway.
#[derive(Debug)]
pub(super) struct Announcements {
    /// `None` if the socket cannot be had.
    socket: Option<UdpSocket>,
    gateway: Ipv4Addr,
}

impl Announcements {
    /// Listens on the interface before a gateway. Without a socket the gateway's restart is noticed by the next renewal.
    pub(super) fn of(uplink: &Uplink) -> Self {
        let socket = open(uplink);
        if let Err(error) = &socket {
            tracing::debug!(%error, "announcements of the gateway are not heard");
        }
        Self {
            socket: socket.ok(),
            gateway: uplink.gateway,
        }
    }

    /// Waits for the next announcement. What it says is asked for: anybody near could send it.
    pub(super) async fn next(&mut self) {
        while let Some(socket) = &self.socket {
            // What is longer is cut off.
            match socket.recv_from(&mut [0; 1]).await {
                Ok((_, from)) if from.ip() == IpAddr::from(self.gateway) => return,
                Ok(_) => {}
                Err(error) => {
                    tracing::debug!(%error, "announcements of the gateway are heard no more");
                    self.socket = None;
                }
            }
        }
        pending().await
    }
}

fn open(uplink: &Uplink) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP))?;
    // Others on the host hear them too.
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&GROUP.into())?;
    socket.join_multicast_v4(GROUP.ip(), &uplink.source)?;
    UdpSocket::from_std(socket.into())
}
