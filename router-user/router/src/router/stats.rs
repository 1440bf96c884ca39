//! What a router has counted.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use libp2p_identity::PeerId;

use super::DispatchError;

/// Packets that were not taken, by [`DispatchError`], since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct RefusedPackets {
    /// [`DispatchError::Malformed`].
    pub malformed: u64,
    /// [`DispatchError::Resolving`].
    pub resolving: u64,
    /// [`DispatchError::UnknownPeer`].
    pub unknown_peer: u64,
    /// [`DispatchError::DiscoveryFailed`].
    pub discovery_failed: u64,
    /// [`DispatchError::QueueFull`].
    pub queue_full: u64,
    /// [`DispatchError::PeerBusy`].
    pub peer_busy: u64,
    /// [`DispatchError::ShuttingDown`].
    pub shutting_down: u64,
}

/// A router at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct RouterStats {
    /// Packets that a worker has taken from its queue.
    pub n_processed: u64,
    /// Packets that wait for a worker.
    pub n_waiting: u64,
    /// Packets that were not taken.
    pub refused: RefusedPackets,
    /// Workers that take new flows.
    pub n_workers: u32,
    /// Workers that only keep the flows they have.
    pub n_retired_workers: u32,
    /// Flows that the last whole reading of the cache found alive.
    pub n_flows: u64,
    /// Destinations whose owner, or lack of one, is remembered.
    pub n_destinations: u64,
    /// Times that the [`PeerDiscovery`](crate::discovery::PeerDiscovery) was asked, and how many of them failed.
    pub n_lookups: u64,
    /// See [`RouterStats::n_lookups`].
    pub n_failed_lookups: u64,
    /// Of those that failed, answers about a network that does not hold the address that was asked for.
    pub n_refused_answers: u64,
    /// Fragments whose packet's first fragment was not seen; they may overtake other packets of their flow.
    pub n_fragments_alone: u64,
    /// Every peer that was found so far.
    pub peers: Vec<PeerStats>,
}

/// A peer at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PeerStats {
    /// Which peer.
    pub peer: PeerId,
    /// Packets that workers queued for it.
    pub n_accepted: u64,
    /// Of those, packets whose bytes a stream took whole.
    pub n_written: u64,
    /// Their bytes, with frame headers.
    pub n_written_bytes: u64,
    /// Of those queued, packets that went with a stream that failed, or had no room.
    pub n_lost: u64,
    /// Streams that take new flows.
    pub n_streams: u32,
    /// Streams that are open, retired ones among them.
    pub n_open_streams: u32,
}

/// What [`StreamRouter::shutdown`](super::StreamRouter::shutdown) left.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ShutdownReport {
    /// Packets written to streams since the start.
    pub n_written: u64,
    /// Packets that were taken and could not be written in time, by peer; those without any are left out.
    pub undelivered: Vec<(PeerId, u64)>,
    /// Whether every stream was flushed and closed in time.
    pub closed: bool,
}

#[derive(Debug, Default)]
pub(super) struct RouterCounters {
    malformed: AtomicU64,
    resolving: AtomicU64,
    unknown_peer: AtomicU64,
    discovery_failed: AtomicU64,
    queue_full: AtomicU64,
    peer_busy: AtomicU64,
    shutting_down: AtomicU64,
    pub(super) n_lookups: AtomicU64,
    pub(super) n_failed_lookups: AtomicU64,
    pub(super) n_refused_answers: AtomicU64,
    pub(super) n_fragments_alone: AtomicU64,
}

impl RouterCounters {
    /// Counts a fragment that came without its first one.
    #[cold]
    pub(super) fn handle_fragment_alone(&self) {
        self.n_fragments_alone.fetch_add(1, Relaxed);
    }

    /// Counts a refusal, and returns it.
    #[cold]
    pub(super) fn refuse(&self, error: DispatchError) -> DispatchError {
        let counter = match error {
            DispatchError::Malformed { .. } => &self.malformed,
            DispatchError::Resolving { .. } => &self.resolving,
            DispatchError::UnknownPeer { .. } => &self.unknown_peer,
            DispatchError::DiscoveryFailed { .. } => &self.discovery_failed,
            DispatchError::QueueFull { .. } => &self.queue_full,
            DispatchError::PeerBusy { .. } => &self.peer_busy,
            DispatchError::ShuttingDown => &self.shutting_down,
        };
        counter.fetch_add(1, Relaxed);
        error
    }

    pub(super) fn refused(&self) -> RefusedPackets {
        RefusedPackets {
            malformed: self.malformed.load(Relaxed),
            resolving: self.resolving.load(Relaxed),
            unknown_peer: self.unknown_peer.load(Relaxed),
            discovery_failed: self.discovery_failed.load(Relaxed),
            queue_full: self.queue_full.load(Relaxed),
            peer_busy: self.peer_busy.load(Relaxed),
            shutting_down: self.shutting_down.load(Relaxed),
        }
    }
}
