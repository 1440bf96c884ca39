//! A UDP socket whose datagrams carry a mark.
//!
//! quinn's own socket says the traffic class of each datagram, for ECN, and so takes back what was set for the socket.

use std::{
    fmt,
    future::Future,
    io::{self, IoSlice, IoSliceMut},
    net::{IpAddr, SocketAddr},
    os::fd::AsRawFd,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    task::{Context, Poll, ready},
};

use nix::{
    errno::Errno,
    libc,
    sys::socket::{ControlMessage, MsgFlags, SockaddrStorage, sendmsg},
};
use quinn::{
    AsyncUdpSocket, UdpPoller,
    udp::{RecvMeta, Transmit, UdpSocketState},
};
use tokio::{io::Interest, net::UdpSocket};

use crate::p2p::config::Dscp;

/// A socket that marks what it sends.
#[derive(Debug)]
pub(super) struct MarkedSocket {
    socket: UdpSocket,
    /// Receives, and knows what the kernel can.
    state: UdpSocketState,
    dscp: Dscp,
    /// Whether the kernel or a driver refused to cut a large datagram.
    refuses_segments: AtomicBool,
}

impl MarkedSocket {
    pub(super) fn new(socket: std::net::UdpSocket, dscp: Dscp) -> io::Result<Self> {
        Ok(Self {
            state: UdpSocketState::new((&socket).into())?,
            socket: UdpSocket::from_std(socket)?,
            dscp,
            refuses_segments: AtomicBool::new(false),
        })
    }

    fn send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        let class = self.dscp.traffic_class() | transmit.ecn.map_or(0, |ecn| ecn as u8);
        let wide_class = i32::from(class);
        let mut messages = vec![match transmit.destination {
            SocketAddr::V4(_) => ControlMessage::Ipv4Tos(&class),
            SocketAddr::V6(_) => ControlMessage::Ipv6TClass(&wide_class),
        }];
        let segment = transmit
            .segment_size
            .filter(|size| *size < transmit.contents.len())
            .map(|size| size as u16);
        messages.extend(segment.as_ref().map(ControlMessage::UdpGsoSegments));
        let (source_v4, source_v6);
        match transmit.src_ip {
            Some(IpAddr::V4(ip)) => {
                source_v4 = libc::in_pktinfo {
                    ipi_ifindex: 0,
                    ipi_spec_dst: libc::in_addr {
                        s_addr: u32::from_ne_bytes(ip.octets()),
                    },
                    ipi_addr: libc::in_addr { s_addr: 0 },
                };
                messages.push(ControlMessage::Ipv4PacketInfo(&source_v4));
            }
            Some(IpAddr::V6(ip)) => {
                source_v6 = libc::in6_pktinfo {
                    ipi6_ifindex: 0,
                    ipi6_addr: libc::in6_addr { s6_addr: ip.octets() },
                };
                messages.push(ControlMessage::Ipv6PacketInfo(&source_v6));
            }
            None => {}
        }
        let to = SockaddrStorage::from(transmit.destination);
        let contents = [IoSlice::new(transmit.contents)];
        let sent = sendmsg(
            self.socket.as_raw_fd(),
            &contents,
            &messages,
            MsgFlags::empty(),
            Some(&to),
        );
        match sent.map_err(io::Error::from) {
            Ok(_) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Err(error),
            // As quinn's own socket: a datagram that cannot be sent is lost, and the connection finds out.
            Err(error) => {
                // What quinn's own socket takes for a device that cannot cut; other errors pass.
                let cannot_cut = matches!(
                    error.raw_os_error().map(Errno::from_raw),
                    Some(Errno::EIO | Errno::EINVAL)
                );
                if segment.is_some() && cannot_cut {
                    self.refuses_segments.store(true, Relaxed);
                }
                tracing::debug!(%error, to = %transmit.destination, "a datagram was not sent");
                Ok(())
            }
        }
    }
}

impl AsyncUdpSocket for MarkedSocket {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Box::pin(Poller {
            socket: self,
            writable: None,
        })
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        self.socket.try_io(Interest::WRITABLE, || self.send(transmit))
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        buffers: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.socket.poll_recv_ready(cx))?;
            let receive = || self.state.recv((&self.socket).into(), buffers, meta);
            match self.socket.try_io(Interest::READABLE, receive) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                received => return Poll::Ready(received),
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    fn max_transmit_segments(&self) -> usize {
        match self.refuses_segments.load(Relaxed) {
            true => 1,
            false => self.state.max_gso_segments(),
        }
    }

    fn max_receive_segments(&self) -> usize {
        self.state.gro_segments()
    }

    fn may_fragment(&self) -> bool {
        self.state.may_fragment()
    }
}

type Writable = Pin<Box<dyn Future<Output = io::Result<()>> + Send + Sync>>;

/// Waits for the socket, beside others that do.
struct Poller {
    socket: Arc<MarkedSocket>,
    writable: Option<Writable>,
}

impl UdpPoller for Poller {
    fn poll_writable(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let writable = this.writable.get_or_insert_with(|| {
            let socket = Arc::clone(&this.socket);
            Box::pin(async move { socket.socket.writable().await })
        });
        let result = ready!(writable.as_mut().poll(cx));
        this.writable = None;
        Poll::Ready(result)
    }
}

impl fmt::Debug for Poller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Poller")
            .field("socket", &self.socket)
            .finish_non_exhaustive()
    }
}
