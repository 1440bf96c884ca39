//! A worker: takes packets from its queue in order and lays them, as frames, before the streams of their peers.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Instant;

use router_common::frame::{FrameHeader, VnetHeader};
use tokio::sync::Notify;

use super::Shared;
use super::peer::Peer;
use super::queue::{PacketQueue, Tag};
use crate::egress::turn_batches::{Now, Outgoing, TurnBatches};
use stream_router_engine::flow_class::is_urgent;

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
    now: Now,
    batches: TurnBatches,
}

impl Sorter {
    fn new(shared: Arc<Shared>) -> Self {
        Self {
            peers: shared.peers.load_full(),
            now: Now::new(Instant::now(), &shared.streams_of_flows),
            batches: TurnBatches::default(),
            shared,
        }
    }

    fn handle_turn(&mut self, now: Instant) {
        self.now = Now::new(now, &self.shared.streams_of_flows);
    }

    /// Takes one packet, which stands in `frame` behind room for the header.
    fn handle_packet(&mut self, tag: Tag, frame: &mut [u8]) {
        if tag.peer as usize >= self.peers.len() {
            // Found since the last look; it was published before a packet could name it.
            self.peers = self.shared.peers.load_full();
        }
        let Some(peer) = self.peers.get(tag.peer as usize) else {
            return;
        };
        let flow_hash = tag.flow_hash;
        let stream = self
            .shared
            .streams_of_flows
            .stream(flow_hash, self.now.tick, || peer.streams.choose(flow_hash));
        let Some(lane) = peer.streams.lane(stream) else {
            return;
        };
        let header = FrameHeader {
            len: (frame.len() - FrameHeader::LEN) as u32,
            vnet: VnetHeader::default(),
        };
        let (head, packet) = frame.split_at_mut(FrameHeader::LEN);
        head.copy_from_slice(bytemuck::bytes_of(&header));
        let urgent = is_urgent(packet);
        let outgoing = Outgoing {
            peer: tag.peer,
            stream,
            lane,
            flow_hash,
            frame,
            urgent,
        };
        let n_refused = self.batches.push(&outgoing, self.now);
        if n_refused > 0 {
            peer.add_lost(n_refused.into());
        }
    }

    /// Hands every begun batch to its stream.
    fn flush(&mut self) {
        let lane = |peer, stream| self.peers.get(peer as usize)?.streams.lane(stream);
        self.batches.flush(self.now, lane, |peer, n_refused| {
            if let Some(peer) = self.peers.get(peer as usize) {
                peer.add_lost(n_refused.into());
            }
        });
    }
}
