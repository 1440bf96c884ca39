//! The offload header: what the sender's kernel left undone, for the receiver's to do.
//!
//! A frame describes a plain TCP or UDP packet or super-packet. What a kernel leaves undone in any other packet, the worker
//! does before the packet becomes a frame: the record says what that is.

use crate::flow_key::FAMILY_V4;
use crate::frame::VnetHeader;
use crate::packet::{Behind, PacketReader, Parsed, protocol};
use crate::record::{Unfinished, Work};

/// Where the checksum stands in a TCP header.
pub const TCP_CSUM_OFFSET: u16 = 16;
/// Where the checksum stands in a UDP header.
pub const UDP_CSUM_OFFSET: u16 = 6;
const TCP_CWR: u8 = 0x80;
/// Where a TCP header has its own length.
const TCP_DATA_OFFSET: u32 = 12;
const UDP_HEADER_LEN: u32 = 8;

/// Smallest segment of a TCP super-packet in bytes: what Linux takes for the least of a sane peer
/// (`net.ipv4.tcp_min_snd_mss`).
pub const MIN_TCP_SEGMENT: u32 = 48;
/// Most segments of a UDP super-packet (kernel: `UDP_MAX_SEGMENTS`).
pub const MAX_UDP_SEGMENTS: u32 = 128;
/// Most bytes of IP and transport header of a super-packet: each segment repeats them.
pub const MAX_SUPER_PACKET_HEADER: u32 = 256;
/// How many times its own length a super-packet may have as segments.
pub const MAX_EXPANSION: u32 = 3;

/// Says whether a super-packet is one that peers admit: a packet of `len` bytes, `header_len` of them headers, cut into
/// segments of `gso_size` bytes of payload. What a kernel makes of other ones costs far more than they do.
#[inline(always)]
pub fn is_sane_super_packet(is_tcp: bool, len: u32, header_len: u32, gso_size: u32) -> bool {
    if gso_size == 0 || header_len > MAX_SUPER_PACKET_HEADER || len < header_len {
        return false;
    }
    let payload = len - header_len;
    let n_segments = payload.div_ceil(gso_size);
    let is_sane_segment = if is_tcp {
        gso_size >= MIN_TCP_SEGMENT
    } else {
        gso_size >= header_len && n_segments <= MAX_UDP_SEGMENTS
    };
    // The last segment may be short, and is no more than its share.
    is_sane_segment && payload + n_segments * header_len <= MAX_EXPANSION * len
}

/// What the kernel says of a packet's checksum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Checksum {
    /// The kernel does not say.
    Unknown,
    /// No checksum is open.
    Complete,
    /// The Internet checksum of all bytes from `start` on is open; its field is `offset` bytes behind `start`.
    Open {
        /// Where the checksum starts, from the IP header on.
        start: u32,
        /// Where its field is, from `start` on.
        offset: u32,
    },
    /// A checksum of another kind is open.
    OpenOther,
}

/// What the kernel says of a packet's offloads.
pub trait Offloads {
    /// Returns the payload bytes of a segment of a super-packet, else 0.
    fn gso_size(&self) -> u32;
    /// Returns what is open of the checksum.
    fn checksum(&self) -> Checksum;
    /// Returns the kinds of the super-packet, of [`gso_type`]; `None` if the kernel does not say.
    fn gso_type(&self) -> Option<u32>;
    /// Returns where the IP header inside of a tunnel's headers starts; `None` if the kernel does not say.
    fn inner_network_offset(&self) -> Option<u32>;
}

/// Where the reader says that something starts before [`Behind::base`], nobody knows what it is about.
impl<R: Offloads> Offloads for Behind<'_, R> {
    #[inline(always)]
    fn gso_size(&self) -> u32 {
        self.reader.gso_size()
    }

    #[inline(always)]
    fn checksum(&self) -> Checksum {
        match self.reader.checksum() {
            Checksum::Open { start, offset } => match start.checked_sub(self.base) {
                Some(start) => Checksum::Open { start, offset },
                None => Checksum::OpenOther,
            },
            other => other,
        }
    }

    #[inline(always)]
    fn gso_type(&self) -> Option<u32> {
        self.reader.gso_type()
    }

    #[inline(always)]
    fn inner_network_offset(&self) -> Option<u32> {
        self.reader.inner_network_offset()?.checked_sub(self.base)
    }
}

