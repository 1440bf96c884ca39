//! Counters of what the network refused, and of what failed.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// What was refused or failed since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct NetworkCounters {
    /// Connections of peers that are not configured.
    pub unknown_peers_refused: u64,
    /// Connections beyond what one peer may have.
    pub connections_refused: u64,
    /// Inbound connections that were given up or refused because more came than may be brought up at a time.
    pub handshakes_refused: u64,
    /// QUIC handshakes whose dialler had to answer from its address first, because many were begun.
    pub addresses_validated: u64,
    /// Times that two nodes with the key of one peer were seen at once.
    pub duplicate_identities: u64,
    /// Inbound connections that failed before they were up.
    pub inbound_failures: u64,
    /// Dial attempts that failed.
    pub dial_failures: u64,
    /// Inbound streams beyond what one connection may have.
    pub streams_refused: u64,
    /// Inbound streams whose place in their lane cannot be.
    pub lane_streams_refused: u64,
    /// Inbound streams that were given up because the next one of their lane had waited for long enough.
    pub lane_streams_cut: u64,
    /// TCP connections that were ended because the peer broke a rule of TLS records, or of the streams in them.
    pub record_violations: u64,
    /// Places that this node, as a relay, has given to peers that are reached through it.
    pub reservations_given: u64,
    /// Such places that this node has refused.
    pub reservations_refused: u64,
    /// Connections between peers that this node has relayed.
    pub circuits_relayed: u64,
    /// Connections between peers that this node has not relayed, as it relays as many as it may.
    pub circuits_refused: u64,
    /// Connections between peers that this node has not relayed, as the other peer has no place here or did not answer.
    pub circuits_without_end: u64,
    /// Requests to this node as a relay that it has not understood or waited for, or that were too many at a time.
    pub relay_requests_refused: u64,
    /// Direct connections that were tried, as agreed on with a peer through a relay.
    pub punches_begun: u64,
    /// Such tries that led to a direct connection.
    pub punches_succeeded: u64,
    /// Such tries that both sides have dialled for in vain.
    pub punches_in_vain: u64,
    /// Such tries that the peer has not agreed on.
    pub punches_refused: u64,
    /// Such tries for want of an address: no relay says where this node is seen, or the peer says no address that fits.
    pub punches_without_address: u64,
    /// Tries of peers that this node has not followed, as they came too often.
    pub punches_declined: u64,
    /// Addresses that peers have said for such a try and that this node has not dialled.
    pub punch_addresses_refused: u64,
    /// Records of the DHT that were neither believed nor kept.
    pub records_refused: u64,
}

/// The [`NetworkCounters`] while they count.
#[derive(Debug, Default)]
pub(super) struct LiveNetworkCounters {
    pub(super) unknown_peers_refused: AtomicU64,
    pub(super) connections_refused: AtomicU64,
    pub(super) handshakes_refused: AtomicU64,
    pub(super) addresses_validated: AtomicU64,
    pub(super) duplicate_identities: AtomicU64,
    pub(super) inbound_failures: AtomicU64,
    pub(super) dial_failures: AtomicU64,
    pub(super) streams_refused: AtomicU64,
    pub(super) lane_streams_refused: AtomicU64,
    pub(super) lane_streams_cut: AtomicU64,
    pub(super) record_violations: AtomicU64,
    pub(super) reservations_given: AtomicU64,
    pub(super) reservations_refused: AtomicU64,
    pub(super) circuits_relayed: AtomicU64,
    pub(super) circuits_refused: AtomicU64,
    pub(super) circuits_without_end: AtomicU64,
    pub(super) relay_requests_refused: AtomicU64,
    pub(super) punches_begun: AtomicU64,
    pub(super) punches_succeeded: AtomicU64,
    pub(super) punches_in_vain: AtomicU64,
    pub(super) punches_refused: AtomicU64,
    pub(super) punches_without_address: AtomicU64,
    pub(super) punches_declined: AtomicU64,
    pub(super) punch_addresses_refused: AtomicU64,
    pub(super) records_refused: AtomicU64,
}

impl LiveNetworkCounters {
    /// Returns the counts of now.
    pub(super) fn read(&self) -> NetworkCounters {
        NetworkCounters {
            unknown_peers_refused: self.unknown_peers_refused.load(Relaxed),
            connections_refused: self.connections_refused.load(Relaxed),
            handshakes_refused: self.handshakes_refused.load(Relaxed),
            addresses_validated: self.addresses_validated.load(Relaxed),
            duplicate_identities: self.duplicate_identities.load(Relaxed),
            inbound_failures: self.inbound_failures.load(Relaxed),
            dial_failures: self.dial_failures.load(Relaxed),
            streams_refused: self.streams_refused.load(Relaxed),
            lane_streams_refused: self.lane_streams_refused.load(Relaxed),
            lane_streams_cut: self.lane_streams_cut.load(Relaxed),
            record_violations: self.record_violations.load(Relaxed),
            reservations_given: self.reservations_given.load(Relaxed),
            reservations_refused: self.reservations_refused.load(Relaxed),
            circuits_relayed: self.circuits_relayed.load(Relaxed),
            circuits_refused: self.circuits_refused.load(Relaxed),
            circuits_without_end: self.circuits_without_end.load(Relaxed),
            relay_requests_refused: self.relay_requests_refused.load(Relaxed),
            punches_begun: self.punches_begun.load(Relaxed),
            punches_succeeded: self.punches_succeeded.load(Relaxed),
            punches_in_vain: self.punches_in_vain.load(Relaxed),
            punches_refused: self.punches_refused.load(Relaxed),
            punches_without_address: self.punches_without_address.load(Relaxed),
            punches_declined: self.punches_declined.load(Relaxed),
            punch_addresses_refused: self.punch_addresses_refused.load(Relaxed),
            records_refused: self.records_refused.load(Relaxed),
        }
    }
}
