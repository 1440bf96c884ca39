//! A batch: the frames that go on a stream with one write.

use std::time::{Duration, Instant};

use router_common::frame::FrameHeader;

use super::ecn;
use super::flow_class::{BucketIndex, FlowClass, FlowClasses};

/// Bytes from which on a batch is full: what one write of a stream takes at best.
pub(crate) const BATCH_BYTES: usize = 64 * 1024;

/// Frames of one class in the order in which they go on a stream.
#[derive(Debug, Default)]
pub struct Batch {
    bytes: Vec<u8>,
    /// How many bytes at the front were split off.
    n_split_bytes: usize,
    /// How many bytes behind those were dropped.
    n_dropped_bytes: usize,
    n_frames: u32,
    /// The buckets of all frames of a bulk batch, of those split off and the dropped ones too; empty in a sparse batch.
    buckets: Vec<BucketIndex>,
    /// How many frames at the front were split off.
    n_split_frames: usize,
    /// When the batch was queued.
    queued: Option<Instant>,
    /// Numbers of the first and the last push that brought frames of the batch to its queue.
    pushes: (u64, u64),
}

impl Batch {
    /// Appends one frame of a sparse flow.
    pub fn push_sparse(&mut self, frame: &[u8]) {
        self.bytes.extend_from_slice(frame);
        self.n_frames += 1;
    }

    /// Appends one frame of a flow in `bucket`.
    pub fn push_bulk(&mut self, frame: &[u8], bucket: BucketIndex) {
        self.push_sparse(frame);
        self.buckets.push(bucket);
    }

    /// Returns the frames that were not dropped, whole and back to back.
    pub fn bytes(&self) -> &[u8] {
        self.bytes.get(self.first_frame()..).unwrap_or_default()
    }

    /// Returns where the first frame that was neither split off nor dropped begins.
    fn first_frame(&self) -> usize {
        self.n_split_bytes + self.n_dropped_bytes
    }

    /// Returns the number of frames that were not dropped.
    pub fn n_frames(&self) -> u32 {
        self.n_frames
    }

    /// Says whether the batch is worth a write of its own.
    pub fn is_full(&self) -> bool {
        self.bytes.len() >= BATCH_BYTES
    }

    /// Says whether the batch holds no frame.
    pub fn is_empty(&self) -> bool {
        self.n_frames == 0
    }

    /// Returns the bytes of the frames that were not split off, those of dropped frames included.
    pub(crate) fn n_bytes(&self) -> usize {
        self.bytes.len() - self.n_split_bytes
    }

    /// Says whether the frames of `other` can be moved behind those of this batch, which stays no larger than one write.
    pub(crate) fn has_room_for(&self, other: &Self) -> bool {
        self.bytes.len() + other.bytes.len() <= BATCH_BYTES
    }

    /// Moves the first frames to `front`, which is empty: at least one, and as many more as make at most `n_bytes`. No
    /// frame may have been dropped.
    pub(crate) fn split_front(&mut self, n_bytes: usize, front: &mut Self) {
        let (mut n_frames, mut end) = (0, self.n_split_bytes);
        while n_frames < self.n_frames {
            let len = frame_bytes(self.bytes.get(end..).unwrap_or_default());
            if n_frames > 0 && end + len - self.n_split_bytes > n_bytes {
                break;
            }
            n_frames += 1;
            end += len;
        }
        front
            .bytes
            .extend_from_slice(self.bytes.get(self.n_split_bytes..end).unwrap_or_default());
        let last = self.n_split_frames + n_frames as usize;
        front
            .buckets
            .extend_from_slice(self.buckets.get(self.n_split_frames..last).unwrap_or_default());
        (front.n_frames, front.queued, front.pushes) = (n_frames, self.queued, self.pushes);
        self.n_frames -= n_frames;
        (self.n_split_bytes, self.n_split_frames) = (end, last);
    }

    /// Records that the batch is queued at `now`, with the push of this number.
    pub(crate) fn set_queued(&mut self, now: Instant, push: u64) {
        self.queued = Some(now);
        self.pushes = (push, push);
    }

    /// Returns the number of the push that brought the first frames.
    pub(crate) fn first_push(&self) -> u64 {
        self.pushes.0
    }

    /// Returns the number of the push that brought the last frames.
    pub(crate) fn last_push(&self) -> u64 {
        self.pushes.1
    }

    /// Returns how long the first frame has waited.
    pub(crate) fn waited(&self, now: Instant) -> Duration {
        self.queued
            .map_or(Duration::ZERO, |queued| now.saturating_duration_since(queued))
    }

    /// Empties the batch and keeps its memory.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.buckets.clear();
        (self.n_split_bytes, self.n_split_frames) = (0, 0);
        (self.n_dropped_bytes, self.n_frames, self.queued) = (0, 0, None);
    }

    /// Moves the frames of `other`, which the push of this number brought, behind those of this batch.
    pub(crate) fn append(&mut self, other: &mut Self, push: u64) {
        self.pushes.1 = push;
        self.bytes.extend_from_slice(&other.bytes);
        self.buckets.extend_from_slice(&other.buckets);
        self.n_frames += other.n_frames;
        other.clear();
    }

    /// Marks the packet of the first frame as one that met congestion. Says whether its sender and receiver understand
    /// that; if not, nothing changes.
    pub(crate) fn mark_first(&mut self) -> bool {
        let start = self.first_frame();
        let end = start + frame_bytes(self.bytes());
        let packet = self.bytes.get_mut(start + FrameHeader::LEN..end);
        packet.is_some_and(ecn::mark)
    }

    /// Drops the first frame.
    pub(crate) fn drop_first(&mut self) {
        self.n_dropped_bytes += frame_bytes(self.bytes());
        self.n_frames -= 1;
    }

    /// Counts the batch's frames, which wait no longer, out of `classes`.
    pub fn release(&self, class: FlowClass, classes: &FlowClasses) {
        match class {
            FlowClass::Sparse => classes.release_sparse(self.n_bytes()),
            FlowClass::Bulk => {
                classes.release_bulk(self.buckets.get(self.n_split_frames..).unwrap_or_default());
            }
        }
    }
}

/// Returns the length of the frame that `bytes` begin with.
fn frame_bytes(bytes: &[u8]) -> usize {
    let header = bytes.get(..FrameHeader::LEN).unwrap_or_default();
    let len = bytemuck::try_pod_read_unaligned::<FrameHeader>(header).map_or(0, |header| header.len);
    FrameHeader::LEN + len as usize
}
