//! The short queue before a stream: batches of frames, bounded in bytes, with a pressure signal before it is full.

use std::collections::VecDeque;

/// A batch is handed on once it holds this many bytes: what one write of a stream takes at best.
pub const BATCH_BYTES: usize = 64 * 1024;

/// Batches up to this size are copied into the one waiting before them: a small copy costs less than a write.
const MERGE_BYTES: usize = 8 * 1024;

/// Empty buffers kept for reuse.
const MAX_SPARES: usize = 8;

/// Frames in the order in which they go on a stream.
#[derive(Debug, Default)]
pub struct Batch {
    /// Whole frames back to back.
    pub bytes: Vec<u8>,
    /// How many frames.
    pub n_frames: u32,
}

impl Batch {
    /// Appends one frame.
    pub fn push(&mut self, frame: &[u8]) {
        self.bytes.extend_from_slice(frame);
        self.n_frames += 1;
    }

    /// Says whether the batch is worth a write of its own.
    pub fn is_full(&self) -> bool {
        self.bytes.len() >= BATCH_BYTES
    }

    /// Says whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }
}

/// Limits of a [`BatchQueue`], in bytes.
#[derive(Clone, Copy, Debug)]
pub struct QueueLimits {
    /// From here on senders are told to hold back.
    pub pressure_at: usize,
    /// From here down they may go on.
    pub relief_at: usize,
    /// A batch that would pass this is refused.
    pub full_at: usize,
}

/// Bounded first-in first-out queue of batches. `pressed` follows the fill with hysteresis.
#[derive(Debug)]
pub struct BatchQueue {
    limits: QueueLimits,
    batches: VecDeque<Batch>,
    n_bytes: usize,
    pressed: bool,
    spares: Vec<Batch>,
}

impl BatchQueue {
    /// An empty queue.
    pub fn new(limits: QueueLimits) -> Self {
        Self {
            limits,
            batches: VecDeque::new(),
            n_bytes: 0,
            pressed: false,
            spares: Vec::new(),
        }
    }

    /// Queues `batch` and leaves an empty one in its place.
    ///
    /// # Errors
    /// The queue is full; `batch` is as it was.
    pub fn push(&mut self, batch: &mut Batch) -> Result<(), QueueFull> {
        if self.n_bytes + batch.bytes.len() > self.limits.full_at {
            return Err(QueueFull);
        }
        self.n_bytes += batch.bytes.len();
        self.pressed |= self.n_bytes >= self.limits.pressure_at;
        match self.batches.back_mut() {
            Some(last)
                if batch.bytes.len() <= MERGE_BYTES
                    && last.bytes.len() + batch.bytes.len() <= BATCH_BYTES =>
            {
                last.bytes.extend_from_slice(&batch.bytes);
                last.n_frames += batch.n_frames;
                batch.bytes.clear();
                batch.n_frames = 0;
            }
            _ => {
                let empty = self.spares.pop().unwrap_or_default();
                self.batches.push_back(std::mem::replace(batch, empty));
            }
        }
        Ok(())
    }

    /// Takes the oldest batch.
    pub fn pop(&mut self) -> Option<Batch> {
        let batch = self.batches.pop_front()?;
        self.n_bytes -= batch.bytes.len();
        self.pressed &= self.n_bytes > self.limits.relief_at;
        Some(batch)
    }

    /// Gives a written batch's memory back for reuse.
    pub fn recycle(&mut self, mut batch: Batch) {
        if self.spares.len() < MAX_SPARES {
            batch.bytes.clear();
            batch.n_frames = 0;
            self.spares.push(batch);
        }
    }

    /// Drops everything that waits; returns how many frames that were.
    pub fn clear(&mut self) -> u64 {
        (self.n_bytes, self.pressed) = (0, false);
        self.batches
            .drain(..)
            .map(|batch| u64::from(batch.n_frames))
            .sum()
    }

    /// Says whether senders are to hold back.
    pub fn pressed(&self) -> bool {
        self.pressed
    }

    /// Bytes that wait.
    pub fn n_bytes(&self) -> usize {
        self.n_bytes
    }
}

/// The queue cannot take the batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueFull;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LIMITS: QueueLimits = QueueLimits {
        pressure_at: 1000,
        relief_at: 500,
        full_at: 2000,
    };

    fn batch(len: usize) -> Batch {
        Batch {
            bytes: vec![1; len],
            n_frames: 1,
        }
    }

    #[test]
    fn pressure_rises_at_the_high_mark_and_falls_at_the_low_one() {
        // Larger than what merges, so that each batch stays its own.
        let k = MERGE_BYTES + 1;
        let mut queue = BatchQueue::new(QueueLimits {
            pressure_at: 2 * k,
            relief_at: k,
            full_at: 9 * k,
        });
        queue.push(&mut batch(k)).unwrap();
        assert!(!queue.pressed());
        queue.push(&mut batch(k)).unwrap();
        queue.push(&mut batch(k)).unwrap();
        assert!(queue.pressed());
        queue.pop().unwrap();
        assert!(queue.pressed());
        queue.pop().unwrap();
        assert!(!queue.pressed());
    }

    #[test]
    fn full_queue_refuses_and_leaves_the_batch() {
        let mut queue = BatchQueue::new(LIMITS);
        queue.push(&mut batch(1500)).unwrap();
        let mut refused = batch(501);
        assert_eq!(queue.push(&mut refused), Err(QueueFull));
        assert_eq!((refused.bytes.len(), queue.n_bytes()), (501, 1500));
    }

    #[test]
    fn clearing_counts_frames_and_lifts_pressure() {
        let mut queue = BatchQueue::new(LIMITS);
        for _ in 0..4 {
            queue.push(&mut batch(400)).unwrap();
        }
        assert!(queue.pressed());
        assert_eq!(queue.clear(), 4);
        assert!(!queue.pressed() && queue.pop().is_none());
    }

    proptest! {
        #[test]
        fn bytes_come_out_in_order_and_the_bound_holds(
            steps in prop::collection::vec(prop::option::weighted(0.6, 1usize..20_000), 1..200),
        ) {
            let full_at = 100_000;
            let mut queue = BatchQueue::new(QueueLimits { pressure_at: 60_000, relief_at: 30_000, full_at });
            let (mut model, mut n) = (VecDeque::new(), 0u8);
            for step in steps {
                match step {
                    Some(len) => {
                        n = n.wrapping_add(1);
                        let mut batch = Batch { bytes: vec![n; len], n_frames: 1 };
                        let fits = model.len() + len <= full_at;
                        prop_assert_eq!(queue.push(&mut batch).is_ok(), fits);
                        if fits {
                            prop_assert!(batch.is_empty() && batch.n_frames == 0);
                            model.extend(std::iter::repeat_n(n, len));
                        }
                    }
                    None => if let Some(batch) = queue.pop() {
                        let expected: Vec<u8> = model.drain(..batch.bytes.len()).collect();
                        prop_assert_eq!(&batch.bytes, &expected);
                        queue.recycle(batch);
                    } else {
                        prop_assert!(model.is_empty());
                    }
                }
                prop_assert_eq!(queue.n_bytes(), model.len());
            }
        }
    }
}
