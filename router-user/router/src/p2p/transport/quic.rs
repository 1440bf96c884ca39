//! QUIC version 1 as libp2p uses it, with a bound on what a connection holds and on the queue that it builds.
//!
//! libp2p's own transport has no place for either: its connections hold 10 MB, and their congestion control fills every
//! queue of the path.

mod congestion;
mod connection;
mod drivers;
mod marked_socket;
mod reset_key;
mod silence;

use std::{
    future::Future,
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker},
    time::Duration,
};

use futures::{FutureExt, TryFutureExt, future::BoxFuture};
use libp2p::{
    Multiaddr, PeerId,
    core::Endpoint,
    core::transport::{DialOpts, ListenerId, PortUse, Transport, TransportError, TransportEvent},
    identity::Keypair,
    multiaddr::Protocol,
    tls::certificate,
};
use nix::sys::socket::{setsockopt, sockopt};
use quinn::{
    ClientConfig, EndpointConfig, Incoming, Runtime, ServerConfig, TokioRuntime, TransportConfig,
    crypto::rustls::{QuicClientConfig, QuicServerConfig},
};
use rustls::pki_types::CertificateDer;
use tokio::time::{Instant, sleep, timeout};

use super::certificate::instance_of;
use super::listen_addresses::ListenAddresses;
use super::tls::{Admits, quic_client_config, quic_server_config};
use super::{
    error::TransportError as BuildError,
    marks::SocketMarks,
    own_port::{NoPort, leads_to},
    proxy::{Destination, Proxy},
};
use crate::p2p::{
    address::{TransportKind, host_part, quic_address},
    config::Dscp,
    handshakes::{GaveWay, Handshakes},
    instances::{Instances, Standing},
    losses::Losses,
    next_connection::NextConnection,
    tcp_config::CongestionControl,
    uplink::UplinkBy,
};
use congestion::ShortQueueConfig;
pub(super) use connection::Connection;
use drivers::{Driver, Drivers, LINGER};
use marked_socket::MarkedSocket;
use reset_key::ResetKey;
use stream_router_engine::handshake_room::Progress;

/// Bytes that a peer may send on one stream, and on all streams of a connection, before they are read.
const STREAM_UNREAD_BYTES: u32 = 10_000_000;
const CONNECTION_UNREAD_BYTES: u32 = 15_000_000;

/// Connections that are begun and not looked at yet, each of which holds its first datagrams.
const MAX_WAITING: usize = 512;

/// Bytes that such a connection may hold, and all of them together. A dialler sends less than 4 KiB before an answer.
const WAITING_BYTES: u64 = 16 * 1024;
const ALL_WAITING_BYTES: u64 = 2 * 1024 * 1024;

/// Connections that are looked at in a row, before others have their turn.
const MAX_LOOKED_AT: usize = 64;

/// Pauses between the datagrams that have a NAT let a peer in, each twice the one before: the last one ends after the time that
/// the peer's handshake may take.
const FIRST_PAUSE: Duration = Duration::from_millis(20);
const LAST_PAUSE: Duration = Duration::from_secs(5);

/// Bytes of such a datagram, too few for a QUIC endpoint to answer.
const NOISE_BYTES: usize = 16;

/// The name that a dialler sends, as rustls wants one. It is that of every libp2p node.
const SERVER_NAME: &str = "l";

/// What differs between the connections of nodes.
pub(super) struct Limits {
    pub(super) handshake: Duration,
    /// Without any packet for so long a connection is dead.
    pub(super) idle: Duration,
    /// After so long without any packet QUIC sends one of its own, to a peer that answers no pings.
    pub(super) keepalive: Duration,
    /// Streams that the peer may have open.
    pub(super) streams: u32,
    /// The marks of every packet.
    pub(super) marks: SocketMarks,
    /// The congestion control that was named for TCP.
    pub(super) congestion: Option<CongestionControl>,
    /// The proxy through which others are dialled, which QUIC cannot pass.
    pub(super) proxy: Option<Arc<Proxy>>,
    /// By which uplink the next one leaves.
    pub(super) next_connection: NextConnection,
}

