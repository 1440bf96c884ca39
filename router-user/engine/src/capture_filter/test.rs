//! What an expression asks of a packet.

use std::net::{IpAddr, Ipv6Addr};
use std::ops::RangeInclusive;

use ipnet::IpNet;
use router_common::flow_key::{FAMILY_V4, FlowKey};
use router_common::packet::protocol;

use super::Candidate;

/// Which end of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    Source,
    Destination,
    Either,
}

/// One test.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Test<P> {
    /// An address in the prefix.
    Net(Side, IpNet),
    /// A port in the range; a packet without ports has none.
    Port(Side, RangeInclusive<u16>),
    /// The protocol behind the IP headers.
    Protocol(u8),
    /// IPv4 or IPv6.
    Family(u8),
    /// The peer.
    Peer(P),
    /// The length in bytes.
    Len(RangeInclusive<u32>),
}

impl<P> Test<P> {
    /// The same with what `find` says its peer is.
    pub(super) fn resolve<Q, E>(&self, find: &mut impl FnMut(&P) -> Result<Q, E>) -> Result<Test<Q>, E> {
        Ok(match self {
            Self::Net(side, net) => Test::Net(*side, *net),
            Self::Port(side, range) => Test::Port(*side, range.clone()),
            Self::Protocol(number) => Test::Protocol(*number),
            Self::Family(family) => Test::Family(*family),
            Self::Peer(peer) => Test::Peer(find(peer)?),
            Self::Len(range) => Test::Len(range.clone()),
        })
    }
}

impl<P: PartialEq> Test<P> {
    /// Whether the packet passes.
    pub(super) fn matches(&self, packet: &Candidate<'_, P>) -> bool {
        let key = &packet.parsed.key;
        match self {
            Self::Net(side, net) => side.any(
                || net.contains(&address(key, key.source)),
                || net.contains(&address(key, key.destination)),
            ),
            Self::Port(side, range) => {
                has_ports(packet)
                    && side.any(
                        || range.contains(&u16::from_be_bytes(key.source_port_be)),
                        || range.contains(&u16::from_be_bytes(key.destination_port_be)),
                    )
            }
            Self::Protocol(number) => key.protocol == *number,
            Self::Family(family) => key.family == *family,
            Self::Peer(peer) => packet.peer == Some(peer),
            Self::Len(range) => u32::try_from(packet.len).is_ok_and(|len| range.contains(&len)),
        }
    }
}

impl Side {
    fn any(self, source: impl FnOnce() -> bool, destination: impl FnOnce() -> bool) -> bool {
        match self {
            Self::Source => source(),
            Self::Destination => destination(),
            Self::Either => source() || destination(),
        }
    }
}

/// The key holds an echo's identifier where ports would be, and nothing for a fragment.
fn has_ports<P>(packet: &Candidate<'_, P>) -> bool {
    let protocol = packet.parsed.key.protocol;
    !packet.parsed.fragment && matches!(protocol, protocol::TCP | protocol::UDP | protocol::SCTP)
}

fn address(key: &FlowKey, bytes: [u8; 16]) -> IpAddr {
    let address = Ipv6Addr::from(bytes);
    match address.to_ipv4_mapped() {
        Some(v4) if key.family == FAMILY_V4 => v4.into(),
        _ => address.into(),
    }
}
