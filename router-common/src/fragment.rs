//! The flow of a fragment: only the first one of a packet has ports, so it leaves them for those behind it.

use crate::flow_key::{FAMILY_V4, FlowKey};

/// For how long the ports of a first fragment are good, in ns: hosts give up on a packet after 30 s (Linux), and use an
/// identification again some time later.
pub const FRAGMENT_TTL_NS: u64 = 30_000_000_000;

/// Turns the flow key of a fragment into a key that all fragments of its packet have (RFC 791, RFC 8200 4.5): the
/// identification takes the place of the ports, which only the first one has. For IPv6 the protocol is left out, because it
/// may stand behind further headers. The key is changed in place, because the programs have little room.
#[inline(always)]
pub fn make_packet_key(key: &mut FlowKey, id: u32) {
    let [a, b, c, d] = id.to_be_bytes();
    key.source_port_be = [a, b];
    key.destination_port_be = [c, d];
    if key.family != FAMILY_V4 {
        key.protocol = 0;
    }
}

/// What a first fragment leaves for those behind it.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "user", derive(bytemuck::Pod, bytemuck::Zeroable))]
pub struct FragmentPorts {
    /// When it was seen, in ns of the coarse monotonic clock.
    pub seen_ns: u64,
    /// Source port, or echo identifier, as in a [`FlowKey`].
    pub source_port_be: [u8; 2],
    /// Destination port, as in a [`FlowKey`].
    pub destination_port_be: [u8; 2],
    /// Protocol of the transport header, in a word of its own: odd bytes of padding are a call in the programs.
    pub protocol: u32,
}

const _: () = assert!(size_of::<FragmentPorts>() == 16);

impl FragmentPorts {
    /// Returns what the flow key of a fragment says.
    #[inline(always)]
    pub fn of(key: &FlowKey, now_ns: u64) -> Self {
        Self {
            seen_ns: now_ns,
            source_port_be: key.source_port_be,
            destination_port_be: key.destination_port_be,
            protocol: key.protocol.into(),
        }
    }

    /// Puts ports and protocol into the flow key of a fragment.
    #[inline(always)]
    pub fn complete(&self, key: &mut FlowKey) {
        key.source_port_be = self.source_port_be;
        key.destination_port_be = self.destination_port_be;
        key.protocol = self.protocol as u8;
    }

    /// Says whether the packet was seen too long ago for a fragment of it to come now.
    #[inline(always)]
    pub fn expired(&self, now_ns: u64) -> bool {
        now_ns.saturating_sub(self.seen_ns) > FRAGMENT_TTL_NS
    }
}
