//! A stream to a peer, which counts against the limit of its connection for as long as it lives.

use std::{
    io::{self, IoSlice, IoSliceMut},
    pin::Pin,
    task::{Context, Poll},
};

use futures::{AsyncRead, AsyncWrite};
use libp2p::{Stream, StreamProtocol};
use tokio::sync::OwnedSemaphorePermit;

/// Name and version of the protocol that carries IP packets in frames.
pub const IP_PROTOCOL: StreamProtocol = StreamProtocol::new("/stream-router/ip/1");

/// A stream of [`IP_PROTOCOL`] on one connection.
///
/// Reading ends with 0 both when the peer closed its side and when it reset the stream, as yamux tells no difference.
/// Dropping the stream unclosed resets it. Reader and writer belong on the runtime of the connection.
#[derive(Debug)]
pub struct DataStream {
    stream: Stream,
    _slot: OwnedSemaphorePermit,
}

impl DataStream {
    pub(super) fn new(stream: Stream, slot: OwnedSemaphorePermit) -> Self {
        Self { stream, _slot: slot }
    }
}

impl AsyncRead for DataStream {
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

impl AsyncWrite for DataStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buffer)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffers: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, buffers)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_close(cx)
    }
}
