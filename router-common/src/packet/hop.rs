//! What a router changes in a packet: one hop fewer to live.

use super::PacketReader;
use crate::flow_key::FAMILY_V4;
use crate::reason::Reason;

const V4_WITHOUT_OPTIONS: u8 = 0x45;
/// TTL, protocol and header checksum.
const V4_OFFSET: u32 = 8;
/// Payload length, next header and hop limit.
const V6_OFFSET: u32 = 4;
const HOP_BY_HOP: u8 = super::protocol::HOP_BY_HOP;

/// Four bytes of an IP header, as they are one hop later.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hop {
    /// Where they stand in the header.
    pub offset: u32,
    /// What they become.
    pub bytes: [u8; 4],
}

/// Says what becomes of the header of an IP packet of `family` when it is forwarded.
///
/// # Errors
/// [`Reason::PassedOptions`] and [`Reason::PassedTtl`]: more has to be done than a change of the header.
#[inline(always)]
pub fn next_hop<R: PacketReader + ?Sized>(reader: &R, family: u8) -> Result<Hop, Reason> {
    let [first] = reader.load::<1>(0).ok_or(Reason::Truncated)?;
    let offset = if family == FAMILY_V4 { V4_OFFSET } else { V6_OFFSET };
    let bytes = reader.load::<4>(offset).ok_or(Reason::Truncated)?;
    if family == FAMILY_V4 {
        let [ttl, protocol, c0, c1] = bytes;
        if first != V4_WITHOUT_OPTIONS {
            return Err(Reason::PassedOptions);
        }
        if ttl <= 1 {
            return Err(Reason::PassedTtl);
        }
        let [c0, c1] = update_checksum([c0, c1], [ttl, protocol], [ttl - 1, protocol]);
        Ok(Hop {
            offset,
            bytes: [ttl - 1, protocol, c0, c1],
        })
    } else {
        let [l0, l1, next, limit] = bytes;
        if next == HOP_BY_HOP {
            return Err(Reason::PassedOptions);
        }
        if limit <= 1 {
            return Err(Reason::PassedTtl);
        }
        Ok(Hop {
            offset,
            bytes: [l0, l1, next, limit - 1],
        })
    }
}

/// The checksum after one word under it changed (RFC 1624, equation 3); a wrong one stays wrong.
#[inline(always)]
pub(super) fn update_checksum(checksum: [u8; 2], before: [u8; 2], after: [u8; 2]) -> [u8; 2] {
    let word = |bytes| u32::from(u16::from_be_bytes(bytes));
    let mut sum = (word(checksum) ^ 0xffff) + (word(before) ^ 0xffff) + word(after);
    sum = (sum & 0xffff) + (sum >> 16);
    sum = (sum & 0xffff) + (sum >> 16);
    (sum as u16 ^ 0xffff).to_be_bytes()
}
