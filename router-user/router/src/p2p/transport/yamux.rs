//! `/yamux/1.0.0` that sends in batches.
//!
//! The `yamux` crate flushes its socket after every frame. It gets a [`Cork`] for a socket instead: flushing a cork does
//! nothing, and the connection sends what it holds once, after everything that was ready has been written.

mod cork;
mod substream;

use std::{
    collections::VecDeque,
    future, io, iter,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker, ready},
    time::Duration,
};

use futures::{AsyncRead, AsyncWrite};
use libp2p::core::{
    muxing::{StreamMuxer, StreamMuxerEvent},
    upgrade::{InboundConnectionUpgrade, OutboundConnectionUpgrade, UpgradeInfo},
};
use tokio::time::{Instant, Sleep, sleep_until};
use yamux::{Connection, ConnectionError, Mode};

use super::backlog::Backlog;
use crate::p2p::{instances::Standing, limits::MAX_STREAMS_PER_SIDE};
use cork::Cork;
use substream::Substream;

/// Most streams of one connection, of all protocols and both sides. A peer that opens more loses the connection, so the
/// number leaves room above the streams that are admitted.
const MAX_STREAMS: usize = 4 * MAX_STREAMS_PER_SIDE;

/// Bytes that all streams of one connection together may have unread: 256 KiB guaranteed to each, and 32 MiB for the fast ones.
const MAX_UNREAD_BYTES: usize = MAX_STREAMS * yamux::DEFAULT_CREDIT as usize + 32 * 1024 * 1024;

/// How long closing a connection may take. With a peer that is gone it would never finish.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// The upgrade of a secured connection to a [`Muxer`], whose streams respect the backlog of its socket.
#[derive(Clone, Debug)]
pub(super) struct YamuxUpgrade(pub(super) Arc<Backlog>);

/// A yamux connection over a corked socket.
pub(super) struct Muxer<C> {
    connection: Connection<Cork<C>>,
    cork: Cork<C>,
    backlog: Arc<Backlog>,
    waiting: VecDeque<Substream>,
    inbound_waker: Option<Waker>,
    close_deadline: Option<Pin<Box<Sleep>>>,
    /// Held until the connection ends.
    standing: Option<Standing>,
}

/// Why a connection ended.
#[derive(Debug, thiserror::Error)]
pub(super) enum MuxerError {
    #[error(transparent)]
    Yamux(#[from] ConnectionError),
    #[error("cannot send")]
    Flush(#[source] io::Error),
    #[error("the peer did not let the connection close within {CLOSE_TIMEOUT:?}")]
    CloseTimeout,
}

impl<C: AsyncRead + AsyncWrite + Unpin> Muxer<C> {
    fn new(socket: C, mode: Mode, backlog: Arc<Backlog>) -> Self {
        let mut config = yamux::Config::default();
        config.set_max_num_streams(MAX_STREAMS);
        config.set_max_connection_receive_window(Some(MAX_UNREAD_BYTES));
        let cork = Cork::new(socket);
        Self {
            connection: Connection::new(cork.clone(), config, mode),
            cork,
            backlog,
            waiting: VecDeque::new(),
            inbound_waker: None,
            close_deadline: None,
            standing: None,
        }
    }

    /// Returns the connection, which says from now on that it stands.
    pub(super) fn holding(mut self, standing: Option<Standing>) -> Self {
        self.standing = standing;
        self
    }

    /// Lets yamux read and write until nothing is ready.
    fn poll_progress(&mut self, cx: &mut Context<'_>) -> Result<(), ConnectionError> {
        loop {
            match self.connection.poll_next_inbound(cx) {
                Poll::Pending => return Ok(()),
                Poll::Ready(None) => return Err(ConnectionError::Closed),
                // They are bounded: yamux ends the connection when there are more than `MAX_STREAMS`.
                Poll::Ready(Some(stream)) => {
                    let stream = Substream::new(stream?, Arc::clone(&self.backlog));
                    self.waiting.push_back(stream);
                }
            }
            if let Some(waker) = self.inbound_waker.take() {
                waker.wake();
            }
        }
    }
}

impl<C: AsyncRead + AsyncWrite + Unpin> StreamMuxer for Muxer<C> {
    type Substream = Substream;
    type Error = MuxerError;

    fn poll_inbound(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<Substream, MuxerError>> {
        match self.waiting.pop_front() {
            Some(stream) => Poll::Ready(Ok(stream)),
            None => {
                self.inbound_waker = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }

    fn poll_outbound(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<Substream, MuxerError>> {
        let stream = ready!(self.connection.poll_new_outbound(cx))?;
        Poll::Ready(Ok(Substream::new(stream, Arc::clone(&self.backlog))))
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), MuxerError>> {
        self.cork.allow_reading();
        self.backlog.handle_closing();
        if let Poll::Ready(closed) = self.connection.poll_close(cx) {
            return Poll::Ready(Ok(closed?));
        }
        let deadline = self
            .close_deadline
            .get_or_insert_with(|| Box::pin(sleep_until(Instant::now() + CLOSE_TIMEOUT)));
        ready!(deadline.as_mut().poll(cx));
        Poll::Ready(Err(MuxerError::CloseTimeout))
    }

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<StreamMuxerEvent, MuxerError>> {
        self.cork.allow_reading();
        self.poll_progress(cx)?;
        match self.cork.poll_send(cx) {
            // A pending send has registered the waker with the socket, so this is polled again when it can go on.
            Poll::Pending => Poll::Pending,
            Poll::Ready(Ok(())) => {
                self.backlog.handle_drained();
                Poll::Pending
            }
            Poll::Ready(Err(error)) => Poll::Ready(Err(MuxerError::Flush(error))),
        }
    }
}

impl UpgradeInfo for YamuxUpgrade {
    type Info = &'static str;
    type InfoIter = iter::Once<&'static str>;

    fn protocol_info(&self) -> Self::InfoIter {
        iter::once("/yamux/1.0.0")
    }
}

impl<C: AsyncRead + AsyncWrite + Unpin> InboundConnectionUpgrade<C> for YamuxUpgrade {
    type Output = Muxer<C>;
    type Error = io::Error;
    type Future = future::Ready<io::Result<Muxer<C>>>;

    fn upgrade_inbound(self, socket: C, _: &'static str) -> Self::Future {
        future::ready(Ok(Muxer::new(socket, Mode::Server, self.0)))
    }
}

impl<C: AsyncRead + AsyncWrite + Unpin> OutboundConnectionUpgrade<C> for YamuxUpgrade {
    type Output = Muxer<C>;
    type Error = io::Error;
    type Future = future::Ready<io::Result<Muxer<C>>>;

    fn upgrade_outbound(self, socket: C, _: &'static str) -> Self::Future {
        future::ready(Ok(Muxer::new(socket, Mode::Client, self.0)))
    }
}

#[cfg(test)]
mod tests;
