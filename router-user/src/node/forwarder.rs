//! From ring records to the peers' outboxes: one per worker, called once per batch of records.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;

use router_common::record::RecordHeader;

use super::counters::{Counter, Counters};
use super::peers::{Peer, PeerTable};
use crate::device::{Injector, ReplyBuffer, TokenBucket, Unreachable, unreachable};
use crate::engine::addresses::addresses;
use crate::engine::queue::Batch;
use crate::engine::route_table::PeerIndex;

/// Answers per second and worker, and at once; like Linux, which sends one a second to each host after a burst of 6.
const UNREACHABLE_PER_SECOND: u32 = 20;
const UNREACHABLE_BURST: u32 = 20;

/// Sorts captured packets by peer, in order, and answers for those that nobody takes.
pub(super) struct Forwarder {
    peers: Arc<PeerTable>,
    counters: Arc<Counters>,
    injector: Injector,
    unreachable_limit: TokenBucket,
    reply: ReplyBuffer,
    /// One per peer, at its index.
    batches: Vec<Batch>,
    touched: Vec<PeerIndex>,
    last_route: Option<(std::net::IpAddr, PeerIndex)>,
}

impl Forwarder {
    /// A forwarder with empty batches.
    pub(super) fn new(peers: Arc<PeerTable>, counters: Arc<Counters>, injector: Injector) -> Self {
        let batches = peers.all().iter().map(|_| Batch::default()).collect();
        Self {
            peers,
            counters,
            injector,
            unreachable_limit: TokenBucket::new(UNREACHABLE_PER_SECOND, UNREACHABLE_BURST, Instant::now()),
            reply: ReplyBuffer::default(),
            batches,
            touched: Vec::new(),
            last_route: None,
        }
    }

    /// Takes one record; it reaches its outbox with the next [`Forwarder::flush`] at the latest.
    pub(super) fn handle_record(&mut self, record: &[u8]) {
        let Some((frame, packet)) = frame_of(record) else {
            return;
        };
        let Some((_, destination)) = addresses(packet) else {
            return;
        };
        let index = match self.last_route {
            Some((last, index)) if last == destination => index,
            _ => {
                let Some(index) = self.peers.routes().lookup(destination) else {
                    self.refuse(packet, Counter::TxNoRoute, Unreachable::NoRoute);
                    return;
                };
                self.last_route = Some((destination, index));
                index
            }
        };
        let Some(peer) = self.peers.get(index) else { return };
        if !peer.connected.load(Relaxed) {
            self.refuse(packet, Counter::TxPeerDown, Unreachable::Host);
            return;
        }
        let Some(batch) = self.batches.get_mut(index.0 as usize) else {
            return;
        };
        if batch.is_empty() {
            self.touched.push(index);
        }
        batch.push(frame);
        if batch.is_full() {
            hand_over(peer, batch, &self.counters);
        }
    }

    /// Hands every begun batch to its peer.
    pub(super) fn flush(&mut self) {
        for index in self.touched.drain(..) {
            if let (Some(peer), Some(batch)) = (self.peers.get(index), self.batches.get_mut(index.0 as usize))
                && !batch.is_empty()
            {
                hand_over(peer, batch, &self.counters);
            }
        }
    }

    /// Counts a packet that goes nowhere and tells its sender, as often as the limit allows.
    fn refuse(&mut self, packet: &[u8], counter: Counter, kind: Unreachable) {
        self.counters.add(counter, 1);
        if !self.unreachable_limit.take(Instant::now()) {
            return;
        }
        if let Ok(reply) = unreachable(packet, kind, &mut self.reply)
            && self.injector.inject(reply).is_ok()
        {
            self.counters.add(Counter::IcmpUnreachableSent, 1);
        }
    }
}

/// The frame in a ring record, as it goes on a stream, and the packet in it. Behind a short packet the record is padded.
fn frame_of(record: &[u8]) -> Option<(&[u8], &[u8])> {
    // A driver puts a frame at any address.
    let header: RecordHeader = bytemuck::pod_read_unaligned(record.get(..RecordHeader::LEN)?);
    let end = RecordHeader::LEN + header.frame.len as usize;
    Some((
        record.get(RecordHeader::FRAME_OFFSET..end)?,
        record.get(RecordHeader::LEN..end)?,
    ))
}

fn hand_over(peer: &Peer, batch: &mut Batch, counters: &Counters) {
    if peer.outbox.push(batch).is_err() {
        counters.add(Counter::TxQueueFull, u64::from(batch.n_frames));
        batch.bytes.clear();
        batch.n_frames = 0;
    }
}
