//! IPv4 (RFC 791), with options.

use super::transport;
use super::{PacketReader, Parsed};
use crate::flow_key::FAMILY_V4;
use crate::reason::Reason;

const MIN_HEADER_LEN: u32 = 20;
const MORE_FRAGMENTS: u16 = 0x2000;
const FRAGMENT_OFFSET: u16 = 0x1fff;

/// Makes zeros an IPv4-mapped IPv6 address. The zeros are left as they are: the programs have to call for many at once.
#[inline(always)]
fn map(zeros: &mut [u8; 16], [a, b, c, d]: [u8; 4]) {
    zeros[10] = 0xff;
    zeros[11] = 0xff;
    zeros[12] = a;
    zeros[13] = b;
    zeros[14] = c;
    zeros[15] = d;
}

#[inline(always)]
pub(super) fn parse<R: PacketReader + ?Sized>(
    reader: &R,
    len: u32,
    parsed: &mut Parsed,
) -> Result<(), Reason> {
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
    let [.., s0, s1, s2, s3, d0, d1, d2, d3] = header;
    map(&mut parsed.key.source, [s0, s1, s2, s3]);
    map(&mut parsed.key.destination, [d0, d1, d2, d3]);
    parsed.key.protocol = header[9];
    parsed.key.family = FAMILY_V4;
    parsed.total_len = total_len;
    parsed.transport_offset = header_len;
    parsed.fragment = fragment;
    parsed.first_fragment = piece == MORE_FRAGMENTS;
    if fragment {
        parsed.fragment_id = u16::from_be_bytes([header[4], header[5]]).into();
        if parsed.first_fragment {
            transport::parse_ports(reader, len, parsed);
        }
    } else {
        transport::parse(reader, len, parsed)?;
    }
    Ok(())
}