/// Kinds of super-packets, `SKB_GSO_*` in the kernel.
pub mod gso_type {
    /// TCP over IPv4.
    pub const TCPV4: u32 = 1 << 0;
    /// TCP over IPv6.
    pub const TCPV6: u32 = 1 << 4;
    /// GRE without checksum.
    pub const GRE: u32 = 1 << 6;
    /// GRE with checksum.
    pub const GRE_CSUM: u32 = 1 << 7;
    /// IP in IPv4.
    pub const IPXIP4: u32 = 1 << 8;
    /// IP in IPv6.
    pub const IPXIP6: u32 = 1 << 9;
    /// UDP tunnel without a checksum in its own header.
    pub const UDP_TUNNEL: u32 = 1 << 10;
    /// UDP tunnel with one.
    pub const UDP_TUNNEL_CSUM: u32 = 1 << 11;
    /// UDP datagrams.
    pub const UDP_L4: u32 = 1 << 17;
    /// A list of packets that were received one by one; the headers are those of the first.
    pub const FRAGLIST: u32 = 1 << 18;
    /// How the segments' headers differ, and whether a guest made the packet; the places of the first have changed between
    /// kernels.
    pub const DETAILS: u32 = 1 << 1 | 1 << 2 | 1 << 3 | 1 << 30 | 1 << 31;
    /// Every kind of tunnel that a worker can cut.
    pub const TUNNELS: u32 = GRE | GRE_CSUM | IPXIP4 | IPXIP6 | UDP_TUNNEL | UDP_TUNNEL_CSUM;
}

/// Describes what is undone of a packet of `len` bytes; `None` if neither a frame nor a worker can say or do it, so that
/// the kernel has to.
#[inline(always)]
pub fn describe<R: PacketReader + Offloads + ?Sized>(
    packet: &R,
    parsed: &Parsed,
    len: u32,
) -> Option<(VnetHeader, Unfinished)> {
    if parsed.fragment {
        // The kernel finishes the checksum before it cuts a packet into fragments.
        return Some((VnetHeader::default(), Unfinished::default()));
    }
    match parsed.key.protocol {
        protocol::TCP => describe_tcp(packet, parsed, len),
        protocol::ICMP | protocol::ICMPV6 if packet.gso_size() == 0 => {
            Some((VnetHeader::default(), Unfinished::default()))
        }
        _ => describe_other(packet, parsed, len),
    }
}

/// Describes a packet of which only its bytes are known. An open checksum is exactly the pseudo-header's sum; should a
/// finished one be equal by accident, finishing it again gives the same packet.
#[inline(always)]
pub fn describe_bytes<R: PacketReader + ?Sized>(packet: &R, parsed: &Parsed, len: u32) -> VnetHeader {
    let offset = match parsed.key.protocol {
        protocol::TCP => TCP_CSUM_OFFSET,
        protocol::UDP => UDP_CSUM_OFFSET,
        _ => return VnetHeader::default(),
    };
    if !parsed.fragment && holds_pseudo_sum(packet, parsed, len, offset) {
        open_checksum(parsed, offset)
    } else {
        VnetHeader::default()
    }
}

/// Returns the length of the longest segment of a packet of `len` bytes that `vnet` describes: its own, unless it is a
/// super-packet. `None` if it has no such header as `vnet` says.
#[inline(always)]
pub fn segment_len<R: PacketReader + ?Sized>(packet: &R, vnet: &VnetHeader, len: u32) -> Option<u32> {
    if vnet.gso_size == 0 {
        return Some(len);
    }
    let transport_offset = u32::from(vnet.csum_start);
    let transport_len = if vnet.gso_type == VnetHeader::GSO_UDP_L4 {
        UDP_HEADER_LEN
    } else {
        let [data_offset] = packet.load::<1>(transport_offset + TCP_DATA_OFFSET)?;
        u32::from(data_offset >> 4) * 4
    };
    Some(transport_offset + transport_len + u32::from(vnet.gso_size))
}

