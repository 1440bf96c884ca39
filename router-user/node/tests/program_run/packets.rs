//! Packets, written byte by byte.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use router_common::flow_key::{FAMILY_V4, FAMILY_V6, FlowKey};
use router_common::frame::VnetHeader;
use router_common::packet::protocol::{AH, DESTINATION_OPTIONS, FRAGMENT, ROUTING, TCP, UDP};

pub(crate) const A4: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 1);
/// In the prefix of peer 0.
pub(crate) const B4: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 2);
pub(crate) const A6: Ipv6Addr = Ipv6Addr::new(0xfd09, 0, 0, 0, 0, 0, 0, 1);
/// In the prefix of peer 2.
pub(crate) const B6: Ipv6Addr = Ipv6Addr::new(0xfd01, 0, 0, 0, 0, 0, 0, 2);

/// A fragment field of IPv4 or IPv6: offset in units of 8 bytes, and whether more follow.
pub(crate) type Fragment = (u16, bool);
pub(crate) const WHOLE: Fragment = (0, false);

pub(crate) fn ipv4(protocol: u8, payload: &[u8]) -> Vec<u8> {
    ipv4_full((A4, B4), 0, WHOLE, protocol, payload)
}

pub(crate) fn ipv4_full(
    (source, destination): (Ipv4Addr, Ipv4Addr),
    option_words: u8,
    (offset, more): Fragment,
    protocol: u8,
    payload: &[u8],
) -> Vec<u8> {
    let header_len = 20 + 4 * usize::from(option_words);
    let mut packet = vec![0; header_len];
    packet[0] = 0x45 + option_words;
    packet[2..4].copy_from_slice(&((header_len + payload.len()) as u16).to_be_bytes());
    packet[4..6].copy_from_slice(&[0x12, 0x34]);
    packet[6..8].copy_from_slice(&(offset | u16::from(more) << 13).to_be_bytes());
    packet[8..10].copy_from_slice(&[64, protocol]);
    packet[12..16].copy_from_slice(&source.octets());
    packet[16..20].copy_from_slice(&destination.octets());
    packet[20..].fill(1);
    packet.extend(payload);
    packet
}

pub(crate) fn ipv6(next: u8, payload: &[u8]) -> Vec<u8> {
    ipv6_between((A6, B6), next, payload)
}

pub(crate) fn ipv6_between((source, destination): (Ipv6Addr, Ipv6Addr), next: u8, payload: &[u8]) -> Vec<u8> {
    let mut packet = vec![0; 40];
    packet[0] = 0x60;
    packet[4..6].copy_from_slice(&(payload.len() as u16).to_be_bytes());
    packet[6..8].copy_from_slice(&[next, 64]);
    packet[8..24].copy_from_slice(&source.octets());
    packet[24..40].copy_from_slice(&destination.octets());
    packet.extend(payload);
    packet
}

/// Hop-by-hop, routing or destination options of 8 bytes and `units` times 8 more, before a payload.
pub(crate) fn options(next: u8, units: u8, payload: &[u8]) -> Vec<u8> {
    let mut header = vec![1; 8 + 8 * usize::from(units)];
    header[..2].copy_from_slice(&[next, units]);
    header.extend(payload);
    header
}

/// An authentication header with `words` of integrity check.
pub(crate) fn authentication(next: u8, words: u8, payload: &[u8]) -> Vec<u8> {
    let mut header = vec![0; 12 + 4 * usize::from(words)];
    header[..2].copy_from_slice(&[next, words + 1]);
    header.extend(payload);
    header
}

pub(crate) fn fragment(next: u8, (offset, more): Fragment, payload: &[u8]) -> Vec<u8> {
    let mut header = vec![next, 0];
    header.extend((offset << 3 | u16::from(more)).to_be_bytes());
    header.extend([0, 0, 0, 42]);
    header.extend(payload);
    header
}

/// A chain of `n` destination options that ends with no next header.
pub(crate) fn options_chain(n: usize) -> Vec<u8> {
    const NO_NEXT: u8 = 59;
    (0..n).fold(Vec::new(), |payload, at| {
        options(if at == 0 { NO_NEXT } else { DESTINATION_OPTIONS }, 0, &payload)
    })
}

/// One of each extension header: 72 bytes and the payload.
pub(crate) fn long_chain(udp: &[u8]) -> Vec<u8> {
    let atomic = fragment(UDP, WHOLE, udp);
    let authentication = authentication(FRAGMENT, 1, &atomic);
    let destination = options(AH, 0, &authentication);
    options(ROUTING, 0, &options(DESTINATION_OPTIONS, 3, &destination))
}

/// A TCP header of 20 bytes and `option_words`, without payload.
pub(crate) fn tcp(source_port: u16, destination_port: u16, option_words: u8) -> Vec<u8> {
    let mut header = ports(source_port, destination_port);
    header.resize(20 + 4 * usize::from(option_words), 1);
    header[4..20].fill(0);
    header[12] = (5 + option_words) << 4;
    header[13] = 0x10;
    header
}

pub(crate) fn udp(source_port: u16, destination_port: u16, payload: &[u8]) -> Vec<u8> {
    let mut header = ports(source_port, destination_port);
    header.extend((8 + payload.len() as u16).to_be_bytes());
    header.extend([0, 0]);
    header.extend(payload);
    header
}

