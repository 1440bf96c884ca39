//! What waits for a stream: filled by workers, emptied by its one sender task.

use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Instant;

use tokio::sync::Notify;

use super::pacer::Pacer;
use stream_router_engine::batch::Batch;
use stream_router_engine::flow_class::{BucketIndex, FlowClass, FlowClasses};
use stream_router_engine::queue::{AqmActions, QueueLimits, StreamQueue};

/// Tells the front whether packets for the peer are to be held back.
pub type PressureSwitch = Box<dyn Fn(bool) + Send + Sync>;

/// Raised while any outbox of the peer is pressed.
pub struct Pressure {
    n_pressed: Mutex<u32>,
    switch: PressureSwitch,
}

impl Pressure {
    /// Not raised yet.
    pub fn new(switch: PressureSwitch) -> Self {
        Self {
            n_pressed: Mutex::new(0),
            switch,
        }
    }

    /// One outbox became pressed, or is so no more.
    fn handle_change(&self, pressed: bool) {
        let mut n_pressed = self.n_pressed.lock().unwrap_or_else(PoisonError::into_inner);
        let before = *n_pressed;
        *n_pressed = if pressed {
            before + 1
        } else {
            before.saturating_sub(1)
        };
        if (before == 0) != (*n_pressed == 0) {
            (self.switch)(pressed);
        }
    }
}

/// Bounded queue of batches for one stream. The lock is taken once per batch.
pub struct Outbox {
    queue: Mutex<StreamQueue>,
    /// Made when the stream is first used.
    classes: OnceLock<Box<FlowClasses>>,
    ready: Notify,
    pressure: Arc<Pressure>,
    pacer: Arc<Pacer>,
}

impl Outbox {
    /// An empty outbox that adds to `pressure`, and is emptied at the pace of `pacer`.
    pub fn new(pressure: Arc<Pressure>, pacer: Arc<Pacer>, limits: QueueLimits) -> Self {
        Self {
            queue: Mutex::new(StreamQueue::new(limits)),
            classes: OnceLock::new(),
            ready: Notify::new(),
            pressure,
            pacer,
        }
    }

    /// Says in which of two batches a frame of `len` bytes goes, and counts it in.
    pub fn classify(&self, bucket: BucketIndex, len: usize, urgent: bool, now_ms: u16) -> FlowClass {
        self.classes().classify(bucket, len, urgent, now_ms)
    }

    /// Queues `batch` and leaves an empty one in its place; returns how many frames had no room.
    pub fn push(&self, batch: &mut Batch, class: FlowClass, now: Instant) -> u32 {
        if self.with_pressure(|queue| queue.push(batch, class, now)).is_err() {
            let n_refused = batch.n_frames();
            batch.release(class, self.classes());
            batch.clear();
            return n_refused;
        }
        self.ready.notify_one();
        0
    }

    /// Gives `written` back for reuse and takes the next batch.
    pub fn swap(&self, written: Option<Batch>) -> (Option<Batch>, AqmActions) {
        let now = Instant::now();
        let (batch, actions) = self.with_pressure(|queue| {
            if let Some(batch) = written {
                queue.recycle(batch);
            }
            queue.pop(self.classes(), now)
        });
        if let Some(batch) = &batch {
            self.pacer.take(batch.bytes().len());
        }
        (batch, actions)
    }

    /// Waits until the peer's rate allows another batch.
    pub async fn paced(&self) {
        self.pacer.ready().await;
    }

    /// Waits until a batch may be there.
    pub async fn ready(&self) {
        if self.is_empty() {
            self.ready.notified().await;
        }
    }

    /// Says whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.lock().n_bytes() == 0
    }

    /// Bytes that wait, and whether senders are held back for it.
    pub fn fill(&self) -> (usize, bool) {
        let queue = self.lock();
        (queue.n_bytes(), queue.pressed())
    }

    /// Drops everything that waits; returns how many frames that were.
    pub fn clear(&self) -> u64 {
        match self.classes.get() {
            Some(classes) => self.with_pressure(|queue| queue.clear(classes)),
            // Never used.
            None => 0,
        }
    }

    fn classes(&self) -> &FlowClasses {
        self.classes.get_or_init(FlowClasses::new)
    }

    fn with_pressure<T>(&self, act: impl FnOnce(&mut StreamQueue) -> T) -> T {
        let mut queue = self.lock();
        let before = queue.pressed();
        let result = act(&mut queue);
        if queue.pressed() != before {
            self.pressure.handle_change(queue.pressed());
        }
        result
    }

    fn lock(&self) -> MutexGuard<'_, StreamQueue> {
        // The queue is whole after each of its calls, whatever a panicking holder did next.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