/// A TCP header is the outermost one that has a checksum, and its bytes say whether that is open. So nobody need ask the
/// kernel, whose answer costs as much as all the rest.
#[inline(always)]
fn describe_tcp<R: PacketReader + Offloads + ?Sized>(
    packet: &R,
    parsed: &Parsed,
    len: u32,
) -> Option<(VnetHeader, Unfinished)> {
    let gso_size = packet.gso_size();
    let open = holds_pseudo_sum(packet, parsed, len, TCP_CSUM_OFFSET);
    if gso_size == 0 {
        let vnet = if open {
            open_checksum(parsed, TCP_CSUM_OFFSET)
        } else {
            VnetHeader::default()
        };
        return Some((vnet, Unfinished::default()));
    }
    let mut vnet = open_checksum(parsed, TCP_CSUM_OFFSET);
    vnet.gso_type = if parsed.key.family == FAMILY_V4 {
        VnetHeader::GSO_TCPV4
    } else {
        VnetHeader::GSO_TCPV6
    };
    if parsed.tcp_flags & TCP_CWR != 0 {
        vnet.gso_type |= VnetHeader::GSO_ECN;
    }
    Some(super_packet(vnet, parsed, len, gso_size, open))
}

#[inline(always)]
fn describe_other<R: PacketReader + Offloads + ?Sized>(
    packet: &R,
    parsed: &Parsed,
    len: u32,
) -> Option<(VnetHeader, Unfinished)> {
    let is_udp = parsed.key.protocol == protocol::UDP;
    let gso_size = packet.gso_size();
    let checksum = packet.checksum();
    let is_own =
        |start, offset| is_udp && start == parsed.transport_offset && offset == u32::from(UDP_CSUM_OFFSET);
    if gso_size == 0 {
        return match checksum {
            Checksum::Complete => Some((VnetHeader::default(), Unfinished::default())),
            Checksum::Open { start, offset } if is_own(start, offset) => {
                Some((open_checksum(parsed, UDP_CSUM_OFFSET), Unfinished::default()))
            }
            Checksum::Open { start, offset } if start + offset + 2 <= len => {
                let vnet = VnetHeader {
                    flags: VnetHeader::NEEDS_CSUM,
                    csum_start: start as u16,
                    csum_offset: offset as u16,
                    ..VnetHeader::default()
                };
                Some((vnet, Unfinished::new(Work::CompleteChecksum, 0)))
            }
            Checksum::Unknown if is_udp && holds_pseudo_sum(packet, parsed, len, UDP_CSUM_OFFSET) => {
                Some((open_checksum(parsed, UDP_CSUM_OFFSET), Unfinished::default()))
            }
            Checksum::Open { .. } | Checksum::OpenOther | Checksum::Unknown => None,
        };
    }
    let kinds = packet.gso_type()? & !gso_type::DETAILS;
    if is_udp && kinds & !gso_type::FRAGLIST == gso_type::UDP_L4 {
        let mut vnet = open_checksum(parsed, UDP_CSUM_OFFSET);
        vnet.gso_type = VnetHeader::GSO_UDP_L4;
        let open = match checksum {
            Checksum::Open { start, offset } => is_own(start, offset) && kinds == gso_type::UDP_L4,
            _ => false,
        };
        return Some(super_packet(vnet, parsed, len, gso_size, open));
    }
    describe_tunnel(packet, parsed, len, kinds, checksum)
}

