//! TCP with a security protocol and a multiplexer, each step of a handshake with a limit of its own.
//!
//! libp2p's own TCP transport is not used, as it has no place for an option that a socket must have before it connects or
//! listens.

use std::{
    future::{self, Future},
    io,
    net::SocketAddr,
    os::fd::AsRawFd,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker},
    time::Duration,
};

use futures::{AsyncRead, AsyncWrite, FutureExt, future::BoxFuture};
use libp2p::{
    Multiaddr, PeerId, Transport,
    core::{
        Endpoint,
        muxing::StreamMuxerBox,
        transport::{DialOpts, ListenerId, PortUse, TransportError, TransportEvent},
        upgrade::{
            InboundConnectionUpgrade, NegotiationError, OutboundConnectionUpgrade, UpgradeInfo, Version,
        },
    },
};
use multistream_select::{dialer_select_proto, listener_select_proto};
use nix::sys::socket::{MsgFlags, getsockopt, recv};
use tokio::{
    net::TcpStream,
    time::{Instant, sleep, timeout},
};

use super::{
    backlog::Backlog,
    own_port::{NoPort, leads_to},
    proxy::{Destination, Proxy, ProxyError},
    record_muxer::RecordMuxer,
    security::{Channel, Secured, Security, SecurityError, TLS},
    segments::{SegmentBook, SegmentSize},
    socket::{PathWatch, Socket},
    tcp_info::TcpInfo,
    tcp_listener::Listener,
    tcp_sockets::{Origin, TcpSockets},
    yamux::YamuxUpgrade,
};
use crate::p2p::{
    address::{TransportKind, begins_with_tls, tcp_destination, tcp_listen_address},
    handshakes::{GaveWay, Handshakes, Place},
    losses::Losses,
    next_connection::NextConnection,
    tcp_config::named_tcp_destination,
};
use stream_router_engine::handshake_room::Progress;

/// How long TCP may take to connect. A first packet that is lost is repeated after 1 s and 3 s, and a new attempt is
/// made every second whatever this one does.
const CONNECT_LIMIT: Duration = Duration::from_secs(4);

/// How long a proxy may take for its own connection to the peer, with the lookup of a name and what it asks of the node.
const PROXY_LIMIT: Duration = Duration::from_secs(8);

/// How long each step of an inbound handshake may take: twice the round trip that a ping may have. The dialler's own
/// limits end most of them earlier.
pub(super) const INBOUND_STEP_LIMIT: Duration = Duration::from_secs(8);

/// What a record of TLS begins with that belongs to a handshake (RFC 8446, 5.1). The agreement on a security protocol begins with a
/// length, which is another.
const HANDSHAKE_RECORD: u8 = 22;

/// How long a handshake goes on beyond four round trips until the next attempt tries smaller segments. This one goes
/// on; the first to succeed is used.
const STALL: Duration = Duration::from_secs(1);

/// A secured and multiplexed connection.
type Established = (PeerId, StreamMuxerBox);

/// The TCP transport.
pub(super) struct TcpTransport {
    listeners: Vec<Listener>,
    security: Security,
    segments: Arc<SegmentBook>,
    handshakes: Arc<Handshakes>,
    sockets: Arc<TcpSockets>,
    proxy: Option<Arc<Proxy>>,
    next_connection: NextConnection,
    waker: Option<Waker>,
}

/// A step of bringing a connection up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    Connect,
    Proxy,
    Negotiation,
    Security,
    Multiplexer,
}

/// Why a connection could not be brought up.
#[derive(Debug, thiserror::Error)]
pub(super) enum TcpError {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error("{step} took longer than {limit:?}")]
    TimedOut { step: Step, limit: Duration },
    #[error("the peer and this node have no protocol in common")]
    Negotiation(#[from] NegotiationError),
    #[error(transparent)]
    Security(#[from] SecurityError),
    #[error(transparent)]
    GaveWay(#[from] GaveWay),
    #[error("cannot dial from the listening port")]
    Port(#[from] NoPort),
    #[error("through {proxy}")]
    Proxy {
        proxy: String,
        #[source]
        source: ProxyError,
    },
}

impl std::fmt::Display for Step {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Connect => "connecting",
            Self::Proxy => "the proxy's connection to the peer",
            Self::Negotiation => "agreeing on a security protocol, over a connection that TCP has made,",
            Self::Security => "the security handshake",
            Self::Multiplexer => "agreeing on a multiplexer",
        })
    }
}

