//! The admission of frames into this host: whole packets with a fitting offload header, from the peer's addresses.

use router_common::flow_key::FAMILY_V4;
use router_common::frame::VnetHeader;
use router_common::offload::{MAX_UDP_SEGMENTS, TCP_CSUM_OFFSET, UDP_CSUM_OFFSET, is_sane_super_packet};
use router_common::packet::{Parsed, parse, protocol};

use super::route_table::{PeerIndex, RouteTable};

/// Smallest segment of a TCP super-packet that Linux takes.
pub(crate) const MIN_TCP_SEGMENT: usize = 8;

/// Why a frame is not admitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum FrameRefusal {
    /// The frame does not hold exactly one whole IP packet.
    MalformedPacket,
    /// The offload header does not fit the packet.
    BadOffloadHeader,
    /// The source address is not the peer's.
    SourceNotAllowed,
}

/// Checks that a frame of `peer` may be injected, and returns what the headers of its packet say.
///
/// # Errors
/// Returns the first reason why the frame may not be injected.
pub fn admit(
    routes: &RouteTable,
    peer: PeerIndex,
    vnet: &VnetHeader,
    packet: &[u8],
) -> Result<Parsed, FrameRefusal> {
    let parsed = parse(packet, packet.len() as u32).map_err(|_reason| FrameRefusal::MalformedPacket)?;
    if parsed.total_len as usize != packet.len() {
        return Err(FrameRefusal::MalformedPacket);
    }
    if !offload_fits(vnet, &parsed, packet.len()) || !is_sane(vnet, &parsed) {
        return Err(FrameRefusal::BadOffloadHeader);
    }
    if routes.owns(peer, parsed.key.source_addr()) {
        Ok(parsed)
    } else {
        Err(FrameRefusal::SourceNotAllowed)
    }
}

/// Says whether the segments of a super-packet cost the host no more than a few times what the super-packet did.
fn is_sane(vnet: &VnetHeader, parsed: &Parsed) -> bool {
    let is_tcp = parsed.key.protocol == protocol::TCP;
    let (len, header_len) = (parsed.total_len, vnet.hdr_len.into());
    vnet.gso_type == VnetHeader::GSO_NONE
        || is_sane_super_packet(is_tcp, len, header_len, vnet.gso_size.into())
}

/// Says whether the offload header fits the packet. The kernel checks it against the packet's length only.
pub(crate) fn offload_fits(vnet: &VnetHeader, parsed: &Parsed, len: usize) -> bool {
    let needs_csum = vnet.flags == VnetHeader::NEEDS_CSUM;
    let plain = vnet.flags == 0 && vnet.csum_start == 0 && vnet.csum_offset == 0;
    if !(needs_csum || plain) || vnet.num_buffers != 0 {
        return false;
    }
    let (csum_offset, tcp) = match parsed.key.protocol {
        protocol::TCP => (TCP_CSUM_OFFSET, true),
        protocol::UDP => (UDP_CSUM_OFFSET, false),
        _ => return plain && vnet.gso_type == VnetHeader::GSO_NONE && no_segments(vnet),
    };
    if needs_csum
        && (parsed.transport_len == 0
            || u32::from(vnet.csum_start) != parsed.transport_offset
            || vnet.csum_offset != csum_offset)
    {
        return false;
    }
    let gso_type = match (tcp, parsed.key.family == FAMILY_V4) {
        (true, true) => VnetHeader::GSO_TCPV4,
        (true, false) => VnetHeader::GSO_TCPV6,
        (false, _) => VnetHeader::GSO_UDP_L4,
    };
    let ecn = if tcp { VnetHeader::GSO_ECN } else { 0 };
    match vnet.gso_type {
        VnetHeader::GSO_NONE => no_segments(vnet),
        kind if kind & !ecn == gso_type => {
            let header_len = (parsed.transport_offset + parsed.transport_len) as usize;
            let payload = len - header_len.min(len);
            let segment = usize::from(vnet.gso_size);
            let sane = if tcp {
                segment >= MIN_TCP_SEGMENT
            } else {
                segment > 0 && payload.div_ceil(segment) <= MAX_UDP_SEGMENTS as usize
            };
            needs_csum && sane && usize::from(vnet.hdr_len) == header_len
        }
        _ => false,
    }
}

fn no_segments(vnet: &VnetHeader) -> bool {
    vnet.gso_size == 0 && vnet.hdr_len == 0
}

#[cfg(test)]
mod tests {
    use etherparse::PacketBuilder;
    use proptest::prelude::*;

    use super::*;

    const PEER: PeerIndex = PeerIndex(0);

    fn routes() -> RouteTable {
        let nets = [("10.42.0.2/32", 0), ("fd42::2/128", 0), ("10.42.0.3/32", 1)];
        RouteTable::new(nets.map(|(net, peer)| (net.parse().unwrap(), PeerIndex(peer))))
    }

    fn admit(
        routes: &RouteTable,
        peer: PeerIndex,
        vnet: &VnetHeader,
        packet: &[u8],
    ) -> Result<(), FrameRefusal> {
        super::admit(routes, peer, vnet, packet).map(drop)
    }

