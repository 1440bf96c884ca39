//! A connection in memory for a test.

use std::{
    collections::VecDeque,
    io,
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    task::{Context, Poll, Wake, Waker},
};

use futures::{AsyncRead, AsyncWrite};

/// Two ends in memory that can be held up.
#[derive(Clone, Default)]
pub(super) struct Wire(Arc<Mutex<[Side; 2]>>);

/// What goes to an end, and what that end did.
#[derive(Default)]
struct Side {
    input: VecDeque<u8>,
    input_ended: bool,
    reader: Option<Waker>,
    /// Bytes it may still write.
    room: Option<usize>,
    flush_blocked: bool,
    writer: Option<Waker>,
    writes: Vec<usize>,
    n_flushes: usize,
    closed: bool,
}

/// One of the ends.
pub(super) struct End {
    wire: Wire,
    index: usize,
}

impl Wire {
    pub(super) fn end(&self, index: usize) -> End {
        End {
            wire: self.clone(),
            index,
        }
    }

    fn with<T>(&self, index: usize, act: impl FnOnce(&mut Side) -> T) -> T {
        act(&mut self.0.lock().expect("not poisoned")[index])
    }

    pub(super) fn writes(&self, index: usize) -> Vec<usize> {
        self.with(index, |side| side.writes.clone())
    }

    pub(super) fn flushes(&self, index: usize) -> usize {
        self.with(index, |side| side.n_flushes)
    }

    pub(super) fn is_closed(&self, index: usize) -> bool {
        self.with(index, |side| side.closed)
    }

    pub(super) fn waiting(&self, index: usize) -> usize {
        self.with(index, |side| side.input.len())
    }

    pub(super) fn push(&self, index: usize, bytes: &[u8]) {
        let reader = self.with(index, |side| {
            side.input.extend(bytes);
            side.reader.take()
        });
        reader.into_iter().for_each(Waker::wake);
    }

    pub(super) fn set_room(&self, index: usize, room: Option<usize>) {
        let writer = self.with(index, |side| {
            side.room = room;
            side.writer.take()
        });
        writer.into_iter().for_each(Waker::wake);
    }

    pub(super) fn block_flush(&self, index: usize, blocked: bool) {
        let writer = self.with(index, |side| {
            side.flush_blocked = blocked;
            side.writer.take()
        });
        writer.into_iter().for_each(Waker::wake);
    }
}

impl AsyncRead for End {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, target: &mut [u8]) -> Poll<io::Result<usize>> {
        self.wire.with(self.index, |side| {
            if side.input.is_empty() && !side.input_ended {
                side.reader = Some(cx.waker().clone());
                return Poll::Pending;
            }
            let n = target.len().min(side.input.len());
            for (target, byte) in target.iter_mut().zip(side.input.drain(..n)) {
                *target = byte;
            }
            Poll::Ready(Ok(n))
        })
    }
}

impl AsyncWrite for End {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let n = self.wire.with(self.index, |side| {
            let n = side.room.map_or(bytes.len(), |room| room.min(bytes.len()));
            side.room = side.room.map(|room| room - n);
            if n == 0 {
                side.writer = Some(cx.waker().clone());
                return None;
            }
            side.writes.push(n);
            Some(n)
        });
        let Some(n) = n else { return Poll::Pending };
        self.wire.push(1 - self.index, &bytes[..n]);
        Poll::Ready(Ok(n))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.wire.with(self.index, |side| {
            if side.flush_blocked {
                side.writer = Some(cx.waker().clone());
                return Poll::Pending;
            }
            side.n_flushes += 1;
            Poll::Ready(Ok(()))
        })
    }

    fn poll_close(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.wire.with(self.index, |side| side.closed = true);
        let reader = self.wire.with(1 - self.index, |side| {
            side.input_ended = true;
            side.reader.take()
        });
        reader.into_iter().for_each(Waker::wake);
        Poll::Ready(Ok(()))
    }
}

/// Returns a waker, and how often it was woken.
pub(super) fn counting_waker() -> (Arc<AtomicUsize>, Waker) {
    struct Counter(Arc<AtomicUsize>);
    impl Wake for Counter {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, SeqCst);
        }
    }
    let count = Arc::new(AtomicUsize::new(0));
    (Arc::clone(&count), Arc::new(Counter(count)).into())
}