impl TcpTransport {
    pub(super) fn new(
        security: Security,
        segments: Arc<SegmentBook>,
        handshakes: Arc<Handshakes>,
        sockets: TcpSockets,
        proxy: Option<Arc<Proxy>>,
        next_connection: NextConnection,
    ) -> Self {
        Self {
            listeners: Vec::new(),
            security,
            segments,
            handshakes,
            sockets: Arc::new(sockets),
            proxy,
            next_connection,
            waker: None,
        }
    }

    /// Returns the listening socket from whose port an address is dialled.
    fn port_to(&self, to: SocketAddr) -> Result<SocketAddr, TransportError<TcpError>> {
        let listening = self.listeners.iter().filter_map(|listener| listener.at().ok());
        let mut fit = listening.filter(|at| leads_to(*at, to));
        fit.next()
            .ok_or_else(|| TransportError::Other(NoPort::NotListening.into()))
    }

    /// Brings up a connection in a place among those that are in their handshake.
    fn accept(&self, stream: TcpStream) -> BoxFuture<'static, Result<Established, TcpError>> {
        let from = match stream.peer_addr() {
            Ok(from) => from.ip(),
            // It has ended already.
            Err(error) => return future::ready(Err(error.into())).boxed(),
        };
        let progress = match has_sent(&stream) {
            true => Progress::Spoke,
            false => Progress::Nothing,
        };
        let place = self
            .handshakes
            .enter(TransportKind::Tcp, from, progress, Instant::now());
        let (security, segments) = (self.security.clone(), Arc::clone(&self.segments));
        let (sockets, losses) = (Arc::clone(&self.sockets), self.next_connection.accepted());
        place
            .hold(async move |place| accept(stream, security, segments, &sockets, losses, place).await)
            .boxed()
    }
}

impl Transport for TcpTransport {
    type Output = Established;
    type Error = TcpError;
    type ListenerUpgrade = BoxFuture<'static, Result<Established, TcpError>>;
    type Dial = BoxFuture<'static, Result<Established, TcpError>>;

    fn listen_on(&mut self, id: ListenerId, address: Multiaddr) -> Result<(), TransportError<TcpError>> {
        let at = tcp_listen_address(&address).ok_or(TransportError::MultiaddrNotSupported(address))?;
        let listener = Listener::new(id, at, &self.sockets);
        self.listeners
            .push(listener.map_err(|error| TransportError::Other(error.into()))?);
        self.waker.take().inspect(Waker::wake_by_ref);
        Ok(())
    }

    fn remove_listener(&mut self, id: ListenerId) -> bool {
        let listener = self.listeners.iter_mut().find(|listener| listener.id == id);
        let found = listener.map(Listener::close).is_some();
        self.waker.take().inspect(Waker::wake_by_ref);
        found
    }

    fn dial(
        &mut self,
        address: Multiaddr,
        options: DialOpts,
    ) -> Result<Self::Dial, TransportError<TcpError>> {
        let to = match tcp_destination(&address) {
            Some(at) => Destination::Ip(at),
            // Without a proxy that looks names up nobody dials them.
            None => match (named_tcp_destination(&address), &self.proxy) {
                (Some((name, port)), Some(_)) => Destination::Name(name, port),
                _ => return Err(TransportError::MultiaddrNotSupported(address)),
            },
        };
        let proxy = self.proxy.clone().filter(|proxy| proxy.takes(&to));
        let from = match (options.port_use, &to) {
            (PortUse::New, _) => self
                .next_connection
                .uplink()
                .map_or(Origin::Anywhere, Origin::Uplink),
            (PortUse::Reuse, Destination::Ip(to)) if proxy.is_none() => Origin::Port(self.port_to(*to)?),
            (PortUse::Reuse, _) => return Err(TransportError::Other(NoPort::NotListening.into())),
        };
        let dialler = Dialler {
            security: self.security.clone(),
            segments: Arc::clone(&self.segments),
            sockets: Arc::clone(&self.sockets),
            proxy,
            from,
            role: options.role,
            begins_with_tls: begins_with_tls(&address),
            losses: self.next_connection.dialled(),
        };
        Ok(async move { dialler.dial(&to).await }.boxed())
    }

