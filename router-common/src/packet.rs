//! The parser: from the bytes of an IP packet to its flow and the offsets of its headers.
//!
//! The programs run it on the packet in the kernel, user space on frames from peers.

pub mod ethernet;
pub mod hop;
mod ipv4;
mod ipv6;
pub mod mss;
mod transport;

use crate::flow_key::FlowKey;
use crate::reason::Reason;
pub use transport::reversed;

/// Something that holds the bytes of a packet.
pub trait PacketReader {
    /// Copies `N` bytes from `offset`; `None` when they are not all there.
    fn load<const N: usize>(&self, offset: u32) -> Option<[u8; N]>;
}

impl PacketReader for [u8] {
    #[inline(always)]
    fn load<const N: usize>(&self, offset: u32) -> Option<[u8; N]> {
        self.get(offset as usize..)?.first_chunk().copied()
    }
}

/// The bytes of another reader from `base` on.
pub struct Behind<'a, R: ?Sized> {
    /// Whose bytes.
    pub reader: &'a R,
    /// Where offset 0 is.
    pub base: u32,
}

impl<R: PacketReader + ?Sized> PacketReader for Behind<'_, R> {
    #[inline(always)]
    fn load<const N: usize>(&self, offset: u32) -> Option<[u8; N]> {
        self.reader.load(self.base.checked_add(offset)?)
    }
}

/// What the parser finds out; offsets count from the IP header.
///
/// Aligned, so that the programs can make it of words.
#[repr(align(8))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Parsed {
    /// The flow.
    pub key: FlowKey,
    /// Length of the packet as its IP header gives it; 0 for a super-packet that is too long to say.
    pub total_len: u32,
    /// Where the transport header starts.
    pub transport_offset: u32,
    /// Length of a TCP or UDP header that is there whole, else 0.
    pub transport_len: u32,
    /// Flags byte of a TCP header, else 0.
    pub tcp_flags: u8,
    /// Part of a fragmented packet.
    pub fragment: bool,
    /// The part that has the transport header; the key of every other one has no ports.
    pub first_fragment: bool,
    /// Identification that the fragments of one packet share; 0 for a whole packet.
    pub fragment_id: u32,
}

/// Protocol numbers (IANA).
pub mod protocol {
    /// IPv6 hop-by-hop options.
    pub const HOP_BY_HOP: u8 = 0;
    /// ICMP.
    pub const ICMP: u8 = 1;
    /// IPv4 in IP.
    pub const IPIP: u8 = 4;
    /// TCP.
    pub const TCP: u8 = 6;
    /// UDP.
    pub const UDP: u8 = 17;
    /// IPv6 in IP.
    pub const IPV6: u8 = 41;
    /// IPv6 routing header.
    pub const ROUTING: u8 = 43;
    /// IPv6 fragment header.
    pub const FRAGMENT: u8 = 44;
    /// Generic routing encapsulation.
    pub const GRE: u8 = 47;
    /// Authentication header.
    pub const AH: u8 = 51;
    /// ICMPv6.
    pub const ICMPV6: u8 = 58;
    /// IPv6 destination options.
    pub const DESTINATION_OPTIONS: u8 = 60;
    /// SCTP.
    pub const SCTP: u8 = 132;
}

/// Parses the packet of `len` bytes whose IP header is at offset 0.
///
/// # Errors
/// The reason why it is no packet that can be steered.
#[inline(always)]
pub fn parse<R: PacketReader + ?Sized>(reader: &R, len: u32) -> Result<Parsed, Reason> {
    let mut parsed = Parsed::default();
    parse_into(reader, len, &mut parsed)?;
    Ok(parsed)
}

/// Parses as [`parse`] does, into what is `Parsed::default()` before: the programs, whose stack has 512 bytes, say where it
/// is kept.
///
/// # Errors
/// As [`parse`]; then `parsed` holds what was found out until then.
#[inline(always)]
pub fn parse_into<R: PacketReader + ?Sized>(reader: &R, len: u32, parsed: &mut Parsed) -> Result<(), Reason> {
    let [first] = reader.load::<1>(0).ok_or(Reason::Truncated)?;
    match first >> 4 {
        4 => ipv4::parse(reader, len, parsed),
        6 => ipv6::parse(reader, len, parsed),
        _ => Err(Reason::NotIp),
    }
}
