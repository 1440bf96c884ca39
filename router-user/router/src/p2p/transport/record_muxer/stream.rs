//! One stream of a connection.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use futures::{AsyncRead, AsyncWrite};

use super::{Shared, header::StreamId};

/// A stream. Dropping it unclosed resets it.
pub(in crate::p2p::transport) struct RecordStream<C: AsyncRead + AsyncWrite + Unpin> {
    shared: Arc<Shared<C>>,
    id: StreamId,
    /// Bytes that were read since others had their turn.
    n_in_turn: usize,
}

impl<C: AsyncRead + AsyncWrite + Unpin> RecordStream<C> {
    pub(super) fn new(shared: Arc<Shared<C>>, id: StreamId) -> Self {
        Self {
            shared,
            id,
            n_in_turn: 0,
        }
    }
}

impl<C: AsyncRead + AsyncWrite + Unpin> AsyncRead for RecordStream<C> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        target: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let Self {
            shared,
            id,
            n_in_turn,
        } = &mut *self;
        shared.lock().poll_read(*id, cx, target, n_in_turn)
    }
}

impl<C: AsyncRead + AsyncWrite + Unpin> AsyncWrite for RecordStream<C> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.shared.lock().poll_write(self.id, cx, bytes)
    }

    /// Gives what was written to the socket, or to the connection's task if the socket does not take it now.
    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.shared.lock().flush())
    }

    /// Says that no more follows, after what was written.
    fn poll_close(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.shared.lock().close_stream(self.id))
    }
}

impl<C: AsyncRead + AsyncWrite + Unpin> Drop for RecordStream<C> {
    fn drop(&mut self) {
        self.shared.lock().drop_stream(self.id);
    }
}