/// The QUIC transport.
pub(super) struct QuicTransport {
    client: ClientConfig,
    server: ServerConfig,
    endpoint: EndpointConfig,
    handshake_limit: Duration,
    marks: SocketMarks,
    proxy: Option<Arc<Proxy>>,
    next_connection: NextConnection,
    handshakes: Arc<Handshakes>,
    listeners: Vec<Listener>,
    waker: Option<Waker>,
}

/// Why a connection could not be brought up, or a listener failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum QuicError {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error("cannot dial")]
    Dial(#[from] quinn::ConnectError),
    #[error("the QUIC handshake failed")]
    Connection(#[from] quinn::ConnectionError),
    #[error("the handshake took longer than {0:?}")]
    TimedOut(Duration),
    #[error("the peer showed no certificate")]
    NoCertificate,
    #[error("the peer's certificate is not valid")]
    Certificate(#[source] certificate::ParseError),
    #[error(
        "{0} carries TCP alone; give the peer an address over TCP, or except this one in transport.no_proxy"
    )]
    Proxy(String),
    #[error(transparent)]
    GaveWay(#[from] GaveWay),
    #[error("cannot dial from the listening port")]
    Port(#[from] NoPort),
    #[error("the peer, which was to dial, is let in no longer")]
    NotDialled,
}

type Upgrade = BoxFuture<'static, Result<(PeerId, Connection), QuicError>>;

impl QuicTransport {
    pub(super) fn new(
        keypair: &Keypair,
        limits: Limits,
        admits: Admits,
        handshakes: Arc<Handshakes>,
    ) -> Result<Self, BuildError> {
        let mut transport = TransportConfig::default();
        let idle = quinn::VarInt::from_u32(limits.idle.as_millis() as u32);
        transport
            .max_concurrent_uni_streams(0_u32.into())
            .max_concurrent_bidi_streams(limits.streams.into())
            .datagram_receive_buffer_size(None)
            .keep_alive_interval(Some(limits.keepalive))
            .max_idle_timeout(Some(idle.into()))
            .allow_spin(false)
            .stream_receive_window(STREAM_UNREAD_BYTES.into())
            .receive_window(CONNECTION_UNREAD_BYTES.into())
            .congestion_controller_factory(Arc::new(ShortQueueConfig::new(limits.congestion.as_ref())));
        let transport = Arc::new(transport);

        let instance = handshakes.instances.own();
        let tls = quic_client_config(keypair, instance)?;
        let tls = QuicClientConfig::try_from(tls).map_err(BuildError::QuicCipher)?;
        let mut client = ClientConfig::new(Arc::new(tls));
        client.transport_config(Arc::clone(&transport));

        let tls = quic_server_config(keypair, admits, instance)?;
        let tls = QuicServerConfig::try_from(tls).map_err(BuildError::QuicCipher)?;
        let mut server = ServerConfig::with_crypto(Arc::new(tls));
        server
            .transport_config(transport)
            .migration(true)
            .max_incoming(MAX_WAITING)
            .incoming_buffer_size(WAITING_BYTES)
            .incoming_buffer_size_total(ALL_WAITING_BYTES);

        let mut endpoint = EndpointConfig::new(Arc::new(ResetKey::derive(keypair)?));
        endpoint.supported_versions(vec![1]);
        Ok(Self {
            client,
            server,
            endpoint,
            handshake_limit: limits.handshake,
            marks: limits.marks,
            proxy: limits.proxy,
            next_connection: limits.next_connection,
            handshakes,
            listeners: Vec::new(),
            waker: None,
        })
    }

    fn begin_dial(
        &self,
        address: Multiaddr,
        options: &DialOpts,
    ) -> Result<Upgrade, TransportError<QuicError>> {
        let Some(at) = quic_address(&address).filter(|at| at.port() != 0 && !at.ip().is_unspecified()) else {
            return Err(TransportError::MultiaddrNotSupported(address));
        };
        if let Some(proxy) = &self.proxy
            && proxy.takes(&Destination::Ip(at))
        {
            let proxy = proxy.to_string();
            return Err(TransportError::Other(QuicError::Proxy(proxy)));
        }
        if options.port_use == PortUse::Reuse {
            let listening = self.listeners.iter().find(|listener| leads_to(listener.at, at));
            let Some(listener) = listening else {
                return Err(TransportError::Other(NoPort::NotListening.into()));
            };
            return match options.role {
                Endpoint::Dialer => self.dial_from(listener, at),
                Endpoint::Listener => Ok(listener.let_in(at)),
            };
        }
        let bound = dialling_socket(at, self.next_connection.uplink().as_ref())
            .and_then(|socket| self.endpoint(socket, None, Arc::new(TokioRuntime)));
        let endpoint = bound.map_err(other)?;
        let (client, limit) = (self.client.clone(), self.handshake_limit);
        let instances = Arc::clone(&self.handshakes.instances);
        Ok(async move {
            let connecting = endpoint.connect_with(client, at, SERVER_NAME)?;
            let established = establish(connecting, limit, &instances).await?;
            Ok(established.into_connection(None))
        }
        .boxed())
    }

    /// Dials from the port of a listener.
    fn dial_from(&self, listener: &Listener, to: SocketAddr) -> Result<Upgrade, TransportError<QuicError>> {
        // Begun where connections are accepted too, as the endpoint tells its tasks apart by which was begun last.
        let connecting = listener
            .endpoint
            .connect_with(self.client.clone(), to, SERVER_NAME);
        let connecting = connecting.map_err(|error| TransportError::Other(error.into()))?;
        let (limit, instances) = (self.handshake_limit, Arc::clone(&self.handshakes.instances));
        Ok(async move {
            let established = establish(connecting, limit, &instances).await?;
            Ok(established.into_connection(None))
        }
        .boxed())
    }

    fn endpoint(
        &self,
        socket: UdpSocket,
        server: Option<ServerConfig>,
        runtime: Arc<dyn Runtime>,
    ) -> io::Result<quinn::Endpoint> {
        let config = self.endpoint.clone();
        self.marks.apply_fwmark(&socket)?;
        if self.marks.dscp == Dscp::default() {
            return quinn::Endpoint::new(config, server, socket, runtime);
        }
        let socket = Arc::new(MarkedSocket::new(socket, self.marks.dscp)?);
        quinn::Endpoint::new_with_abstract_socket(config, server, socket, runtime)
    }
}

impl Transport for QuicTransport {
    type Output = (PeerId, Connection);
    type Error = QuicError;
    type ListenerUpgrade = Upgrade;
    type Dial = Upgrade;

    fn listen_on(&mut self, id: ListenerId, address: Multiaddr) -> Result<(), TransportError<QuicError>> {
        let at = quic_address(&address).ok_or(TransportError::MultiaddrNotSupported(address))?;
        let listen = || {
            let socket = listening_socket(at)?;
            let at = socket.local_addr()?;
            let drivers = Arc::new(Drivers::new());
            let runtime = Arc::<Drivers>::clone(&drivers);
            let way = socket.try_clone()?;
            let endpoint = self.endpoint(socket, Some(self.server.clone()), runtime)?;
            Listener::new(id, at, endpoint, drivers, way)
        };
        self.listeners.push(listen().map_err(other)?);
        self.waker.take().inspect(Waker::wake_by_ref);
        Ok(())
    }

    fn remove_listener(&mut self, id: ListenerId) -> bool {
        let listener = self.listeners.iter_mut().find(|listener| listener.id == id);
        let found = listener.map(|listener| listener.close()).is_some();
        self.waker.take().inspect(Waker::wake_by_ref);
        found
    }

    fn dial(&mut self, address: Multiaddr, options: DialOpts) -> Result<Upgrade, TransportError<QuicError>> {
        let upgrade = self.begin_dial(address, &options)?;
        Ok(counted(upgrade, self.next_connection.dialled()))
    }

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<TransportEvent<Upgrade, QuicError>> {
        let this = &mut *self;
        for listener in &mut this.listeners {
            if let Poll::Ready(event) = listener.poll(&this.handshakes, this.handshake_limit, cx) {
                if let TransportEvent::ListenerClosed { listener_id, .. } = event {
                    this.listeners.retain(|listener| listener.id != listener_id);
                }
                let event = event.map_upgrade(|upgrade| counted(upgrade, this.next_connection.accepted()));
                return Poll::Ready(event);
            }
        }
        self.waker = Some(cx.waker().clone());
        Poll::Pending
    }
}

/// Has the packets of a connection counted.
fn counted(upgrade: Upgrade, losses: Arc<Losses>) -> Upgrade {
    upgrade
        .map_ok(|(peer, connection)| (peer, connection.counting(losses)))
        .boxed()
}

fn other(error: io::Error) -> TransportError<QuicError> {
    TransportError::Other(error.into())
}

/// A connection whose handshake has ended well.
struct Established {
    peer: PeerId,
    connection: quinn::Connection,
    standing: Option<Standing>,
}

impl Established {
    /// `driver` is the task of a connection that was accepted.
    fn into_connection(self, driver: Option<Driver>) -> (PeerId, Connection) {
        (self.peer, Connection::new(self.connection, driver, self.standing))
    }
}

async fn establish(
    connecting: impl Future<Output = Result<quinn::Connection, quinn::ConnectionError>>,
    limit: Duration,
    instances: &Arc<Instances>,
) -> Result<Established, QuicError> {
    let connection = timeout(limit, connecting)
        .await
        .map_err(|_elapsed| QuicError::TimedOut(limit))??;
    let identity = connection.peer_identity();
    let certificates = identity.and_then(|any| any.downcast::<Vec<CertificateDer<'_>>>().ok());
    let first = certificates
        .as_ref()
        .and_then(|certificates| certificates.first());
    let first = first.ok_or(QuicError::NoCertificate)?;
    let certificate = certificate::parse(first).map_err(QuicError::Certificate)?;
    let peer = certificate.peer_id();
    let standing = instance_of(first)
        .map(|instance| instances.handle_secured(peer, instance, connection.remote_address()));
    Ok(Established {
        peer,
        connection,
        standing,
    })
}

/// A socket that connections are accepted at.
struct Listener {
    id: ListenerId,
    at: SocketAddr,
    endpoint: quinn::Endpoint,
    accept: BoxFuture<'static, Option<Incoming>>,
    /// Where it listens.
    addresses: ListenAddresses,
    drivers: Arc<Drivers>,
    /// The socket of the endpoint, for what only a NAT looks at.
    way: Arc<UdpSocket>,
}

impl Listener {
    fn new(
        id: ListenerId,
        at: SocketAddr,
        endpoint: quinn::Endpoint,
        drivers: Arc<Drivers>,
        way: UdpSocket,
    ) -> io::Result<Self> {
        Ok(Self {
            id,
            at,
            accept: accept(&endpoint),
            endpoint,
            addresses: ListenAddresses::new(id, at, address)?,
            drivers,
            way: Arc::new(way),
        })
    }

    /// Has the NATs on the way let in a peer that dials at the same time: each datagram to it passes for a question, to which
    /// the peer's are answers. What comes of it is an inbound connection like any other, so this only ends in an error.
    fn let_in(&self, peer: SocketAddr) -> Upgrade {
        let way = Arc::clone(&self.way);
        async move {
            let mut pause = FIRST_PAUSE;
            while pause < LAST_PAUSE {
                let noise: [u8; NOISE_BYTES] = rand::random();
                match way.send_to(&noise, peer) {
                    Err(error) if error.kind() != io::ErrorKind::WouldBlock => return Err(error.into()),
                    _ => sleep(pause).await,
                }
                pause *= 2;
            }
            Err(QuicError::NotDialled)
        }
        .boxed()
    }

    fn close(&mut self) {
        self.endpoint.close(0_u32.into(), &[]);
    }

    fn poll(
        &mut self,
        handshakes: &Arc<Handshakes>,
        handshake_limit: Duration,
        cx: &mut Context<'_>,
    ) -> Poll<TransportEvent<Upgrade, QuicError>> {
        let listener_id = self.id;
        if let Poll::Ready(event) = self.addresses.poll(cx) {
            return Poll::Ready(event);
        }
        for _ in 0..MAX_LOOKED_AT {
            let Poll::Ready(incoming) = self.accept.poll_unpin(cx) else {
                return Poll::Pending;
            };
            let Some(incoming) = incoming else {
                return Poll::Ready(TransportEvent::ListenerClosed {
                    listener_id,
                    reason: Ok(()),
                });
            };
            self.accept = accept(&self.endpoint);
            if let Some(event) = self.admit(incoming, handshakes, handshake_limit) {
                return Poll::Ready(event);
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Begins the handshake of a connection, unless it has to show its address first. Nothing is left of one that fails when
    /// it leaves its place.
    fn admit(
        &self,
        incoming: Incoming,
        handshakes: &Arc<Handshakes>,
        limit: Duration,
    ) -> Option<TransportEvent<Upgrade, QuicError>> {
        let (remote, now) = (incoming.remote_address(), Instant::now());
        let local = incoming.local_ip();
        let local = local.map_or(self.at, |ip| SocketAddr::new(ip, self.at.port()));
        if !incoming.remote_address_validated()
            && handshakes.wants_validation(TransportKind::Quic, remote.ip(), now)
        {
            if let Err(validated) = incoming.retry() {
                validated.into_incoming().refuse();
            }
            return None;
        }
        let listener_id = self.id;
        Some(match incoming.accept() {
            Ok(connecting) => {
                let place = handshakes.enter(TransportKind::Quic, remote.ip(), Progress::Spoke, now);
                let (driver, instances) = (self.drivers.take_last(), Arc::clone(&handshakes.instances));
                let upgrade = place.hold(async move |place| {
                    match establish(connecting, limit, &instances).await {
                        Ok(established) => Ok(established.into_connection(driver)),
                        Err(error) => {
                            // Whoever fails often soon has to show its address, and the peer hears why.
                            place.handle_failure();
                            sleep(LINGER).await;
                            drop(driver);
                            Err(error)
                        }
                    }
                });
                TransportEvent::Incoming {
                    listener_id,
                    upgrade: upgrade.boxed(),
                    local_addr: address(local),
                    send_back_addr: address(remote),
                }
            }
            Err(error) => TransportEvent::ListenerError {
                listener_id,
                error: error.into(),
            },
        })
    }
}

fn accept(endpoint: &quinn::Endpoint) -> BoxFuture<'static, Option<Incoming>> {
    let endpoint = endpoint.clone();
    async move { endpoint.accept().await }.boxed()
}

/// Makes the socket of a connection to `to`, which leaves by an uplink if there is one.
fn dialling_socket(to: SocketAddr, uplink: Option<&UplinkBy>) -> io::Result<UdpSocket> {
    let any: IpAddr = match to {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let Some(uplink) = uplink else {
        return UdpSocket::bind((any, 0));
    };
    let socket = socket2::Socket::new(socket2::Domain::for_address(to), socket2::Type::DGRAM, None)?;
    uplink.bind(&socket, to)?;
    if matches!(uplink, UplinkBy::Device(_)) {
        socket.bind(&SocketAddr::new(any, 0).into())?;
    }
    Ok(socket.into())
}

fn listening_socket(at: SocketAddr) -> io::Result<UdpSocket> {
    use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrStorage, bind, socket};
    use std::os::fd::AsRawFd;

    let family = match at {
        SocketAddr::V4(_) => AddressFamily::Inet,
        SocketAddr::V6(_) => AddressFamily::Inet6,
    };
    let socket = socket(family, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?;
    if at.is_ipv6() {
        // The address of both families at one port are two listeners.
        setsockopt(&socket, sockopt::Ipv6V6Only, &true)?;
    }
    bind(socket.as_raw_fd(), &SockaddrStorage::from(at))?;
    Ok(socket.into())
}

fn address(at: SocketAddr) -> Multiaddr {
    host_part(at)
        .with(Protocol::Udp(at.port()))
        .with(Protocol::QuicV1)
}
