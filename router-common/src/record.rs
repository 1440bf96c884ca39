//! The ring record: what the kernel tells a worker of one captured packet.
//!
//! A record is this header, then the packet; its [`FrameHeader`] and the packet together are the frame as it goes
//! on a stream.
//!
//! The peer is not in it, although the program knows it: a record may wait in its ring while the configuration changes,
//! and the number of a peer that is gone may be another's by then. The worker looks the destination up in the table that
//! counts when it forwards, once for packets in a row to one destination.

use crate::frame::FrameHeader;

/// What a worker has to do to a packet before it can be a frame.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u16)]
pub enum Work {
    /// The packet is a frame as it is.
    #[default]
    Nothing = 0,
    /// Complete the checksum that the offload header names, and clear that header.
    CompleteChecksum = 1,
    /// Put the sum of the pseudo-header into the checksum field, which holds the checksum of one segment.
    ReopenChecksum = 2,
    /// Cut the packet into the segments that the offload header describes.
    Segment = 3,
}

/// What is undone of a packet that its frame's offload header cannot say to a peer.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "user", derive(bytemuck::Pod, bytemuck::Zeroable))]
pub struct Unfinished {
    /// A [`Work`], as a number.
    work: u16,
    /// Where the IP header inside of a tunnel's headers starts; 0 if there is no tunnel, or the kernel does not say.
    pub inner_network: u16,
}

impl Unfinished {
    /// Describes work on a packet whose inner IP header starts at `inner_network`.
    #[inline(always)]
    pub const fn new(work: Work, inner_network: u16) -> Self {
        Self {
            work: work as u16,
            inner_network,
        }
    }

    /// Returns what is to be done; `None` if it is unknown, which the programs of this version never say.
    pub const fn work(self) -> Option<Work> {
        Some(match self.work {
            0 => Work::Nothing,
            1 => Work::CompleteChecksum,
            2 => Work::ReopenChecksum,
            3 => Work::Segment,
            _ => return None,
        })
    }
}

/// Head of a ring record; the packet follows.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "user", derive(bytemuck::Pod, bytemuck::Zeroable))]
pub struct RecordHeader {
    /// Keyed hash of the packet's flow, the same for every packet of the flow.
    pub flow_hash: u32,
    /// What is to be done to the packet first.
    pub unfinished: Unfinished,
    /// Length and offload header, as on the stream.
    pub frame: FrameHeader,
}

impl RecordHeader {
    /// Size in bytes.
    pub const LEN: usize = 24;
    /// Where the frame starts in the record.
    pub const FRAME_OFFSET: usize = 8;
}

const _: () = assert!(size_of::<RecordHeader>() == RecordHeader::LEN);
const _: () = assert!(core::mem::offset_of!(RecordHeader, frame) == RecordHeader::FRAME_OFFSET);
