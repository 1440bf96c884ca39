//! What the coalescer gives out.

use std::io::IoSlice;

use router_common::flow_key::FlowKey;

use crate::framing::Frame;

/// A frame as it came, or a super-packet: what goes into the host in one write.
#[derive(Clone, Copy, Debug)]
pub struct CoalescedPacket<'p> {
    /// `[12-byte virtio_net_hdr][packet]`, in pieces.
    pub parts: &'p [IoSlice<'p>],
    /// The flow that it is of.
    pub flow: &'p FlowKey,
    /// How many frames the packet is made of.
    pub n_frames: u64,
    /// How many bytes these frames took on the stream.
    pub wire_len: u64,
}

/// Gives a frame to `sink` as it came.
pub(super) fn emit_single(frame: Frame<'_>, flow: &FlowKey, sink: &mut impl FnMut(CoalescedPacket<'_>)) {
    sink(CoalescedPacket {
        parts: &[IoSlice::new(frame.vnet_and_packet())],
        flow,
        n_frames: 1,
        wire_len: frame.wire_len() as u64,
    });
}
