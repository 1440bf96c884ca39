//! A super-packet: consecutive segments of one flow as one packet.

use std::io::IoSlice;

use router_common::flow_key::FlowKey;
use router_common::frame::{MAX_PACKET_LEN, VnetHeader};

use super::packet::{CoalescedPacket, emit_single};
use super::segment::{PSH, Segment};
use crate::checksum::Sum;

/// Most frames of one super-packet (kernel: `UDP_MAX_SEGMENTS` before Linux 6.9); more would save little.
pub(super) const MAX_SEGMENTS: usize = 64;

/// Longest headers of a super-packet: IPv6 with the longest TCP header.
const MAX_HEADER_LEN: usize = 100;

/// The headers of the first segment and the payload of every segment; only the last segment may be shorter than the
/// first.
#[derive(Debug)]
pub(super) struct SuperPacket<'a> {
    first: Segment<'a>,
    payloads: [&'a [u8]; MAX_SEGMENTS],
    n_segments: usize,
    payload_len: usize,
    wire_len: usize,
    ends_with_psh: bool,
}

impl<'a> SuperPacket<'a> {
    pub(super) fn new(first: Segment<'a>) -> Self {
        let mut payloads: [&[u8]; MAX_SEGMENTS] = [&[]; MAX_SEGMENTS];
        payloads[0] = first.payload();
        Self {
            first,
            payloads,
            n_segments: 1,
            payload_len: payloads[0].len(),
            wire_len: first.frame.wire_len(),
            ends_with_psh: false,
        }
    }

    /// Adds a segment of the same flow, if segmentation of the packet gives all its segments back. Says whether it did.
    pub(super) fn append(&mut self, next: Segment<'a>) -> bool {
        let payload = next.payload();
        let fits = !self.is_complete()
            && payload.len() <= self.segment_len()
            && self.first.header_len + self.payload_len + payload.len() <= MAX_PACKET_LEN
            && self
                .first
                .precedes(&next, self.n_segments as u16, self.payload_len as u32)
            && (self.n_segments > 1 || self.first.is_sound())
            && next.is_sound();
        if fits {
            self.payloads[self.n_segments] = payload;
            self.n_segments += 1;
            self.payload_len += payload.len();
            self.wire_len += next.frame.wire_len();
            self.ends_with_psh = next.has_psh();
        }
        fits
    }

    /// Says whether no further segment may follow.
    pub(super) fn is_complete(&self) -> bool {
        self.ends_with_psh
            || self.n_segments == MAX_SEGMENTS
            || self.payload_len < self.n_segments * self.segment_len()
    }

    fn segment_len(&self) -> usize {
        self.payloads[0].len()
    }

    /// Gives the packet to `sink`, and a single segment as it came.
    pub(super) fn give(&self, flow: &FlowKey, sink: &mut impl FnMut(CoalescedPacket<'_>)) {
        if self.n_segments == 1 {
            return emit_single(self.first.frame, flow, sink);
        }
        let mut headers = [0; VnetHeader::LEN + MAX_HEADER_LEN];
        let headers = &mut headers[..VnetHeader::LEN + self.first.header_len];
        self.write_headers(headers);
        let mut parts = [IoSlice::new(&[]); 1 + MAX_SEGMENTS];
        parts[0] = IoSlice::new(headers);
        for (part, payload) in parts[1..].iter_mut().zip(&self.payloads[..self.n_segments]) {
            *part = IoSlice::new(payload);
        }
        sink(CoalescedPacket {
            parts: &parts[..1 + self.n_segments],
            flow,
            n_frames: self.n_segments as u64,
            wire_len: self.wire_len as u64,
        });
    }

    fn write_headers(&self, headers: &mut [u8]) {
        let (first, transport_start) = (&self.first, self.first.transport);
        let (vnet, headers) = headers.split_at_mut(VnetHeader::LEN);
        vnet.copy_from_slice(bytemuck::bytes_of(&self.vnet()));
        headers.copy_from_slice(first.headers());
        let (ip, transport) = headers.split_at_mut(transport_start);

        // Bounded by `MAX_PACKET_LEN`.
        let transport_len = (transport.len() + self.payload_len) as u16;
        if first.is_v4 {
            let total_len = transport_start as u16 + transport_len;
            ip[2..4].copy_from_slice(&total_len.to_be_bytes());
            ip[10..12].fill(0);
            let checksum = Sum::default().add_bytes(ip).finish();
            ip[10..12].copy_from_slice(&checksum);
        } else {
            ip[4..6].copy_from_slice(&transport_len.to_be_bytes());
        }
        if !first.is_tcp {
            transport[4..6].copy_from_slice(&transport_len.to_be_bytes());
        } else if self.ends_with_psh {
            transport[13] |= PSH;
        }
        let at = first.checksum_offset();
        transport[at..at + 2].copy_from_slice(&first.pseudo_sum(transport_len).fold());
    }

    fn vnet(&self) -> VnetHeader {
        let first = &self.first;
        VnetHeader {
            flags: VnetHeader::NEEDS_CSUM,
            gso_type: match (first.is_tcp, first.is_v4) {
                (true, true) => VnetHeader::GSO_TCPV4,
                (true, false) => VnetHeader::GSO_TCPV6,
                (false, _) => VnetHeader::GSO_UDP_L4,
            },
            hdr_len: first.header_len as u16,
            gso_size: self.segment_len() as u16,
            csum_start: first.transport as u16,
            csum_offset: first.checksum_offset() as u16,
            num_buffers: 0,
        }
    }
}
