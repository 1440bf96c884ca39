//! Builds the ICMP and ICMPv6 "destination unreachable" that answers a packet nobody can take.

use std::net::{Ipv4Addr, Ipv6Addr};

use router_common::frame::VnetHeader;

#[cfg(test)]
mod tests;
mod v4;
mod v6;

/// Longest reply: the offload header and the smallest IPv6 MTU, which RFC 4443 lets an error fill.
pub const MAX_REPLY_LEN: usize = VnetHeader::LEN + v6::MAX_ERROR_LEN;

/// Why a destination cannot be reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unreachable {
    /// Nobody has the network: ICMP type 3 code 0, ICMPv6 type 1 code 0.
    NoRoute,
    /// Its peer is not connected: ICMP type 3 code 1, ICMPv6 type 1 code 3.
    Host,
}

/// Why a packet gets no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoReply {
    /// It is no IP packet, or cut off within its headers.
    Malformed,
    /// It is itself an ICMP error or redirect; answering could go on for ever.
    IcmpError,
    /// It is a fragment other than the first, and has no ports to find the sender by.
    LaterFragment,
    /// Its source is not one host.
    Source,
    /// Its destination is not one host.
    Destination,
}

/// Room for a reply, to be used again and again.
#[derive(Debug)]
pub struct ReplyBuffer([u8; MAX_REPLY_LEN]);

impl Default for ReplyBuffer {
    fn default() -> Self {
        Self([0; MAX_REPLY_LEN])
    }
}

/// Builds the answer to `packet`, which begins at its IP header, and returns it as it is injected: an offload header
/// without offloads, then the answer, quoting as much of the packet as RFC 1812 and RFC 4443 allow.
///
/// Its source is the destination of the packet, as if the unreachable host had answered: the host drops what comes
/// through a device with one of its own addresses as source. A super-packet is quoted as it is.
///
/// # Errors
/// The packet must not be answered (RFC 1122, 3.2.2; RFC 4443, 2.4 (e)).
pub fn unreachable<'a>(
    packet: &[u8],
    why: Unreachable,
    reply: &'a mut ReplyBuffer,
) -> Result<&'a [u8], NoReply> {
    let (vnet, room) = reply.0.split_at_mut(VnetHeader::LEN);
    vnet.fill(0);
    let len = match packet.first().map(|byte| byte >> 4) {
        Some(4) => v4::unreachable(packet, why, room)?,
        Some(6) => v6::unreachable(packet, why, room)?,
        _ => return Err(NoReply::Malformed),
    };
    Ok(&reply.0[..VnetHeader::LEN + len])
}

/// Whether the address can be that of one host, seen from elsewhere.
fn is_one_host_v4(ip: Ipv4Addr) -> bool {
    // 0.0.0.0/8 and 240.0.0.0/4, with the broadcast address in it, belong to nobody.
    !(ip.octets()[0] == 0 || ip.octets()[0] >= 224 || ip.is_loopback())
}

fn is_one_host_v6(ip: Ipv6Addr) -> bool {
    !(ip.is_unspecified() || ip.is_loopback() || ip.is_multicast())
}
