//! From a packet to its worker's ring.

use router_common::frame::{FrameHeader, MAX_PACKET_LEN};
use router_common::offload::vnet_header;
use router_common::packet::{Parsed, parse};
use router_common::peer::{NO_PEER, PRESSURE_MIN_LEN};
use router_common::reason::Reason;
use router_common::record::RecordHeader;

use crate::maps::PRESSURE;
use crate::packet::{Packet, Skb};
use crate::{deliver, flows};

/// Parses the packet, finds the entry of its flow and delivers it to that worker.
#[inline(always)]
pub(crate) fn steer(skb: &Skb) -> Reason {
    let len = skb.len();
    if len > MAX_PACKET_LEN as u32 {
        return Reason::TooLarge;
    }
    let parsed = match parse(skb, len) {
        Ok(parsed) => parsed,
        Err(reason) => return reason,
    };
    if parsed.key.is_multicast() {
        return Reason::Multicast;
    }
    match record(skb, &parsed, len) {
        Ok((worker, record)) => deliver::deliver(skb, worker, &record, len),
        Err(reason) => reason,
    }
}

/// Finds the worker of a parsed packet of `len` bytes, and what stands before the packet in a record.
#[inline(always)]
pub(crate) fn record(packet: &impl Packet, parsed: &Parsed, len: u32) -> Result<(u32, RecordHeader), Reason> {
    let Some(entry) = flows::entry(&parsed.key, len) else {
        return Err(Reason::NoRing);
    };
    if entry.peer != NO_PEER
        && len > PRESSURE_MIN_LEN
        && PRESSURE.get(entry.peer).is_some_and(|pressed| *pressed != 0)
    {
        return Err(Reason::PeerPressure);
    }
    let record = RecordHeader {
        flow_hash: entry.flow_hash,
        frame: FrameHeader {
            len,
            vnet: vnet_header(packet, parsed, len, packet.gso_size()),
        },
    };
    Ok((entry.worker, record))
}
