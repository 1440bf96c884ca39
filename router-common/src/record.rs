//! The ring record: what the kernel tells a worker of one captured packet.
//!
//! A record is this header, then the packet; its [`FrameHeader`] and the packet together are the frame as it goes
//! on a stream.
//!
//! The peer is not in it, although the program knows it: a record may wait in its ring while the configuration changes,
//! and the number of a peer that is gone may be another's by then. The worker looks the destination up in the table that
//! counts when it forwards, once for packets in a row to one destination.

use crate::frame::FrameHeader;

/// Head of a ring record; the packet follows.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "user", derive(bytemuck::Pod, bytemuck::Zeroable))]
pub struct RecordHeader {
    /// Keyed hash of the packet's flow, the same for every packet of the flow.
    pub flow_hash: u32,
    /// Length and offload header, as on the stream.
    pub frame: FrameHeader,
}

impl RecordHeader {
    /// Size in bytes.
    pub const LEN: usize = 20;
    /// Where the frame starts in the record.
    pub const FRAME_OFFSET: usize = 4;
}

const _: () = assert!(size_of::<RecordHeader>() == RecordHeader::LEN);
const _: () = assert!(core::mem::offset_of!(RecordHeader, frame) == RecordHeader::FRAME_OFFSET);
