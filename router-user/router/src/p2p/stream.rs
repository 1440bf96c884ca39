//! A stream to a peer, which counts against the limit of its connection for as long as it lives, and is read when it is
//! its turn among the streams of its lane.

use std::{
    io::{self, IoSlice, IoSliceMut},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use futures::{AsyncRead, AsyncWrite};
use libp2p::{Stream, StreamProtocol};

use super::{life::SignsOfLife, stream_order::StreamPlace, stream_slots::StreamSlot};

/// Name and version of the protocol that carries IP packets in frames, on streams that have no order among each other.
pub const IP_PROTOCOL: StreamProtocol = StreamProtocol::new("/stream-router/ip/1");

/// Name and version of the protocol that carries IP packets in frames, on streams that say which of a lane's streams
/// they are, so that those of a lane are read one after the other.
pub const LANE_PROTOCOL: StreamProtocol = StreamProtocol::new("/stream-router/ip/2");

/// A stream of [`IP_PROTOCOL`] or [`LANE_PROTOCOL`] on one connection.
///
/// Reading ends with 0 both when the peer closed its side and when it reset the stream, as nobody tells the difference over TCP.
/// Dropping the stream unclosed resets it. Reader and writer belong on the runtime of the connection.
///
/// Of the streams of a peer's lane one is read at a time: reading another waits until every earlier one was read to its
/// end, failed, or was dropped. So a reader deals with what it has read before it reads on, or drops the stream. A stream
/// whose successor has waited for long enough fails with [`io::ErrorKind::ConnectionAborted`].
#[derive(Debug)]
pub struct DataStream {
    // Dropped first: nothing is read of a stream that has lost its place.
    stream: Stream,
    place: Option<StreamPlace>,
    life: Arc<SignsOfLife>,
    /// Whether this node has opened it as one of a lane, and the peer knows which.
    is_in_lane: bool,
    /// Whether the last write had to wait.
    is_blocked: bool,
    _slot: StreamSlot,
}

impl DataStream {
    pub(super) fn new(stream: Stream, slot: StreamSlot, life: Arc<SignsOfLife>) -> Self {
        Self {
            stream,
            place: None,
            life,
            is_in_lane: false,
            is_blocked: false,
            _slot: slot,
        }
    }

    /// Makes a stream that this node has opened.
    pub(super) fn opened(stream: Stream, slot: StreamSlot, life: Arc<SignsOfLife>, is_in_lane: bool) -> Self {
        Self {
            is_in_lane,
            ..Self::new(stream, slot, life)
        }
    }

    /// Says whether the peer reads the next stream of the lane after this one, on whatever connection that is. It does not if
    /// it knows only [`IP_PROTOCOL`].
    pub fn keeps_order(&self) -> bool {
        self.is_in_lane
    }

    /// Makes a stream that is read when it is its turn.
    pub(super) fn in_place(
        stream: Stream,
        slot: StreamSlot,
        life: Arc<SignsOfLife>,
        place: StreamPlace,
    ) -> Self {
        Self {
            place: Some(place),
            ..Self::new(stream, slot, life)
        }
    }

    /// Reads with `read` when it is the stream's turn.
    fn poll_in_turn(
        &mut self,
        cx: &mut Context<'_>,
        read: impl FnOnce(Pin<&mut Stream>, &mut Context<'_>) -> Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        if let Some(place) = &mut self.place {
            ready!(place.poll_turn(cx))?;
        }
        let outcome = read(Pin::new(&mut self.stream), cx);
        if matches!(outcome, Poll::Ready(Ok(n)) if n > 0) {
            self.life.add();
        }
        match &mut self.place {
            Some(place) => place.handle_read(outcome, cx),
            None => outcome,
        }
    }

    /// What a connection holds is bounded, so that it takes more only once the peer's side has acknowledged some.
    fn handle_write<T>(&mut self, written: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if matches!(written, Poll::Ready(Ok(_))) {
            self.life.add_written();
            if self.is_blocked {
                self.life.add();
            }
        }
        self.is_blocked = written.is_pending();
        written
    }
}

impl AsyncRead for DataStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        // An empty buffer says nothing of the stream.
        if buffer.is_empty() {
            return Poll::Ready(Ok(0));
        }
        self.poll_in_turn(cx, |stream, cx| stream.poll_read(cx, buffer))
    }

    fn poll_read_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffers: &mut [IoSliceMut<'_>],
    ) -> Poll<io::Result<usize>> {
        if buffers.iter().all(|buffer| buffer.is_empty()) {
            return Poll::Ready(Ok(0));
        }
        self.poll_in_turn(cx, |stream, cx| stream.poll_read_vectored(cx, buffers))
    }
}

impl AsyncWrite for DataStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, buffer);
        self.handle_write(written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffers: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, buffers);
        self.handle_write(written)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_close(cx)
    }
}
