//! What a kernel leaves to a device that a tunnel has none of: checksums and segmentation, done in software.
//!
//! A frame says to the peer's kernel what is undone of a plain TCP or UDP packet. Of any other packet, such as one inside
//! of VXLAN, everything is done here, so the packet arrives as the one that a network card would have sent.

use router_common::flow_key::FAMILY_V4;
use router_common::frame::{FrameHeader, VnetHeader};
use router_common::offload::{TCP_CSUM_OFFSET, UDP_CSUM_OFFSET, is_sane_super_packet};
use router_common::packet::{Parsed, parse, protocol};
use router_common::record::{Unfinished, Work};
use thiserror::Error;

use crate::checksum::{Sum, finish_partial};

const V4_LEN: usize = 20;
const V6_LEN: usize = 40;
const FIN: u8 = 0x01;
const PSH: u8 = 0x08;
const CWR: u8 = 0x80;
/// The bit of a GRE header that says that there is a checksum.
const GRE_CHECKSUM: u8 = 0x80;
/// Most headers with a length or a checksum: two of IP, that of a tunnel, that of the transport.
const MAX_LAYERS: usize = 4;

/// The packet's headers are not what its description says.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[error("the packet's headers do not fit the description of its offloads")]
pub struct Unfinishable;

/// Returns what is undone of a packet with this offload header, as a kernel gave both, that a peer would not admit.
pub fn unfinished(vnet: &VnetHeader, parsed: &Parsed, len: usize) -> Unfinished {
    let is_tcp = parsed.key.protocol == protocol::TCP;
    let own_offset = match parsed.key.protocol {
        protocol::TCP => Some(TCP_CSUM_OFFSET),
        protocol::UDP => Some(UDP_CSUM_OFFSET),
        _ => None,
    };
    let is_own =
        u32::from(vnet.csum_start) == parsed.transport_offset && own_offset == Some(vnet.csum_offset);
    let work = if vnet.gso_type != VnetHeader::GSO_NONE {
        let header_len = parsed.transport_offset + parsed.transport_len;
        if is_own && is_sane_super_packet(is_tcp, len as u32, header_len, vnet.gso_size.into()) {
            Work::Nothing
        } else {
            Work::Segment
        }
    } else if vnet.flags & VnetHeader::NEEDS_CSUM != 0 && !is_own {
        Work::CompleteChecksum
    } else {
        Work::Nothing
    };
    Unfinished::new(work, 0)
}

/// Finishes packets, each in memory that is used again for the next one.
#[derive(Debug, Default)]
pub struct SoftwareOffload {
    frame: Vec<u8>,
}

impl SoftwareOffload {
    /// Does what is `unfinished` of the packet in `frame`, and gives `sink` the frames that peers admit.
    ///
    /// # Errors
    /// Returns [`Unfinishable`] if the packet has no such headers; `sink` got nothing then.
    pub fn finish(
        &mut self,
        unfinished: Unfinished,
        frame: &[u8],
        mut sink: impl FnMut(&[u8]),
    ) -> Result<(), Unfinishable> {
        let (header, packet) = frame.split_at_checked(FrameHeader::LEN).ok_or(Unfinishable)?;
        let header: FrameHeader = bytemuck::pod_read_unaligned(header);
        match unfinished.work().ok_or(Unfinishable)? {
            Work::Nothing => sink(frame),
            Work::CompleteChecksum => {
                let (start, offset) = (header.vnet.csum_start.into(), header.vnet.csum_offset.into());
                let frame = self.begin(packet.len(), &VnetHeader::default());
                frame.extend_from_slice(packet);
                finish_partial(&mut frame[FrameHeader::LEN..], start, offset);
                sink(frame);
            }
            Work::ReopenChecksum => {
                let layers = Layers::of(packet, 0, &header.vnet)?;
                let frame = self.begin(packet.len(), &header.vnet);
                frame.extend_from_slice(packet);
                layers.open_checksum(&mut frame[FrameHeader::LEN..]);
                sink(frame);
            }
            Work::Segment => {
                return self.segment(&header.vnet, packet, unfinished.inner_network.into(), sink);
            }
        }
        Ok(())
    }