    fn tcp(source: [u8; 4], payload: usize) -> Vec<u8> {
        let mut packet = Vec::new();
        PacketBuilder::ipv4(source, [10, 42, 0, 1], 64)
            .tcp(40_000, 80, 1, 1000)
            .write(&mut packet, &vec![1; payload])
            .unwrap();
        packet
    }

    fn udp6(payload: usize) -> Vec<u8> {
        let source = "fd42::2".parse::<std::net::Ipv6Addr>().unwrap().octets();
        let mut packet = Vec::new();
        PacketBuilder::ipv6(source, [0xfd; 16], 64)
            .udp(1, 2)
            .write(&mut packet, &vec![1; payload])
            .unwrap();
        packet
    }

    fn gso_tcp4() -> VnetHeader {
        VnetHeader {
            flags: VnetHeader::NEEDS_CSUM,
            gso_type: VnetHeader::GSO_TCPV4,
            hdr_len: 40,
            gso_size: 1380,
            csum_start: 20,
            csum_offset: 16,
            num_buffers: 0,
        }
    }

    #[test]
    fn peers_own_packets_enter_plain_partial_and_as_super_packet() {
        let small = tcp([10, 42, 0, 2], 10);
        let partial = VnetHeader {
            gso_type: 0,
            hdr_len: 0,
            gso_size: 0,
            ..gso_tcp4()
        };
        for vnet in [VnetHeader::default(), partial] {
            assert_eq!(admit(&routes(), PEER, &vnet, &small), Ok(()));
        }
        let large = tcp([10, 42, 0, 2], 60_000);
        assert_eq!(admit(&routes(), PEER, &gso_tcp4(), &large), Ok(()));
        let cwr = VnetHeader {
            gso_type: VnetHeader::GSO_TCPV4 | VnetHeader::GSO_ECN,
            ..gso_tcp4()
        };
        assert_eq!(admit(&routes(), PEER, &cwr, &large), Ok(()));
        let uso = VnetHeader {
            gso_type: VnetHeader::GSO_UDP_L4,
            hdr_len: 48,
            csum_start: 40,
            csum_offset: 6,
            ..gso_tcp4()
        };
        assert_eq!(admit(&routes(), PEER, &uso, &udp6(50_000)), Ok(()));
    }

    #[test]
    fn source_of_nobody_or_of_another_peer_is_refused() {
        for source in [[10, 42, 0, 3], [10, 42, 0, 9], [127, 0, 0, 1]] {
            let packet = tcp(source, 10);
            assert_eq!(
                admit(&routes(), PEER, &VnetHeader::default(), &packet),
                Err(FrameRefusal::SourceNotAllowed)
            );
        }
    }

    #[test]
    fn offload_header_that_does_not_fit_is_refused() {
        let packet = tcp([10, 42, 0, 2], 5000);
        let good = gso_tcp4();
        let bad = [
            VnetHeader { flags: 2, ..good },
            VnetHeader { flags: 0, ..good },
            VnetHeader {
                gso_type: VnetHeader::GSO_TCPV6,
                ..good
            },
            VnetHeader {
                gso_type: VnetHeader::GSO_UDP_L4,
                ..good
            },
            VnetHeader { gso_type: 3, ..good },
            VnetHeader {
                gso_type: VnetHeader::GSO_ECN,
                ..good
            },
            VnetHeader { hdr_len: 39, ..good },
            VnetHeader { gso_size: 0, ..good },
            VnetHeader { gso_size: 7, ..good },
            VnetHeader {
                csum_start: 19,
                ..good
            },
            VnetHeader {
                csum_offset: 6,
                ..good
            },
            VnetHeader {
                num_buffers: 1,
                ..good
            },
            VnetHeader {
                gso_size: 1380,
                ..VnetHeader::default()
            },
            VnetHeader {
                csum_start: 20,
                ..VnetHeader::default()
            },
        ];
        for vnet in bad {
            assert_eq!(
                admit(&routes(), PEER, &vnet, &packet),
                Err(FrameRefusal::BadOffloadHeader),
                "{vnet:?}"
            );
        }
    }

    #[test]
    fn packet_that_is_cut_or_padded_is_refused() {
        let packet = tcp([10, 42, 0, 2], 100);
        for len in 0..packet.len() {
            let cut = admit(&routes(), PEER, &VnetHeader::default(), &packet[..len]);
            assert_eq!(cut, Err(FrameRefusal::MalformedPacket), "{len} bytes");
        }
        let padded = [packet.as_slice(), &[0]].concat();
        assert_eq!(
            admit(&routes(), PEER, &VnetHeader::default(), &padded),
            Err(FrameRefusal::MalformedPacket)
        );
    }

    proptest! {
        #[test]
        fn no_bytes_panic(vnet in any::<[u8; 12]>(), packet in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = admit(&routes(), PEER, &bytemuck::pod_read_unaligned(&vnet), &packet);
        }
    }
}
