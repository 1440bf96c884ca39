//! ICMPv6 (RFC 4443).

use std::net::Ipv6Addr;

use super::{NoReply, Unreachable, is_one_host_v6};
use stream_router_engine::checksum::Sum;

/// Longest error with its IP header: the smallest IPv6 MTU (RFC 4443, 3.1).
pub(super) const MAX_ERROR_LEN: usize = 1280;

const IP_LEN: usize = 40;
const ICMP_LEN: usize = 8;
const HOP_LIMIT: u8 = 64;
const DESTINATION_UNREACHABLE: u8 = 1;

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
    if !is_one_host_v6(source) {
        return Err(NoReply::Source);
    }
    if !is_one_host_v6(destination) {
        return Err(NoReply::Destination);
    }
    if icmp_type(header[6], &packet[IP_LEN..])?.is_some_and(|kind| kind < 128 || kind == 137) {
        return Err(NoReply::IcmpError);
    }
    Ok(write(packet, source, destination, why, room))
}

/// Type of the ICMPv6 message behind the extension headers, `None` if something else is there.
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
    let icmp_len = ICMP_LEN + quote.len();
    let (ip, icmp) = room[..IP_LEN + icmp_len].split_at_mut(IP_LEN);

    ip.fill(0);
    ip[0] = 0x60;
    ip[4..6].copy_from_slice(&(icmp_len as u16).to_be_bytes());
    ip[6] = ICMPV6;
    ip[7] = HOP_LIMIT;
    ip[8..24].copy_from_slice(&destination.octets());
    ip[24..40].copy_from_slice(&source.octets());

    icmp[..ICMP_LEN].fill(0);
    icmp[0] = DESTINATION_UNREACHABLE;
    icmp[1] = match why {
        Unreachable::NoRoute => 0,
        Unreachable::Host => 3,
    };
    icmp[ICMP_LEN..].copy_from_slice(quote);
    let sum = Sum::default()
        .add_bytes(&ip[8..40])
        .add_bytes(&(icmp_len as u32).to_be_bytes())
        .add_bytes(&u32::from(ICMPV6).to_be_bytes())
        .add_bytes(icmp)
        .finish();
    icmp[2..4].copy_from_slice(&sum);
    IP_LEN + icmp_len
}

fn address(bytes: &[u8]) -> Ipv6Addr {
    Ipv6Addr::from(<[u8; 16]>::try_from(bytes).expect("16 bytes of a fixed header"))
}
