//! ICMP (RFC 792, RFC 1812).

use std::net::Ipv4Addr;

use etherparse::icmpv4::DestUnreachableHeader;
use etherparse::{Icmpv4Header, Icmpv4Type, IpDscp, IpNumber, Ipv4Header};

use super::rules::{NoReply, Unreachable};
use router_common::host_address::is_host_v4;

/// Longest error with its IP header (RFC 1812, 4.3.2.3).
const MAX_ERROR_LEN: usize = 576;

const IP_LEN: usize = 20;
const ICMP_LEN: usize = 8;
/// Precedence "internetwork control" (RFC 1812, 4.3.2.5).
const INTERNETWORK_CONTROL: IpDscp = IpDscp::CS6;
const TTL: u8 = 64;

/// Writes the error at the start of `room` and returns its length.
pub(super) fn unreachable(packet: &[u8], why: Unreachable, room: &mut [u8]) -> Result<usize, NoReply> {
    let header = packet.first_chunk::<IP_LEN>().ok_or(NoReply::Malformed)?;
    let header_len = usize::from(header[0] & 0x0f) * 4;
    let total_len = usize::from(u16::from_be_bytes([header[2], header[3]]));
    let packet = packet.get(..total_len).ok_or(NoReply::Malformed)?;
    if header_len < IP_LEN || header_len > total_len {
        return Err(NoReply::Malformed);
    }
    let fragment_offset = u16::from_be_bytes([header[6], header[7]]) & 0x1fff;
    let source = Ipv4Addr::new(header[12], header[13], header[14], header[15]);
    let destination = Ipv4Addr::new(header[16], header[17], header[18], header[19]);
    if !is_host_v4(source.octets()) {
        return Err(NoReply::Source);
    }
    if !is_host_v4(destination.octets()) {
        return Err(NoReply::Destination);
    }
    if fragment_offset != 0 {
        return Err(NoReply::LaterFragment);
    }
    if header[9] == IpNumber::ICMP.0 {
        match packet.get(header_len) {
            // Unreachable, source quench, redirect, time exceeded, parameter problem.
            Some(3 | 4 | 5 | 11 | 12) => return Err(NoReply::IcmpError),
            Some(_) => {}
            None => return Err(NoReply::Malformed),
        }
    }
    Ok(write(packet, source, destination, why, room))
}

fn write(packet: &[u8], source: Ipv4Addr, destination: Ipv4Addr, why: Unreachable, room: &mut [u8]) -> usize {
    let quote = &packet[..packet.len().min(MAX_ERROR_LEN - IP_LEN - ICMP_LEN)];
    let len = IP_LEN + ICMP_LEN + quote.len();
    let code = match why {
        Unreachable::NoRoute => DestUnreachableHeader::Network,
        Unreachable::Host => DestUnreachableHeader::Host,
    };
    let icmp = Icmpv4Header::with_checksum(Icmpv4Type::DestinationUnreachable(code), quote);
    let mut ip = Ipv4Header {
        dscp: INTERNETWORK_CONTROL,
        total_len: len as u16,
        // Never fragmented, so it needs no identification (RFC 6864).
        dont_fragment: true,
        time_to_live: TTL,
        protocol: IpNumber::ICMP,
        source: destination.octets(),
        destination: source.octets(),
        ..Ipv4Header::default()
    };
    ip.header_checksum = ip.calc_header_checksum();

    room[..IP_LEN].copy_from_slice(&ip.to_bytes());
    room[IP_LEN..IP_LEN + ICMP_LEN].copy_from_slice(&icmp.to_bytes());
    room[IP_LEN + ICMP_LEN..len].copy_from_slice(quote);
    len
}
