//! The offload header: what the sender's kernel left undone, for the receiver's to do.

use router_common::flow_key::FAMILY_V4;
use router_common::frame::VnetHeader;
use router_common::packet::{Parsed, protocol};

use crate::packet::Packet;

const TCP_CSUM_OFFSET: u32 = 16;
const UDP_CSUM_OFFSET: u32 = 6;
const TCP_CWR: u8 = 0x80;

/// Describes the packet's open checksum and segmentation.
#[inline(always)]
pub(crate) fn vnet_header(packet: &impl Packet, parsed: &Parsed, len: u32) -> VnetHeader {
    let mut vnet = VnetHeader::default();
    if parsed.fragment || parsed.transport_len == 0 {
        return vnet;
    }
    let tcp = parsed.key.protocol == protocol::TCP;
    let csum_offset = if tcp { TCP_CSUM_OFFSET } else { UDP_CSUM_OFFSET };
    let gso_size = packet.gso_size();
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
    // 0 where there is none: that is never the sum, and the verifier wants a value on every path.
    let checksum = packet
        .load::<2>(parsed.transport_offset + csum_offset)
        .unwrap_or_default();
    // Nothing in the context says that a checksum is open, but an open one is exactly this sum; should a finished one
    // be equal by accident, finishing it again gives the same packet. A super-packet's is always open.
    if gso_size != 0 || checksum == pseudo_header_sum(parsed, len).to_be_bytes() {
        vnet.flags = VnetHeader::NEEDS_CSUM;
        vnet.csum_start = parsed.transport_offset as u16;
        vnet.csum_offset = csum_offset as u16;
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