pub(crate) fn sctp(source_port: u16, destination_port: u16) -> Vec<u8> {
    let mut header = ports(source_port, destination_port);
    header.extend([0x5a; 12]);
    header
}

/// An ICMP or ICMPv6 message; `id` is where an echo has its identifier.
pub(crate) fn icmp(kind: u8, id: u16) -> Vec<u8> {
    let [high, low] = id.to_be_bytes();
    vec![kind, 0, 0, 0, high, low, 0, 1, 0x70, 0x69, 0x6e, 0x67]
}

/// A packet of UDP over IPv4 to peer 0, `len >= 28` bytes long; its payload differs with `seed`.
/// A TCP packet of `len` bytes.
pub(crate) fn tcp_packet(len: usize, source_port: u16, seed: u8) -> Vec<u8> {
    ipv4(TCP, &[tcp(source_port, 53, 0), vec![seed; len - 40]].concat())
}

pub(crate) fn udp_packet(len: usize, source_port: u16, seed: u8) -> Vec<u8> {
    let payload: Vec<u8> = (0..len - 28)
        .map(|at| seed.wrapping_add((at * 7 + at / 256) as u8))
        .collect();
    ipv4(UDP, &udp(source_port, 53, &payload))
}

/// Says in the IP header that the packet has the length it has.
pub(crate) fn with_true_length(mut packet: Vec<u8>) -> Vec<u8> {
    let len = packet.len() as u16;
    match packet.first().map(|first| first >> 4) {
        Some(4) if len >= 4 => packet[2..4].copy_from_slice(&len.to_be_bytes()),
        Some(6) if len >= 40 => packet[4..6].copy_from_slice(&(len - 40).to_be_bytes()),
        _ => {}
    }
    packet
}

pub(crate) fn with_length(mut packet: Vec<u8>, value: u16) -> Vec<u8> {
    let field = if packet[0] >> 4 == 4 { 2..4 } else { 4..6 };
    packet[field].copy_from_slice(&value.to_be_bytes());
    packet
}

pub(crate) fn key(
    (source, destination): (impl Into<IpAddr>, impl Into<IpAddr>),
    protocol: u8,
    source_port: u16,
    destination_port: u16,
) -> FlowKey {
    let (source, destination) = (source.into(), destination.into());
    let octets = |address| match address {
        IpAddr::V4(address) => address.to_ipv6_mapped().octets(),
        IpAddr::V6(address) => address.octets(),
    };
    FlowKey {
        source: octets(source),
        destination: octets(destination),
        source_port_be: source_port.to_be_bytes(),
        destination_port_be: destination_port.to_be_bytes(),
        protocol,
        family: if source.is_ipv4() { FAMILY_V4 } else { FAMILY_V6 },
        padding: [0; 2],
    }
}

/// Sum of the pseudo-header of a packet whose transport header is at `offset`, folded, not complemented (RFC 1071).
pub(crate) fn pseudo_header_sum(packet: &[u8], offset: usize, protocol: u8) -> u16 {
    let addresses = if packet[0] >> 4 == 4 {
        &packet[12..20]
    } else {
        &packet[8..40]
    };
    sum(addresses, u32::from(protocol) + (packet.len() - offset) as u32)
}

/// Writes the pseudo-header sum where the checksum belongs, as a kernel does that leaves the rest to the device.
pub(crate) fn with_open_checksum(mut packet: Vec<u8>, offset: usize, protocol: u8) -> Vec<u8> {
    let sum = pseudo_header_sum(&packet, offset, protocol);
    write_checksum(&mut packet, offset, protocol, sum);
    packet
}

/// Writes the finished checksum.
pub(crate) fn with_checksum(packet: Vec<u8>, offset: usize, protocol: u8) -> Vec<u8> {
    let mut packet = with_open_checksum(packet, offset, protocol);
    let finished = !sum(&packet[offset..], 0);
    write_checksum(&mut packet, offset, protocol, finished);
    packet
}

pub(crate) const fn checksum_offset(protocol: u8) -> usize {
    if protocol == TCP { 16 } else { 6 }
}

fn write_checksum(packet: &mut [u8], offset: usize, protocol: u8, checksum: u16) {
    let at = offset + checksum_offset(protocol);
    packet[at..at + 2].copy_from_slice(&checksum.to_be_bytes());
}

fn sum(bytes: &[u8], start: u32) -> u16 {
    let word = |pair: &[u8]| u32::from(pair[0]) << 8 | pair.get(1).copied().map_or(0, u32::from);
    let mut sum = bytes.chunks(2).map(word).sum::<u32>() + start;
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

fn ports(source: u16, destination: u16) -> Vec<u8> {
    [source.to_be_bytes(), destination.to_be_bytes()].concat()
}

/// Offload header of a packet whose checksum is open behind `offset`.
pub(crate) fn open_checksum(offset: usize, protocol: u8) -> VnetHeader {
    VnetHeader {
        flags: VnetHeader::NEEDS_CSUM,
        csum_start: offset as u16,
        csum_offset: checksum_offset(protocol) as u16,
        ..VnetHeader::default()
    }
}
