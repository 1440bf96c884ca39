//! Streams in the records of a TLS connection, with a peer that named [`RECORD_STREAMS`](super::tls::RECORD_STREAMS).
//!
//! A record belongs to one stream, and says so behind its content. Whoever writes a stream seals its records from where the
//! bytes lie, and gives them to the socket; whoever reads one opens the records of the socket's buffer into its own. What it
//! meets of other streams waits for their readers. The task of the connection does what nobody else does: it reads what no
//! reader takes, sends what the socket did not take, and hears of its end.
//!
//! Each stream has a window, which bounds what waits unread; it grows for a reader that keeps up. No stream holds up another
//! one.

mod connection;
mod header;
mod stream;
mod streams;
mod window;

use std::{
    io,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, ready},
    time::Duration,
};

use futures::{AsyncRead, AsyncWrite};
use libp2p::core::muxing::{StreamMuxer, StreamMuxerEvent};
use tokio::time::{Instant, Sleep, sleep_until};

use super::{backlog::Backlog, tls::TlsConnection};
use crate::p2p::{counters::LiveNetworkCounters, instances::Standing, limits::MAX_STREAMS_PER_SIDE};
use connection::Connection;
use stream::RecordStream;

/// Most streams of one connection, of all protocols and both sides. A peer that opens more loses the connection, so the
/// number leaves room above the streams that are admitted.
const MAX_STREAMS: usize = 4 * MAX_STREAMS_PER_SIDE;

/// How long closing a connection may take. With a peer that is gone it would never finish.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// A rule of the streams that the peer has broken. The connection ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Violation {
    #[error("a record does not say what it is")]
    Trailer,
    #[error("the content of a record is not that of its kind")]
    Content,
    #[error("a stream has a number that cannot be")]
    Number,
    #[error("more than {MAX_STREAMS} streams are open")]
    Streams,
    #[error("a record follows the end of its stream")]
    Over,
    #[error("more came on a stream than was allowed")]
    Window,
    #[error("more was allowed on a stream than can be")]
    Credit,
}

/// Why a connection ended.
#[derive(Debug, thiserror::Error)]
pub(super) enum MuxerError {
    #[error("the peer closed the connection")]
    Closed,
    #[error("the connection failed")]
    Failed(#[source] io::Error),
    #[error("the connection has {MAX_STREAMS} streams already")]
    TooManyStreams,
    #[error("the peer did not let the connection close within {CLOSE_TIMEOUT:?}")]
    CloseTimeout,
}

/// A connection that its task and its streams share. All of them run on one thread, if they follow the rule; the lock is
/// for those that do not.
struct Shared<C: AsyncRead + AsyncWrite + Unpin>(Mutex<Connection<C>>);

impl<C: AsyncRead + AsyncWrite + Unpin> Shared<C> {
    fn lock(&self) -> MutexGuard<'_, Connection<C>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The multiplexer of a TLS connection with streams in its records.
pub(super) struct RecordMuxer<C: AsyncRead + AsyncWrite + Unpin> {
    shared: Arc<Shared<C>>,
    close_deadline: Option<Pin<Box<Sleep>>>,
    /// Held until the connection ends.
    _standing: Option<Standing>,
}

impl<C: AsyncRead + AsyncWrite + Unpin> RecordMuxer<C> {
    /// Makes the multiplexer of a dialler or listener, whose streams respect `backlog`.
    pub(super) fn new(
        tls: TlsConnection<C>,
        is_dialler: bool,
        backlog: Arc<Backlog>,
        counters: Arc<LiveNetworkCounters>,
        standing: Option<Standing>,
    ) -> Self {
        let connection = Connection::new(tls, is_dialler, backlog, counters);
        Self {
            shared: Arc::new(Shared(Mutex::new(connection))),
            close_deadline: None,
            _standing: standing,
        }
    }
}

impl<C: AsyncRead + AsyncWrite + Unpin> StreamMuxer for RecordMuxer<C> {
    type Substream = RecordStream<C>;
    type Error = MuxerError;

    fn poll_inbound(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<RecordStream<C>, MuxerError>> {
        let stream = ready!(self.shared.lock().poll_inbound(cx));
        Poll::Ready(Ok(RecordStream::new(Arc::clone(&self.shared), stream)))
    }

    fn poll_outbound(
        self: Pin<&mut Self>,
        _cx: &mut Context<'_>,
    ) -> Poll<Result<RecordStream<C>, MuxerError>> {
        let stream = self.shared.lock().open()?;
        Poll::Ready(Ok(RecordStream::new(Arc::clone(&self.shared), stream)))
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), MuxerError>> {
        if let Poll::Ready(closed) = self.shared.lock().poll_close(cx) {
            return Poll::Ready(closed.map_err(MuxerError::Failed));
        }
        let deadline = self
            .close_deadline
            .get_or_insert_with(|| Box::pin(sleep_until(Instant::now() + CLOSE_TIMEOUT)));
        ready!(deadline.as_mut().poll(cx));
        Poll::Ready(Err(MuxerError::CloseTimeout))
    }

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<StreamMuxerEvent, MuxerError>> {
        let error = ready!(self.shared.lock().poll(cx));
        Poll::Ready(Err(error))
    }
}

impl<C: AsyncRead + AsyncWrite + Unpin> Drop for RecordMuxer<C> {
    fn drop(&mut self) {
        self.shared.lock().abandon();
    }
}

#[cfg(test)]
mod tests;
