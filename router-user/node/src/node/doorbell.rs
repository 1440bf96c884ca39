//! Wake-ups within a thread: a receiver whose packet the host answers at once looks after the answer's worker itself,
//! which spares the kernel's interrupt and a turn of the reactor.

use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::task::{Context, Poll};

use futures::task::AtomicWaker;

use crate::kernel::RingBell;

thread_local! {
    /// Of the workers of this thread.
    static BELLS: RefCell<Vec<Arc<Bell>>> = const { RefCell::new(Vec::new()) };
}

struct Bell {
    ring: RingBell,
    /// The worker sleeps, and it is for a [`Muffle`] to wake it.
    is_held: AtomicBool,
    /// The worker has been woken so, and has not seen it yet.
    is_rung: AtomicBool,
    waker: AtomicWaker,
}

/// A worker's; whoever injects on its thread knows of it until it is dropped.
pub(super) struct Doorbell(Arc<Bell>);

impl Doorbell {
    /// For the worker of a ring, on its thread.
    pub(super) fn new(ring: RingBell) -> Self {
        let bell = Arc::new(Bell {
            ring,
            is_held: AtomicBool::new(false),
            is_rung: AtomicBool::new(false),
            waker: AtomicWaker::new(),
        });
        BELLS.with_borrow_mut(|bells| bells.push(Arc::clone(&bell)));
        Self(bell)
    }

    /// Ready once after a [`Muffle`] that kept the kernel from waking the worker.
    pub(super) fn poll_rung(&self, context: &mut Context<'_>) -> Poll<()> {
        if self.0.is_rung.swap(false, Relaxed) {
            return Poll::Ready(());
        }
        self.0.waker.register(context.waker());
        Poll::Pending
    }
}

impl Drop for Doorbell {
    fn drop(&mut self) {
        BELLS.with_borrow_mut(|bells| bells.retain(|bell| !Arc::ptr_eq(bell, &self.0)));
    }
}

/// While it lives, the kernel wakes no worker of this thread; then those are woken whose rings have something.
pub(super) struct Muffle(());

impl Muffle {
    /// Beginning now. It must not outlive a poll of its task, since the thread's other tasks inject too.
    pub(super) fn new() -> Self {
        BELLS.with_borrow(|bells| {
            for bell in bells {
                bell.is_held.store(bell.ring.hold(), Relaxed);
            }
        });
        Self(())
    }
}

impl Drop for Muffle {
    fn drop(&mut self) {
        BELLS.with_borrow(|bells| {
            for bell in bells {
                if bell.is_held.load(Relaxed) && !bell.ring.arm() {
                    bell.is_rung.store(true, Relaxed);
                    bell.waker.wake();
                }
            }
        });
    }
}
