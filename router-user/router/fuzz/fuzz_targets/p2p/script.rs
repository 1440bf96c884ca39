//! The input of a target as a list of what is done, and a wire in memory.

use std::{
    cell::RefCell,
    collections::VecDeque,
    io::{self, Read},
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
};

use futures::{AsyncRead, AsyncWrite};

/// Numbers that the input gives, and zeros when it is used up.
pub(super) struct Script<'a>(pub(super) &'a [u8]);

impl Script<'_> {
    pub(super) fn is_over(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn byte(&mut self) -> u8 {
        let Some((&first, rest)) = self.0.split_first() else {
            return 0;
        };
        self.0 = rest;
        first
    }

    /// Returns a number up to `most`.
    pub(super) fn number(&mut self, most: usize) -> usize {
        usize::from(u16::from_be_bytes([self.byte(), self.byte()])) % (most + 1)
    }

    /// Returns so many bytes: the next of the input, again and again.
    pub(super) fn bytes(&mut self, n: usize) -> Vec<u8> {
        let n_own = self.number(64).clamp(1, self.0.len().max(1));
        let (own, rest) = self.0.split_at(n_own.min(self.0.len()));
        self.0 = rest;
        match own {
            [] => vec![0; n],
            own => own.iter().copied().cycle().take(n).collect(),
        }
    }
}

/// What is on its way to and from our end. Our end takes and gives at most `piece` bytes at a time.
#[derive(Default)]
pub(super) struct Wire {
    pub(super) to_ours: VecDeque<u8>,
    pub(super) from_ours: VecDeque<u8>,
    pub(super) piece: usize,
    pub(super) has_ended: bool,
}

#[derive(Clone, Default)]
pub(super) struct OurEnd(pub(super) Rc<RefCell<Wire>>);

impl AsyncRead for OurEnd {
    fn poll_read(self: Pin<&mut Self>, _: &mut Context<'_>, target: &mut [u8]) -> Poll<io::Result<usize>> {
        let mut wire = self.0.borrow_mut();
        if wire.to_ours.is_empty() && !wire.has_ended {
            return Poll::Pending;
        }
        let n = target.len().min(wire.piece.max(1));
        Poll::Ready(wire.to_ours.read(&mut target[..n]))
    }
}

impl AsyncWrite for OurEnd {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let mut wire = self.0.borrow_mut();
        let n = bytes.len().min(wire.piece.max(1));
        wire.from_ours.extend(&bytes[..n]);
        Poll::Ready(Ok(n))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
