//! The largest segment that a TCP connection may use, lowered to what the tunnel carries (RFC 879, RFC 6691).
//!
//! A host behind a router offers what its own network carries. Where nobody is told of packets that are too big, because
//! ICMP is dropped, only a smaller offer helps.

use super::hop::update_checksum;
use super::{PacketReader, Parsed, protocol};
use crate::flow_key::FAMILY_V4;

const SYN: u8 = 0x02;
const TCP_HEADER_LEN: u32 = 20;
const CHECKSUM_OFFSET: u32 = 16;
const END: u8 = 0;
const NO_OPERATION: u8 = 1;
const MAX_SEGMENT_SIZE: u8 = 2;
const MAX_SEGMENT_SIZE_LEN: u8 = 4;
/// Bytes of options at most, each perhaps an option.
const MAX_OPTIONS: u32 = 40;

/// What to write into a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Clamp {
    /// Where the offer stands, from the IP header on.
    pub size_offset: u32,
    /// What it becomes.
    pub size: [u8; 2],
    /// Where the checksum stands.
    pub checksum_offset: u32,
    /// What it becomes; an open one stays as it is.
    pub checksum: [u8; 2],
}

/// Returns how the offer of a packet with SYN becomes one that a path of `mtu` bytes carries; `None` if it is no more than
/// that, or there is none. `is_open` says that the checksum field holds the pseudo-header's sum only.
#[inline(always)]
pub fn clamp<R: PacketReader + ?Sized>(
    reader: &R,
    parsed: &Parsed,
    mtu: u32,
    is_open: bool,
) -> Option<Clamp> {
    if parsed.key.protocol != protocol::TCP
        || parsed.tcp_flags & SYN == 0
        || parsed.transport_len <= TCP_HEADER_LEN
    {
        return None;
    }
    let ip_header = if parsed.key.family == FAMILY_V4 { 20 } else { 40 };
    let most = mtu.checked_sub(ip_header + TCP_HEADER_LEN)?;
    let at = find(reader, parsed)?;
    let before = reader.load::<2>(parsed.transport_offset + at)?;
    if u32::from(u16::from_be_bytes(before)) <= most {
        return None;
    }
    let size = (most as u16).to_be_bytes();
    let checksum_offset = parsed.transport_offset + CHECKSUM_OFFSET;
    let mut checksum = reader.load::<2>(checksum_offset)?;
    if !is_open {
        checksum = if at & 1 == 0 {
            update_checksum(checksum, before, size)
        } else {
            // Its bytes are of two words, each at the other place.
            update_checksum(checksum, [before[1], before[0]], [size[1], size[0]])
        };
    }
    Some(Clamp {
        size_offset: parsed.transport_offset + at,
        size,
        checksum_offset,
        checksum,
    })
}

/// Returns where the value of the option stands in the TCP header; `None` also if the options before it make no sense.
#[inline(always)]
fn find<R: PacketReader + ?Sized>(reader: &R, parsed: &Parsed) -> Option<u32> {
    let mut at = TCP_HEADER_LEN;
    let mut n_options = 0;
    while n_options < MAX_OPTIONS {
        n_options += 1;
        // An option of more than one byte has its length behind its kind.
        if at + 1 >= parsed.transport_len {
            return None;
        }
        let [kind, len] = reader.load::<2>(parsed.transport_offset + at)?;
        if kind == END {
            return None;
        }
        if kind == NO_OPERATION {
            at += 1;
            continue;
        }
        if len < 2 || at + u32::from(len) > parsed.transport_len {
            return None;
        }
        if kind == MAX_SEGMENT_SIZE {
            return (len == MAX_SEGMENT_SIZE_LEN).then_some(at + 2);
        }
        at += u32::from(len);
    }
    None
}
