//! The class of a flow: frames of flows that send little, RFC 8290's sparse flows, need not wait behind others.
//!
//! A queue has two parts, sparse and bulk, and the sparse one is served first. A frame goes there only while no frame of
//! its flow waits in the bulk part, and bulk frames pass only sparse ones that came later, so that no two frames of a
//! flow change places.

use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use bytemuck::Zeroable;
use router_common::packet::protocol;

/// Number of buckets, which flows share by hash. A flow that shares the bucket of a busy one waits as if it were busy.
const N_BUCKETS: usize = 1024;

/// Bytes that a flow may send in a millisecond and still be sparse: three packets of the usual size, or the acknowledgements
/// of a TCP at 10 Gbit/s.
const QUOTA_BYTES: u32 = 4096;

/// Most bytes of sparse flows that may wait; more of them wait with the bulk flows, so that many sparse flows cannot
/// starve those.
const MAX_WAITING_BYTES: u32 = 16 * 1024;

/// Largest sparse frame; a super-packet is never sparse.
const MAX_FRAME_BYTES: u32 = 2048;

/// The part of the queue that a frame waits in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FlowClass {
    /// The part that is served first.
    Sparse,
    /// The part that is served by age.
    Bulk,
}

/// Counts of what a stream's queue holds of each flow. Workers count frames in, and the sender counts them out.
#[derive(Debug, Zeroable)]
pub struct FlowClasses {
    buckets: [Bucket; N_BUCKETS],
    n_sparse_bytes: AtomicU32,
}

#[derive(Debug, Zeroable)]
struct Bucket {
    /// How many frames wait in the bulk part.
    n_bulk: AtomicU32,
    /// The last millisecond with a sparse frame, modulo 2^16, and how many bytes of sparse frames it had.
    spent: AtomicU32,
}

/// The index of a flow's bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BucketIndex(u16);

impl BucketIndex {
    /// Returns the bucket of the flow with this hash.
    pub fn of(flow_hash: u32) -> Self {
        Self((flow_hash % N_BUCKETS as u32) as u16)
    }
}

impl FlowClasses {
    /// Creates the counts of an empty queue.
    pub fn new() -> Box<Self> {
        bytemuck::zeroed_box()
    }

    /// Counts a frame of `len` bytes in and returns the part of the queue that it waits in. `urgent` says that its packet
    /// asks for low delay; `now_ms` may wrap.
    pub fn classify(&self, bucket: BucketIndex, len: usize, urgent: bool, now_ms: u16) -> FlowClass {
        let len = u32::try_from(len).unwrap_or(u32::MAX);
        let Some(bucket) = self.buckets.get(usize::from(bucket.0)) else {
            return FlowClass::Bulk;
        };
        if bucket.n_bulk.load(Relaxed) == 0
            && len <= MAX_FRAME_BYTES
            && self.n_sparse_bytes.load(Relaxed) + len <= MAX_WAITING_BYTES
        {
            let spent = bucket.spent.load(Relaxed);
            let spent_now = if spent >> 16 == u32::from(now_ms) {
                spent & 0xffff
            } else {
                0
            };
            if urgent || spent_now + len <= QUOTA_BYTES {
                let spent_now = (spent_now + len).min(0xffff);
                bucket.spent.store(u32::from(now_ms) << 16 | spent_now, Relaxed);
                self.n_sparse_bytes.fetch_add(len, Relaxed);
                return FlowClass::Sparse;
            }
        }
        bucket.n_bulk.fetch_add(1, Relaxed);
        FlowClass::Bulk
    }

    /// Counts `n` bytes of sparse frames out.
    pub(crate) fn release_sparse(&self, n: usize) {
        self.n_sparse_bytes.fetch_sub(n as u32, Relaxed);
    }

    /// Counts bulk frames out, one for each of `buckets`.
    pub(crate) fn release_bulk(&self, buckets: &[BucketIndex]) {
        for bucket in buckets {
            if let Some(bucket) = self.buckets.get(usize::from(bucket.0)) {
                bucket.n_bulk.fetch_sub(1, Relaxed);
            }
        }
    }
}

