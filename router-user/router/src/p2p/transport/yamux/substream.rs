//! A stream of a yamux connection that waits while the connection holds enough.

use std::{
    io::{self, IoSliceMut},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use futures::{AsyncRead, AsyncWrite};
use yamux::Stream;

use crate::p2p::transport::backlog::Backlog;

/// A stream that gives its connection no more than the backlog has room for.
#[derive(Debug)]
pub(in crate::p2p::transport) struct Substream {
    stream: Stream,
    backlog: Arc<Backlog>,
}

impl Substream {
    pub(super) fn new(stream: Stream, backlog: Arc<Backlog>) -> Self {
        Self { stream, backlog }
    }
}

impl AsyncRead for Substream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }

    fn poll_read_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffers: &mut [IoSliceMut<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_read_vectored(cx, buffers)
    }
}

impl AsyncWrite for Substream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let room = ready!(self.backlog.poll_stream_room(bytes.len(), cx));
        let n = ready!(Pin::new(&mut self.stream).poll_write(cx, bytes.get(..room).unwrap_or(bytes)))?;
        self.backlog.handle_given(n);
        Poll::Ready(Ok(n))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_close(cx)
    }
}
