//! Ethernet (IEEE 802.3) with up to two VLAN tags (IEEE 802.1Q, 802.1ad).

use super::PacketReader;
use crate::reason::Reason;

/// EtherType of IPv4.
pub const IPV4: u16 = 0x0800;
/// EtherType of IPv6.
pub const IPV6: u16 = 0x86dd;
/// EtherType of a customer tag.
pub const VLAN: u16 = 0x8100;
/// EtherType of a service tag, the outer one of two.
pub const QINQ: u16 = 0x88a8;

const HEADER_LEN: u32 = 14;
const TAG_LEN: u32 = 4;
const MAX_TAGS: u32 = 2;

/// What stands before the payload of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ethernet {
    /// Hardware address of the receiver.
    pub destination: [u8; 6],
    /// Type of the payload behind the tags; a third tag is payload, and a value below 0x600 is an IEEE 802.3 length.
    pub ether_type: u16,
    /// Where the payload starts.
    pub len: u32,
}

/// Parses the frame whose Ethernet header is at offset 0.
///
/// # Errors
/// [`Reason::Truncated`].
#[inline(always)]
pub fn parse<R: PacketReader + ?Sized>(reader: &R) -> Result<Ethernet, Reason> {
    let [d0, d1, d2, d3, d4, d5, _, _, _, _, _, _, t0, t1] = reader.load::<14>(0).ok_or(Reason::Truncated)?;
    let mut ether_type = u16::from_be_bytes([t0, t1]);
    let mut len = HEADER_LEN;
    let mut n_tags = 0;
    while n_tags < MAX_TAGS && matches!(ether_type, VLAN | QINQ) {
        let [_, _, t0, t1] = reader.load::<4>(len).ok_or(Reason::Truncated)?;
        ether_type = u16::from_be_bytes([t0, t1]);
        len += TAG_LEN;
        n_tags += 1;
    }
    Ok(Ethernet {
        destination: [d0, d1, d2, d3, d4, d5],
        ether_type,
        len,
    })
}
