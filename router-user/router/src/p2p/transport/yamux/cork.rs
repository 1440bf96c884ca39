//! The socket as yamux sees it, in which writes collect and flushing does nothing.

use std::{
    io,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, ready},
};

use futures::{AsyncRead, AsyncWrite};

/// Bytes that collect before they are sent without a request to do so: four full TLS records, about one segmentation offload.
const WRITE_BYTES: usize = 64 * 1024;

/// Bytes that yamux may read before other tasks of the thread get their turn. Among them are the readers of these bytes,
/// which then find them in the cache.
const READ_BYTES: usize = 64 * 1024;

/// A socket with a write buffer, shared by yamux, which fills it, and the muxer, which sends it.
///
/// Both run in one task, so the lock is never waited for.
pub(super) struct Cork<C>(Arc<Mutex<CorkState<C>>>);

struct CorkState<C> {
    socket: C,
    buffer: Vec<u8>,
    sent: usize,
    readable: usize,
}

impl<C: AsyncRead + AsyncWrite + Unpin> Cork<C> {
    pub(super) fn new(socket: C) -> Self {
        Self(Arc::new(Mutex::new(CorkState {
            socket,
            buffer: Vec::new(),
            sent: 0,
            readable: READ_BYTES,
        })))
    }

    /// Allows yamux to read another portion.
    pub(super) fn allow_reading(&self) {
        self.state().readable = READ_BYTES;
    }

    /// Sends what has collected, and flushes the socket.
    pub(super) fn poll_send(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut state = self.state();
        ready!(state.poll_drain(cx))?;
        Pin::new(&mut state.socket).poll_flush(cx)
    }

    fn state(&self) -> MutexGuard<'_, CorkState<C>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<C: AsyncWrite + Unpin> CorkState<C> {
    fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while let Some(rest) = self.buffer.get(self.sent..)
            && !rest.is_empty()
        {
            match ready!(Pin::new(&mut self.socket).poll_write(cx, rest))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                n => self.sent += n,
            }
        }
        self.buffer.clear();
        self.sent = 0;
        Poll::Ready(Ok(()))
    }
}

impl<C> Clone for Cork<C> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<C: AsyncRead + AsyncWrite + Unpin> AsyncRead for Cork<C> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, target: &mut [u8]) -> Poll<io::Result<usize>> {
        let mut state = self.state();
        if state.readable == 0 {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let n = ready!(Pin::new(&mut state.socket).poll_read(cx, target))?;
        state.readable = state.readable.saturating_sub(n);
        Poll::Ready(Ok(n))
    }
}

impl<C: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Cork<C> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let mut state = self.state();
        if state.buffer.len() >= WRITE_BYTES {
            ready!(state.poll_drain(cx))?;
        }
        let n = bytes.len().min(WRITE_BYTES - state.buffer.len());
        state.buffer.extend_from_slice(&bytes[..n]);
        Poll::Ready(Ok(n))
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_close(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut state = self.state();
        ready!(state.poll_drain(cx))?;
        Pin::new(&mut state.socket).poll_close(cx)
    }
}
