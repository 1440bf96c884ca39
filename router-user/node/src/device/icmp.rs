//! Builds the ICMP and ICMPv6 "destination unreachable" that answers a packet nobody can take.

mod rules;
#[cfg(test)]
mod tests;
mod v4;
mod v6;

use router_common::frame::VnetHeader;
pub use rules::{NoReply, Unreachable};

/// Longest reply: the offload header and the smallest IPv6 MTU, which RFC 4443 lets an error fill.
pub const MAX_REPLY_LEN: usize = VnetHeader::LEN + v6::MAX_ERROR_LEN;

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