    fn poll(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<TransportEvent<Self::ListenerUpgrade, TcpError>> {
        let mut events = self.listeners.iter_mut().map(|listener| listener.poll(cx));
        let Some(Poll::Ready(event)) = events.find(Poll::is_ready) else {
            self.waker = Some(cx.waker().clone());
            return Poll::Pending;
        };
        if let TransportEvent::ListenerClosed { listener_id, .. } = event {
            self.listeners.retain(|listener| listener.id != listener_id);
        }
        let event = event.map_upgrade(|stream| self.accept(stream));
        Poll::Ready(event.map_err(TcpError::Io))
    }
}

/// What it takes to bring one connection up.
struct Dialler {
    security: Security,
    segments: Arc<SegmentBook>,
    sockets: Arc<TcpSockets>,
    /// The proxy by which the peer is reached.
    proxy: Option<Arc<Proxy>>,
    from: Origin,
    /// Which side of the handshake this node is: with a peer that connects at once, one of the two takes itself for the one that
    /// was dialled.
    role: Endpoint,
    /// Whether the peer is greeted with TLS.
    begins_with_tls: bool,
    /// What counts the packets.
    losses: Arc<Losses>,
}

impl Dialler {
    async fn dial(self, to: &Destination) -> Result<Established, TcpError> {
        let (stream, size, step_limit, round_trip) = self.connect(to).await?;
        let (at, segments) = (stream.peer_addr()?, self.segments);
        let host = at.ip();
        let watch = PathWatch::new(host, Arc::clone(&segments)).counting(self.losses);
        let socket = Socket::new(stream, watch)?;

        let backlog = socket.backlog();
        let mut handshake = match self.role {
            Endpoint::Dialer if self.begins_with_tls => {
                let own_backlog = Arc::clone(&backlog);
                outbound_by(TLS, socket, own_backlog, Some(at), self.security, step_limit).boxed()
            }
            Endpoint::Dialer => {
                secure_outbound(socket, Arc::clone(&backlog), Some(at), self.security, step_limit).boxed()
            }
            Endpoint::Listener => {
                secure_inbound(socket, Arc::clone(&backlog), Some(at), self.security, None).boxed()
            }
        };
        let secured = tokio::select! {
            secured = &mut handshake => secured,
            () = sleep(STALL + 4 * round_trip) => {
                tracing::debug!(%to, %at, ?round_trip, ?size, "a handshake stalls");
                segments.handle_stall(host, size, Instant::now());
                handshake.await
            }
        };
        match &secured {
            Ok(_) => {
                backlog.handle_secured();
                if segments.handle_secured(host, size, Instant::now()) {
                    tracing::warn!(
                        %host,
                        max_segment_bytes = size.bytes(),
                        "the path to a host seems to drop large packets; TCP gets smaller segments",
                    );
                }
            }
            Err(TcpError::TimedOut { .. }) => segments.handle_timeout(host, Instant::now()),
            Err(_) => {}
        }
        secured
    }

    /// Connects to the peer, or to its proxy and by that to the peer. Returns with the connection the size of its segments, how
    /// long a step of its handshake may take, and how long connecting took.
    async fn connect(
        &self,
        to: &Destination,
    ) -> Result<(TcpStream, SegmentSize, Duration, Duration), TcpError> {
        let Some(proxy) = &self.proxy else {
            let Destination::Ip(at) = to else {
                return Err(io::Error::from(io::ErrorKind::AddrNotAvailable).into());
            };
            return self.connect_to(*at).await;
        };
        let failed = |source| TcpError::Proxy {
            proxy: proxy.to_string(),
            source,
        };
        let started = Instant::now();
        let mut refused = None;
        for at in proxy.addresses().await.map_err(failed)? {
            match self.connect_to(at).await {
                Ok((stream, size, step_limit, _)) => {
                    let tunnel = within(PROXY_LIMIT, Step::Proxy, proxy.tunnel(stream, to)).await?;
                    return Ok((tunnel.map_err(failed)?, size, step_limit, started.elapsed()));
                }
                Err(error) => refused = Some(error),
            }
        }
        Err(match refused {
            Some(TcpError::Io(error)) => failed(error.into()),
            Some(other) => other,
            None => failed(io::Error::from(io::ErrorKind::AddrNotAvailable).into()),
        })
    }

