//! The key of a flow.

/// Address family of a flow, as in the first nibble of its packets.
pub const FAMILY_V4: u8 = 4;
/// See [`FAMILY_V4`].
pub const FAMILY_V6: u8 = 6;

/// What makes packets one flow: protocol, addresses and ports, where the packet has them.
///
/// Padding is part of a BPF hash key, so it has a name and is 0.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "user", derive(bytemuck::Pod, bytemuck::Zeroable))]
pub struct FlowKey {
    /// Source address; IPv4 as `::ffff:a.b.c.d`.
    pub source: [u8; 16],
    /// Destination address, likewise.
    pub destination: [u8; 16],
    /// Source port, or echo identifier, in network order; 0 without ports.
    pub source_port_be: [u8; 2],
    /// Destination port in network order; 0 without ports.
    pub destination_port_be: [u8; 2],
    /// IP protocol number of the transport header; for IPv6 the one behind the extension headers.
    pub protocol: u8,
    /// [`FAMILY_V4`] or [`FAMILY_V6`].
    pub family: u8,
    /// Always 0.
    pub padding: [u8; 2],
}

const _: () = assert!(size_of::<FlowKey>() == 40);
