//! The offload header: open checksums and super-packets.

use std::net::Ipv6Addr;

use crate::bench::Bench;
use crate::packets::*;
use router_common::frame::VnetHeader;
use router_common::packet::protocol::{DESTINATION_OPTIONS, FRAGMENT, TCP, UDP};

const CWR: u8 = 0x80;

#[test]
fn checksum_that_the_sender_left_open_is_announced() {
    let mut bench = Bench::new().unwrap();

    for (name, packet, offset, protocol) in packets_with_checksums() {
        // The buffer of a run says that nothing is open, and of UDP only the buffer counts: see `device`.
        if protocol == UDP {
            continue;
        }
        let packet = with_open_checksum(packet, offset, protocol);

        let record = bench.run(&packet).unwrap().captured().unwrap();

        let expected = open(offset, protocol);
        assert_eq!(record.header.frame.vnet, expected, "{name}");
        assert_eq!(record.packet, packet, "{name}");
    }
}

#[test]
fn finished_checksum_is_left_alone() {
    let mut bench = Bench::new().unwrap();

    for (name, packet, offset, protocol) in packets_with_checksums() {
        let packet = with_checksum(packet, offset, protocol);

        let record = bench.run(&packet).unwrap().captured().unwrap();

        assert_eq!(record.header.frame.vnet, VnetHeader::default(), "{name}");
    }
}

#[test]
fn fragments_and_other_protocols_have_no_open_checksum() {
    let mut bench = Bench::new().unwrap();
    let piece = udp(1, 2, &[0; 16]);
    let whole = with_open_checksum(ipv4(UDP, &piece), 20, UDP);

    for (name, packet) in [
        (
            "IPv4 fragment",
            ipv4_full((A4, B4), 0, (0, true), UDP, &whole[20..]),
        ),
        (
            "IPv6 fragment",
            ipv6(FRAGMENT, &fragment(UDP, (0, true), &whole[20..])),
        ),
        ("UDP-Lite", ipv4(136, &whole[20..])),
    ] {
        let record = bench.run(&packet).unwrap().captured().unwrap();

        assert_eq!(record.header.frame.vnet, VnetHeader::default(), "{name}");
    }
}

#[test]
fn super_packet_says_how_it_is_cut() {
    const GSO_SIZE: u16 = 500;
    let mut bench = Bench::new().unwrap();
    let payload = [3; 1800];
    let tcp = |words, flags| {
        let mut header = tcp(1, 2, words);
        header[13] |= flags;
        [header, payload.to_vec()].concat()
    };
    let behind_options = options(TCP, 0, &tcp(0, 0));

    for (name, packet, offset, hdr_len, gso_type) in [
        (
            "TCP in IPv4",
            ipv4(TCP, &tcp(0, 0)),
            20,
            40,
            VnetHeader::GSO_TCPV4,
        ),
        (
            "with options",
            ipv4(TCP, &tcp(3, 0)),
            20,
            52,
            VnetHeader::GSO_TCPV4,
        ),
        (
            "with CWR",
            ipv4(TCP, &tcp(0, CWR)),
            20,
            40,
            VnetHeader::GSO_TCPV4 | VnetHeader::GSO_ECN,
        ),
        (
            "without length",
            with_length(ipv4(TCP, &tcp(0, 0)), 0),
            20,
            40,
            VnetHeader::GSO_TCPV4,
        ),
        (
            "TCP in IPv6",
            ipv6(TCP, &tcp(0, 0)),
            40,
            60,
            VnetHeader::GSO_TCPV6,
        ),
        (
            "with CWR",
            ipv6(TCP, &tcp(2, CWR)),
            40,
            68,
            VnetHeader::GSO_TCPV6 | VnetHeader::GSO_ECN,
        ),
        (
            "behind options",
            ipv6(DESTINATION_OPTIONS, &behind_options),
            48,
            68,
            VnetHeader::GSO_TCPV6,
        ),
        (
            "without length",
            with_length(ipv6(TCP, &tcp(0, 0)), 0),
            40,
            60,
            VnetHeader::GSO_TCPV6,
        ),
    ] {
        let packet = with_open_checksum(packet, offset, TCP);

        let record = bench
            .run_gso(&packet, GSO_SIZE.into())
            .unwrap()
            .captured()
            .unwrap();

        let expected = VnetHeader {
            gso_type,
            gso_size: GSO_SIZE,
            hdr_len,
            ..open(offset, TCP)
        };
        assert_eq!(record.header.frame.vnet, expected, "{name}");
        assert_eq!(record.header.frame.len as usize, packet.len(), "{name}");
        assert_eq!(record.packet, packet, "{name}");
    }
}

fn open(offset: usize, protocol: u8) -> VnetHeader {
    VnetHeader {
        flags: VnetHeader::NEEDS_CSUM,
        csum_start: offset as u16,
        csum_offset: checksum_offset(protocol) as u16,
        ..VnetHeader::default()
    }
}

/// Name, packet, offset and protocol of the transport header; payloads of even and odd length.
pub(crate) fn packets_with_checksums() -> Vec<(&'static str, Vec<u8>, usize, u8)> {
    let segment = |len| [tcp(40000, 443, 3), vec![0xa7; len]].concat();
    let back = (B4, A4);
    // 16 words that add up to 0xffdf0: with the protocol and 512 bytes of segment the first carry makes another.
    let ones = (Ipv6Addr::from([0xff; 16]), Ipv6Addr::from_bits(!0 ^ 0x200 << 112));
    vec![
        ("TCP in IPv4", ipv4(TCP, &segment(0)), 20, TCP),
        ("TCP in IPv4, odd", ipv4(TCP, &segment(1001)), 20, TCP),
        (
            "TCP in IPv4 with options",
            ipv4_full(back, 4, WHOLE, TCP, &segment(10)),
            36,
            TCP,
        ),
        ("TCP in IPv6", ipv6(TCP, &segment(0)), 40, TCP),
        (
            "TCP in IPv6, sum with two carries",
            ipv6_between(ones, TCP, &segment(480)),
            40,
            TCP,
        ),
        ("TCP in IPv6, odd", ipv6(TCP, &segment(1001)), 40, TCP),
        (
            "TCP in IPv6 behind options",
            ipv6(DESTINATION_OPTIONS, &options(TCP, 1, &segment(9))),
            56,
            TCP,
        ),
        ("UDP in IPv4", ipv4(UDP, &udp(40000, 53, b"even")), 20, UDP),
        ("UDP in IPv4, odd", ipv4(UDP, &udp(40000, 53, b"odd")), 20, UDP),
        ("UDP in IPv6", ipv6(UDP, &udp(40000, 53, b"even")), 40, UDP),
        ("UDP in IPv6, odd", ipv6(UDP, &udp(40000, 53, b"odd")), 40, UDP),
    ]
}