    /// Cuts a super-packet into the frames of its segments, whose checksums are complete, and gives them to `sink` in order;
    /// `inner_network` is where the IP header inside of a tunnel starts, or 0.
    ///
    /// # Errors
    /// Returns [`Unfinishable`] if the packet has no such headers; `sink` got nothing then.
    pub fn segment(
        &mut self,
        vnet: &VnetHeader,
        packet: &[u8],
        inner_network: usize,
        mut sink: impl FnMut(&[u8]),
    ) -> Result<(), Unfinishable> {
        let layers = Layers::of(packet, inner_network, vnet)?;
        let gso_size = usize::from(vnet.gso_size);
        if gso_size == 0 {
            return Err(Unfinishable);
        }
        let (headers, payload) = packet.split_at_checked(layers.header_len).ok_or(Unfinishable)?;
        let n_segments = payload.len().div_ceil(gso_size);
        for (i, piece) in payload.chunks(gso_size).enumerate() {
            let frame = self.begin(headers.len() + piece.len(), &VnetHeader::default());
            frame.extend_from_slice(headers);
            frame.extend_from_slice(piece);
            let place = Place {
                index: i,
                sent: i * gso_size,
                is_last: i + 1 == n_segments,
            };
            layers.fix(&mut frame[FrameHeader::LEN..], place);
            sink(frame);
        }
        Ok(())
    }

    fn begin(&mut self, len: usize, vnet: &VnetHeader) -> &mut Vec<u8> {
        let header = FrameHeader {
            len: len as u32,
            vnet: *vnet,
        };
        self.frame.clear();
        self.frame.extend_from_slice(bytemuck::bytes_of(&header));
        &mut self.frame
    }
}

/// Where a segment stands in its super-packet.
#[derive(Clone, Copy)]
struct Place {
    index: usize,
    /// Bytes of payload before it.
    sent: usize,
    is_last: bool,
}

/// A header that depends on what is behind it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Layer {
    Ipv4,
    Ipv6,
    Gre,
    Udp,
    Tcp,
}

/// The headers of a packet, from the outermost to that of the transport, each with its offset.
struct Layers {
    layers: [(Layer, usize); MAX_LAYERS],
    n: usize,
    /// Where the payload starts.
    header_len: usize,
}

impl Layers {
    /// Finds the headers of a packet; those of a tunnel reach to `inner_network`, or, if that is 0, to the IP header that
    /// ends where the checksum starts.
    fn of(packet: &[u8], inner_network: usize, vnet: &VnetHeader) -> Result<Self, Unfinishable> {
        let transport = usize::from(vnet.csum_start);
        let mut found = Self {
            layers: [(Layer::Ipv4, 0); MAX_LAYERS],
            n: 0,
            header_len: 0,
        };
        let mut parsed = found.add_ip(packet, 0)?;
        let behind = parsed.transport_offset as usize;
        let mut inner_network = inner_network;
        if inner_network == 0 && behind != transport {
            inner_network = network_before(packet, transport).ok_or(Unfinishable)?;
        }
        if inner_network != 0 {
            // What looks like an inner header may be an option of the outer one.
            if inner_network < behind {
                return Err(Unfinishable);
            }
            match parsed.key.protocol {
                protocol::UDP => found.add(Layer::Udp, behind),
                protocol::GRE => found.add(Layer::Gre, behind),
                protocol::IPIP | protocol::IPV6 if behind == inner_network => {}
                _ => return Err(Unfinishable),
            }
            parsed = found.add_ip(packet, inner_network)?;
        }
        if transport != inner_network + parsed.transport_offset as usize || parsed.transport_len == 0 {
            return Err(Unfinishable);
        }
        let layer = match (parsed.key.protocol, vnet.gso_type & !VnetHeader::GSO_ECN) {
            (protocol::TCP, VnetHeader::GSO_TCPV4 | VnetHeader::GSO_TCPV6) => Layer::Tcp,
            (protocol::UDP, VnetHeader::GSO_UDP_L4) => Layer::Udp,
            _ => return Err(Unfinishable),
        };
        found.add(layer, transport);
        found.header_len = transport + parsed.transport_len as usize;
        Ok(found)
    }

    fn add(&mut self, layer: Layer, offset: usize) {
        if let Some(place) = self.layers.get_mut(self.n) {
            *place = (layer, offset);
            self.n += 1;
        }
    }

    fn add_ip(&mut self, packet: &[u8], offset: usize) -> Result<Parsed, Unfinishable> {
        let packet = packet.get(offset..).ok_or(Unfinishable)?;
        let parsed = parse(packet, packet.len() as u32).map_err(|_reason| Unfinishable)?;
        let is_v4 = parsed.key.family == FAMILY_V4;
        self.add(if is_v4 { Layer::Ipv4 } else { Layer::Ipv6 }, offset);
        if parsed.fragment {
            Err(Unfinishable)
        } else {
            Ok(parsed)
        }
    }

    fn all(&self) -> &[(Layer, usize)] {
        &self.layers[..self.n]
    }

