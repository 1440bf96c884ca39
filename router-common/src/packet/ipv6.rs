//! IPv6 (RFC 8200), with extension headers.

use super::{PacketReader, Parsed, protocol, transport};
use crate::flow_key::FAMILY_V6;
use crate::reason::Reason;

const HEADER_LEN: u32 = 40;
/// More than any sender makes; the verifier wants a bound, and so does a hostile packet.
const MAX_EXTENSION_HEADERS: u32 = 8;
/// In the fragment header.
const MORE_FRAGMENTS: u16 = 1;
const FRAGMENT_OFFSET: u16 = 0xfff8;

#[inline(always)]
pub(super) fn parse<R: PacketReader + ?Sized>(
    reader: &R,
    len: u32,
    parsed: &mut Parsed,
) -> Result<(), Reason> {
    let header = reader.load::<8>(0).ok_or(Reason::Truncated)?;
    parsed.key.source = reader.load::<16>(8).ok_or(Reason::Truncated)?;
    parsed.key.destination = reader.load::<16>(24).ok_or(Reason::Truncated)?;
    let payload_len = u32::from(u16::from_be_bytes([header[4], header[5]]));
    if payload_len != 0 && payload_len + HEADER_LEN > len {
        return Err(Reason::BadTotalLength);
    }
    parsed.key.family = FAMILY_V6;
    if payload_len != 0 {
        parsed.total_len = payload_len + HEADER_LEN;
    }
    let (mut next, mut offset) = (header[6], HEADER_LEN);
    let mut n_headers = 0;
    while is_extension(next) {
        if n_headers == MAX_EXTENSION_HEADERS {
            return Err(Reason::TooManyHeaders);
        }
        n_headers += 1;
        let Some([after, size, high, low]) = reader.load::<4>(offset) else {
            // A fragment may end anywhere behind its own header.
            if parsed.fragment {
                break;
            }
            return Err(Reason::Truncated);
        };
        if next == protocol::FRAGMENT {
            // An atomic fragment (RFC 6946) is a whole packet.
            let piece = u16::from_be_bytes([high, low]) & (MORE_FRAGMENTS | FRAGMENT_OFFSET);
            if piece != 0 {
                let id = reader.load::<4>(offset + 4).ok_or(Reason::Truncated)?;
                parsed.fragment = true;
                parsed.first_fragment = piece == MORE_FRAGMENTS;
                parsed.fragment_id = u32::from_be_bytes(id);
            }
        }
        // AH counts in words less two, the others in 8 bytes less one.
        offset += match next {
            protocol::FRAGMENT => 8,
            protocol::AH => (u32::from(size) + 2) * 4,
            _ => (u32::from(size) + 1) * 8,
        };
        next = after;
        if parsed.fragment && !parsed.first_fragment {
            break;
        }
        if offset > len && !parsed.fragment {
            return Err(Reason::Truncated);
        }
    }
    parsed.key.protocol = next;
    parsed.transport_offset = offset;
    if !parsed.fragment {
        transport::parse(reader, len, parsed)?;
    } else if parsed.first_fragment {
        transport::parse_ports(reader, len, parsed);
    }
    Ok(())
}

#[inline(always)]
fn is_extension(next: u8) -> bool {
    matches!(
        next,
        protocol::HOP_BY_HOP
            | protocol::ROUTING
            | protocol::FRAGMENT
            | protocol::AH
            | protocol::DESTINATION_OPTIONS
    )
}
