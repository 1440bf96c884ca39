//! What is said of a packet behind other headers, and how long the segments of a super-packet are.

use router_common::frame::VnetHeader;
use router_common::offload::{Checksum, Offloads, TCP_CSUM_OFFSET, segment_len};
use router_common::packet::{Behind, PacketReader};

/// A packet in a buffer that says where its checksum is open.
struct Buffer {
    bytes: Vec<u8>,
    start: u32,
}

impl PacketReader for Buffer {
    fn load<const N: usize>(&self, offset: u32) -> Option<[u8; N]> {
        self.bytes.load(offset)
    }
}

impl Offloads for Buffer {
    fn gso_size(&self) -> u32 {
        1000
    }

    fn checksum(&self) -> Checksum {
        Checksum::Open {
            start: self.start,
            offset: 16,
        }
    }

    fn gso_type(&self) -> Option<u32> {
        Some(1)
    }

    fn inner_network_offset(&self) -> Option<u32> {
        Some(self.start - 20)
    }
}

#[test]
fn offsets_behind_other_headers_count_from_the_packet() {
    let at = |start, base| {
        let reader = Buffer {
            bytes: Vec::new(),
            start,
        };
        let packet = Behind {
            reader: &reader,
            base,
        };
        assert_eq!((packet.gso_size(), packet.gso_type()), (1000, Some(1)));
        (packet.checksum(), packet.inner_network_offset())
    };

    let open = Checksum::Open {
        start: 44,
        offset: 16,
    };
    assert_eq!(at(58, 14), (open, Some(24)));
    assert_eq!(at(58, 58).1, None);
    assert_eq!(at(57, 58).0, Checksum::OpenOther);
}

#[test]
fn a_segment_is_as_long_as_all_headers_before_its_payload_and_that() {
    let mut packet = vec![0; 2000];
    packet[44 + 12] = 0x80;
    let vnet = |gso_type, gso_size| VnetHeader {
        flags: VnetHeader::NEEDS_CSUM,
        gso_type,
        gso_size,
        csum_start: 44,
        csum_offset: TCP_CSUM_OFFSET,
        ..VnetHeader::default()
    };
    let len = |vnet| segment_len(&packet[..], &vnet, 2000);

    assert_eq!(len(vnet(VnetHeader::GSO_TCPV4, 1000)), Some(44 + 32 + 1000));
    let ecn = VnetHeader::GSO_TCPV6 | VnetHeader::GSO_ECN;
    assert_eq!(len(vnet(ecn, 1000)), Some(44 + 32 + 1000));
    assert_eq!(len(vnet(VnetHeader::GSO_UDP_L4, 1000)), Some(44 + 8 + 1000));
    assert_eq!(len(vnet(VnetHeader::GSO_NONE, 0)), Some(2000));
    assert_eq!(
        segment_len(&packet[..50], &vnet(VnetHeader::GSO_TCPV4, 1000), 50),
        None
    );
}
