//! The bytes of a TLS connection as a stream, for a peer that multiplexes with yamux.

use std::{
    io,
    ops::Range,
    pin::Pin,
    task::{Context, Poll, ready},
};

use futures::{AsyncRead, AsyncWrite};

use super::{connection::TlsConnection, record::MAX_CONTENT};

/// Sealed bytes from which on the socket has to take some before more are sealed.
const MAX_UNSENT: usize = 64 * 1024;

/// A TLS connection as a stream of bytes.
pub(in crate::p2p::transport) struct TlsStream<C> {
    connection: TlsConnection<C>,
    /// Where content lies that is not read.
    content: Range<usize>,
}

impl<C> TlsStream<C> {
    pub(in crate::p2p::transport) fn new(connection: TlsConnection<C>) -> Self {
        Self {
            connection,
            content: 0..0,
        }
    }
}

impl<C: AsyncRead + AsyncWrite + Unpin> AsyncRead for TlsStream<C> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        target: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let Self { connection, content } = &mut *self;
        while content.start == content.end {
            if let Some(opened) = connection.open()? {
                *content = opened;
            } else if connection.has_ended() {
                return Poll::Ready(Ok(0));
            } else {
                ready!(connection.poll_receive(cx))?;
            }
        }
        let waiting = connection.content(content.clone());
        let n = waiting.len().min(target.len());
        target[..n].copy_from_slice(&waiting[..n]);
        content.start += n;
        Poll::Ready(Ok(n))
    }
}

impl<C: AsyncRead + AsyncWrite + Unpin> AsyncWrite for TlsStream<C> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let connection = &mut self.connection;
        if connection.n_unsent() >= MAX_UNSENT {
            ready!(connection.poll_send(cx))?;
        }
        let bytes = bytes.get(..MAX_UNSENT).unwrap_or(bytes);
        for content in bytes.chunks(MAX_CONTENT) {
            connection.seal(content, &[])?;
        }
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.connection.poll_flush(cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.connection.poll_close(cx)
    }
}
