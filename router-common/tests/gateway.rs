//! What a gateway does before and behind the IP parser, against an independent implementation.
#![expect(clippy::unwrap_used, reason = "helpers fail as tests do")]

use etherparse::{
    EtherType, Ethernet2Header, Ethernet2HeaderSlice, IpNumber, Ipv4Header, Ipv6Header, SingleVlanHeader,
    SingleVlanHeaderSlice, VlanId,
};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::RngSeed;
use router_common::flow_key::{FAMILY_V4, FAMILY_V6};
use router_common::packet::ethernet::{self, Ethernet};
use router_common::packet::hop::next_hop;
use router_common::packet::{Behind, PacketReader, parse, protocol};
use router_common::reason::Reason;

const TAGS: [u16; 2] = [ethernet::VLAN, ethernet::QINQ];
/// ARP, IPv4, IPv6, MACsec, the tag type of old switches, an IEEE 802.3 length, and the tags themselves.
const TYPES: [u16; 8] = [0x0806, 0x0800, 0x86dd, 0x88e5, 0x9100, 46, 0x8100, 0x88a8];

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 2000,
        rng_seed: RngSeed::Fixed(0x5eed),
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn frames_are_read_as_they_were_written(
        destination in any::<[u8; 6]>(),
        tags in vec((prop::sample::select(&TAGS[..]), 0..4096_u16), 0..=2),
        last in prop::sample::select(&TYPES[..6]),
        payload in vec(any::<u8>(), 0..40),
    ) {
        let frame = frame(destination, &tags, last, &payload);

        let parsed = ethernet::parse(&frame[..]);

        let len = (frame.len() - payload.len()) as u32;
        prop_assert_eq!(parsed, Ok(Ethernet { destination, ether_type: last, len }));
        for end in 0..len as usize {
            prop_assert_eq!(ethernet::parse(&frame[..end]), Err(Reason::Truncated), "cut to {}", end);
        }
    }

    #[test]
    fn any_bytes_are_read_as_etherparse_reads_them(
        mut bytes in vec(any::<u8>(), 0..40),
        types in any::<[prop::sample::Index; 4]>(),
    ) {
        for (at, index) in (12..).step_by(4).zip(types) {
            if let Some(field) = bytes.get_mut(at..at + 2) {
                field.copy_from_slice(&index.get(&TYPES).to_be_bytes());
            }
        }
        prop_assert_eq!(ethernet::parse(&bytes[..]).ok(), parsed_by_etherparse(&bytes));
    }

    #[test]
    fn a_packet_behind_other_bytes_is_the_same_packet(
        before in vec(any::<u8>(), 0..30),
        packet in vec(any::<u8>(), 0..80),
    ) {
        let all = [&before[..], &packet].concat();
        let behind = Behind { reader: &all[..], base: before.len() as u32 };

        prop_assert_eq!(parse(&behind, packet.len() as u32), parse(&packet[..], packet.len() as u32));
        prop_assert_eq!(behind.load::<8>(3), packet[..].load::<8>(3));
    }

    #[test]
    fn a_hop_leaves_the_checksum_of_an_ipv4_header_right(
        ttl in 2_u8..,
        fields in any::<[u8; 12]>(),
        addresses in any::<[[u8; 4]; 2]>(),
    ) {
        let header = ipv4(ttl, fields, addresses);

        let hop = next_hop(&header[..], FAMILY_V4).unwrap();

        prop_assert_eq!(after(&header, hop), ipv4(ttl - 1, fields, addresses));
    }

    #[test]
    fn a_hop_leaves_a_wrong_checksum_wrong(ttl in 2_u8.., fields in any::<[u8; 12]>(), wrong in 1_u16..0xffff) {
        let mut header = ipv4(ttl, fields, [[10, 0, 0, 1], [10, 1, 0, 1]]);
        let checksum = u16::from_be_bytes([header[10], header[11]]);
        header[10..12].copy_from_slice(&(checksum ^ wrong).to_be_bytes());

        let (next, _) = Ipv4Header::from_slice(&after(&header, next_hop(&header[..], FAMILY_V4).unwrap())).unwrap();

        prop_assert_ne!(next.header_checksum, next.calc_header_checksum());
    }

    #[test]
    fn a_hop_changes_nothing_of_an_ipv6_header_but_the_limit(
        limit in 2_u8..,
        next in 1_u8..,
        len in any::<u16>(),
        addresses in any::<[[u8; 16]; 2]>(),
    ) {
        let header = ipv6(limit, next, len, addresses);

        let hop = next_hop(&header[..], FAMILY_V6).unwrap();

        prop_assert_eq!(after(&header, hop), ipv6(limit - 1, next, len, addresses));
    }
}