    /// Puts the sum of the pseudo-header into the checksum field of the transport header.
    fn open_checksum(&self, packet: &mut [u8]) {
        let [.., (ip, network), (layer, transport)] = *self.all() else {
            return;
        };
        let at = transport + layer.checksum_offset();
        let sum = ip.pseudo_sum(packet, network, layer, transport).fold();
        packet[at..at + 2].copy_from_slice(&sum);
    }

    /// Makes the headers of a segment right, from the innermost to the outermost.
    fn fix(&self, packet: &mut [u8], place: Place) {
        for (i, (layer, offset)) in self.all().iter().copied().enumerate().rev() {
            let ip = i.checked_sub(1).and_then(|i| self.all().get(i).copied());
            layer.fix(packet, offset, ip, place);
        }
    }
}

/// Returns where the IP header is that ends at `transport`, and whose length says that its packet ends where this one does.
fn network_before(packet: &[u8], transport: usize) -> Option<usize> {
    let begins = |len: usize| Some((transport.checked_sub(len)?, packet.get(transport - len..)?));
    let is_v4 = |header: &[u8]| {
        header[0] == 0x45 && usize::from(u16::from_be_bytes([header[2], header[3]])) == header.len()
    };
    let is_v6 = |header: &[u8]| {
        header[0] >> 4 == 6
            && usize::from(u16::from_be_bytes([header[4], header[5]])) + V6_LEN == header.len()
    };
    match (begins(V4_LEN), begins(V6_LEN)) {
        (Some((offset, header)), _) if header.len() > V4_LEN && is_v4(header) => Some(offset),
        (_, Some((offset, header))) if header.len() > V6_LEN && is_v6(header) => Some(offset),
        _ => None,
    }
}

impl Layer {
    fn checksum_offset(self) -> usize {
        match self {
            Self::Tcp => TCP_CSUM_OFFSET.into(),
            Self::Udp => UDP_CSUM_OFFSET.into(),
            Self::Ipv4 => 10,
            Self::Gre => 4,
            Self::Ipv6 => 0,
        }
    }

    /// Returns the sum of the pseudo-header that an IP header at `network` gives the one of `layer` behind it.
    fn pseudo_sum(self, packet: &[u8], network: usize, layer: Self, transport: usize) -> Sum {
        let addresses = if self == Self::Ipv4 { 12..20 } else { 8..40 };
        let protocol = if layer == Self::Tcp {
            protocol::TCP
        } else {
            protocol::UDP
        };
        let len = (packet.len() - transport) as u16;
        Sum::default()
            .add_bytes(&packet[network..][addresses])
            .add_bytes(&[0, protocol])
            .add_bytes(&len.to_be_bytes())
    }

    /// Makes one header of a segment right; `before` is the one before it, with its offset.
    fn fix(self, packet: &mut [u8], offset: usize, before: Option<(Self, usize)>, place: Place) {
        let len = packet.len() - offset;
        let header = &mut packet[offset..];
        let checksums = match self {
            Self::Ipv4 => {
                header[2..4].copy_from_slice(&(len as u16).to_be_bytes());
                let id = u16::from_be_bytes([header[4], header[5]]).wrapping_add(place.index as u16);
                header[4..6].copy_from_slice(&id.to_be_bytes());
                header[10..12].fill(0);
                let header_len = usize::from(header[0] & 0x0f) * 4;
                let sum = Sum::default().add_bytes(&header[..header_len]).finish();
                header[10..12].copy_from_slice(&sum);
                false
            }
            Self::Ipv6 => {
                header[4..6].copy_from_slice(&((len - V6_LEN) as u16).to_be_bytes());
                false
            }
            Self::Gre => {
                if header[0] & GRE_CHECKSUM != 0 {
                    header[4..6].fill(0);
                    let sum = Sum::default().add_bytes(header).finish();
                    header[4..6].copy_from_slice(&sum);
                }
                false
            }
            Self::Udp => {
                header[4..6].copy_from_slice(&(len as u16).to_be_bytes());
                // The sum of a pseudo-header is never 0: so there is no checksum.
                header[6..8] != [0, 0]
            }
            Self::Tcp => {
                let sequence = u32::from_be_bytes([header[4], header[5], header[6], header[7]])
                    .wrapping_add(place.sent as u32);
                header[4..8].copy_from_slice(&sequence.to_be_bytes());
                if !place.is_last {
                    header[13] &= !(FIN | PSH);
                }
                if place.index > 0 {
                    header[13] &= !CWR;
                }
                true
            }
        };
        if let (true, Some((ip, network))) = (checksums, before) {
            let sum = ip.pseudo_sum(packet, network, self, offset).fold();
            let at = self.checksum_offset();
            packet[offset + at..offset + at + 2].copy_from_slice(&sum);
            finish_partial(packet, offset, at);
        }
    }
}

#[cfg(test)]
mod tests;
