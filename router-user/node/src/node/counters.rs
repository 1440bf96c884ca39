//! Counters of what user space does with packets, by reason. `status` shows the kernel's counters beside them.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::kernel::SocketDrops;
use router_common::counters;
use stream_router::p2p::NetworkCounters;
use stream_router_engine::admission::FrameRefusal;

counters! {
    /// A reason why user space drops or counts a packet, as an index into [`PacketCounters`].
    pub(super) enum PacketCounter {
        TxNoRoute => ("tx_no_route", Drop, "packets whose destination no peer has; the sender gets ICMP unreachable");
        TxPeerDown => ("tx_peer_down", Drop, "packets for a peer without a connection; the sender gets ICMP unreachable");
        TxHeld => ("tx_held", Event, "packets that waited for the connection of a peer that had been absent for less than `transport.hold_time`");
        TxQueueFull => ("tx_queue_full", Drop, "packets beyond the hard limit of a peer's queue, or of what waits for its connection");
        TxAged => ("tx_aged", Drop, "packets dropped because their stream's queue had been longer than 5 ms for more than 100 ms (CoDel)");
        TxEcnMarked => ("tx_ecn_marked", Event, "packets marked instead, as their sender and receiver understand ECN");
        TxStreamLost => ("tx_stream_lost", Drop, "packets queued or half written when their stream or connection was lost");
        TxUnfinishable => ("tx_unfinishable", Drop, "packets whose headers do not fit what the kernel says of their checksums and segments");
        TxByDevice => ("tx_by_device", Event, "packets that came by way of the device, because the kernel had to finish them");
        TxNotCaptured => ("tx_not_captured", Drop, "packets the device got that are for no single host: multicast, or not IP");
        RxSourceNotAllowed => ("rx_source_not_allowed", Drop, "packets from a peer whose source address is not in its `allowed_ips`");
        RxMalformedPacket => ("rx_malformed_packet", Drop, "frames from a peer that do not hold one whole IP packet");
        RxBadOffloadHeader => ("rx_bad_offload_header", Drop, "frames from a peer whose offload header does not fit their packet");
        RxMssClamped => ("rx_mss_clamped", Event, "TCP packets of peers with SYN whose offered segment size was lowered to what the device carries");
        RxSegmented => ("rx_segmented", Event, "UDP super-packets cut into their packets before the device, which takes none before Linux 6.2");
        RxFlowCountsLost => ("rx_flow_counts_lost", Event, "flows whose counts of what came from a peer were lost, as more flows are live than `connections.max_entries` has room for");
        RxDeviceRefused => ("rx_device_refused", Drop, "packets the device would not take");
        RxProtocolError => ("rx_protocol_error", Event, "streams reset because their bytes were not frames, or ended inside one");
        IcmpUnreachableSent => ("icmp_unreachable_sent", Event, "ICMP errors given to senders on this host; at most 20 a second for each worker");
    }
}

counters! {
    /// What the kernel counts of the AF_XDP sockets of gateways.
    pub(super) enum SocketCounter {
        Full => ("socket_full", Drop, "captured packets that an AF_XDP socket had no room for: the worker is behind");
        NoMemory => ("socket_no_memory", Drop, "captured packets that a receive queue had no memory for: its workers are behind");
        Dropped => ("socket_dropped", Drop, "captured packets that the kernel could not give to an AF_XDP socket for another reason");
    }
}

