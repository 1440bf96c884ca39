//! What a worker has taken in a turn, by the stream on which it goes.

use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;

use super::lanes::Lane;
use stream_router_engine::batch::Batch;
use stream_router_engine::flow_cache::{FlowCache, StreamIndex, Tick};
use stream_router_engine::flow_class::{BucketIndex, FlowClass};

/// The time of a turn, in the units of those who ask.
#[derive(Clone, Copy)]
pub struct Now {
    pub instant: Instant,
    pub tick: Tick,
    ms: u16,
}

impl Now {
    pub fn new(instant: Instant, flows: &FlowCache) -> Self {
        Self {
            instant,
            tick: flows.tick(instant),
            ms: flows.since_start(instant).as_millis() as u16,
        }
    }
}

/// A frame and where it goes.
pub struct Outgoing<'a> {
    /// Index of the peer.
    pub peer: u32,
    pub stream: StreamIndex,
    /// The way to that stream.
    pub lane: &'a Lane,
    pub flow_hash: u32,
    pub frame: &'a [u8],
    /// Whether it asks for low delay.
    pub urgent: bool,
}

/// Frames that are not handed over yet.
#[derive(Default)]
pub struct TurnBatches {
    /// By peer and stream, made when a stream is first used.
    batches: Vec<Vec<Batches>>,
    /// Batches that are begun, or were since the last flush.
    touched: Vec<(u32, StreamIndex)>,
}

/// Those of one stream.
#[derive(Default)]
struct Batches {
    sparse: Batch,
    bulk: Batch,
}

impl TurnBatches {
    /// Takes a frame; returns how many had no room where they were to wait.
    pub fn push(&mut self, outgoing: &Outgoing<'_>, now: Now) -> u32 {
        let Outgoing {
            peer, stream, lane, ..
        } = *outgoing;
        let Some(batches) = batches_of(&mut self.batches, peer, stream) else {
            return 0;
        };
        if batches.sparse.is_empty() && batches.bulk.is_empty() {
            self.touched.push((peer, stream));
        }
        let (bucket, frame) = (BucketIndex::of(outgoing.flow_hash), outgoing.frame);
        match lane.outbox.classify(bucket, frame.len(), outgoing.urgent, now.ms) {
            FlowClass::Sparse => batches.sparse.push_sparse(frame),
            FlowClass::Bulk => batches.bulk.push_bulk(frame, bucket),
        }
        if batches.bulk.is_full() {
            return batches.hand_over(lane, now.instant);
        }
        0
    }

    /// Hands every begun batch to its stream; `lane` finds that, and `refused` is told the peer of frames that had no
    /// room, and how many.
    pub fn flush<'a>(
        &mut self,
        now: Now,
        lane: impl Fn(u32, StreamIndex) -> Option<&'a Lane>,
        mut refused: impl FnMut(u32, u32),
    ) {
        for (peer, stream) in self.touched.drain(..) {
            if let (Some(lane), Some(batches)) =
                (lane(peer, stream), batches_of(&mut self.batches, peer, stream))
            {
                let n_refused = batches.hand_over(lane, now.instant);
                if n_refused > 0 {
                    refused(peer, n_refused);
                }
            }
        }
    }
}

impl Batches {
    fn hand_over(&mut self, lane: &Lane, now: Instant) -> u32 {
        let mut n_refused = 0;
        for (class, batch) in [
            (FlowClass::Sparse, &mut self.sparse),
            (FlowClass::Bulk, &mut self.bulk),
        ] {
            if !batch.is_empty() {
                lane.n_offered.fetch_add(u64::from(batch.n_frames()), Relaxed);
                n_refused += lane.outbox.push(batch, class, now);
            }
        }
        if n_refused > 0 {
            lane.n_refused.fetch_add(u64::from(n_refused), Relaxed);
        }
        n_refused
    }
}

fn batches_of(batches: &mut Vec<Vec<Batches>>, peer: u32, stream: StreamIndex) -> Option<&mut Batches> {
    at(at(batches, peer as usize)?, usize::from(stream.0))
}

/// The element at `index`, with those up to it made if need be.
fn at<T: Default>(elements: &mut Vec<T>, index: usize) -> Option<&mut T> {
    if index >= elements.len() {
        elements.resize_with(index + 1, T::default);
    }
    elements.get_mut(index)
}
