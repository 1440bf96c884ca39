//! Frames on their way to a stream, many at a time.

use std::time::{Duration, Instant};

use router_common::frame::FrameHeader;

use super::ecn;
use super::flow_class::{BucketIndex, FlowClass, FlowClasses};

/// A batch is handed on once it holds this many bytes: what one write of a stream takes at best.
pub(crate) const BATCH_BYTES: usize = 64 * 1024;

/// Frames of one class in the order in which they go on a stream.
#[derive(Debug, Default)]
pub struct Batch {
    bytes: Vec<u8>,
    /// Bytes at the front that were dropped.
    n_dropped_bytes: usize,
    n_frames: u32,
    /// Of a bulk batch, the buckets of all frames, the dropped ones too.
    buckets: Vec<BucketIndex>,
    /// When the first frame was queued.
    queued: Option<Instant>,
    /// Numbers of the first and the last push to the queue that it is of.
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

    /// Whole frames back to back.
    pub fn bytes(&self) -> &[u8] {
        self.bytes.get(self.n_dropped_bytes..).unwrap_or_default()
    }

    /// How many frames.
    pub fn n_frames(&self) -> u32 {
        self.n_frames
    }

    /// Says whether the batch is worth a write of its own.
    pub fn is_full(&self) -> bool {
        self.bytes.len() >= BATCH_BYTES
    }

    /// Says whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.n_frames == 0
    }

    /// Bytes of memory in use, those of dropped frames too.
    pub(crate) fn n_bytes(&self) -> usize {
        self.bytes.len()
    }

    /// It is queued at `now`, with the push of this number.
    pub(crate) fn set_queued(&mut self, now: Instant, push: u64) {
        self.queued = Some(now);
        self.pushes = (push, push);
    }

    /// Number of the push that brought its first frames.
    pub(crate) fn first_push(&self) -> u64 {
        self.pushes.0
    }

    /// Number of the push that brought its last frames.
    pub(crate) fn last_push(&self) -> u64 {
        self.pushes.1
    }

    /// How long its first frame has waited.
    pub(crate) fn waited(&self, now: Instant) -> Duration {
        self.queued
            .map_or(Duration::ZERO, |queued| now.saturating_duration_since(queued))
    }

    /// Empties it and keeps the memory.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.buckets.clear();
        (self.n_dropped_bytes, self.n_frames, self.queued) = (0, 0, None);
    }

    /// Takes the frames of `other`, which come right behind with the push of this number.
    pub(crate) fn append(&mut self, other: &mut Self, push: u64) {
        self.pushes.1 = push;
        self.bytes.extend_from_slice(&other.bytes);
        self.buckets.extend_from_slice(&other.buckets);
        self.n_frames += other.n_frames;
        other.clear();
    }

    /// Marks the first frame's packet, if its sender and receiver understand that.
    pub(crate) fn mark_first(&mut self) -> bool {
        let end = self.n_dropped_bytes + self.first_frame_bytes();
        let packet = self.bytes.get_mut(self.n_dropped_bytes + FrameHeader::LEN..end);
        packet.is_some_and(ecn::mark)
    }

    /// Leaves the first frame out.
    pub(crate) fn drop_first(&mut self) {
        self.n_dropped_bytes += self.first_frame_bytes();
        self.n_frames -= 1;
    }

    fn first_frame_bytes(&self) -> usize {
        let header = self.bytes().get(..FrameHeader::LEN).unwrap_or_default();
        let len = bytemuck::try_pod_read_unaligned::<FrameHeader>(header).map_or(0, |header| header.len);
        FrameHeader::LEN + len as usize
    }

    /// Counts its frames out of `classes`.
    pub fn release(&self, class: FlowClass, classes: &FlowClasses) {
        match class {
            FlowClass::Sparse => classes.release_sparse(self.bytes.len()),
            FlowClass::Bulk => classes.release_bulk(&self.buckets),
        }
    }
}
