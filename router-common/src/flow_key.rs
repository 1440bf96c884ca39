//! The key of a flow.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::host_address::{is_group_v4, is_group_v6, is_host_v4, is_host_v6};

/// Family of an IPv4 flow, as in the first nibble of its packets.
pub const FAMILY_V4: u8 = 4;
/// Family of an IPv6 flow, as in the first nibble of its packets.
pub const FAMILY_V6: u8 = 6;

/// What makes packets one flow: protocol, addresses and ports, where the packet has them.
///
/// Padding is part of a BPF hash key, so it has a name and is 0.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "user", derive(bytemuck::Pod, bytemuck::Zeroable))]
pub struct FlowKey {
    /// Source address; IPv4 as `::ffff:a.b.c.d`.
    pub source: [u8; 16],
    /// Destination address; IPv4 as `::ffff:a.b.c.d`.
    pub destination: [u8; 16],
    /// Source port, or echo identifier, in network order; 0 without ports.
    pub source_port_be: [u8; 2],
    /// Destination port in network order; 0 without ports.
    pub destination_port_be: [u8; 2],
    /// IP protocol number of the transport header; for IPv6 the one behind the extension headers.
    pub protocol: u8,
    /// [`FAMILY_V4`] or [`FAMILY_V6`].
    pub family: u8,
    /// Always 0.
    pub padding: [u8; 2],
}

const _: () = assert!(size_of::<FlowKey>() == 40);

impl FlowKey {
    /// Returns the source address.
    pub fn source_addr(&self) -> IpAddr {
        self.address(self.source)
    }

    /// Returns the destination address.
    pub fn destination_addr(&self) -> IpAddr {
        self.address(self.destination)
    }

    /// Returns whether the destination is a group of hosts.
    #[inline(always)]
    pub fn is_multicast(&self) -> bool {
        if self.family == FAMILY_V4 {
            is_group_v4(v4(&self.destination))
        } else {
            is_group_v6(&self.destination)
        }
    }

    /// Returns whether the source is one host that a router may forward packets of (RFC 1812, 5.3.7; RFC 4291).
    #[inline(always)]
    pub fn has_host_source(&self) -> bool {
        if self.family == FAMILY_V4 {
            is_host_v4(v4(&self.source))
        } else {
            is_host_v6(&self.source) && !is_link_local(&self.source)
        }
    }

    /// Returns whether the destination is of one link (RFC 4291).
    #[inline(always)]
    pub fn has_link_local_destination(&self) -> bool {
        is_link_local(&self.destination)
    }

    // The family decides and not the mapped form, which an IPv6 packet may have too.
    fn address(&self, bytes: [u8; 16]) -> IpAddr {
        match bytes {
            [.., a, b, c, d] if self.family == FAMILY_V4 => Ipv4Addr::new(a, b, c, d).into(),
            bytes => Ipv6Addr::from(bytes).into(),
        }
    }
}

/// The IPv4 address in a mapped one.
#[inline(always)]
fn v4(mapped: &[u8; 16]) -> [u8; 4] {
    [mapped[12], mapped[13], mapped[14], mapped[15]]
}

#[inline(always)]
fn is_link_local(address: &[u8; 16]) -> bool {
    address[0] == 0xfe && address[1] & 0xc0 == 0x80
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAPPED: [u8; 16] = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 10, 0, 0, 1];

    #[test]
    fn an_address_is_of_the_family_of_its_packet() {
        let key = |family| FlowKey {
            source: MAPPED,
            destination: MAPPED,
            family,
            ..FlowKey::default()
        };
        assert_eq!(key(FAMILY_V4).source_addr(), IpAddr::from([10, 0, 0, 1]));
        assert_eq!(
            key(FAMILY_V6).destination_addr(),
            IpAddr::from(Ipv6Addr::from(MAPPED))
        );
    }
}