counters! {
    /// What the network counts.
    pub(super) enum NetworkCounter {
        UnknownPeersRefused => ("unknown_peers_refused", Event, "handshakes with an identity that is not in the configuration");
        ConnectionsRefused => ("connections_refused", Event, "connections beyond what a peer may have");
        HandshakesRefused => ("handshakes_refused", Event, "inbound connections given up or refused in their handshake, because newer ones needed their room");
        AddressesValidated => ("addresses_validated", Event, "QUIC handshakes whose dialler had to answer from its address first, because many were begun at once");
        DuplicateIdentities => ("duplicate_identities", Event, "times that two nodes with the key of one peer, or of this node, were seen at once");
        InboundFailures => ("inbound_failures", Event, "inbound connections that failed before they were ready");
        DialFailures => ("dial_failures", Event, "dials that failed");
        StreamsRefused => ("streams_refused", Event, "streams beyond what a peer may have");
        LaneStreamsRefused => ("lane_streams_refused", Event, "streams whose place in their lane cannot be: a lane or number that there is not, or a number that is taken or passed");
        LaneStreamsCut => ("lane_streams_cut", Event, "streams given up before their end, because the next one of their lane had waited for long enough");
        RecordViolations => ("record_violations", Event, "TCP connections ended because the peer broke a rule of TLS records, or of the streams in them");
        ReservationsGiven => ("reservations_given", Event, "places that this node, as a relay, has given to peers that are reached through it");
        ReservationsRefused => ("reservations_refused", Event, "such places that it has refused");
        CircuitsRelayed => ("circuits_relayed", Event, "connections between peers that this node has relayed");
        CircuitsRefused => ("circuits_refused", Event, "connections between peers that it has not relayed, as it relays as many as `relay.max_circuits` and `relay.max_circuits_per_peer` allow");
        CircuitsWithoutEnd => ("circuits_without_end", Event, "connections between peers that it has not relayed, as the other peer has no place here or did not answer");
        RelayRequestsRefused => ("relay_requests_refused", Event, "requests to this node as a relay that it has not understood or waited for, or that were too many at a time");
        PunchesBegun => ("punches_begun", Event, "direct connections that were tried with a peer that is connected through a relay");
        PunchesSucceeded => ("punches_succeeded", Event, "such tries that led to a direct connection");
        PunchesInVain => ("punches_in_vain", Event, "such tries in which this node has dialled the peer in vain: a NAT lets neither in");
        PunchesRefused => ("punches_refused", Event, "such tries that the peer has not agreed on: it does not know of them, `transport.punch` forbids them there, or it did not answer in time");
        PunchesWithoutAddress => ("punches_without_address", Event, "such tries without an address to dial: no relay says where this node is seen, or the peer says none of the same transport");
        PunchesDeclined => ("punches_declined", Event, "tries of peers that this node has not followed, as they came too often");
        PunchAddressesRefused => ("punch_addresses_refused", Event, "addresses that peers have said for such a try and that were not dialled: unusable, private, inside the tunnel, or too many");
        RecordsRefused => ("records_refused", Event, "records of the DHT that were neither believed nor kept: forged, expired, too large, or of a peer that is not configured");
    }
}

impl SocketCounter {
    /// Returns the value of the counter.
    pub(super) fn of(self, dropped: &SocketDrops) -> u64 {
        match self {
            Self::Full => dropped.ring_full,
            Self::NoMemory => dropped.no_memory,
            Self::Dropped => dropped.other,
        }
    }
}

impl NetworkCounter {
    /// Returns the value of the counter.
    pub(super) fn of(self, counters: &NetworkCounters) -> u64 {
        match self {
            Self::UnknownPeersRefused => counters.unknown_peers_refused,
            Self::ConnectionsRefused => counters.connections_refused,
            Self::HandshakesRefused => counters.handshakes_refused,
            Self::AddressesValidated => counters.addresses_validated,
            Self::DuplicateIdentities => counters.duplicate_identities,
            Self::InboundFailures => counters.inbound_failures,
            Self::DialFailures => counters.dial_failures,
            Self::StreamsRefused => counters.streams_refused,
            Self::LaneStreamsRefused => counters.lane_streams_refused,
            Self::LaneStreamsCut => counters.lane_streams_cut,
            Self::RecordViolations => counters.record_violations,
            Self::ReservationsGiven => counters.reservations_given,
            Self::ReservationsRefused => counters.reservations_refused,
            Self::CircuitsRelayed => counters.circuits_relayed,
            Self::CircuitsRefused => counters.circuits_refused,
            Self::CircuitsWithoutEnd => counters.circuits_without_end,
            Self::RelayRequestsRefused => counters.relay_requests_refused,
            Self::PunchesBegun => counters.punches_begun,
            Self::PunchesSucceeded => counters.punches_succeeded,
            Self::PunchesInVain => counters.punches_in_vain,
            Self::PunchesRefused => counters.punches_refused,
            Self::PunchesWithoutAddress => counters.punches_without_address,
            Self::PunchesDeclined => counters.punches_declined,
            Self::PunchAddressesRefused => counters.punch_addresses_refused,
            Self::RecordsRefused => counters.records_refused,
        }
    }
}