/// Describes a super-packet inside of a tunnel's headers. A worker cuts it.
#[inline(always)]
fn describe_tunnel<R: PacketReader + Offloads + ?Sized>(
    packet: &R,
    parsed: &Parsed,
    len: u32,
    kinds: u32,
    checksum: Checksum,
) -> Option<(VnetHeader, Unfinished)> {
    let is_tunnel = matches!(
        parsed.key.protocol,
        protocol::UDP | protocol::GRE | protocol::IPIP | protocol::IPV6
    );
    let (gso_type, csum_offset) = match kinds & !gso_type::TUNNELS {
        gso_type::TCPV4 => (VnetHeader::GSO_TCPV4, TCP_CSUM_OFFSET),
        gso_type::TCPV6 => (VnetHeader::GSO_TCPV6, TCP_CSUM_OFFSET),
        gso_type::UDP_L4 => (VnetHeader::GSO_UDP_L4, UDP_CSUM_OFFSET),
        _ => return None,
    };
    let Checksum::Open { start, offset } = checksum else {
        return None;
    };
    if !is_tunnel || offset != u32::from(csum_offset) || start + offset + 2 > len {
        return None;
    }
    let inner = match packet.inner_network_offset() {
        Some(inner) if parsed.transport_offset <= inner && inner < start => inner as u16,
        // Not a tunnel of this kernel's own; the worker finds it.
        _ => 0,
    };
    let vnet = VnetHeader {
        flags: VnetHeader::NEEDS_CSUM,
        gso_type,
        hdr_len: 0,
        gso_size: packet.gso_size() as u16,
        csum_start: start as u16,
        csum_offset,
        num_buffers: 0,
    };
    Some((vnet, Unfinished::new(Work::Segment, inner)))
}

/// Completes the description of a super-packet without a tunnel.
#[inline(always)]
fn super_packet(
    mut vnet: VnetHeader,
    parsed: &Parsed,
    len: u32,
    gso_size: u32,
    open: bool,
) -> (VnetHeader, Unfinished) {
    let header_len = parsed.transport_offset + parsed.transport_len;
    vnet.gso_size = gso_size as u16;
    vnet.hdr_len = header_len as u16;
    let is_tcp = parsed.key.protocol == protocol::TCP;
    let work = if !is_sane_super_packet(is_tcp, len, header_len, gso_size) {
        Work::Segment
    } else if !open {
        Work::ReopenChecksum
    } else {
        Work::Nothing
    };
    (vnet, Unfinished::new(work, 0))
}

#[inline(always)]
fn open_checksum(parsed: &Parsed, offset: u16) -> VnetHeader {
    VnetHeader {
        flags: VnetHeader::NEEDS_CSUM,
        csum_start: parsed.transport_offset as u16,
        csum_offset: offset,
        ..VnetHeader::default()
    }
}

/// Says whether the checksum field holds the pseudo-header's sum.
#[inline(always)]
fn holds_pseudo_sum<R: PacketReader + ?Sized>(packet: &R, parsed: &Parsed, len: u32, offset: u16) -> bool {
    // The parser has read the whole transport header, so the field is there.
    packet
        .load::<2>(parsed.transport_offset + u32::from(offset))
        .is_some_and(|field| u16::from_be_bytes(field) == pseudo_header_sum(parsed, len))
}

/// Folded sum of the pseudo-header (RFC 9293, RFC 8200), not complemented, as Linux stores it.
#[inline(always)]
fn pseudo_header_sum(parsed: &Parsed, len: u32) -> u16 {
    let key = &parsed.key;
    let mut sum = u32::from(key.protocol) + (len - parsed.transport_offset);
    // The mapped prefix of an IPv4 address is not part of the header.
    let mut i = if key.family == FAMILY_V4 { 12 } else { 0 };
    while i < 16 {
        sum += u32::from(u16::from_be_bytes([key.source[i], key.source[i + 1]]));
        sum += u32::from(u16::from_be_bytes([key.destination[i], key.destination[i + 1]]));
        i += 2;
    }
    sum = (sum & 0xffff) + (sum >> 16);
    sum = (sum & 0xffff) + (sum >> 16);
    sum as u16
}
