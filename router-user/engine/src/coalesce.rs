//! Makes super-packets of consecutive frames of a flow, so that the host takes many packets in one write.
//!
//! Frames are merged only if the kernel's segmentation of the super-packet gives them back byte by byte; of what DF
//! packets carry, it may renumber the IPv4 identification, which has no meaning there (RFC 6864).

mod segment;
mod super_packet;
#[cfg(test)]
mod tests;

use std::io::IoSlice;

use router_common::flow_key::FlowKey;
use router_common::packet::{Parsed, protocol};

use super::framing::Frame;
use segment::Segment;
use super_packet::SuperPacket;

/// Flows whose frames may be interleaved and merge all the same.
pub const MAX_FLOWS: usize = 8;

/// Frames of one super-packet (kernel: `UDP_MAX_SEGMENTS` before Linux 6.9); more would save little.
pub const MAX_SEGMENTS: usize = 64;

/// What goes into the host in one write: a frame as it came, or a super-packet.
#[derive(Clone, Copy, Debug)]
pub struct Packet<'p> {
    /// `[12-byte virtio_net_hdr][packet]`, in pieces.
    pub parts: &'p [IoSlice<'p>],
    /// Frames in it.
    pub n_frames: u64,
    /// Bytes that they took on the stream.
    pub wire_len: u64,
}

/// Holds back frames for those that may follow them; neither copies nor allocates.
///
/// Frames of one flow leave in the order in which they came; those of other flows may pass them, until
/// [`Coalescer::flush`]. It borrows the frames, so it lives for the frames of one read.
#[derive(Debug)]
pub struct Coalescer<'a> {
    merges_udp: bool,
    pending: [Option<Pending<'a>>; MAX_FLOWS],
    /// Whose turn it is to make room.
    leaves_next: usize,
}

#[derive(Debug)]
struct Pending<'a> {
    key: FlowKey,
    packet: SuperPacket<'a>,
}

impl<'a> Coalescer<'a> {
    /// A coalescer without frames; `merges_udp` says whether the device takes UDP super-packets.
    pub fn new(merges_udp: bool) -> Self {
        Self {
            merges_udp,
            pending: [const { None }; MAX_FLOWS],
            leaves_next: 0,
        }
    }

    /// Takes a frame that was admitted as `parsed`, and gives `sink` what cannot wait any longer.
    pub fn push(&mut self, frame: Frame<'a>, parsed: &Parsed, sink: &mut impl FnMut(Packet<'_>)) {
        // Without ports nobody knows whose order it is part of.
        if parsed.transport_len == 0 {
            self.flush(sink);
            return single(frame, sink);
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
            _ => single(frame, sink),
        }
    }

    /// Gives `sink` everything that is held back.
    pub fn flush(&mut self, sink: &mut impl FnMut(Packet<'_>)) {
        for slot in &mut self.pending {
            emit(slot, sink);
        }
    }

    fn slot_of(&mut self, key: &FlowKey) -> Option<&mut Option<Pending<'a>>> {
        self.pending
            .iter_mut()
            .find(|slot| slot.as_ref().is_some_and(|pending| pending.key == *key))
    }

    fn begin(&mut self, key: FlowKey, first: Segment<'a>, sink: &mut impl FnMut(Packet<'_>)) {
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

fn emit(slot: &mut Option<Pending<'_>>, sink: &mut impl FnMut(Packet<'_>)) {
    if let Some(pending) = slot {
        pending.packet.give(sink);
        *slot = None;
    }
}

fn single(frame: Frame<'_>, sink: &mut impl FnMut(Packet<'_>)) {
    sink(Packet {
        parts: &[IoSlice::new(frame.vnet_and_packet())],
        n_frames: 1,
        wire_len: frame.wire_len() as u64,
    });
}
