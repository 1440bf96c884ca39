//! What waits for a peer's stream: filled by workers, emptied by the one sender task.

use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use crate::engine::queue::{Batch, BatchQueue, QueueFull, QueueLimits};

/// About 1 ms of queue at 4 Gbit/s: deep enough that the stream never runs dry between two turns of the workers,
/// short enough that a ping behind it stays quick.
const LIMITS: QueueLimits = QueueLimits {
    pressure_at: 512 * 1024,
    relief_at: 256 * 1024,
    full_at: 4 * 1024 * 1024,
};

/// Tells the kernel whether packets for the peer are to be held back.
pub(super) type PressureSwitch = Box<dyn Fn(bool) + Send + Sync>;

/// Bounded queue of batches for one peer. The lock is taken once per batch.
pub(super) struct Outbox {
    queue: Mutex<BatchQueue>,
    ready: Notify,
    set_pressure: PressureSwitch,
}

impl Outbox {
    /// An empty outbox that reports its pressure through `set_pressure`.
    pub(super) fn new(set_pressure: PressureSwitch) -> Self {
        Self {
            queue: Mutex::new(BatchQueue::new(LIMITS)),
            ready: Notify::new(),
            set_pressure,
        }
    }

    /// Queues `batch` and leaves an empty one in its place.
    ///
    /// # Errors
    /// The queue is full; `batch` is as it was.
    pub(super) fn push(&self, batch: &mut Batch) -> Result<(), QueueFull> {
        self.with_pressure(|queue| queue.push(batch))?;
        self.ready.notify_one();
        Ok(())
    }

    /// Gives `written` back for reuse and takes the oldest batch.
    pub(super) fn swap(&self, written: Option<Batch>) -> Option<Batch> {
        self.with_pressure(|queue| {
            if let Some(batch) = written {
                queue.recycle(batch);
            }
            queue.pop()
        })
    }

    /// Waits until a batch may be there.
    pub(super) async fn ready(&self) {
        if self.lock().n_bytes() == 0 {
            self.ready.notified().await;
        }
    }

    /// Says whether nothing waits.
    pub(super) fn is_empty(&self) -> bool {
        self.lock().n_bytes() == 0
    }

    /// Drops everything that waits; returns how many frames that were.
    pub(super) fn clear(&self) -> u64 {
        self.with_pressure(BatchQueue::clear)
    }

    fn with_pressure<T>(&self, act: impl FnOnce(&mut BatchQueue) -> T) -> T {
        let mut queue = self.lock();
        let before = queue.pressed();
        let result = act(&mut queue);
        if queue.pressed() != before {
            (self.set_pressure)(queue.pressed());
        }
        result
    }

    fn lock(&self) -> MutexGuard<'_, BatchQueue> {
        // The queue is whole after each of its calls, whatever a panicking holder did next.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
