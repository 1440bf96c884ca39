//! The offload header: what the sender's kernel left undone, for the receiver's to do.

use crate::flow_key::FAMILY_V4;
use crate::frame::VnetHeader;
use crate::packet::{PacketReader, Parsed, protocol};

/// Where the checksum stands in a TCP header.
pub const TCP_CSUM_OFFSET: u16 = 16;
/// Where the checksum stands in a UDP header.
pub const UDP_CSUM_OFFSET: u16 = 6;
const TCP_CWR: u8 = 0x80;

/// Describes the open checksum and segmentation of a packet of `len` bytes, whose segments have `gso_size` bytes of
/// payload if it is a super-packet, and 0 otherwise.
#[inline(always)]
pub fn vnet_header<R: PacketReader + ?Sized>(
    packet: &R,
    parsed: &Parsed,
    len: u32,
    gso_size: u32,
) -> VnetHeader {
    let mut vnet = VnetHeader::default();
    if parsed.fragment || parsed.transport_len == 0 {
        return vnet;
    }
    let tcp = parsed.key.protocol == protocol::TCP;
    let csum_offset = if tcp { TCP_CSUM_OFFSET } else { UDP_CSUM_OFFSET };
    if gso_size != 0 {
        vnet.gso_type = if tcp {
            let ecn = if parsed.tcp_flags & TCP_CWR != 0 {
                VnetHeader::GSO_ECN
            } else {
                0
            };
            ecn | if parsed.key.family == FAMILY_V4 {
                VnetHeader::GSO_TCPV4
            } else {
                VnetHeader::GSO_TCPV6
            }
        } else {
            VnetHeader::GSO_UDP_L4
        };
        vnet.gso_size = gso_size as u16;
        vnet.hdr_len = (parsed.transport_offset + parsed.transport_len) as u16;
    }
    // The parser has read the whole transport header, so the field is there; should it not be, nothing is open. A value
    // that stands in for it here would leave the verifier a path on which a register has none.
    let Some(checksum) = packet.load::<2>(parsed.transport_offset + u32::from(csum_offset)) else {
        return vnet;
    };
    // Nothing in the context says that a checksum is open, but an open one is exactly this sum; should a finished one
    // be equal by accident, finishing it again gives the same packet. A super-packet's is always open.
    if gso_size != 0 || u16::from_be_bytes(checksum) == pseudo_header_sum(parsed, len) {
        vnet.flags = VnetHeader::NEEDS_CSUM;
        vnet.csum_start = parsed.transport_offset as u16;
        vnet.csum_offset = csum_offset;
    }
    vnet
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::parse;

    /// A TCP packet from 10.0.0.1 to 10.0.0.2 with this checksum field and 4 bytes of payload.
    fn tcp(checksum: u16, flags: u8) -> Vec<u8> {
        let mut packet = vec![0x45, 0, 0, 44, 0, 0, 0, 0, 64, 6, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2];
        packet.extend([0, 80, 1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0x50, flags, 0, 0]);
        packet.extend(checksum.to_be_bytes());
        packet.extend([0, 0, 1, 2, 3, 4]);
        packet
    }

    fn vnet(packet: &[u8], gso_size: u32) -> VnetHeader {
        let len = packet.len() as u32;
        vnet_header(packet, &parse(packet, len).unwrap(), len, gso_size)
    }

    /// Addresses, protocol and the 24 bytes of header and payload.
    const PSEUDO_HEADER_SUM: u16 = 0x0a00 + 0x0001 + 0x0a00 + 0x0002 + 6 + 24;

    #[test]
    fn a_checksum_that_is_the_pseudo_headers_sum_is_open() {
        let open = vnet(&tcp(PSEUDO_HEADER_SUM, 0), 0);
        assert_eq!(
            (open.flags, open.csum_start, open.csum_offset),
            (VnetHeader::NEEDS_CSUM, 20, 16)
        );
        assert_eq!(
            (open.gso_type, open.gso_size, open.hdr_len),
            (VnetHeader::GSO_NONE, 0, 0)
        );

        assert_eq!(vnet(&tcp(PSEUDO_HEADER_SUM + 1, 0), 0), VnetHeader::default());
    }

    #[test]
    fn a_super_packet_has_an_open_checksum_and_says_how_it_is_cut() {
        let header = vnet(&tcp(0, TCP_CWR), 2);
        assert_eq!(
            header,
            VnetHeader {
                flags: VnetHeader::NEEDS_CSUM,
                gso_type: VnetHeader::GSO_TCPV4 | VnetHeader::GSO_ECN,
                hdr_len: 40,
                gso_size: 2,
                csum_start: 20,
                csum_offset: 16,
                num_buffers: 0,
            }
        );
    }

    #[test]
    fn udp_over_ipv6_has_its_checksum_in_another_place() {
        let mut packet = vec![0x60, 0, 0, 0, 0, 12, 17, 64];
        packet.extend([0xfd; 16]);
        packet.extend([0xfe; 16]);
        packet.extend([0, 1, 0, 2, 0, 12, 0, 0, 1, 2, 3, 4]);
        let sum = 8 * 0xfdfd_u32 + 8 * 0xfefe + 17 + 12;
        let folded = (sum & 0xffff) + (sum >> 16);
        packet[46..48].copy_from_slice(&(folded as u16).to_be_bytes());

        let open = vnet(&packet, 0);
        assert_eq!(
            (open.flags, open.csum_start, open.csum_offset),
            (VnetHeader::NEEDS_CSUM, 40, 6)
        );
        assert_eq!(vnet(&packet, 4).gso_type, VnetHeader::GSO_UDP_L4);
    }

    #[test]
    fn a_fragment_and_other_protocols_have_nothing_open() {
        let mut fragment = tcp(PSEUDO_HEADER_SUM, 0);
        fragment[6] = 0x20;
        assert_eq!(vnet(&fragment, 0), VnetHeader::default());
        let mut sctp = tcp(PSEUDO_HEADER_SUM, 0);
        sctp[9] = protocol::SCTP;
        assert_eq!(vnet(&sctp, 0), VnetHeader::default());
    }
}
