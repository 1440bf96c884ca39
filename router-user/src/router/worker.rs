//! A worker: takes packets from its queue in order and lays them, as frames, before the streams of their peers.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Instant;

use router_common::frame::{FrameHeader, VnetHeader};
use tokio::sync::Notify;

use super::Shared;
use super::peer::Peer;
use super::queue::{PacketQueue, Tag};
use crate::engine::batch::Batch;
use crate::engine::flow_cache::{StreamIndex, Tick};
use crate::engine::flow_class::{BucketIndex, FlowClass, is_urgent};

/// Packets of one turn, so that the senders on its thread get theirs.
const TURN_PACKETS: u32 = 256;

/// A queue and its worker's bell.
pub(super) struct Station {
    pub(super) queue: PacketQueue,
    pub(super) bell: Notify,
    pub(super) n_processed: AtomicU64,
    /// A worker takes packets from it.
    pub(super) manned: AtomicBool,
}

impl Station {
    pub(super) fn new(n_packets: u32, n_bytes: usize) -> Self {
        Self {
            queue: PacketQueue::new(n_packets, n_bytes),
            bell: Notify::new(),
            n_processed: AtomicU64::new(0),
            manned: AtomicBool::new(false),
        }
    }

    /// Wakes the worker for what was pushed, if it sleeps.
    pub(super) fn ring(&self) {
        if self.queue.must_wake() {
            self.bell.notify_one();
        }
    }

    /// Has the worker end once its queue is empty.
    pub(super) fn close(&self) {
        self.queue.close();
        self.bell.notify_one();
    }
}

/// Takes packets from the queue of `station` until it is closed and empty.
pub(super) async fn run(shared: Arc<Shared>, station: Arc<Station>) {
    let mut sorter = Sorter::new(shared);
    // Behind it comes the packet.
    let mut buffer = vec![0; FrameHeader::LEN];
    loop {
        sorter.handle_turn(tokio::time::Instant::now().into_std());
        let n = station
            .queue
            .drain(TURN_PACKETS, &mut buffer, FrameHeader::LEN, |tag, frame| {
                sorter.handle_packet(tag, frame);
            });
        sorter.flush();
        if n > 0 {
            station.n_processed.fetch_add(n.into(), Relaxed);
            tokio::task::yield_now().await;
        } else if station.queue.has_ended() {
            station.manned.store(false, Relaxed);
            return;
        } else if station.queue.prepare_sleep() {
            station.bell.notified().await;
        }
    }
}

struct Sorter {
    shared: Arc<Shared>,
    peers: Arc<Vec<Arc<Peer>>>,
    instant: Instant,
    tick: Tick,
    ms: u16,
    /// By peer and stream, made when a stream is first used.
    batches: Vec<Vec<Batches>>,
    /// Batches that were begun since the last flush.
    touched: Vec<(usize, StreamIndex)>,
}

#[derive(Default)]
struct Batches {
    sparse: Batch,
    bulk: Batch,
}

impl Sorter {
    fn new(shared: Arc<Shared>) -> Self {
        Self {
            peers: shared.peers.load_full(),
            instant: Instant::now(),
            tick: Tick::from_bits(0),
            ms: 0,
            batches: Vec::new(),
            touched: Vec::new(),
            shared,
        }
    }

    fn handle_turn(&mut self, now: Instant) {
        self.instant = now;
        self.tick = self.shared.streams_of_flows.tick(now);
        self.ms = self.shared.streams_of_flows.since_start(now).as_millis() as u16;
    }

    /// Takes one packet, which stands in `frame` behind room for the header.
    fn handle_packet(&mut self, tag: Tag, frame: &mut [u8]) {
        let index = tag.peer as usize;
        if index >= self.peers.len() {
            // Found since the last look; it was published before a packet could name it.
            self.peers = self.shared.peers.load_full();
        }
        let Some(peer) = self.peers.get(index) else {
            return;
        };
        let flow_hash = tag.flow_hash;
        let stream = self
            .shared
            .streams_of_flows
            .stream(flow_hash, self.tick, || peer.streams.choose(flow_hash));
        let Some(lane) = peer.streams.lane(stream) else {
            return;
        };
        let header = FrameHeader {
            len: (frame.len() - FrameHeader::LEN) as u32,
            vnet: VnetHeader::default(),
        };
        let (head, packet) = frame.split_at_mut(FrameHeader::LEN);
        head.copy_from_slice(bytemuck::bytes_of(&header));
        let bucket = BucketIndex::of(flow_hash);
        let urgent = is_urgent(packet);
        let Some(batches) = batches_of(&mut self.batches, index, stream) else {
            return;
        };
        if batches.sparse.is_empty() && batches.bulk.is_empty() {
            self.touched.push((index, stream));
        }
        match lane.outbox.classify(bucket, frame.len(), urgent, self.ms) {
            FlowClass::Sparse => batches.sparse.push_sparse(frame),
            FlowClass::Bulk => batches.bulk.push_bulk(frame, bucket),
        }
        if batches.bulk.is_full() {
            batches.hand_over(peer, stream, self.instant);
        }
    }

    /// Hands every begun batch to its stream.
    fn flush(&mut self) {
        for (index, stream) in self.touched.drain(..) {
            if let (Some(peer), Some(batches)) = (
                self.peers.get(index),
                batches_of(&mut self.batches, index, stream),
            ) {
                batches.hand_over(peer, stream, self.instant);
            }
        }
    }
}

fn batches_of(batches: &mut Vec<Vec<Batches>>, peer: usize, stream: StreamIndex) -> Option<&mut Batches> {
    if peer >= batches.len() {
        batches.resize_with(peer + 1, Vec::new);
    }
    let of_peer = batches.get_mut(peer)?;
    let index = usize::from(stream.0);
    if index >= of_peer.len() {
        of_peer.resize_with(index + 1, Batches::default);
    }
    of_peer.get_mut(index)
}

impl Batches {
    fn hand_over(&mut self, peer: &Peer, stream: StreamIndex, now: Instant) {
        let Some(lane) = peer.streams.lane(stream) else {
            return;
        };
        for (class, batch) in [
            (FlowClass::Sparse, &mut self.sparse),
            (FlowClass::Bulk, &mut self.bulk),
        ] {
            if batch.is_empty() {
                continue;
            }
            lane.n_offered.fetch_add(u64::from(batch.n_frames()), Relaxed);
            let n_refused = lane.outbox.push(batch, class, now);
            if n_refused > 0 {
                peer.add_lost(n_refused.into());
            }
        }
    }
}
