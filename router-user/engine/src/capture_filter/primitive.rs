//! The primitives of a filter expression, as pcap-filter(7) calls them: single conditions on a packet.

use std::ops::RangeInclusive;

use ipnet::IpNet;
use router_common::packet::{Parsed, protocol};

/// A packet as a filter sees it.
#[derive(Clone, Copy, Debug)]
pub struct FilterInput<'a, P> {
    /// What the parser found in the packet.
    pub parsed: &'a Parsed,
    /// The packet's length in bytes.
    pub len: usize,
    /// The peer that the packet goes to or comes from, if it has one.
    pub peer: Option<&'a P>,
}

/// The end of a packet that a primitive looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Endpoint {
    Source,
    Destination,
    Either,
}

/// One condition on a packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Primitive<P> {
    /// An address of the packet is in the prefix.
    Net(Endpoint, IpNet),
    /// A port of the packet is in the range; a packet without ports never matches.
    Port(Endpoint, RangeInclusive<u16>),
    /// The protocol behind the IP headers is this one.
    Protocol(u8),
    /// The packet is of this family, IPv4 or IPv6.
    Family(u8),
    /// The packet goes to or comes from this peer.
    Peer(P),
    /// The packet's length in bytes is in the range.
    Len(RangeInclusive<u32>),
}

impl<P> Primitive<P> {
    /// Returns the same condition with its peer replaced by what `find` returns for it.
    pub(super) fn resolve<Q, E>(&self, find: &mut impl FnMut(&P) -> Result<Q, E>) -> Result<Primitive<Q>, E> {
        Ok(match self {
            Self::Net(endpoint, net) => Primitive::Net(*endpoint, *net),
            Self::Port(endpoint, range) => Primitive::Port(*endpoint, range.clone()),
            Self::Protocol(number) => Primitive::Protocol(*number),
            Self::Family(family) => Primitive::Family(*family),
            Self::Peer(peer) => Primitive::Peer(find(peer)?),
            Self::Len(range) => Primitive::Len(range.clone()),
        })
    }
}

impl<P: PartialEq> Primitive<P> {
    /// Says whether the packet meets the condition.
    pub(super) fn matches(&self, packet: &FilterInput<'_, P>) -> bool {
        let key = &packet.parsed.key;
        match self {
            Self::Net(endpoint, net) => endpoint.any(
                || net.contains(&key.source_addr()),
                || net.contains(&key.destination_addr()),
            ),
            Self::Port(endpoint, range) => {
                has_ports(packet)
                    && endpoint.any(
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

impl Endpoint {
    fn any(self, source: impl FnOnce() -> bool, destination: impl FnOnce() -> bool) -> bool {
        match self {
            Self::Source => source(),
            Self::Destination => destination(),
            Self::Either => source() || destination(),
        }
    }
}

/// Says whether the packet has ports. The key holds an echo's identifier where ports would be, and nothing for a fragment.
fn has_ports<P>(packet: &FilterInput<'_, P>) -> bool {
    let protocol = packet.parsed.key.protocol;
    !packet.parsed.fragment && matches!(protocol, protocol::TCP | protocol::UDP | protocol::SCTP)
}