/// Says whether a packet asks for low delay: by its DSCP (EF, CS4 to CS7), or because somebody waits for the answer
/// (ICMP, DNS).
pub fn is_urgent(packet: &[u8]) -> bool {
    const EXPEDITED: u8 = 46;
    const CLASS_SELECTORS: [u8; 4] = [32, 40, 48, 56];
    const DNS: [u8; 2] = 53_u16.to_be_bytes();
    let (dscp, protocol, transport) = match packet {
        [first, tos, ..] if *first >> 4 == 4 && packet.len() >= 20 => {
            (*tos >> 2, packet[9], usize::from(*first & 0xf) * 4)
        }
        [first, second, ..] if *first >> 4 == 6 && packet.len() >= 40 => {
            ((*first & 0xf) << 2 | *second >> 6, packet[6], 40)
        }
        _ => return false,
    };
    let port_is_dns = || {
        let ports = packet.get(transport..transport + 4);
        ports.is_some_and(|ports| ports[..2] == DNS || ports[2..] == DNS)
    };
    dscp == EXPEDITED
        || CLASS_SELECTORS.contains(&dscp)
        || matches!(protocol, protocol::ICMP | protocol::ICMPV6)
        || (protocol == protocol::UDP && port_is_dns())
}

#[cfg(test)]
mod tests {
    use etherparse::PacketBuilder;

    use super::FlowClass::{Bulk, Sparse};
    use super::*;

    const FLOW: BucketIndex = BucketIndex(7);

    #[test]
    fn first_bytes_of_a_millisecond_are_sparse_and_the_rest_is_bulk() {
        let classes = FlowClasses::new();

        let found: Vec<_> = (0..4).map(|_| classes.classify(FLOW, 1400, false, 1)).collect();

        assert_eq!(found, [Sparse, Sparse, Bulk, Bulk]);
        classes.release_bulk(&[FLOW, FLOW]);
        assert_eq!(classes.classify(FLOW, 1400, false, 2), Sparse);
    }

    #[test]
    fn a_flow_with_bulk_waiting_stays_bulk_however_small_and_urgent() {
        let classes = FlowClasses::new();
        assert_eq!(classes.classify(FLOW, 60_000, true, 1), Bulk);

        assert_eq!(classes.classify(FLOW, 60, true, 100), Bulk);
        classes.release_bulk(&[FLOW]);
        assert_eq!(classes.classify(FLOW, 60, true, 100), Bulk);
        classes.release_bulk(&[FLOW, FLOW]);
        assert_eq!(classes.classify(FLOW, 60, true, 100), Sparse);
    }

    #[test]
    fn one_flows_bulk_does_not_hold_another_back() {
        let classes = FlowClasses::new();
        classes.classify(FLOW, 60_000, false, 1);

        assert_eq!(classes.classify(BucketIndex(8), 60, false, 1), Sparse);
    }

    #[test]
    fn urgent_packets_have_no_quota_and_the_part_for_sparse_flows_has_a_bound() {
        let classes = FlowClasses::new();

        let n = (0..100)
            .take_while(|_| classes.classify(FLOW, 1000, true, 1) == Sparse)
            .count();

        assert_eq!(n, MAX_WAITING_BYTES as usize / 1000);
        classes.release_sparse(16_000);
        assert_eq!(classes.classify(BucketIndex(8), 1000, true, 1), Sparse);
    }

    #[test]
    fn urgent_is_what_says_so_or_what_somebody_waits_for() {
        let with = |dscp: u8, port: u16| {
            let mut packet = Vec::new();
            let mut header =
                etherparse::Ipv4Header::new(0, 64, 17.into(), [10, 0, 0, 1], [10, 0, 0, 2]).unwrap();
            header.dscp = dscp.try_into().unwrap();
            PacketBuilder::ip(etherparse::IpHeaders::Ipv4(header, Default::default()))
                .udp(40_000, port)
                .write(&mut packet, b"x")
                .unwrap();
            packet
        };
        let mut ping = Vec::new();
        PacketBuilder::ipv6([1; 16], [2; 16], 64)
            .icmpv6_echo_request(1, 1)
            .write(&mut ping, b"x")
            .unwrap();

        assert!(is_urgent(&ping));
        assert!(is_urgent(&with(0, 53)));
        assert!(
            [46, 32, 40, 48, 56]
                .iter()
                .all(|dscp| is_urgent(&with(*dscp, 80)))
        );
        assert!(![0, 8, 10, 24, 34].iter().any(|dscp| is_urgent(&with(*dscp, 80))));
        assert!(!is_urgent(&[]) && !is_urgent(&[0x45, 0xb8]) && !is_urgent(&[0x60; 39]));
    }
}
