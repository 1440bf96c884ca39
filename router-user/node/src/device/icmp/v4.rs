//! ICMP (RFC 792, RFC 1812).

use std::net::Ipv4Addr;

use super::{NoReply, Unreachable, is_one_host_v4};
use stream_router_engine::checksum::Sum;

/// Longest error with its IP header (RFC 1812, 4.3.2.3).
const MAX_ERROR_LEN: usize = 576;

const IP_LEN: usize = 20;
const ICMP_LEN: usize = 8;
const PROTOCOL_ICMP: u8 = 1;
const DESTINATION_UNREACHABLE: u8 = 3;
/// Precedence "internetwork control" (RFC 1812, 4.3.2.5).
const TOS_INTERNETWORK_CONTROL: u8 = 0xc0;
const DONT_FRAGMENT: u8 = 0x40;
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
    if !is_one_host_v4(source) {
        return Err(NoReply::Source);
    }
    if !is_one_host_v4(destination) {
        return Err(NoReply::Destination);
    }
    if fragment_offset != 0 {
        return Err(NoReply::LaterFragment);
    }
    if header[9] == PROTOCOL_ICMP {
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
    let (ip, icmp) = room[..len].split_at_mut(IP_LEN);

    ip.fill(0);
    ip[0] = 0x45;
    ip[1] = TOS_INTERNETWORK_CONTROL;
    ip[2..4].copy_from_slice(&(len as u16).to_be_bytes());
    // Never fragmented, so it needs no identification (RFC 6864).
    ip[6] = DONT_FRAGMENT;
    ip[8] = TTL;
    ip[9] = PROTOCOL_ICMP;
    ip[12..16].copy_from_slice(&destination.octets());
    ip[16..20].copy_from_slice(&source.octets());
    let sum = Sum::default().add_bytes(ip).finish();
    ip[10..12].copy_from_slice(&sum);

    icmp[..ICMP_LEN].fill(0);
    icmp[0] = DESTINATION_UNREACHABLE;
    icmp[1] = match why {
        Unreachable::NoRoute => 0,
        Unreachable::Host => 1,
    };
    icmp[ICMP_LEN..].copy_from_slice(quote);
    let sum = Sum::default().add_bytes(icmp).finish();
    icmp[2..4].copy_from_slice(&sum);
    len
}
