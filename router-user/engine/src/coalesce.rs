//! Makes super-packets of consecutive frames of a flow, so that the host takes many packets in one write.
//!
//! Frames are merged only if the kernel's segmentation of the super-packet gives them back byte by byte, but for two
//! fields: of DF packets it may renumber the IPv4 identification, which has no meaning there (RFC 6864), and datagrams
//! to a VXLAN or Geneve port that have no UDP checksum get one, which their receivers take as well (RFC 7348 5, RFC 8926
//! 3.3). Any other datagram without a checksum is left without one.

mod packet;
mod segment;
mod super_packet;
#[cfg(test)]
mod tests;

use router_common::flow_key::FlowKey;
use router_common::packet::{Parsed, protocol};

use super::framing::Frame;
pub use packet::CoalescedPacket;

use packet::emit_single;
use segment::Segment;
use super_packet::SuperPacket;

/// Most flows whose frames may be interleaved and merge all the same.
const MAX_FLOWS: usize = 8;

/// Merges frames: holds a frame back for those that may follow it. It neither copies nor allocates.
///
/// Frames of one flow leave in the order in which they came; frames of other flows may pass them, until
/// [`Coalescer::flush`]. The coalescer borrows the frames, so it lives for the frames of one read.
#[derive(Debug)]
pub struct Coalescer<'a> {
    merges_udp: bool,
    pending: [Option<Pending<'a>>; MAX_FLOWS],
    /// Index of the pending packet that leaves next when there is no room.
    leaves_next: usize,
}

/// A packet that is held back, with the flow that it is of.
#[derive(Debug)]
struct Pending<'a> {
    key: FlowKey,
    packet: SuperPacket<'a>,
}

impl<'a> Coalescer<'a> {
    /// Creates a coalescer without frames; `merges_udp` says whether the device takes UDP super-packets.
    pub fn new(merges_udp: bool) -> Self {
        Self {
            merges_udp,
            pending: [const { None }; MAX_FLOWS],
            leaves_next: 0,
        }
    }

    /// Takes a frame that was admitted as `parsed`, and gives `sink` what cannot wait any longer.
    pub fn push(&mut self, frame: Frame<'a>, parsed: &Parsed, sink: &mut impl FnMut(CoalescedPacket<'_>)) {
        // Without ports it is unknown which flow's order the frame is part of.
        if parsed.transport_len == 0 {
            self.flush(sink);
            return emit_single(frame, &parsed.key, sink);
        }
        let segment =
            Segment::new(frame, parsed).filter(|_| self.merges_udp || parsed.key.protocol != protocol::UDP);
        if let Some(slot) = self.slot_of(&parsed.key) {
            let appended = match (&mut *slot, segment) {
                (Some(pending), Some(segment)) => pending.packet.append(segment),
                _ => false,
            };
            if !appended || slot.as_ref().is_some_and(|pending| pending.packet.is_complete()) {
                emit(slot, sink);
            }
            if appended {
                return;
            }
        }
        match segment {
            Some(segment) if segment.may_begin() => self.begin(parsed.key, segment, sink),
            _ => emit_single(frame, &parsed.key, sink),
        }
    }

    /// Gives `sink` everything that is held back.
    pub fn flush(&mut self, sink: &mut impl FnMut(CoalescedPacket<'_>)) {
        for slot in &mut self.pending {
            emit(slot, sink);
        }
    }

    fn slot_of(&mut self, key: &FlowKey) -> Option<&mut Option<Pending<'a>>> {
        self.pending
            .iter_mut()
            .find(|slot| slot.as_ref().is_some_and(|pending| pending.key == *key))
    }

    fn begin(&mut self, key: FlowKey, first: Segment<'a>, sink: &mut impl FnMut(CoalescedPacket<'_>)) {
        let free = self.pending.iter().position(Option::is_none);
        let index = free.unwrap_or_else(|| {
            let index = self.leaves_next;
            self.leaves_next = (index + 1) % MAX_FLOWS;
            index
        });
        let slot = &mut self.pending[index];
        emit(slot, sink);
        *slot = Some(Pending {
            key,
            packet: SuperPacket::new(first),
        });
    }
}

/// Gives `sink` the packet in `slot`, if there is one, and frees the slot.
fn emit(slot: &mut Option<Pending<'_>>, sink: &mut impl FnMut(CoalescedPacket<'_>)) {
    if let Some(pending) = slot {
        pending.packet.give(&pending.key, sink);
        *slot = None;
    }
}
