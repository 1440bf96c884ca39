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

/// The flag of a ring by which the kernel knows whether to wake the ring's worker.
trait KernelWakeup: Send + Sync {
    /// Keeps the kernel from waking the worker; false when it would not have.
    fn hold(&self) -> bool;

    /// Makes the kernel wake the worker for the next record; false when the ring holds records already.
    fn arm(&self) -> bool;
}

impl KernelWakeup for RingBell {
    fn hold(&self) -> bool {
        Self::hold(self)
    }

    fn arm(&self) -> bool {
        Self::arm(self)
    }
}

struct WakeupState {
    ring: Box<dyn KernelWakeup>,
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
        Self::register(Box::new(ring))
    }

    fn register(ring: Box<dyn KernelWakeup>) -> Self {
        let wakeup = Arc::new(WakeupState {
            ring,
            is_deferred: AtomicBool::new(false),
            is_woken: AtomicBool::new(false),
            waker: AtomicWaker::new(),
        });
        WAKEUPS.with_borrow_mut(|wakeups| wakeups.push(Arc::clone(&wakeup)));
        Self(wakeup)
    }

    /// Becomes ready once after a [`DeferredWakeups`] has kept the kernel from waking the worker.
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

#[cfg(test)]
mod tests {
    use futures::task::noop_waker;

    use super::*;

    /// A ring whose flag the kernel would see.
    #[derive(Clone, Default)]
    struct Ring {
        is_armed: Arc<AtomicBool>,
        has_records: Arc<AtomicBool>,
    }

    impl KernelWakeup for Ring {
        fn hold(&self) -> bool {
            self.is_armed.swap(false, Relaxed)
        }

        fn arm(&self) -> bool {
            self.is_armed.store(!self.has_records.load(Relaxed), Relaxed);
            self.is_armed.load(Relaxed)
        }
    }

    fn worker() -> (Ring, WorkerWakeup) {
        let ring = Ring::default();
        (ring.clone(), WorkerWakeup::register(Box::new(ring)))
    }

    fn is_woken(worker: &WorkerWakeup) -> bool {
        worker
            .poll_woken(&mut Context::from_waker(&noop_waker()))
            .is_ready()
    }

    #[test]
    fn a_sleeping_worker_whose_ring_got_records_is_woken_once() {
        let (ring, worker) = worker();
        ring.arm();

        let deferred = DeferredWakeups::new();
        assert!(!ring.is_armed.load(Relaxed));
        ring.has_records.store(true, Relaxed);
        assert!(!is_woken(&worker));
        drop(deferred);

        assert!(is_woken(&worker));
        assert!(!is_woken(&worker));
    }

    #[test]
    fn a_sleeping_worker_whose_ring_stays_empty_is_left_to_the_kernel_again() {
        let (ring, worker) = worker();
        ring.arm();

        drop(DeferredWakeups::new());

        assert!(ring.is_armed.load(Relaxed));
        assert!(!is_woken(&worker));
    }

    #[test]
    fn a_worker_that_is_awake_is_neither_woken_nor_its_flag_raised() {
        let (ring, worker) = worker();

        let deferred = DeferredWakeups::new();
        ring.has_records.store(true, Relaxed);
        drop(deferred);

        assert!(!is_woken(&worker));
        assert!(!ring.is_armed.load(Relaxed));
    }

    #[test]
    fn a_worker_that_has_ended_is_not_touched() {
        let (ring, worker) = worker();
        ring.arm();
        drop(worker);

        drop(DeferredWakeups::new());

        assert!(ring.is_armed.load(Relaxed));
        assert_eq!(WAKEUPS.with_borrow(Vec::len), 0);
    }
}
