//! The sockets of TCP connections, with all that has to be said before they connect or listen.

use std::{ffi::OsString, io, net::SocketAddr, os::fd::AsFd, time::Duration};

use nix::{
    errno::Errno,
    sys::socket::{setsockopt, sockopt},
};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpListener, TcpSocket, TcpStream};

use super::{error::TransportError, marks::SocketMarks, segments::SegmentSize};
use crate::p2p::{tcp_config::CongestionControl, uplink::UplinkBy};

/// The congestion controls that any process may use; a process with `CAP_NET_ADMIN` may use all that the kernel has.
const ALLOWED: &str = "/proc/sys/net/ipv4/tcp_allowed_congestion_control";
const AVAILABLE: &str = "/proc/sys/net/ipv4/tcp_available_congestion_control";

/// Connections that the kernel has made and that wait to be accepted.
const BACKLOG: i32 = 1024;

/// Where a connection comes from.
#[derive(Clone, Debug)]
pub(super) enum Origin {
    /// Wherever the host's routes have it leave.
    Anywhere,
    /// An uplink.
    Uplink(UplinkBy),
    /// The port of a listening socket.
    Port(SocketAddr),
}

/// Makes the sockets of TCP connections.
#[derive(Clone, Debug, Default)]
pub(super) struct TcpSockets {
    marks: SocketMarks,
    congestion: Option<CongestionControl>,
    multipath: bool,
}

impl TcpSockets {
    /// Returns what makes sockets with these properties, once it has made one.
    pub(super) fn new(
        marks: SocketMarks,
        congestion: Option<CongestionControl>,
        multipath: bool,
    ) -> Result<Self, TransportError> {
        let sockets = Self {
            marks,
            congestion,
            multipath,
        };
        let socket = new_socket(Domain::IPV4, multipath).or_else(|refused| match multipath {
            true => Err(TransportError::Multipath(refused)),
            // Said where a socket is wanted.
            false => new_socket(Domain::IPV6, false).map_err(TransportError::Socket),
        })?;
        if let Some(name) = &sockets.congestion {
            set_congestion(&socket, name).map_err(|source| {
                let list = |path| std::fs::read_to_string(path).unwrap_or_default();
                TransportError::Congestion {
                    name: name.to_string(),
                    available: list(AVAILABLE).trim().replace(' ', ", "),
                    allowed: list(ALLOWED).trim().replace(' ', ", "),
                    source,
                }
            })?;
        }
        Ok(sockets)
    }

    #[cfg(test)]
    pub(super) fn with_marks(marks: SocketMarks) -> Self {
        Self {
            marks,
            ..Self::default()
        }
    }

    /// Connects to `at`, with segments of `size`.
    pub(super) async fn connect(
        &self,
        at: SocketAddr,
        size: SegmentSize,
        from: &Origin,
    ) -> io::Result<TcpStream> {
        let mut socket = self.socket(at, self.multipath)?;
        if let Some(bytes) = size.bytes() {
            // Announced to the peer, so that its segments have the same bound. After connecting it would have no effect.
            match setsockopt(&socket, sockopt::TcpMaxSeg, &bytes) {
                // Multipath TCP of an older kernel. What matters now is that the path is passed at all.
                Err(Errno::EOPNOTSUPP | Errno::ENOPROTOOPT) if self.multipath => {
                    socket = self.socket(at, false)?;
                    setsockopt(&socket, sockopt::TcpMaxSeg, &bytes)?;
                }
                set => set?,
            }
        }
        self.marks.apply(&socket, at.is_ipv4())?;
        match from {
            Origin::Anywhere => {}
            Origin::Uplink(uplink) => uplink.bind(&socket, at)?,
            Origin::Port(from) => {
                socket.set_reuse_address(true)?;
                socket.set_reuse_port(true)?;
                socket.bind(&(*from).into())?;
            }
        }
        let stream = TcpSocket::from_std_stream(socket.into()).connect(at).await?;
        stream.set_nodelay(true)?;
        Ok(stream)
    }

    /// Marks what an accepted socket sends.
    pub(super) fn mark_accepted(&self, stream: &TcpStream) -> io::Result<()> {
        self.marks.apply(stream, stream.peer_addr()?.is_ipv4())
    }

    /// Listens at `at`; port 0 stands for any that is free. What is accepted has the properties of the socket.
    pub(super) fn listen(&self, at: SocketAddr) -> io::Result<TcpListener> {
        let socket = self.socket(at, self.multipath)?;
        if at.is_ipv6() {
            // The address of both families at one port are two listeners.
            socket.set_only_v6(true)?;
        }
        // Connections of an earlier run that have not quite ended do not matter.
        socket.set_reuse_address(true)?;
        socket.set_tcp_nodelay(true)?;
        self.marks.apply_fwmark(&socket)?;
        socket.bind(&at.into())?;
        socket.listen(BACKLOG)?;
        // From now on connections can be made from the port. Set before, it would let another node listen there too.
        socket.set_reuse_port(true)?;
        TcpListener::from_std(socket.into())
    }

    fn socket(&self, at: SocketAddr, multipath: bool) -> io::Result<Socket> {
        let socket = new_socket(Domain::for_address(at), multipath)?;
        if let Some(name) = &self.congestion {
            set_congestion(&socket, name)?;
        }
        Ok(socket)
    }
}

fn new_socket(domain: Domain, multipath: bool) -> io::Result<Socket> {
    let protocol = if multipath { Protocol::MPTCP } else { Protocol::TCP };
    let socket = Socket::new(domain, Type::STREAM, Some(protocol))?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

fn set_congestion(socket: &impl AsFd, name: &CongestionControl) -> io::Result<()> {
    Ok(setsockopt(
        socket,
        sockopt::TcpCongestion,
        &OsString::from(name.name()),
    )?)
}

/// Lets the kernel give a connection up whose data has been unacknowledged for so long that the path or the peer is gone. The
/// kernel's own limit is 15 minutes.
pub(super) fn limit_silence(socket: &impl AsFd, limit: Duration) -> io::Result<()> {
    match setsockopt(socket, sockopt::TcpUserTimeout, &(limit.as_millis() as u32)) {
        // Multipath TCP takes another path, and has no such limit; pings end a connection all of whose paths are dead.
        Err(Errno::ENOPROTOOPT | Errno::EOPNOTSUPP) => Ok(()),
        set => Ok(set?),
    }
}
