//! Counters of what user space does with packets, by reason. `status` shows the kernel's counters beside them.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use stream_router_engine::admission::FrameRefusal;

/// A reason why user space drops or counts a packet, as an index into [`Counters`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Counter {
    /// Captured packet whose destination is in nobody's `allowed_ips`.
    TxNoRoute,
    /// Captured packet for a peer without a connection.
    TxPeerDown,
    /// Captured packet for a peer whose queue is full.
    TxQueueFull,
    /// Frame dropped because its queue had been long for too long (CoDel).
    TxAged,
    /// Frame marked as having met congestion instead (ECN).
    TxEcnMarked,
    /// Frame that was queued or half written when its stream or connection went away.
    TxStreamLost,
    /// Packet that the egress program left to the device, such as multicast.
    TxNotCaptured,
    /// Frame whose inner source address is not in the sending peer's `allowed_ips`.
    RxSourceNotAllowed,
    /// Frame that does not hold one whole IP packet.
    RxMalformedPacket,
    /// Frame whose offload header does not fit its packet.
    RxBadOffloadHeader,
    /// Packet that the device would not take.
    RxDeviceRefused,
    /// Stream that was reset because its bytes were not frames, or ended inside one.
    RxProtocolError,
    /// ICMP or ICMPv6 destination unreachable given to a sender here.
    IcmpUnreachableSent,
}

impl Counter {
    /// Every counter, in the order in which it is shown.
    pub(super) const ALL: [Self; 13] = [
        Self::TxNoRoute,
        Self::TxPeerDown,
        Self::TxQueueFull,
        Self::TxAged,
        Self::TxEcnMarked,
        Self::TxStreamLost,
        Self::TxNotCaptured,
        Self::RxSourceNotAllowed,
        Self::RxMalformedPacket,
        Self::RxBadOffloadHeader,
        Self::RxDeviceRefused,
        Self::RxProtocolError,
        Self::IcmpUnreachableSent,
    ];

    /// Returns the name of the counter in `status`.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::TxNoRoute => "tx_no_route",
            Self::TxPeerDown => "tx_peer_down",
            Self::TxQueueFull => "tx_queue_full",
            Self::TxAged => "tx_aged",
            Self::TxEcnMarked => "tx_ecn_marked",
            Self::TxStreamLost => "tx_stream_lost",
            Self::TxNotCaptured => "tx_not_captured",
            Self::RxSourceNotAllowed => "rx_source_not_allowed",
            Self::RxMalformedPacket => "rx_malformed_packet",
            Self::RxBadOffloadHeader => "rx_bad_offload_header",
            Self::RxDeviceRefused => "rx_device_refused",
            Self::RxProtocolError => "rx_protocol_error",
            Self::IcmpUnreachableSent => "icmp_unreachable_sent",
        }
    }
}

impl From<FrameRefusal> for Counter {
    fn from(refusal: FrameRefusal) -> Self {
        match refusal {
            FrameRefusal::MalformedPacket => Self::RxMalformedPacket,
            FrameRefusal::BadOffloadHeader => Self::RxBadOffloadHeader,
            FrameRefusal::SourceNotAllowed => Self::RxSourceNotAllowed,
        }
    }
}

/// One number per [`Counter`], from the start of the node.
#[derive(Debug, Default)]
pub(super) struct Counters([AtomicU64; Counter::ALL.len()]);

impl Counters {
    /// Adds `n` to `counter`.
    pub(super) fn add(&self, counter: Counter, n: u64) {
        self.0[counter as usize].fetch_add(n, Relaxed);
    }

    /// Returns every counter with its name.
    pub(super) fn snapshot(&self) -> impl Iterator<Item = (&'static str, u64)> {
        Counter::ALL
            .into_iter()
            .map(|counter| (counter.name(), self.0[counter as usize].load(Relaxed)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_counter_has_its_own_place_and_name() {
        let counters = Counters::default();
        for (i, counter) in Counter::ALL.into_iter().enumerate() {
            assert_eq!(counter as usize, i);
            counters.add(counter, i as u64 + 1);
        }
        let shown: Vec<_> = counters.snapshot().collect();
        assert!(shown.iter().enumerate().all(|(i, (_, n))| *n == i as u64 + 1));
        let names: std::collections::HashSet<_> = shown.iter().map(|(name, _)| name).collect();
        assert_eq!(names.len(), Counter::ALL.len());
    }
}
