//! One frame as a segment of a super-packet: what it must be like, and what it must have in common with the others.

use router_common::flow_key::FAMILY_V4;
use router_common::frame::VnetHeader;
use router_common::offload::{TCP_CSUM_OFFSET, UDP_CSUM_OFFSET};
use router_common::packet::{Parsed, protocol};

use crate::admission::MIN_TCP_SEGMENT;
use crate::checksum::Sum;
use crate::framing::Frame;

const V4_LEN: usize = 20;
const V6_LEN: usize = 40;
const DONT_FRAGMENT: u8 = 0x40;
const ACK: u8 = 0x10;
/// UDP ports of tunnels: those of VXLAN (IANA's and Linux's own) and of Geneve.
const TUNNEL_PORTS: [u16; 3] = [4789, 8472, 6081];
/// The TCP flag that the last segment of a super-packet alone may carry.
pub(super) const PSH: u8 = 0x08;

/// A whole TCP or UDP packet with payload, and nothing between its IP and its transport header.
#[derive(Clone, Copy, Debug)]
pub(super) struct Segment<'a> {
    pub(super) frame: Frame<'a>,
    pub(super) is_v4: bool,
    pub(super) is_tcp: bool,
    /// Where the transport header starts.
    pub(super) transport: usize,
    /// Length of the IP and the transport header together.
    pub(super) header_len: usize,
    tcp_flags: u8,
    /// A datagram of a tunnel that leaves the checksum to the packet inside.
    without_checksum: bool,
}

impl<'a> Segment<'a> {
    /// Returns `frame` as a segment, or `None` if it may never be merged.
    pub(super) fn new(frame: Frame<'a>, parsed: &Parsed) -> Option<Self> {
        let packet = frame.packet();
        let is_v4 = parsed.key.family == FAMILY_V4;
        let transport = parsed.transport_offset as usize;
        let header_len = transport + parsed.transport_len as usize;
        let plain = frame.vnet().gso_type == VnetHeader::GSO_NONE
            && !parsed.fragment
            && transport == if is_v4 { V4_LEN } else { V6_LEN }
            && header_len < packet.len();
        let is_tcp = parsed.key.protocol == protocol::TCP;
        let mut without_checksum = false;
        let fits = match parsed.key.protocol {
            protocol::TCP => parsed.tcp_flags & !PSH == ACK,
            protocol::UDP => {
                let [_, _, p0, p1, length @ .., c0, c1] = packet.get(transport..)?.first_chunk::<8>()?;
                without_checksum = [*c0, *c1] == [0; 2];
                usize::from(u16::from_be_bytes(*length)) == packet.len() - transport
                    && (!without_checksum || TUNNEL_PORTS.contains(&u16::from_be_bytes([*p0, *p1])))
            }
            _ => false,
        };
        (plain && fits).then_some(Self {
            frame,
            is_v4,
            is_tcp,
            transport,
            header_len,
            tcp_flags: parsed.tcp_flags,
            without_checksum,
        })
    }

    /// Says whether a super-packet may begin with this segment.
    pub(super) fn may_begin(&self) -> bool {
        !self.is_tcp || (!self.has_psh() && self.payload().len() >= MIN_TCP_SEGMENT)
    }

    pub(super) fn has_psh(&self) -> bool {
        self.tcp_flags & PSH != 0
    }

    pub(super) fn headers(&self) -> &'a [u8] {
        &self.frame.packet()[..self.header_len]
    }

    pub(super) fn payload(&self) -> &'a [u8] {
        &self.frame.packet()[self.header_len..]
    }

    /// Says whether `next`, of the same flow, has the headers that segmentation gives the `n`th segment after this one,
    /// behind `sent` bytes of payload.
    pub(super) fn precedes(&self, next: &Self, n: u16, sent: u32) -> bool {
        self.same_ip(next, n)
            && self.without_checksum == next.without_checksum
            && (!self.is_tcp || self.same_tcp(next, sent))
    }

    // Addresses, ports and protocol are equal, since the flow is the same.
    fn same_ip(&self, next: &Self, n: u16) -> bool {
        let (a, b) = (self.headers(), next.headers());
        if !self.is_v4 {
            return a[..4] == b[..4] && a[7] == b[7];
        }
        let id = |header: &[u8]| u16::from_be_bytes([header[4], header[5]]);
        a[..2] == b[..2]
            && a[6..9] == b[6..9]
            && (a[6] & DONT_FRAGMENT != 0 || id(b) == id(a).wrapping_add(n))
    }

    fn same_tcp(&self, next: &Self, sent: u32) -> bool {
        let (a, b) = (
            &self.headers()[self.transport..],
            &next.headers()[next.transport..],
        );
        let sequence = |header: &[u8]| u32::from_be_bytes([header[4], header[5], header[6], header[7]]);
        // The ranges are acknowledgement and lengths, window, urgent pointer and options.
        sequence(b) == sequence(a).wrapping_add(sent)
            && a[8..13] == b[8..13]
            && a[14..16] == b[14..16]
            && a[18..] == b[18..]
    }

    /// Says whether the segment's checksums are right, as those of a super-packet always are. One that is absent is not
    /// wrong: segmentation adds it.
    pub(super) fn is_sound(&self) -> bool {
        let packet = self.frame.packet();
        if self.is_v4 && !Sum::default().add_bytes(&packet[..V4_LEN]).is_right() {
            return false;
        }
        if self.without_checksum {
            return true;
        }
        let transport = &packet[self.transport..];
        let pseudo = self.pseudo_sum(transport.len() as u16);
        if self.frame.vnet().flags == VnetHeader::NEEDS_CSUM {
            let at = self.checksum_offset();
            pseudo.fold() == transport[at..at + 2]
        } else {
            pseudo.add_bytes(transport).is_right()
        }
    }

    /// Returns the offset of the checksum in the transport header.
    pub(super) fn checksum_offset(&self) -> usize {
        let offset = if self.is_tcp {
            TCP_CSUM_OFFSET
        } else {
            UDP_CSUM_OFFSET
        };
        offset.into()
    }

    /// Returns the sum of the pseudo-header for `len` bytes of transport header and payload (RFC 768, RFC 8200 8.1).
    pub(super) fn pseudo_sum(&self, len: u16) -> Sum {
        let packet = self.frame.packet();
        let (addresses, protocol) = if self.is_v4 {
            (&packet[12..V4_LEN], packet[9])
        } else {
            (&packet[8..V6_LEN], packet[6])
        };
        Sum::default()
            .add_bytes(addresses)
            .add_bytes(&[0, protocol])
            .add_bytes(&len.to_be_bytes())
    }
}
