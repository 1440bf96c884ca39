//! Wake-ups within a thread: a receiver whose packet the host answers at once looks after the answer's worker itself,
//! which spares the kernel's interrupt and a turn of the reactor.

use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::task::{Context, Poll};

use futures::task::AtomicWaker;

use crate::kernel::RingBell;

thread_local! {
    /// The wake-up states of the workers of this thread.
    static WAKEUPS: RefCell<Vec<Arc<WakeupState>>> = const { RefCell::new(Vec::new()) };
}

struct WakeupState {
    ring: RingBell,
    /// Whether the worker sleeps and a [`DeferredWakeups`] will wake it.
    is_deferred: AtomicBool,
    /// Whether the worker was woken by a [`DeferredWakeups`] and has not seen it yet.
    is_woken: AtomicBool,
    waker: AtomicWaker,
}

/// Registers a worker with its thread, until it is dropped: receivers of the thread can then defer its wake-ups.
pub(super) struct WorkerWakeup(Arc<WakeupState>);

impl WorkerWakeup {
    /// Registers the worker of a ring with the current thread.
    pub(super) fn new(ring: RingBell) -> Self {
        let wakeup = Arc::new(WakeupState {
            ring,
            is_deferred: AtomicBool::new(false),
            is_woken: AtomicBool::new(false),
            waker: AtomicWaker::new(),
        });
        WAKEUPS.with_borrow_mut(|wakeups| wakeups.push(Arc::clone(&wakeup)));
        Self(wakeup)
    }

    /// Ready once after a [`DeferredWakeups`] has kept the kernel from waking the worker.
    pub(super) fn poll_woken(&self, context: &mut Context<'_>) -> Poll<()> {
        if self.0.is_woken.swap(false, Relaxed) {
            return Poll::Ready(());
        }
        self.0.waker.register(context.waker());
        Poll::Pending
    }
}

impl Drop for WorkerWakeup {
    fn drop(&mut self) {
        WAKEUPS.with_borrow_mut(|wakeups| wakeups.retain(|wakeup| !Arc::ptr_eq(wakeup, &self.0)));
    }
}

/// Keeps the kernel from waking the workers of this thread while it lives. On drop it wakes those whose rings hold
/// records.
pub(super) struct DeferredWakeups(());

impl DeferredWakeups {
    /// Defers wake-ups from now on. It must not outlive a poll of its task, because other tasks of the thread inject
    /// too.
    pub(super) fn new() -> Self {
        WAKEUPS.with_borrow(|wakeups| {
            for wakeup in wakeups {
                wakeup.is_deferred.store(wakeup.ring.hold(), Relaxed);
            }
        });
        Self(())
    }
}

impl Drop for DeferredWakeups {
    fn drop(&mut self) {
        WAKEUPS.with_borrow(|wakeups| {
            for wakeup in wakeups {
                if wakeup.is_deferred.load(Relaxed) && !wakeup.ring.arm() {
                    wakeup.is_woken.store(true, Relaxed);
                    wakeup.waker.wake();
                }
            }
        });
    }
}
