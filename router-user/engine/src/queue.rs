//! The queue of a stream: batches of frames, bounded in bytes and by the time they wait.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::batch::Batch;
use super::codel::{Codel, Head};
use super::flow_class::{FlowClass, FlowClasses};
use super::portion::Portion;

/// Largest batch in bytes that is copied into the one waiting before it: a small copy costs less than a write.
const MERGE_BYTES: usize = 8 * 1024;

/// Bytes up to which a queue is not standing, however slow the stream: two packets.
const FEW_BYTES: usize = 4096;

/// Most empty batches that are kept for reuse.
const MAX_SPARES: usize = 8;

/// Limits of a [`StreamQueue`], in bytes.
#[derive(Clone, Copy, Debug)]
pub struct QueueLimits {
    /// Fill from which on senders are told to hold back.
    pub pressure_at: usize,
    /// Fill down from which senders may go on.
    pub relief_at: usize,
    /// Fill that no bulk batch may exceed: one that would is refused.
    pub full_at: usize,
    /// Whether active queue management is on: then CoDel marks and drops frames of a standing queue.
    pub aqm: bool,
}

/// What the active queue management of [`StreamQueue::pop`] did to packets that had waited for too long.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AqmActions {
    /// How many were dropped.
    pub n_dropped: u32,
    /// How many were marked, and sent.
    pub n_marked: u32,
}

/// The bounded queue of one stream. Sparse batches leave first, then bulk ones by age, of which CoDel marks or drops
/// frames. Of a bulk batch no more leaves at a time than the stream takes in a moment, so that sparse batches need not
/// wait for the rest.
///
/// [`StreamQueue::pressed`] follows the fill with hysteresis.
#[derive(Debug)]
pub struct StreamQueue {
    limits: QueueLimits,
    sparse: VecDeque<Batch>,
    bulk: VecDeque<Batch>,
    n_bytes: usize,
    pressed: bool,
    codel: Codel,
    /// When the last bulk batch came.
    last_bulk: Option<Instant>,
    portion: Portion,
    /// Whether the last batch taken was a sparse one, so that it is the turn of a bulk one.
    sparse_last: bool,
    n_pushed: u64,
    spares: Vec<Batch>,
}

impl StreamQueue {
    /// Creates an empty queue.
    pub fn new(limits: QueueLimits) -> Self {
        Self {
            limits,
            sparse: VecDeque::new(),
            bulk: VecDeque::new(),
            n_bytes: 0,
            pressed: false,
            codel: Codel::default(),
            last_bulk: None,
            portion: Portion::default(),
            sparse_last: false,
            n_pushed: 0,
            spares: Vec::new(),
        }
    }

    /// Queues `batch` and leaves an empty one in its place.
    ///
    /// # Errors
    /// Returns [`QueueFull`] if `batch` has no room; it is unchanged then.
    pub fn push(&mut self, batch: &mut Batch, class: FlowClass, now: Instant) -> Result<(), QueueFull> {
        // What sparse flows have waiting is bounded by `FlowClasses`.
        if class == FlowClass::Bulk && self.n_bytes + batch.n_bytes() > self.limits.full_at {
            return Err(QueueFull);
        }
        self.n_bytes += batch.n_bytes();
        self.pressed |= self.n_bytes >= self.limits.pressure_at;
        self.n_pushed += 1;
        let part = match class {
            FlowClass::Sparse => &mut self.sparse,
            FlowClass::Bulk => {
                self.last_bulk = Some(now);
                &mut self.bulk
            }
        };
        match part.back_mut() {
            Some(last) if batch.n_bytes() <= MERGE_BYTES && last.has_room_for(batch) => {
                last.append(batch, self.n_pushed);
            }
            _ => {
                batch.set_queued(now, self.n_pushed);
                let empty = self.spares.pop().unwrap_or_default();
                part.push_back(std::mem::replace(batch, empty));
            }
        }
        Ok(())
    }

