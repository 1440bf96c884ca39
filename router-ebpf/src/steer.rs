//! From a packet to its worker's ring.

use router_common::frame::{FrameHeader, MAX_PACKET_LEN, VnetHeader};
use router_common::offload::describe;
use router_common::packet::{Parsed, parse_into, protocol};
use router_common::peer::{NO_PEER, PRESSURE_BITS, PRESSURE_MIN_LEN};
use router_common::reason::Reason;
use router_common::record::{RecordHeader, Unfinished};

use crate::flows::FlowView;
use crate::maps::PRESSURE;
use crate::packet::{Skb, keep_in_place, unparsed};
use crate::{deliver, flows};

/// Parses the packet, finds the entry of its flow and delivers it to that worker.
#[inline(always)]
pub(crate) fn steer(skb: &Skb) -> Reason {
    match try_steer(skb) {
        Ok(reason) | Err(reason) => reason,
    }
}

#[inline(always)]
fn try_steer(skb: &Skb) -> Result<Reason, Reason> {
    let len = skb.len();
    let mut parsed = unparsed();
    keep_in_place(&mut parsed);
    parse_into(skb, len, &mut parsed)?;
    if parsed.key.is_multicast() {
        return Err(Reason::Multicast);
    }
    let (worker, record) = lane(&mut parsed, len, |parsed| Ok(describe(skb, parsed, len)))?;
    Ok(deliver::deliver(skb, worker, &record, len))
}

/// Finds the worker of a packet of `len` bytes by its flow's entry, and makes what stands before it in a record.
/// `describe` says what is undone of it, or why it is not to go to a worker; what neither a frame nor a worker can say or
/// do is left to the device, with every later packet of the flow.
#[inline(always)]
pub(crate) fn lane(
    parsed: &mut Parsed,
    len: u32,
    describe: impl FnOnce(&Parsed) -> Result<Option<(VnetHeader, Unfinished)>, Reason>,
) -> Result<(u32, RecordHeader), Reason> {
    let flow = flows::entry(parsed, len).ok_or(Reason::NoRing)?;
    if flow.by_device {
        return Err(Reason::LeftToDevice);
    }
    if len > MAX_PACKET_LEN as u32 {
        flows::leave_to_device(&parsed.key);
        return Err(Reason::TooLarge);
    }
    let Some((vnet, unfinished)) = describe(parsed)? else {
        flows::leave_to_device(&parsed.key);
        return Err(Reason::LeftToDevice);
    };
    Ok((flow.worker, record(parsed, len, &flow, vnet, unfinished)?))
}

/// Says whether the packets of a peer are held back.
#[inline(always)]
fn is_pressed(peer: u32) -> bool {
    let flag = 1 << (peer % PRESSURE_BITS);
    PRESSURE
        .get(peer / PRESSURE_BITS)
        .is_some_and(|word| *word & flag != 0)
}

/// Makes what stands before a packet of `len` bytes in a record, unless its peer has too much waiting.
#[inline(always)]
fn record(
    parsed: &Parsed,
    len: u32,
    flow: &FlowView,
    vnet: VnetHeader,
    unfinished: Unfinished,
) -> Result<RecordHeader, Reason> {
    // Only TCP is told of the refusal and holds back; other packets wait in the peer's queue, or are dropped there.
    if parsed.key.protocol == protocol::TCP
        && flow.peer != NO_PEER
        && len > PRESSURE_MIN_LEN
        && is_pressed(flow.peer)
    {
        return Err(Reason::PeerPressure);
    }
    Ok(RecordHeader {
        flow_hash: flow.flow_hash,
        unfinished,
        frame: FrameHeader { len, vnet },
    })
}
