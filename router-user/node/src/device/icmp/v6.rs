//! ICMPv6 (RFC 4443).

use std::net::Ipv6Addr;

use etherparse::icmpv6::DestUnreachableCode;
use etherparse::{Icmpv6Header, Icmpv6Type, IpNumber, Ipv6Header};

use super::rules::{NoReply, Unreachable};
use router_common::host_address::is_host_v6;

/// Longest error with its IP header: the smallest IPv6 MTU (RFC 4443, 3.1).
pub(super) const MAX_ERROR_LEN: usize = 1280;

const IP_LEN: usize = 40;
const ICMP_LEN: usize = 8;
const HOP_LIMIT: u8 = 64;

const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const AUTHENTICATION: u8 = 51;
const ICMPV6: u8 = 58;
const DESTINATION_OPTIONS: u8 = 60;

/// Extension headers looked through before giving up; real packets have at most a handful.
const MAX_EXTENSIONS: usize = 8;

/// Writes the error at the start of `room` and returns its length.
pub(super) fn unreachable(packet: &[u8], why: Unreachable, room: &mut [u8]) -> Result<usize, NoReply> {
    let header = packet.first_chunk::<IP_LEN>().ok_or(NoReply::Malformed)?;
    let payload_len = usize::from(u16::from_be_bytes([header[4], header[5]]));
    let packet = packet.get(..IP_LEN + payload_len).ok_or(NoReply::Malformed)?;
    let source = address(&header[8..24]);
    let destination = address(&header[24..40]);
    if !is_host_v6(&source.octets()) {
        return Err(NoReply::Source);
    }
    if !is_host_v6(&destination.octets()) {
        return Err(NoReply::Destination);
    }
    if icmp_type(header[6], &packet[IP_LEN..])?.is_some_and(|kind| kind < 128 || kind == 137) {
        return Err(NoReply::IcmpError);
    }
    Ok(write(packet, source, destination, why, room))
}

/// Returns the type of the ICMPv6 message behind the extension headers, `None` if something else is there.
fn icmp_type(mut next: u8, mut rest: &[u8]) -> Result<Option<u8>, NoReply> {
    for _ in 0..=MAX_EXTENSIONS {
        let len = match next {
            ICMPV6 => return rest.first().map(|kind| Some(*kind)).ok_or(NoReply::Malformed),
            FRAGMENT => {
                let header = rest.first_chunk::<8>().ok_or(NoReply::Malformed)?;
                if u16::from_be_bytes([header[2], header[3]]) & 0xfff8 != 0 {
                    return Err(NoReply::LaterFragment);
                }
                8
            }
            HOP_BY_HOP | ROUTING | DESTINATION_OPTIONS => extension_units(rest)? * 8 + 8,
            AUTHENTICATION => extension_units(rest)? * 4 + 8,
            _ => return Ok(None),
        };
        next = *rest.first().ok_or(NoReply::Malformed)?;
        rest = rest.get(len..).ok_or(NoReply::Malformed)?;
    }
    Err(NoReply::Malformed)
}

fn extension_units(header: &[u8]) -> Result<usize, NoReply> {
    header
        .get(1)
        .map(|units| usize::from(*units))
        .ok_or(NoReply::Malformed)
}

fn write(packet: &[u8], source: Ipv6Addr, destination: Ipv6Addr, why: Unreachable, room: &mut [u8]) -> usize {
    let quote = &packet[..packet.len().min(MAX_ERROR_LEN - IP_LEN - ICMP_LEN)];
    let code = match why {
        Unreachable::NoRoute => DestUnreachableCode::NoRoute,
        Unreachable::Host => DestUnreachableCode::Address,
    };
    let (from, to) = (destination.octets(), source.octets());
    let icmp = Icmpv6Header::with_checksum(Icmpv6Type::DestinationUnreachable(code), from, to, quote)
        .expect("a quote is shorter than the longest ICMPv6 message");
    let ip = Ipv6Header {
        payload_length: (ICMP_LEN + quote.len()) as u16,
        next_header: IpNumber::IPV6_ICMP,
        hop_limit: HOP_LIMIT,
        source: from,
        destination: to,
        ..Ipv6Header::default()
    };

    let len = IP_LEN + ICMP_LEN + quote.len();
    room[..IP_LEN].copy_from_slice(&ip.to_bytes());
    room[IP_LEN..IP_LEN + ICMP_LEN].copy_from_slice(&icmp.to_bytes());
    room[IP_LEN + ICMP_LEN..len].copy_from_slice(quote);
    len
}

fn address(bytes: &[u8]) -> Ipv6Addr {
    Ipv6Addr::from(<[u8; 16]>::try_from(bytes).expect("16 bytes of a fixed header"))
}