    /// Takes the next batch and counts its frames out of `classes`. Returns also what active queue management did. The
    /// batch that was taken before has been written.
    pub fn pop(&mut self, classes: &FlowClasses, now: Instant) -> (Option<Batch>, AqmActions) {
        let mut actions = AqmActions::default();
        self.portion.handle_written(now);
        let popped = loop {
            let class = self.next_class();
            self.sparse_last = class == FlowClass::Sparse;
            let next = match class {
                FlowClass::Sparse => self.sparse.pop_front(),
                FlowClass::Bulk => self.next_bulk(),
            };
            let Some(mut batch) = next else { break None };
            self.n_bytes -= batch.n_bytes();
            if class == FlowClass::Bulk && self.limits.aqm {
                self.apply_codel(&mut batch, now, &mut actions);
            }
            batch.release(class, classes);
            if !batch.is_empty() {
                break Some(batch);
            }
            self.recycle(batch);
        };
        self.pressed &= self.n_bytes > self.limits.relief_at;
        match &popped {
            Some(batch) => self.portion.handle_taken(batch.bytes().len()),
            None => self.portion.handle_empty(),
        }
        (popped, actions)
    }

    /// Takes the oldest bulk batch, or as much of it as is written at a time.
    fn next_bulk(&mut self) -> Option<Batch> {
        let n_most = self.portion.bytes();
        let first = self.bulk.front_mut()?;
        if first.n_bytes() <= n_most || first.n_frames() == 1 {
            return self.bulk.pop_front();
        }
        let mut front = self.spares.pop().unwrap_or_default();
        first.split_front(n_most, &mut front);
        if first.is_empty()
            && let Some(split) = self.bulk.pop_front()
        {
            self.recycle(split);
        }
        Some(front)
    }

    /// Returns the class of the next batch: sparse, unless it is the turn of a bulk batch and no flow can have a frame in
    /// both, because all of the bulk batch was queued before.
    fn next_class(&self) -> FlowClass {
        match (self.sparse.front(), self.bulk.front()) {
            (None, _) => FlowClass::Bulk,
            (Some(sparse), Some(bulk)) if self.sparse_last && bulk.last_push() < sparse.first_push() => {
                FlowClass::Bulk
            }
            _ => FlowClass::Sparse,
        }
    }

    /// Marks or drops frames at the head of `batch`, as CoDel decides.
    fn apply_codel(&mut self, batch: &mut Batch, now: Instant, actions: &mut AqmActions) {
        let head = Head {
            waited: batch.waited(now),
            is_of_few: self.n_bytes <= FEW_BYTES,
            pause: self
                .last_bulk
                .map_or(Duration::MAX, |at| now.saturating_duration_since(at)),
        };
        while !batch.is_empty() && self.codel.handle_head(head, now) {
            if batch.mark_first() {
                actions.n_marked += 1;
                break;
            }
            batch.drop_first();
            actions.n_dropped += 1;
        }
    }

    /// Keeps the memory of a written batch for reuse.
    pub fn recycle(&mut self, mut batch: Batch) {
        if self.spares.len() < MAX_SPARES {
            batch.clear();
            self.spares.push(batch);
        }
    }

    /// Drops everything that waits and returns how many frames that were.
    pub fn clear(&mut self, classes: &FlowClasses) -> u64 {
        (self.n_bytes, self.pressed) = (0, false);
        let mut n_frames = 0;
        for (part, class) in [
            (&mut self.sparse, FlowClass::Sparse),
            (&mut self.bulk, FlowClass::Bulk),
        ] {
            for batch in part.drain(..) {
                batch.release(class, classes);
                n_frames += u64::from(batch.n_frames());
            }
        }
        n_frames
    }

    /// Says whether senders have to hold back.
    pub fn pressed(&self) -> bool {
        self.pressed
    }

    /// Returns the number of bytes that wait.
    pub fn n_bytes(&self) -> usize {
        self.n_bytes
    }
}

