//! Buffers that circuits have while there is something in them.

use std::{
    cell::RefCell,
    ops::{Deref, DerefMut},
};

/// Bytes of a buffer: what a stream in TLS records gives a reader in one turn, and what is sealed before the socket is asked.
pub(super) const BUFFER_BYTES: usize = 64 * 1024;

/// Buffers that a thread keeps for the next circuit that has something. One that waits for its far end keeps its own.
const MAX_SPARE: usize = 4;

thread_local! {
    static SPARE: RefCell<Vec<Box<[u8]>>> = const { RefCell::new(Vec::new()) };
}

/// A buffer, which the thread keeps when it is dropped.
pub(super) struct Buffer(Box<[u8]>);

impl Buffer {
    /// Returns a buffer, whatever is in it.
    pub(super) fn take() -> Self {
        let spare = SPARE.with_borrow_mut(Vec::pop);
        Self(spare.unwrap_or_else(|| vec![0; BUFFER_BYTES].into_boxed_slice()))
    }
}

impl Deref for Buffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.0
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let buffer = std::mem::take(&mut self.0);
        // A thread that ends keeps nothing.
        let _ended = SPARE.try_with(|spare| {
            let mut spare = spare.borrow_mut();
            if spare.len() < MAX_SPARE {
                spare.push(buffer);
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn n_spare() -> usize {
        SPARE.with_borrow(Vec::len)
    }

    #[test]
    fn a_thread_keeps_a_few_buffers_and_gives_them_out_again() {
        let buffers: Vec<_> = (0..2 * MAX_SPARE).map(|_| Buffer::take()).collect();
        assert_eq!(n_spare(), 0);
        drop(buffers);
        assert_eq!(n_spare(), MAX_SPARE);

        let mut buffer = Buffer::take();
        assert_eq!((n_spare(), buffer.len()), (MAX_SPARE - 1, BUFFER_BYTES));
        buffer[0] = 7;
        drop(buffer);
        assert_eq!(Buffer::take()[0], 7);
    }
}
