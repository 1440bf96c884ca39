//! One tap: what it wants, and its queue.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};

use axum::body::Bytes;
use libp2p::PeerId;
use router_common::packet::Parsed;
use tokio::sync::mpsc;

use super::Passing;
use crate::control::{CaptureDirections, CaptureQuery, CapturedPacket, put_packet};
use stream_router_engine::capture_filter::{CaptureFilter, FilterInput};

/// Most bytes that wait for whoever captures.
pub(super) const MAX_QUEUED_BYTES: usize = 4 * 1024 * 1024;

/// Most batches that wait; one holds a turn's packets, up to [`BATCH_BYTES`].
const QUEUE_BATCHES: usize = 4096;

/// A batch that has reached this size is handed over within the turn.
const BATCH_BYTES: usize = 64 * 1024;

/// Longest id of a peer in bytes.
const MAX_PEER_LEN: usize = 80;

/// What a capture wants, and the way to it.
#[derive(Debug)]
pub(super) struct Tap {
    filter: Option<CaptureFilter<PeerId>>,
    snaplen: usize,
    directions: CaptureDirections,
    queue: mpsc::Sender<Bytes>,
    /// Counted before a batch is queued, and down once it is taken.
    queued_bytes: AtomicUsize,
    n_dropped: AtomicU64,
}

/// Records that a tap has taken in a turn.
#[derive(Debug, Default)]
pub(super) struct Batch {
    records: Vec<u8>,
    n_packets: u64,
}

impl Tap {
    /// A tap, and where its batches come out.
    pub(super) fn new(
        query: &CaptureQuery,
        filter: Option<CaptureFilter<PeerId>>,
    ) -> (Self, mpsc::Receiver<Bytes>) {
        let (queue, batches) = mpsc::channel(QUEUE_BATCHES);
        let tap = Self {
            filter,
            snaplen: query.snaplen as usize,
            directions: query.directions,
            queue,
            queued_bytes: AtomicUsize::new(0),
            n_dropped: AtomicU64::new(0),
        };
        (tap, batches)
    }

    /// Whether it shows this packet.
    pub(super) fn wants(&self, passing: &Passing<'_>, parsed: Option<&Parsed>) -> bool {
        if !self.directions.contains(passing.direction) {
            return false;
        }
        let Some(filter) = &self.filter else { return true };
        parsed.is_some_and(|parsed| {
            filter.matches(&FilterInput {
                parsed,
                len: passing.packet.len(),
                peer: passing.peer,
            })
        })
    }

    /// Copies the packet, if there is room for it.
    pub(super) fn take(&self, passing: &Passing<'_>, time_ns: u64, batch: &mut Batch) {
        let bytes = &passing.packet[..passing.packet.len().min(self.snaplen)];
        if self.queued_bytes.load(Relaxed) + batch.records.len() + bytes.len() > MAX_QUEUED_BYTES {
            self.n_dropped.fetch_add(1, Relaxed);
            return;
        }
        let mut id = [0; MAX_PEER_LEN];
        put_packet(
            &mut batch.records,
            &CapturedPacket {
                time_ns,
                direction: passing.direction,
                peer: passing.peer.map_or(&[][..], |peer| write_id(peer, &mut id)),
                len: passing.packet.len() as u32,
                vnet: passing.vnet,
                bytes,
            },
        );
        batch.n_packets += 1;
        if batch.records.len() >= BATCH_BYTES {
            self.hand_over(batch);
        }
    }

    /// Queues the batch, which is empty then.
    pub(super) fn hand_over(&self, batch: &mut Batch) {
        let Batch { records, n_packets } = std::mem::take(batch);
        if records.is_empty() {
            return;
        }
        let len = records.len();
        self.queued_bytes.fetch_add(len, Relaxed);
        if self.queue.try_send(records.into()).is_err() {
            self.queued_bytes.fetch_sub(len, Relaxed);
            self.n_dropped.fetch_add(n_packets, Relaxed);
        }
    }

    /// Takes note that so many bytes came out of the queue.
    pub(super) fn handle_taken(&self, n_bytes: usize) {
        self.queued_bytes.fetch_sub(n_bytes, Relaxed);
    }

    /// Packets that there was no room for.
    pub(super) fn n_dropped(&self) -> u64 {
        self.n_dropped.load(Relaxed)
    }
}

/// The id in bytes; nothing, should one ever be longer than they are now.
fn write_id<'a>(peer: &PeerId, into: &'a mut [u8; MAX_PEER_LEN]) -> &'a [u8] {
    let n = peer.as_ref().write(&mut into[..]).unwrap_or(0);
    &into[..n]
}
