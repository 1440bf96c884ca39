use std::net::Ipv6Addr;

use etherparse::{
    Icmpv4Type, Icmpv6Type, IpNumber, Ipv6FragmentHeader, NetHeaders, PacketBuilder, PacketHeaders,
    TransportHeader, icmpv4, icmpv6,
};
use proptest::prelude::*;

use super::*;

const HERE_V4: [u8; 4] = [10, 42, 0, 1];
const THERE_V4: [u8; 4] = [10, 42, 0, 2];
const HERE_V6: [u8; 16] = [0xfd, 0x42, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
const THERE_V6: [u8; 16] = [0xfd, 0x42, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2];

fn udp_v4(from: [u8; 4], to: [u8; 4], payload_len: usize) -> Vec<u8> {
    let mut packet = Vec::new();
    PacketBuilder::ipv4(from, to, 64)
        .udp(1000, 2000)
        .write(&mut packet, &vec![7; payload_len])
        .unwrap();
    packet
}

fn udp_v6(from: [u8; 16], to: [u8; 16], payload_len: usize) -> Vec<u8> {
    let mut packet = Vec::new();
    PacketBuilder::ipv6(from, to, 64)
        .udp(1000, 2000)
        .write(&mut packet, &vec![7; payload_len])
        .unwrap();
    packet
}

fn icmp_v4(kind: u8) -> Vec<u8> {
    let mut packet = Vec::new();
    let builder = PacketBuilder::ipv4(HERE_V4, THERE_V4, 64).icmpv4_raw(kind, 0, [0; 4]);
    builder.write(&mut packet, &[0; 28]).unwrap();
    packet
}

fn icmp_v6(kind: u8) -> Vec<u8> {
    let mut packet = Vec::new();
    let builder = PacketBuilder::ipv6(HERE_V6, THERE_V6, 64).icmpv6_raw(kind, 0, [0; 4]);
    builder.write(&mut packet, &[0; 48]).unwrap();
    packet
}

/// A UDP packet behind the extension header `kind` of 8 bytes, whose bytes 2 to 4 are `data`.
fn udp_v6_behind(kind: IpNumber, data: [u8; 2]) -> Vec<u8> {
    let mut packet = udp_v6(HERE_V6, THERE_V6, 10);
    let extension = [packet[6], 0, data[0], data[1], 0, 0, 0, 0];
    packet[6] = kind.0;
    packet.splice(40..40, extension);
    let payload_len = (packet.len() - 40) as u16;
    packet[4..6].copy_from_slice(&payload_len.to_be_bytes());
    packet
}

fn reply_to(packet: &[u8], why: Unreachable) -> Result<Vec<u8>, NoReply> {
    unreachable(packet, why, &mut ReplyBuffer::default()).map(<[u8]>::to_vec)
}

#[test]
fn ipv4_reply_comes_from_the_destination_and_quotes_the_packet() {
    let packet = udp_v4(HERE_V4, THERE_V4, 100);
    for (why, code) in [
        (Unreachable::NoRoute, icmpv4::DestUnreachableHeader::Network),
        (Unreachable::Host, icmpv4::DestUnreachableHeader::Host),
    ] {
        let reply = reply_to(&packet, why).unwrap();

        assert_eq!(reply[..12], [0; 12]);
        let parsed = PacketHeaders::from_ip_slice(&reply[12..]).unwrap();
        let Some(NetHeaders::Ipv4(ip, _)) = parsed.net else {
            panic!("{:?}", parsed.net)
        };
        assert_eq!((ip.source, ip.destination), (THERE_V4, HERE_V4));
        assert_eq!(ip.header_checksum, ip.calc_header_checksum());
        assert_eq!(usize::from(ip.total_len), reply.len() - 12);
        let Some(TransportHeader::Icmpv4(icmp)) = parsed.transport else {
            panic!("{:?}", parsed.transport)
        };
        assert_eq!(icmp.icmp_type, Icmpv4Type::DestinationUnreachable(code));
        assert_eq!(
            icmp.checksum,
            icmp.icmp_type.calc_checksum(parsed.payload.slice())
        );
        assert_eq!(parsed.payload.slice(), packet);
    }
}

#[test]
fn ipv6_reply_comes_from_the_destination_and_quotes_the_packet() {
    let packet = udp_v6(HERE_V6, THERE_V6, 101);
    for (why, code) in [
        (Unreachable::NoRoute, icmpv6::DestUnreachableCode::NoRoute),
        (Unreachable::Host, icmpv6::DestUnreachableCode::Address),
    ] {
        let reply = reply_to(&packet, why).unwrap();

        assert_eq!(reply[..12], [0; 12]);
        let parsed = PacketHeaders::from_ip_slice(&reply[12..]).unwrap();
        let Some(NetHeaders::Ipv6(ip, _)) = parsed.net else {
            panic!("{:?}", parsed.net)
        };
        assert_eq!((ip.source, ip.destination), (THERE_V6, HERE_V6));
        assert_eq!(usize::from(ip.payload_length), reply.len() - 12 - 40);
        let Some(TransportHeader::Icmpv6(icmp)) = parsed.transport else {
            panic!("{:?}", parsed.transport)
        };
        assert_eq!(icmp.icmp_type, Icmpv6Type::DestinationUnreachable(code));
        let sum = icmp
            .icmp_type
            .calc_checksum(ip.source, ip.destination, parsed.payload.slice())
            .unwrap();
        assert_eq!(icmp.checksum, sum);
        assert_eq!(parsed.payload.slice(), packet);
    }
}

#[test]
fn quotes_end_where_the_largest_error_does() {
    let v4 = reply_to(&udp_v4(HERE_V4, THERE_V4, 40_000), Unreachable::Host).unwrap();
    let v6 = reply_to(&udp_v6(HERE_V6, THERE_V6, 40_000), Unreachable::Host).unwrap();

    assert_eq!((v4.len(), v6.len()), (12 + 576, 12 + 1280));
}

#[test]
fn a_reused_buffer_leaves_no_trace_of_the_longer_reply() {
    let mut buffer = ReplyBuffer::default();
    unreachable(&udp_v6(HERE_V6, THERE_V6, 2000), Unreachable::Host, &mut buffer).unwrap();
    let short = udp_v4(HERE_V4, THERE_V4, 1);

    let reply = unreachable(&short, Unreachable::Host, &mut buffer).unwrap();

    assert_eq!(reply, reply_to(&short, Unreachable::Host).unwrap());
}

#[test]
fn bytes_behind_the_packet_are_not_quoted() {
    let packet = udp_v4(HERE_V4, THERE_V4, 9);
    let mut padded = packet.clone();
    padded.extend([0xee; 50]);

    assert_eq!(
        reply_to(&padded, Unreachable::Host),
        reply_to(&packet, Unreachable::Host)
    );
}

#[test]
fn icmp_errors_and_redirects_get_no_reply() {
    for kind in [3, 4, 5, 11, 12] {
        assert_eq!(
            reply_to(&icmp_v4(kind), Unreachable::Host),
            Err(NoReply::IcmpError),
            "ICMP type {kind}"
        );
    }
    for kind in [1, 2, 3, 4, 100, 127, 137] {
        assert_eq!(
            reply_to(&icmp_v6(kind), Unreachable::Host),
            Err(NoReply::IcmpError),
            "ICMPv6 type {kind}"
        );
    }
}

#[test]
fn pings_get_a_reply() {
    for packet in [icmp_v4(8), icmp_v4(0), icmp_v6(128), icmp_v6(129)] {
        assert!(reply_to(&packet, Unreachable::Host).is_ok());
    }
}

#[test]
fn an_icmpv6_error_behind_extension_headers_gets_no_reply() {
    let mut packet = icmp_v6(1);
    packet.splice(40..40, [58, 0, 1, 4, 0, 0, 0, 0]);
    packet[6] = IpNumber::IPV6_DESTINATION_OPTIONS.0;
    let payload_len = (packet.len() - 40) as u16;
    packet[4..6].copy_from_slice(&payload_len.to_be_bytes());

    assert_eq!(reply_to(&packet, Unreachable::Host), Err(NoReply::IcmpError));
}

#[test]
fn only_the_first_fragment_gets_a_reply() {
    let mut first = udp_v4(HERE_V4, THERE_V4, 40);
    first[6] = 0x20;
    let mut later = first.clone();
    later[7] = 5;
    assert!(reply_to(&first, Unreachable::Host).is_ok());
    assert_eq!(reply_to(&later, Unreachable::Host), Err(NoReply::LaterFragment));

    let more_fragments = 1_u16.to_be_bytes();
    let offset_one = 8_u16.to_be_bytes();
    assert_eq!(Ipv6FragmentHeader::LEN, 8);
    let first = udp_v6_behind(IpNumber::IPV6_FRAGMENTATION_HEADER, more_fragments);
    let later = udp_v6_behind(IpNumber::IPV6_FRAGMENTATION_HEADER, offset_one);
    assert!(reply_to(&first, Unreachable::Host).is_ok());
    assert_eq!(reply_to(&later, Unreachable::Host), Err(NoReply::LaterFragment));
}

#[test]
fn addresses_of_no_single_host_get_no_reply() {
    for address in [
        [0, 0, 0, 0],
        [127, 0, 0, 1],
        [224, 0, 0, 1],
        [239, 1, 2, 3],
        [255; 4],
    ] {
        assert_eq!(
            reply_to(&udp_v4(address, THERE_V4, 1), Unreachable::Host),
            Err(NoReply::Source)
        );
        assert_eq!(
            reply_to(&udp_v4(HERE_V4, address, 1), Unreachable::Host),
            Err(NoReply::Destination)
        );
    }
    let mut multicast = THERE_V6;
    multicast[..2].copy_from_slice(&[0xff, 0x02]);
    for address in [[0; 16], Ipv6Addr::LOCALHOST.octets(), multicast] {
        assert_eq!(
            reply_to(&udp_v6(address, THERE_V6, 1), Unreachable::Host),
            Err(NoReply::Source)
        );
        assert_eq!(
            reply_to(&udp_v6(HERE_V6, address, 1), Unreachable::Host),
            Err(NoReply::Destination)
        );
    }
}

#[test]
fn packets_cut_off_in_their_headers_get_no_reply() {
    for packet in [
        udp_v4(HERE_V4, THERE_V4, 0),
        udp_v6_behind(IpNumber::IPV6_HEADER_HOP_BY_HOP, [1, 4]),
    ] {
        for len in 0..packet.len() {
            assert_eq!(
                reply_to(&packet[..len], Unreachable::Host),
                Err(NoReply::Malformed),
                "{len} bytes"
            );
        }
    }
}

#[test]
fn endless_extension_headers_get_no_reply() {
    let mut packet = udp_v6(HERE_V6, THERE_V6, 0);
    packet[6] = 60;
    packet.truncate(40);
    packet.extend([60, 0, 1, 4, 0, 0, 0, 0].repeat(40));
    let payload_len = (packet.len() - 40) as u16;
    packet[4..6].copy_from_slice(&payload_len.to_be_bytes());

    assert_eq!(reply_to(&packet, Unreachable::Host), Err(NoReply::Malformed));
}

proptest! {
    #[test]
    fn any_bytes_are_answered_or_refused(mut packet in proptest::collection::vec(any::<u8>(), 0..200), version in 4_u8..8) {
        if let Some(first) = packet.first_mut() {
            *first = version << 4 | (*first & 0x0f);
        }
        if let Ok(reply) = reply_to(&packet, Unreachable::Host) {
            prop_assert!(PacketHeaders::from_ip_slice(&reply[12..]).is_ok());
        }
    }
}