    async fn connect_to(
        &self,
        at: SocketAddr,
    ) -> Result<(TcpStream, SegmentSize, Duration, Duration), TcpError> {
        let mut started = Instant::now();
        let mut plan = self.segments.plan(at.ip(), started);
        loop {
            let connect = self.sockets.connect(at, plan.size, &self.from);
            let connected = match within(CONNECT_LIMIT, Step::Connect, connect).await {
                Ok(Err(error)) if matches!(self.from, Origin::Port(_)) => match NoPort::of(error) {
                    Ok(no_port) => return Err(no_port.into()),
                    Err(error) => Ok(Err(error)),
                },
                connected => connected,
            };
            let was_there = matches!(&connected, Ok(Ok(stream)) if is_at_once(stream));
            if !was_there {
                self.segments.handle_unreached(at.ip());
            }
            let stream = connected??;
            let unsuspected = self.segments.plan(at.ip(), Instant::now());
            if was_there || unsuspected.size == plan.size {
                return Ok((stream, plan.size, plan.step_limit, started.elapsed()));
            }
            // The size was only suspected, and the path was gone: a connection of that size would say that it is narrow.
            (plan, started) = (unsuspected, Instant::now());
        }
    }
}

/// Says whether the peer has answered the first time that it was asked to connect.
fn is_at_once(stream: &TcpStream) -> bool {
    getsockopt(stream, TcpInfo).map_or(true, |info| info.n_total_retransmits == 0)
}

/// Secures and multiplexes what this node has dialled; `at` is where the peer is, if that is known.
pub(super) async fn secure_outbound<C>(
    socket: C,
    backlog: Arc<Backlog>,
    at: Option<SocketAddr>,
    security: Security,
    limit: Duration,
) -> Result<Established, TcpError>
where
    C: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let negotiate = dialer_select_proto(socket, security.protocol_info(), Version::V1Lazy);
    let (protocol, socket) = within(limit, Step::Negotiation, negotiate).await??;
    outbound_by(protocol, socket, backlog, at, security, limit).await
}

/// Does the same once it is clear by which protocol.
async fn outbound_by<C>(
    protocol: &'static str,
    socket: C,
    backlog: Arc<Backlog>,
    at: Option<SocketAddr>,
    security: Security,
    limit: Duration,
) -> Result<Established, TcpError>
where
    C: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let instances = Arc::clone(&security.instances);
    let counters = Arc::clone(&security.counters);
    let secure = security.upgrade_outbound(socket, protocol);
    let secured = within(limit, Step::Security, secure).await??;
    let Secured {
        peer,
        instance,
        channel,
    } = secured;
    let standing = instance.zip(at);
    let standing = standing.map(|(number, at)| instances.handle_secured(peer, number, at));
    let bytes = match channel {
        Channel::Records(tls) => {
            let muxer = RecordMuxer::new(*tls, true, backlog, counters, standing);
            return Ok((peer, StreamMuxerBox::new(muxer)));
        }
        Channel::Bytes(bytes) => bytes,
    };
    let multiplex = async {
        let upgrade = YamuxUpgrade(backlog);
        let protocols = upgrade.protocol_info();
        let (protocol, bytes) = dialer_select_proto(bytes, protocols, Version::V1Lazy).await?;
        Ok::<_, TcpError>(upgrade.upgrade_outbound(bytes, protocol).await?)
    };
    let muxer = within(limit, Step::Multiplexer, multiplex).await??;
    Ok((peer, StreamMuxerBox::new(muxer.holding(standing))))
}