impl From<FrameRefusal> for PacketCounter {
    fn from(refusal: FrameRefusal) -> Self {
        match refusal {
            FrameRefusal::MalformedPacket => Self::RxMalformedPacket,
            FrameRefusal::BadOffloadHeader => Self::RxBadOffloadHeader,
            FrameRefusal::SourceNotAllowed => Self::RxSourceNotAllowed,
            // One that came later counts as this until it has a counter of its own.
            _ => Self::RxMalformedPacket,
        }
    }
}

/// One number per [`PacketCounter`], from the start of the node.
#[derive(Debug, Default)]
pub(super) struct PacketCounters([AtomicU64; PacketCounter::ALL.len()]);

impl PacketCounters {
    /// Adds `n` to `counter`.
    pub(super) fn add(&self, counter: PacketCounter, n: u64) {
        self.0[counter as usize].fetch_add(n, Relaxed);
    }

    /// Returns every counter with its value.
    pub(super) fn snapshot(&self) -> impl Iterator<Item = (PacketCounter, u64)> {
        PacketCounter::ALL
            .into_iter()
            .map(|counter| (counter, self.0[counter as usize].load(Relaxed)))
    }
}

#[cfg(test)]
mod tests {
    use router_common::reason::Reason;

    use super::*;

    #[test]
    fn every_counter_has_its_own_place_and_name() {
        let counters = PacketCounters::default();
        for (i, counter) in PacketCounter::ALL.into_iter().enumerate() {
            assert_eq!(counter as usize, i);
            counters.add(counter, i as u64 + 1);
        }
        let shown: Vec<_> = counters.snapshot().collect();
        assert!(shown.iter().enumerate().all(|(i, (_, n))| *n == i as u64 + 1));
        let names: std::collections::HashSet<_> = shown.iter().map(|(counter, _)| counter.name()).collect();
        assert_eq!(names.len(), PacketCounter::ALL.len());
    }

    #[test]
    fn the_document_says_the_same_of_every_counter() {
        let document = include_str!("../../../docs/counters-and-maps.md");
        let kernel = Reason::ALL
            .into_iter()
            .map(|reason| (reason.name(), reason.meaning()));
        let sockets = SocketCounter::ALL
            .into_iter()
            .map(|counter| (counter.name(), counter.meaning()));
        let user = PacketCounter::ALL
            .into_iter()
            .map(|counter| (counter.name(), counter.meaning()));
        let network = NetworkCounter::ALL
            .into_iter()
            .map(|counter| (counter.name(), counter.meaning()));
        let all: Vec<_> = kernel.chain(sockets).chain(user).chain(network).collect();
        let (_, table) = document
            .split_once("\n## Counters\n")
            .expect("the table has a heading");
        assert_eq!(
            table.lines().filter(|line| line.starts_with("| `")).count(),
            all.len()
        );
        for (name, meaning) in all {
            assert!(
                document.contains(&format!("\n| `{name}` | {meaning} |\n")),
                "{name} is not in the table, or means something else there"
            );
        }
    }
}