/// The error of [`StreamQueue::push`]: the queue has no room for the batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueFull;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use router_common::frame::FrameHeader;

    use super::FlowClass::{Bulk, Sparse};
    use super::*;
    use crate::flow_class::BucketIndex;

    const LIMITS: QueueLimits = QueueLimits {
        pressure_at: 100_000,
        relief_at: 50_000,
        full_at: 200_000,
        aqm: true,
    };

    const MS: Duration = Duration::from_millis(1);

    /// Makes a frame of `len` bytes with an IPv4 packet whose last byte is `tag`.
    fn frame(len: usize, ecn: u8, tag: u8) -> Vec<u8> {
        let header = FrameHeader {
            len: (len - FrameHeader::LEN) as u32,
            ..FrameHeader::default()
        };
        let mut frame = bytemuck::bytes_of(&header).to_vec();
        frame.resize(len, 0);
        (frame[16], frame[17], frame[len - 1]) = (0x45, ecn, tag);
        frame
    }

    /// A queue and the classes of its flows.
    struct Bench {
        queue: StreamQueue,
        classes: Box<FlowClasses>,
        start: Instant,
    }

    impl Bench {
        fn new() -> Self {
            Self {
                queue: StreamQueue::new(LIMITS),
                classes: FlowClasses::new(),
                start: Instant::now(),
            }
        }

        /// Queues one frame as a batch of its own.
        fn push(&mut self, flow: u32, frame: &[u8], ms: u32) -> (FlowClass, Result<(), QueueFull>) {
            let bucket = BucketIndex::of(flow);
            let class = self.classes.classify(bucket, frame.len(), false, ms as u16);
            let mut batch = Batch::default();
            match class {
                Sparse => batch.push_sparse(frame),
                Bulk => batch.push_bulk(frame, bucket),
            }
            (class, self.queue.push(&mut batch, class, self.start + MS * ms))
        }

        fn pop(&mut self, ms: u32) -> (Option<Batch>, AqmActions) {
            self.queue.pop(&self.classes, self.start + MS * ms)
        }
    }

    /// Returns the last byte of each frame.
    fn tags(batch: &Batch) -> Vec<u8> {
        let mut rest = batch.bytes();
        let mut tags = Vec::new();
        while !rest.is_empty() {
            let len = u32::from_le_bytes(rest[..4].try_into().unwrap()) as usize + FrameHeader::LEN;
            tags.push(rest[len - 1]);
            rest = &rest[len..];
        }
        tags
    }

    #[test]
    fn a_sparse_flow_passes_what_waits_and_bulk_has_every_other_turn() {
        let mut bench = Bench::new();
        for tag in 0..3 {
            bench.push(1, &frame(40_000, 0, tag), 0).1.unwrap();
        }
        bench.push(2, &frame(100, 0, 10), 0).1.unwrap();

        let first = bench.pop(0).0.unwrap();
        bench.push(2, &frame(100, 0, 11), 0).1.unwrap();
        let rest: Vec<_> = std::iter::from_fn(|| bench.pop(0).0)
            .map(|batch| tags(&batch))
            .collect();

        assert_eq!(tags(&first), [10]);
        assert_eq!(rest, [vec![0], vec![11], vec![1], vec![2]]);
    }

    #[test]
    fn pressure_rises_at_the_high_mark_and_falls_at_the_low_one() {
        let mut bench = Bench::new();
        let mut pressed = Vec::new();
        for tag in 0..3 {
            bench.push(1, &frame(40_000, 0, tag), 0).1.unwrap();
            pressed.push(bench.queue.pressed());
        }
        for _ in 0..3 {
            bench.pop(0).0.unwrap();
            pressed.push(bench.queue.pressed());
        }
        assert_eq!(pressed, [false, false, true, true, false, false]);
    }

    #[test]
    fn full_queue_refuses_bulk_and_leaves_the_batch_but_takes_sparse_frames() {
        let mut bench = Bench::new();
        let mut batch = Batch::default();
        batch.push_bulk(&frame(150_000, 0, 0), BucketIndex::of(1));
        bench.queue.push(&mut batch, Bulk, bench.start).unwrap();
        batch.push_bulk(&frame(50_001, 0, 1), BucketIndex::of(1));

        assert_eq!(bench.queue.push(&mut batch, Bulk, bench.start), Err(QueueFull));

        assert_eq!((batch.n_frames(), bench.queue.n_bytes()), (1, 150_000));
        assert_eq!(bench.push(2, &frame(100, 0, 2), 0), (Sparse, Ok(())));
    }

    #[test]
    fn clearing_counts_frames_lifts_pressure_and_lets_the_flow_be_sparse_again() {
        let mut bench = Bench::new();
        for tag in 0..4 {
            bench.push(1, &frame(30_000, 0, tag), 0).1.unwrap();
        }
        assert!(bench.queue.pressed());

        assert_eq!(bench.queue.clear(&bench.classes), 4);

        assert!(!bench.queue.pressed() && bench.pop(0).0.is_none());
        assert_eq!(bench.push(1, &frame(100, 0, 0), 0).0, Sparse);
    }

    /// Drops and marks when each millisecond a batch of two frames comes, and one that waited for 50 ms goes.
    fn age(ecn: u8) -> (AqmActions, usize) {
        let mut bench = Bench::new();
        let (mut all, mut n_sent) = (AqmActions::default(), 0);
        for ms in 0..1000 {
            let bucket = BucketIndex::of(1);
            let mut batch = Batch::default();
            for tag in 0..2 {
                let frame = frame(5000, ecn, tag);
                bench.classes.classify(bucket, 60_000, false, 0);
                batch.push_bulk(&frame, bucket);
            }
            // A standing queue of 150 kB, 15 batches.
            let queued = bench.start + MS * ms;
            bench.queue.push(&mut batch, Bulk, queued).unwrap();
            if ms >= 15 {
                let (popped, actions) = bench.pop(ms);
                n_sent += popped.map_or(0, |batch| {
                    let tags = tags(&batch);
                    assert!(tags == [0, 1] || tags == [1], "{tags:?}");
                    tags.len()
                });
                all.n_dropped += actions.n_dropped;
                all.n_marked += actions.n_marked;
            }
        }
        let n_left = bench.queue.clear(&bench.classes) as usize;
        assert_eq!(n_sent + n_left + all.n_dropped as usize, 2000);
        (all, n_sent)
    }

    #[test]
    fn frames_of_a_standing_queue_are_dropped_or_if_they_can_be_marked() {
        let (without_ecn, _) = age(0);
        let (with_ecn, _) = age(2);

        assert!(
            without_ecn.n_dropped > 10 && without_ecn.n_marked == 0,
            "{without_ecn:?}"
        );
        assert!(with_ecn.n_marked > 10 && with_ecn.n_dropped == 0, "{with_ecn:?}");
    }

    proptest! {
        #[test]
        fn each_flow_keeps_its_order_the_bound_holds_and_every_frame_is_accounted_for(
            steps in prop::collection::vec(prop::option::weighted(0.6, (0..4_u32, 36_usize..9000)), 1..300),
        ) {
            let mut bench = Bench::new();
            let mut sent = vec![Vec::new(); 4];
            let mut received = vec![Vec::new(); 4];
            let (mut n_refused, mut n_dropped) = (0, 0);
            let mut take = |batch: &Batch| {
                let mut rest = batch.bytes();
                while !rest.is_empty() {
                    let len = u32::from_le_bytes(rest[..4].try_into().unwrap()) as usize + FrameHeader::LEN;
                    received[usize::from(rest[len - 2])].push(rest[len - 1]);
                    rest = &rest[len..];
                }
            };
            for (ms, step) in (0..).zip(&steps) {
                match *step {
                    Some((flow, len)) => {
                        let number = sent[flow as usize].len() as u8;
                        let mut frame = frame(len, 0, number);
                        frame[len - 2] = flow as u8;
                        match bench.push(flow, &frame, ms).1 {
                            Ok(()) => sent[flow as usize].push(number),
                            Err(QueueFull) => {
                                bench.classes.release_bulk(&[BucketIndex::of(flow)]);
                                n_refused += 1;
                            }
                        }
                    }
                    None => {
                        let (batch, actions) = bench.pop(ms);
                        n_dropped += actions.n_dropped as usize;
                        batch.iter().for_each(&mut take);
                    }
                }
                prop_assert!(bench.queue.n_bytes() <= LIMITS.full_at + 16 * 1024);
            }
            while let (Some(batch), actions) = bench.pop(steps.len() as u32) {
                n_dropped += actions.n_dropped as usize;
                take(&batch);
            }
            prop_assert_eq!(bench.queue.n_bytes(), 0);
            let n_received = received.iter().map(Vec::len).sum::<usize>();
            prop_assert_eq!(n_received + n_dropped, sent.iter().map(Vec::len).sum::<usize>());
            prop_assert!(n_refused <= steps.len());
            for flow in &received {
                prop_assert!(flow.windows(2).all(|pair| pair[0] < pair[1]), "{:?}", flow);
            }
            // Nothing is left counted: each flow is sparse again.
            for flow in 0..4 {
                prop_assert_eq!(bench.push(flow, &frame(36, 0, 0), 5000).0, Sparse);
            }
        }
    }
}
