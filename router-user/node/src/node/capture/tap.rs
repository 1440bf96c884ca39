//! One tap: what it wants, and its queue.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};

use libp2p::PeerId;
use tokio::sync::mpsc;

use super::packet_view::PacketView;
use crate::control::{CaptureDirection, CaptureDirections, CaptureQuery, CapturedPacket};
use router_common::frame::VnetHeader;
use router_common::packet::Parsed;
use stream_router_engine::capture_filter::{CaptureFilter, FilterInput};

/// Most bytes that wait for a client, with what is known of each packet.
pub(super) const MAX_QUEUED_BYTES: usize = 4 * 1024 * 1024;

/// Most batches that wait; one holds a turn's packets, up to [`BATCH_BYTES`].
const QUEUE_BATCHES: usize = 4096;

/// A batch that has reached this size is handed over within the turn.
const BATCH_BYTES: usize = 64 * 1024;

/// What a capture wants, and the way to it.
#[derive(Debug)]
pub(super) struct Tap {
    filter: Option<CaptureFilter<PeerId>>,
    snaplen: usize,
    directions: CaptureDirections,
    queue: mpsc::Sender<Batch>,
    /// Counted before a batch is queued, and down once it is taken.
    queued_bytes: AtomicUsize,
    n_dropped: AtomicU64,
}

/// Packets that a tap has taken in a turn; what goes to the client is written only once the queue is left.
#[derive(Debug, Default)]
pub(super) struct Batch {
    taken: Vec<Taken>,
    /// The bytes of all of them, one behind the other.
    bytes: Vec<u8>,
}

/// What is known of a packet besides its bytes.
#[derive(Debug)]
struct Taken {
    time_ns: u64,
    direction: CaptureDirection,
    peer: Option<PeerId>,
    vnet: VnetHeader,
    len: u32,
    /// Bytes of it that were taken.
    n_bytes: usize,
}

impl Tap {
    /// Makes a tap, and where its batches come out.
    pub(super) fn new(
        query: &CaptureQuery,
        filter: Option<CaptureFilter<PeerId>>,
    ) -> (Self, mpsc::Receiver<Batch>) {
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

    /// Returns whether it shows this packet.
    pub(super) fn wants(&self, view: &PacketView<'_>, parsed: Option<&Parsed>) -> bool {
        if !self.directions.contains(view.direction) {
            return false;
        }
        let Some(filter) = &self.filter else { return true };
        parsed.is_some_and(|parsed| {
            filter.matches(&FilterInput {
                parsed,
                len: view.packet.len(),
                peer: view.peer,
            })
        })
    }

    /// Copies the packet, if there is room for it.
    pub(super) fn take(&self, view: &PacketView<'_>, time_ns: u64, batch: &mut Batch) {
        let bytes = &view.packet[..view.packet.len().min(self.snaplen)];
        if self.queued_bytes.load(Relaxed) + batch.size() + bytes.len() > MAX_QUEUED_BYTES {
            self.n_dropped.fetch_add(1, Relaxed);
            return;
        }
        batch.bytes.extend_from_slice(bytes);
        batch.taken.push(Taken {
            time_ns,
            direction: view.direction,
            peer: view.peer.copied(),
            vnet: view.vnet,
            len: view.packet.len() as u32,
            n_bytes: bytes.len(),
        });
        if batch.size() >= BATCH_BYTES {
            self.hand_over(batch);
        }
    }

    /// Queues the batch, which is empty then.
    pub(super) fn hand_over(&self, batch: &mut Batch) {
        let batch = std::mem::take(batch);
        if batch.taken.is_empty() {
            return;
        }
        let (size, n_packets) = (batch.size(), batch.taken.len() as u64);
        self.queued_bytes.fetch_add(size, Relaxed);
        if self.queue.try_send(batch).is_err() {
            self.queued_bytes.fetch_sub(size, Relaxed);
            self.n_dropped.fetch_add(n_packets, Relaxed);
        }
    }

    /// Takes note that this batch came out of the queue.
    pub(super) fn handle_taken(&self, batch: &Batch) {
        self.queued_bytes.fetch_sub(batch.size(), Relaxed);
    }

    /// Returns how many packets there was no room for.
    pub(super) fn n_dropped(&self) -> u64 {
        self.n_dropped.load(Relaxed)
    }
}

impl Batch {
    /// Returns its packets in the order in which they were taken.
    pub(super) fn packets(&self) -> impl Iterator<Item = CapturedPacket<'_>> {
        let mut rest = &self.bytes[..];
        self.taken.iter().map(move |taken| {
            let (bytes, behind) = rest.split_at(taken.n_bytes);
            rest = behind;
            CapturedPacket {
                time_ns: taken.time_ns,
                direction: taken.direction,
                peer: taken.peer,
                peer_name: None,
                len: taken.len,
                vnet: taken.vnet,
                bytes: bytes.into(),
            }
        })
    }

    fn size(&self) -> usize {
        self.bytes.len() + self.taken.len() * size_of::<Taken>()
    }
}
