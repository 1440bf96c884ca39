//! What of the transport header belongs to the flow.

use super::{PacketReader, Parsed, protocol};
use crate::flow_key::FlowKey;
use crate::reason::Reason;

const ECHO_V4: [u8; 2] = [8, 0];
const ECHO_V6: [u8; 2] = [128, 129];

/// Fills in ports, and what offloads need to know of the header.
#[inline(always)]
pub(super) fn parse<R: PacketReader + ?Sized>(
    reader: &R,
    len: u32,
    parsed: &mut Parsed,
) -> Result<(), Reason> {
    let offset = parsed.transport_offset;
    match parsed.key.protocol {
        protocol::TCP => {
            let header = reader.load::<20>(offset).ok_or(Reason::Truncated)?;
            let header_len = u32::from(header[12] >> 4) * 4;
            if header_len < 20 || offset + header_len > len {
                return Err(Reason::BadHeaderLength);
            }
            ports(parsed, [header[0], header[1]], [header[2], header[3]]);
            parsed.transport_len = header_len;
            parsed.tcp_flags = header[13];
        }
        protocol::UDP => {
            let header = reader.load::<8>(offset).ok_or(Reason::Truncated)?;
            ports(parsed, [header[0], header[1]], [header[2], header[3]]);
            parsed.transport_len = 8;
        }
        protocol::SCTP => {
            let header = reader.load::<12>(offset).ok_or(Reason::Truncated)?;
            ports(parsed, [header[0], header[1]], [header[2], header[3]]);
        }
        protocol::ICMP => echo(reader, parsed, ECHO_V4)?,
        protocol::ICMPV6 => echo(reader, parsed, ECHO_V6)?,
        _ => {}
    }
    Ok(())
}

/// Fills in the ports of a first fragment, which may end anywhere: what is not there is left out, and so it is for the
/// fragments behind it.
#[inline(always)]
pub(super) fn parse_ports<R: PacketReader + ?Sized>(reader: &R, len: u32, parsed: &mut Parsed) {
    let offset = parsed.transport_offset;
    let end = if parsed.total_len == 0 {
        len
    } else {
        parsed.total_len
    };
    // What a driver pads a frame with is no part of the packet.
    if offset + 8 > end {
        return;
    }
    match parsed.key.protocol {
        protocol::TCP | protocol::UDP | protocol::SCTP => {
            if let Some([s0, s1, d0, d1]) = reader.load::<4>(offset) {
                ports(parsed, [s0, s1], [d0, d1]);
            }
        }
        // A fragment that is too short for the identifier has none.
        protocol::ICMP => echo(reader, parsed, ECHO_V4).unwrap_or(()),
        protocol::ICMPV6 => echo(reader, parsed, ECHO_V6).unwrap_or(()),
        _ => {}
    }
}

#[inline(always)]
fn ports(parsed: &mut Parsed, source: [u8; 2], destination: [u8; 2]) {
    parsed.key.source_port_be = source;
    parsed.key.destination_port_be = destination;
}

/// An echo's identifier tells one ping from another, in both directions.
#[inline(always)]
fn echo<R: PacketReader + ?Sized>(reader: &R, parsed: &mut Parsed, types: [u8; 2]) -> Result<(), Reason> {
    let header = reader
        .load::<8>(parsed.transport_offset)
        .ok_or(Reason::Truncated)?;
    if types.contains(&header[0]) {
        ports(parsed, [header[4], header[5]], [0, 0]);
    }
    Ok(())
}

/// Returns the key of the packets that answer those of `key`: the flow of a connection's other direction.
pub fn reversed(key: &FlowKey) -> FlowKey {
    let (source_port_be, destination_port_be) = match key.protocol {
        // The identifier of an echo stands first in both directions.
        protocol::ICMP | protocol::ICMPV6 => (key.source_port_be, key.destination_port_be),
        _ => (key.destination_port_be, key.source_port_be),
    };
    FlowKey {
        source: key.destination,
        destination: key.source,
        source_port_be,
        destination_port_be,
        ..*key
    }
}
