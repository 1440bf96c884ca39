//! A QUIC connection as libp2p sees it.

use std::{
    io,
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    task::{Context, Poll, ready},
};

use futures::{AsyncRead, AsyncWrite, FutureExt, future::BoxFuture};
use libp2p::core::muxing::{StreamMuxer, StreamMuxerEvent};
use quinn::{ConnectionError, RecvStream, SendStream};

use super::{address, congestion::ShortQueue, drivers::Driver, silence::SilenceWatch};
use crate::p2p::{instances::Standing, losses::Losses, transport::segments::SegmentBook};

type Opening = BoxFuture<'static, Result<(SendStream, RecvStream), ConnectionError>>;

/// A QUIC connection.
pub(in crate::p2p::transport) struct Connection {
    connection: quinn::Connection,
    window: Arc<SendWindow>,
    incoming: Option<Opening>,
    outgoing: Option<Opening>,
    closing: Option<BoxFuture<'static, ConnectionError>>,
    /// The task of one that was accepted.
    driver: Option<Driver>,
    watch: Option<SilenceWatch>,
    losses: Arc<Losses>,
    /// Where the peer was last.
    remote: SocketAddr,
    _standing: Option<Standing>,
}

/// How many bytes a connection holds, which its congestion control says.
struct SendWindow {
    connection: quinn::Connection,
    wanted: Option<Arc<AtomicU64>>,
    /// What the connection was last told.
    told: AtomicU64,
}

/// A stream of a connection.
pub(in crate::p2p::transport) struct Stream {
    send: SendStream,
    receive: RecvStream,
    window: Arc<SendWindow>,
    closed: Option<Result<(), io::ErrorKind>>,
}

impl Connection {
    pub(super) fn new(
        connection: quinn::Connection,
        driver: Option<Driver>,
        standing: Option<Standing>,
    ) -> Self {
        let window = SendWindow {
            wanted: ShortQueue::shown_by(&connection),
            connection: connection.clone(),
            told: AtomicU64::new(0),
        };
        window.follow();
        Self {
            remote: connection.remote_address(),
            connection,
            window: Arc::new(window),
            incoming: None,
            outgoing: None,
            closing: None,
            driver,
            watch: None,
            losses: Arc::default(),
            _standing: standing,
        }
    }

    /// Has the connection's packets counted.
    pub(super) fn counting(mut self, losses: Arc<Losses>) -> Self {
        self.losses = losses;
        self
    }

    /// Has it told to `segments` when nothing comes of the peer any more.
    pub(in crate::p2p::transport) fn watched(mut self, segments: Arc<SegmentBook>) -> Self {
        self.watch = Some(SilenceWatch::new(segments, Arc::clone(&self.losses)));
        self
    }

    fn stream(&self, (send, receive): (SendStream, RecvStream)) -> Stream {
        Stream {
            send,
            receive,
            window: Arc::clone(&self.window),
            closed: None,
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        // Streams may still be read, but nothing comes any more.
        self.connection.close(0_u32.into(), &[]);
        if let Some(driver) = self.driver.take() {
            driver.linger();
        }
    }
}

impl SendWindow {
    /// Tells the connection how many bytes it may hold, if that has changed by much.
    fn follow(&self) {
        let Some(wanted) = &self.wanted else {
            return;
        };
        let (wanted, told) = (wanted.load(Relaxed), self.told.load(Relaxed));
        if wanted.abs_diff(told) > told / 8 {
            self.told.store(wanted, Relaxed);
            self.connection.set_send_window(wanted);
        }
    }
}

impl StreamMuxer for Connection {
    type Substream = Stream;
    type Error = ConnectionError;

    fn poll_inbound(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<Stream, ConnectionError>> {
        let this = &mut *self;
        let connection = &this.connection;
        let incoming = this.incoming.get_or_insert_with(|| {
            let connection = connection.clone();
            async move { connection.accept_bi().await }.boxed()
        });
        let opened = ready!(incoming.poll_unpin(cx));
        this.incoming = None;
        Poll::Ready(opened.map(|halves| this.stream(halves)))
    }

    fn poll_outbound(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Stream, ConnectionError>> {
        let this = &mut *self;
        let connection = &this.connection;
        let outgoing = this.outgoing.get_or_insert_with(|| {
            let connection = connection.clone();
            async move { connection.open_bi().await }.boxed()
        });
        let opened = ready!(outgoing.poll_unpin(cx));
        this.outgoing = None;
        Poll::Ready(opened.map(|halves| this.stream(halves)))
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), ConnectionError>> {
        let this = &mut *self;
        let connection = &this.connection;
        let closing = this.closing.get_or_insert_with(|| {
            connection.close(0_u32.into(), &[]);
            let connection = connection.clone();
            async move { connection.closed().await }.boxed()
        });
        match ready!(closing.poll_unpin(cx)) {
            ConnectionError::LocallyClosed => Poll::Ready(Ok(())),
            error => Poll::Ready(Err(error)),
        }
    }

    fn poll(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<StreamMuxerEvent, ConnectionError>> {
        let this = &mut *self;
        if let Some(watch) = &mut this.watch {
            watch.poll_look(&this.connection, cx);
        }
        let remote = this.connection.remote_address();
        if remote != std::mem::replace(&mut this.remote, remote) {
            return Poll::Ready(Ok(StreamMuxerEvent::AddressChange(address(remote))));
        }
        // The connection has a task of its own.
        Poll::Pending
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        if let Some(Err(_)) = self.closed {
            return Poll::Ready(Ok(0));
        }
        AsyncRead::poll_read(Pin::new(&mut self.receive), cx, buffer)
    }
}

impl AsyncWrite for Stream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.window.follow();
        AsyncWrite::poll_write(Pin::new(&mut self.send), cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        AsyncWrite::poll_flush(Pin::new(&mut self.send), cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // It is asked again after it was ready.
        if let Some(closed) = self.closed {
            return Poll::Ready(closed.map_err(Into::into));
        }
        let closed = ready!(AsyncWrite::poll_close(Pin::new(&mut self.send), cx));
        self.closed = Some(closed.as_ref().map_err(io::Error::kind).copied());
        Poll::Ready(closed)
    }
}