async fn accept(
    stream: TcpStream,
    security: Security,
    segments: Arc<SegmentBook>,
    sockets: &TcpSockets,
    losses: Arc<Losses>,
    place: &Place,
) -> Result<Established, TcpError> {
    let from = stream.peer_addr()?;
    let host = from.ip();
    sockets.mark_accepted(&stream)?;
    let greeting = within(INBOUND_STEP_LIMIT, Step::Negotiation, greeting(&stream)).await??;
    let socket = Socket::new(stream, PathWatch::new(host, segments).counting(losses))?;
    let backlog = socket.backlog();
    let (own_backlog, from) = (Arc::clone(&backlog), Some(from));
    let secured = match greeting {
        Greeting::Tls => inbound_by(TLS, socket, own_backlog, from, security, Some(place)).await?,
        Greeting::Agreement => secure_inbound(socket, own_backlog, from, security, Some(place)).await?,
    };
    backlog.handle_secured();
    Ok(secured)
}

/// Secures and multiplexes what a peer has dialled; `from` is where the peer is, if that is known.
pub(super) async fn secure_inbound<C>(
    socket: C,
    backlog: Arc<Backlog>,
    from: Option<SocketAddr>,
    security: Security,
    place: Option<&Place>,
) -> Result<Established, TcpError>
where
    C: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let negotiate = listener_select_proto(socket, security.protocol_info());
    let (protocol, socket) = within(INBOUND_STEP_LIMIT, Step::Negotiation, negotiate).await??;
    inbound_by(protocol, socket, backlog, from, security, place).await
}

/// Does the same once it is clear by which protocol.
async fn inbound_by<C>(
    protocol: &'static str,
    socket: C,
    backlog: Arc<Backlog>,
    from: Option<SocketAddr>,
    security: Security,
    place: Option<&Place>,
) -> Result<Established, TcpError>
where
    C: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let instances = Arc::clone(&security.instances);
    let counters = Arc::clone(&security.counters);
    if let Some(place) = place {
        place.handle_speech();
    }
    let secure = security.upgrade_inbound(socket, protocol);
    let secured = within(INBOUND_STEP_LIMIT, Step::Security, secure).await??;
    let Secured {
        peer,
        instance,
        channel,
    } = secured;
    if let Some(place) = place {
        place.handle_peer(peer);
    }
    let standing = instance.zip(from);
    let standing = standing.map(|(number, from)| instances.handle_secured(peer, number, from));
    let bytes = match channel {
        Channel::Records(tls) => {
            let muxer = RecordMuxer::new(*tls, false, backlog, counters, standing);
            return Ok((peer, StreamMuxerBox::new(muxer)));
        }
        Channel::Bytes(bytes) => bytes,
    };
    let multiplex = async {
        let upgrade = YamuxUpgrade(backlog);
        let (protocol, bytes) = listener_select_proto(bytes, upgrade.protocol_info()).await?;
        Ok::<_, TcpError>(upgrade.upgrade_inbound(bytes, protocol).await?)
    };
    let muxer = within(INBOUND_STEP_LIMIT, Step::Multiplexer, multiplex).await??;
    Ok((peer, StreamMuxerBox::new(muxer.holding(standing))))
}

/// What a dialler begins with.
enum Greeting {
    /// TLS.
    Tls,
    /// The agreement on a security protocol.
    Agreement,
}

/// Waits for the first byte of a dialler, and leaves it where it is.
async fn greeting(stream: &TcpStream) -> io::Result<Greeting> {
    let mut first = [0];
    let n = stream.peek(&mut first).await?;
    Ok(match first[..n] {
        [HANDSHAKE_RECORD] => Greeting::Tls,
        _ => Greeting::Agreement,
    })
}

/// Says whether the other side has sent anything, which it does right after it has connected.
fn has_sent(stream: &TcpStream) -> bool {
    let peeked = recv(
        stream.as_raw_fd(),
        &mut [0],
        MsgFlags::MSG_PEEK | MsgFlags::MSG_DONTWAIT,
    );
    peeked.is_ok_and(|n| n > 0)
}

/// Gives a step of bringing a connection up its time.
async fn within<T>(limit: Duration, step: Step, work: impl Future<Output = T>) -> Result<T, TcpError> {
    timeout(limit, work)
        .await
        .map_err(|_elapsed| TcpError::TimedOut { step, limit })
}
