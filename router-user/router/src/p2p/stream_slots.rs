//! The slots of one connection's streams for packets, which bound them and say when the last one is over.

use std::{
    future::poll_fn,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::Poll,
};

use futures::task::AtomicWaker;

use super::{error::OpenError, limits::MAX_STREAMS_PER_SIDE};

/// The slots of both directions.
#[derive(Clone, Debug, Default)]
pub(super) struct ConnectionSlots {
    /// Those of the streams that this node opens.
    pub(super) outbound: Arc<StreamSlots>,
    /// Those of the streams that the peer opens.
    pub(super) inbound: Arc<StreamSlots>,
}

/// The slots of one direction.
#[derive(Debug, Default)]
pub(super) struct StreamSlots {
    state: Mutex<State>,
    /// Of the task that waits for the end of all streams.
    waker: AtomicWaker,
}

#[derive(Debug, Default)]
struct State {
    n_taken: usize,
    /// How many streams there were, those that are over included.
    n_opened: u64,
    is_shut: bool,
}

/// The slot of a stream, which is free once this is dropped.
#[derive(Debug)]
pub(super) struct StreamSlot(Arc<StreamSlots>);

impl StreamSlots {
    /// Takes a slot for a stream.
    ///
    /// # Errors
    /// All are taken, or no stream is to be opened any more.
    pub(super) fn take(self: &Arc<Self>) -> Result<StreamSlot, OpenError> {
        let mut state = self.state();
        if state.is_shut {
            return Err(OpenError::NotConnected);
        }
        if state.n_taken >= MAX_STREAMS_PER_SIDE {
            return Err(OpenError::TooManyStreams);
        }
        state.n_taken += 1;
        Ok(StreamSlot(Arc::clone(self)))
    }

    /// Counts a stream that both sides know of.
    pub(super) fn handle_opened(&self) {
        self.state().n_opened += 1;
        self.waker.wake();
    }

    /// Gives out no slot from now on.
    pub(super) fn shut(&self) {
        self.state().is_shut = true;
    }

    /// Gives out slots again.
    pub(super) fn reopen(&self) {
        self.state().is_shut = false;
    }

    /// Returns how many slots are taken.
    pub(super) fn n_taken(&self) -> usize {
        self.state().n_taken
    }

    /// Waits until at least `n_opened` streams have come and all are over. Returns how many there were. No more than one
    /// task may wait at a time.
    pub(super) async fn all_over(&self, n_opened: u64) -> u64 {
        poll_fn(|cx| {
            // Registered first, lest a stream ends between the look and that.
            self.waker.register(cx.waker());
            let state = self.state();
            match state.n_taken == 0 && state.n_opened >= n_opened {
                true => Poll::Ready(state.n_opened),
                false => Poll::Pending,
            }
        })
        .await
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for StreamSlot {
    fn drop(&mut self) {
        self.0.state().n_taken -= 1;
        self.0.waker.wake();
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    #[test]
    fn slots_are_bounded_and_free_again_once_they_are_dropped() {
        let slots = Arc::<StreamSlots>::default();
        let mut taken: Vec<_> = (0..MAX_STREAMS_PER_SIDE)
            .map(|_| slots.take().expect("free"))
            .collect();

        assert!(matches!(slots.take(), Err(OpenError::TooManyStreams)));
        assert_eq!(slots.n_taken(), MAX_STREAMS_PER_SIDE);
        taken.pop();
        assert!(slots.take().is_ok());
    }

    #[test]
    fn slots_that_are_shut_are_given_to_nobody_until_they_are_open_again() {
        let slots = Arc::<StreamSlots>::default();

        slots.shut();
        assert!(matches!(slots.take(), Err(OpenError::NotConnected)));

        slots.reopen();
        assert!(slots.take().is_ok());
    }

    #[test]
    fn streams_are_over_once_as_many_have_come_as_are_known_of_and_none_is_open() {
        let slots = Arc::<StreamSlots>::default();
        let open = |slots: &Arc<StreamSlots>| {
            let slot = slots.take().expect("free");
            slots.handle_opened();
            slot
        };
        let first = open(&slots);
        assert_eq!(slots.all_over(0).now_or_never(), None, "one is open");
        drop(first);

        assert_eq!(slots.all_over(1).now_or_never(), Some(1));
        let mut both = Box::pin(slots.all_over(2));
        assert_eq!((&mut both).now_or_never(), None, "one is on its way");
        let second = open(&slots);
        assert_eq!((&mut both).now_or_never(), None);
        drop(second);
        assert_eq!(both.now_or_never(), Some(2));
    }
}
