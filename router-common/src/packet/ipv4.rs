//! IPv4 (RFC 791), with options.

use super::transport;
use super::{PacketReader, Parsed};
use crate::flow_key::{FAMILY_V4, FlowKey};
use crate::reason::Reason;

const MIN_HEADER_LEN: u32 = 20;
const MORE_FRAGMENTS: u16 = 0x2000;
const FRAGMENT_OFFSET: u16 = 0x1fff;

/// An IPv4 address as an IPv4-mapped IPv6 address.
#[inline(always)]
pub(super) fn mapped([a, b, c, d]: [u8; 4]) -> [u8; 16] {
    [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, a, b, c, d]
}

#[inline(always)]
pub(super) fn parse<R: PacketReader + ?Sized>(reader: &R, len: u32) -> Result<Parsed, Reason> {
    let header = reader.load::<20>(0).ok_or(Reason::Truncated)?;
    let header_len = u32::from(header[0] & 0x0f) * 4;
    let total_len = u32::from(u16::from_be_bytes([header[2], header[3]]));
    if header_len < MIN_HEADER_LEN || header_len > len {
        return Err(Reason::BadHeaderLength);
    }
    // A super-packet may leave the field 0 or too small to hold its length; the device length counts then.
    if total_len > len || (total_len != 0 && total_len < header_len) {
        return Err(Reason::BadTotalLength);
    }
    let piece = u16::from_be_bytes([header[6], header[7]]) & (MORE_FRAGMENTS | FRAGMENT_OFFSET);
    let fragment = piece != 0;
    let protocol = header[9];
    let mut parsed = Parsed {
        key: FlowKey {
            source: mapped([header[12], header[13], header[14], header[15]]),
            destination: mapped([header[16], header[17], header[18], header[19]]),
            protocol,
            family: FAMILY_V4,
            ..FlowKey::default()
        },
        total_len,
        transport_offset: header_len,
        fragment,
        first_fragment: piece == MORE_FRAGMENTS,
        ..Parsed::default()
    };
    if fragment {
        parsed.fragment_id = u16::from_be_bytes([header[4], header[5]]).into();
        if parsed.first_fragment {
            transport::parse_ports(reader, len, &mut parsed);
        }
    } else {
        transport::parse(reader, len, &mut parsed)?;
    }
    Ok(parsed)
}
