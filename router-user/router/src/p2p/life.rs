//! What a connection was used for, which shows that the other side is there, and whether the connection is needed.

use std::{
    sync::{
        Arc, OnceLock,
        atomic::{
            AtomicBool, AtomicU8, AtomicU64,
            Ordering::{Relaxed, SeqCst},
        },
    },
    task::Context,
};

use futures::task::AtomicWaker;

use super::losses::Losses;

/// Why it is looked whether the other side is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Doubt {
    /// Something has happened after which connections are gone at times.
    Chance = 1,
    /// Nothing that was sent was acknowledged for long.
    Stall = 2,
}

/// Signs of life of one connection: bytes that came, and room for more bytes to go. The streams of the connection add
/// them, and the pings of the connection ask for them.
#[derive(Debug, Default)]
pub(super) struct SignsOfLife {
    n: AtomicU64,
    /// What counts the reads of the connection's socket: on a slow link a record takes seconds, and no stream has any of it before
    /// it is whole.
    socket: OnceLock<Arc<Losses>>,
    /// How many of both were asked for.
    n_seen: AtomicU64,
    /// Writes of packets.
    n_written: AtomicU64,
    /// Whether the next write has to wake who pings.
    rests: AtomicBool,
    /// The strongest doubt since the connection was last pinged for one, 0 if there was none.
    doubt: AtomicU8,
    waker: AtomicWaker,
}

impl SignsOfLife {
    /// Has what comes to the socket count as a sign too.
    pub(super) fn set_socket(&self, socket: Arc<Losses>) {
        // There is one for each connection.
        let _is_set = self.socket.set(socket);
    }

    /// Adds a sign.
    pub(super) fn add(&self) {
        self.n.fetch_add(1, Relaxed);
    }

    /// Records that packets were written.
    pub(super) fn add_written(&self) {
        // Sequentially consistent, as is what `poll_wake` does: of this count and the flag, one is seen by the other side.
        self.n_written.fetch_add(1, SeqCst);
        if self.rests.load(SeqCst) && self.rests.swap(false, SeqCst) {
            self.waker.wake();
        }
    }

    /// Has the connection pinged at once, packets or not, and taken for silent if the answer is late.
    pub(super) fn doubt(&self, doubt: Doubt) {
        self.doubt.fetch_max(doubt as u8, SeqCst);
        self.waker.wake();
    }

    /// Returns why the connection is doubted, if it is, and wakes `cx` when it is, or, with `rests`, when packets are written.
    pub(super) fn poll_wake(&self, rests: bool, cx: &Context<'_>) -> Option<Doubt> {
        self.waker.register(cx.waker());
        self.rests.store(rests, SeqCst);
        match self.doubt.swap(0, SeqCst) {
            0 => None,
            doubt if doubt == Doubt::Chance as u8 => Some(Doubt::Chance),
            _ => Some(Doubt::Stall),
        }
    }

    /// Returns a number that is another one whenever packets have come or gone.
    pub(super) fn n_uses(&self) -> u64 {
        self.n.load(Relaxed).wrapping_add(self.n_written.load(SeqCst))
    }

    /// Says whether there were any since the last time, which only the pings ask.
    pub(super) fn take(&self) -> bool {
        let n_reads = self.socket.get().map_or(0, |socket| socket.n_reads());
        let n = self.n.load(Relaxed).wrapping_add(n_reads);
        self.n_seen.swap(n, Relaxed) != n
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::atomic::AtomicU32,
        task::{Wake, Waker},
    };

    use super::*;

    #[test]
    fn signs_count_once() {
        let life = SignsOfLife::default();
        assert!(!life.take());

        life.add();
        life.add();

        assert_eq!([life.take(), life.take()], [true, false]);

        let socket = Arc::new(Losses::default());
        life.set_socket(Arc::clone(&socket));
        assert!(!life.take());
        socket.handle_read();
        assert_eq!([life.take(), life.take()], [true, false]);
    }

    #[test]
    fn what_is_written_is_a_use_and_no_sign_of_life() {
        let life = SignsOfLife::default();
        let before = life.n_uses();

        life.add_written();

        assert_ne!(life.n_uses(), before);
        assert!(!life.take());
    }

    #[derive(Default)]
    struct CountingWaker(AtomicU32);

    impl Wake for CountingWaker {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Relaxed);
        }
    }

    #[test]
    fn the_first_write_after_a_pause_wakes_who_pings_and_so_does_a_doubt() {
        let life = SignsOfLife::default();
        let counting = Arc::new(CountingWaker::default());
        let waker = Waker::from(Arc::clone(&counting));
        let cx = Context::from_waker(&waker);
        let n_woken = || counting.0.load(Relaxed);

        assert_eq!(life.poll_wake(false, &cx), None);
        life.add_written();
        assert_eq!(n_woken(), 0);

        assert_eq!(life.poll_wake(true, &cx), None);
        life.add_written();
        life.add_written();
        assert_eq!(n_woken(), 1);

        assert_eq!(life.poll_wake(false, &cx), None);
        life.doubt(Doubt::Stall);
        life.doubt(Doubt::Chance);
        assert_eq!(n_woken(), 2);
        assert_eq!(life.poll_wake(false, &cx), Some(Doubt::Stall));
        assert_eq!(life.poll_wake(false, &cx), None);
    }
}
