//! From a packet to its worker's ring.

use router_common::flow_key::{FAMILY_V4, FlowKey};
use router_common::frame::{FrameHeader, MAX_PACKET_LEN};
use router_common::packet::{Parsed, parse};
use router_common::peer::{NO_PEER, PRESSURE_MIN_LEN};
use router_common::reason::Reason;
use router_common::record::RecordHeader;

use crate::maps::PRESSURE;
use crate::packet::{Packet, Skb};
use crate::{connections, deliver, offload};

/// Parses the packet, finds its lane and delivers it there.
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
    if is_multicast(&parsed.key) {
        return Reason::Multicast;
    }
    match record(skb, &parsed, len) {
        Ok((worker, record)) => deliver::deliver(skb, worker, &record, len),
        Err(reason) => reason,
    }
}

/// Finds the lane of a parsed packet of `len` bytes: its worker, and what stands before the packet there.
#[inline(always)]
pub(crate) fn record(packet: &impl Packet, parsed: &Parsed, len: u32) -> Result<(u32, RecordHeader), Reason> {
    let Some(lane) = connections::lane(&parsed.key, len) else {
        return Err(Reason::NoRing);
    };
    if lane.peer != NO_PEER
        && len > PRESSURE_MIN_LEN
        && PRESSURE.get(lane.peer).is_some_and(|pressed| *pressed != 0)
    {
        return Err(Reason::PeerPressure);
    }
    let record = RecordHeader {
        flow_hash: lane.flow_hash,
        peer: lane.peer,
        frame: FrameHeader {
            len,
            vnet: offload::vnet_header(packet, parsed, len),
        },
    };
    Ok((lane.worker, record))
}

#[inline(always)]
pub(crate) fn is_multicast(key: &FlowKey) -> bool {
    if key.family == FAMILY_V4 {
        key.destination[12] >= 224
    } else {
        key.destination[0] == 0xff
    }
}
