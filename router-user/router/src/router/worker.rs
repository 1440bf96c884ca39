//! A worker: takes packets from its queue in order and lays them, as frames, before the streams of their peers.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Instant;

use tokio::sync::Notify;

use super::Shared;
use super::peer::RouterPeer;
use super::queue::{PacketQueue, Tag};
use crate::egress::turn_batches::{Now, Outgoing, TurnBatches};
use router_common::frame::{FrameHeader, VnetHeader};
use stream_router_engine::flow_class::is_urgent;

/// Packets of one turn, so that the senders on its thread get theirs.
const TURN_PACKETS: u32 = 256;

/// What waits for a worker, and how the worker is woken for it.
pub(super) struct WorkerInbox {
    pub(super) queue: PacketQueue,
    wakeup: Notify,
    pub(super) n_processed: AtomicU64,
    /// Whether a worker takes packets from it.
    pub(super) has_worker: AtomicBool,
}

impl WorkerInbox {
    pub(super) fn new(n_packets: u32, n_bytes: usize) -> Self {
        Self {
            queue: PacketQueue::new(n_packets, n_bytes),
            wakeup: Notify::new(),
            n_processed: AtomicU64::new(0),
            has_worker: AtomicBool::new(false),
        }
    }

    /// Wakes the worker for what was pushed, if it sleeps.
    pub(super) fn wake(&self) {
        if self.queue.must_wake() {
            self.wakeup.notify_one();
        }
    }

    /// Ends the worker once its queue is empty.
    pub(super) fn close(&self) {
        self.queue.close();
        self.wakeup.notify_one();
    }
}

/// Takes packets from `inbox` until it is closed and empty.
pub(super) async fn run(shared: Arc<Shared>, inbox: Arc<WorkerInbox>) {
    let mut assigner = StreamAssigner::new(shared);
    // Behind it comes the packet.
    let mut buffer = vec![0; FrameHeader::LEN];
    loop {
        assigner.handle_turn(tokio::time::Instant::now().into_std());
        let n = inbox
            .queue
            .drain(TURN_PACKETS, &mut buffer, FrameHeader::LEN, |tag, frame| {
                assigner.handle_packet(tag, frame);
            });
        assigner.flush();
        if n > 0 {
            inbox.n_processed.fetch_add(n.into(), Relaxed);
            tokio::task::yield_now().await;
        } else if inbox.queue.has_ended() {
            inbox.has_worker.store(false, Relaxed);
            return;
        } else if inbox.queue.prepare_sleep() {
            inbox.wakeup.notified().await;
        }
    }
}

/// Lays packets, as frames, before the streams of their flows.
struct StreamAssigner {
    shared: Arc<Shared>,
    peers: Arc<Vec<Arc<RouterPeer>>>,
    now: Now,
    batches: TurnBatches,
}

impl StreamAssigner {
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
            .stream(flow_hash, self.now.tick, || peer.lanes.choose(flow_hash));
        let Some(lane) = peer.lanes.get(stream) else {
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
        let lane = |peer, stream| self.peers.get(peer as usize)?.lanes.get(stream);
        self.batches.flush(self.now, lane, |peer, n_refused| {
            if let Some(peer) = self.peers.get(peer as usize) {
                peer.add_lost(n_refused.into());
            }
        });
    }
}