#[test]
fn a_third_tag_is_payload() {
    let tag = (ethernet::VLAN, 1);

    let parsed = ethernet::parse(&frame([1; 6], &[tag, tag, tag], ethernet::IPV4, &[0; 20])[..]).unwrap();

    assert_eq!((parsed.ether_type, parsed.len), (ethernet::VLAN, 22));
}

#[test]
fn a_packet_at_its_last_hop_and_one_with_options_are_for_the_host() {
    let addresses = [[10, 0, 0, 1], [10, 1, 0, 1]];
    for ttl in [0, 1] {
        assert_eq!(
            next_hop(&ipv4(ttl, [0; 12], addresses)[..], FAMILY_V4),
            Err(Reason::PassedTtl)
        );
        assert_eq!(
            next_hop(&ipv6(ttl, protocol::UDP, 8, [[1; 16], [2; 16]])[..], FAMILY_V6),
            Err(Reason::PassedTtl)
        );
    }
    for words in 6..16 {
        let mut header = ipv4(9, [0; 12], addresses);
        header[0] = 0x40 | words;
        assert_eq!(next_hop(&header[..], FAMILY_V4), Err(Reason::PassedOptions));
    }
    let header = ipv6(9, protocol::HOP_BY_HOP, 8, [[1; 16], [2; 16]]);
    assert_eq!(next_hop(&header[..], FAMILY_V6), Err(Reason::PassedOptions));
    assert_eq!(next_hop(&header[..7], FAMILY_V6), Err(Reason::Truncated));
    assert_eq!(next_hop(&[][..], FAMILY_V4), Err(Reason::Truncated));
}

fn frame(destination: [u8; 6], tags: &[(u16, u16)], last: u16, payload: &[u8]) -> Vec<u8> {
    let types = tags.iter().map(|(tag, _)| *tag).chain([last]);
    let mut types = types.map(EtherType);
    let header = Ethernet2Header {
        source: [2; 6],
        destination,
        ether_type: types.next().unwrap(),
    };
    let mut bytes = header.to_bytes().to_vec();
    for ((_, id), ether_type) in tags.iter().zip(types) {
        let tag = SingleVlanHeader {
            vlan_id: VlanId::try_new(*id).unwrap(),
            ether_type,
            ..SingleVlanHeader::default()
        };
        bytes.extend(tag.to_bytes());
    }
    bytes.extend(payload);
    bytes
}

fn parsed_by_etherparse(bytes: &[u8]) -> Option<Ethernet> {
    let header = Ethernet2HeaderSlice::from_slice(bytes).ok()?;
    let (mut ether_type, mut len) = (header.ether_type(), 14);
    for _ in 0..2 {
        if !TAGS.contains(&ether_type.0) {
            break;
        }
        let tag = SingleVlanHeaderSlice::from_slice(&bytes[len..]).ok()?;
        (ether_type, len) = (tag.ether_type(), len + 4);
    }
    Some(Ethernet {
        destination: header.destination(),
        ether_type: ether_type.0,
        len: len as u32,
    })
}

/// A header whose fields besides length, TTL and addresses are taken from random bytes.
fn ipv4(ttl: u8, fields: [u8; 12], [source, destination]: [[u8; 4]; 2]) -> Vec<u8> {
    let mut header = Ipv4Header::new(
        u16::from(fields[0]),
        ttl,
        IpNumber(fields[1]),
        source,
        destination,
    )
    .unwrap();
    header.identification = u16::from_be_bytes([fields[2], fields[3]]);
    header.dont_fragment = fields[4] & 1 == 1;
    header.header_checksum = header.calc_header_checksum();
    header.to_bytes().to_vec()
}

fn ipv6(hop_limit: u8, next: u8, len: u16, [source, destination]: [[u8; 16]; 2]) -> Vec<u8> {
    let header = Ipv6Header {
        payload_length: len,
        next_header: IpNumber(next),
        hop_limit,
        source,
        destination,
        ..Ipv6Header::default()
    };
    header.to_bytes().to_vec()
}

fn after(header: &[u8], hop: router_common::packet::hop::Hop) -> Vec<u8> {
    let (mut header, at) = (header.to_vec(), hop.offset as usize);
    header[at..at + 4].copy_from_slice(&hop.bytes);
    header
}
