//! The frame: one IP packet or GSO super-packet with its offload header.
//!
//! The same bytes stand in a ring record, on a libp2p stream and, without the length, in a write to the TUN device,
//! so a packet crosses the node without being laid out anew.
//!
//! ```text
//! offset  size  field
//! 0       4     length of the packet in bytes, little-endian, 20..=65535
//! 4       12    virtio_net_hdr of the packet, little-endian (virtio 1.2, 5.1.6)
//! 16      n     the packet, from its IP header on
//! ```

/// Smallest packet a frame carries: an IPv4 header.
pub const MIN_PACKET_LEN: usize = 20;

/// Largest packet a frame carries: the largest IPv4 packet, and the largest GSO super-packet Linux hands to a device.
pub const MAX_PACKET_LEN: usize = 65_535;

/// `virtio_net_hdr_mrg_rxbuf`: what a TUN device with `IFF_VNET_HDR` and a header size of 12 reads and writes.
///
/// All fields are little-endian in memory; the programs run on little-endian machines only.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "user", derive(bytemuck::Pod, bytemuck::Zeroable))]
pub struct VnetHeader {
    /// [`VnetHeader::NEEDS_CSUM`] or 0.
    pub flags: u8,
    /// One of the `GSO_*` constants, perhaps with [`VnetHeader::GSO_ECN`].
    pub gso_type: u8,
    /// Bytes from the IP header to the end of the transport header; 0 without GSO.
    pub hdr_len: u16,
    /// Payload bytes of one segment; 0 without GSO.
    pub gso_size: u16,
    /// Offset of the transport header, where the checksum starts; 0 without `NEEDS_CSUM`.
    pub csum_start: u16,
    /// Offset of the checksum field behind `csum_start`.
    pub csum_offset: u16,
    /// Unused by TUN devices; always 0.
    pub num_buffers: u16,
}

impl VnetHeader {
    /// Size in bytes.
    pub const LEN: usize = 12;
    /// The checksum field holds the pseudo-header sum; the receiving kernel finishes it.
    pub const NEEDS_CSUM: u8 = 1;
    /// Not a super-packet.
    pub const GSO_NONE: u8 = 0;
    /// TCP over IPv4 super-packet.
    pub const GSO_TCPV4: u8 = 1;
    /// TCP over IPv6 super-packet.
    pub const GSO_TCPV6: u8 = 4;
    /// UDP super-packet (`UDP_SEGMENT`).
    pub const GSO_UDP_L4: u8 = 5;
    /// Flag on a TCP type: the first segment alone carries CWR.
    pub const GSO_ECN: u8 = 0x80;
}

/// What stands before each packet.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "user", derive(bytemuck::Pod, bytemuck::Zeroable))]
pub struct FrameHeader {
    /// Length of the packet in bytes, without this header.
    pub len: u32,
    /// Offload header of the packet.
    pub vnet: VnetHeader,
}

impl FrameHeader {
    /// Size in bytes.
    pub const LEN: usize = 16;
}

const _: () = assert!(size_of::<VnetHeader>() == VnetHeader::LEN);
const _: () = assert!(size_of::<FrameHeader>() == FrameHeader::LEN);
const _: () = assert!(core::mem::offset_of!(FrameHeader, vnet) == 4);
