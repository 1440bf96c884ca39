//! What a line says of an ICMP message.

use std::fmt;

use router_common::packet::{Parsed, protocol};

/// Type, code, identifier and sequence number.
const HEADER_LEN: usize = 8;

/// The start of an ICMP or ICMPv6 message.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct IcmpMessage {
    protocol: u8,
    pub(super) kind: u8,
    pub(super) code: u8,
    pub(super) echo: Option<Echo>,
}

/// What an echo request and its reply have in common.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Echo {
    pub(super) id: u16,
    pub(super) sequence: u16,
}

impl IcmpMessage {
    /// Reads the message of a packet, if it has one and so much of it was captured.
    pub(super) fn read(parsed: &Parsed, packet: &[u8]) -> Option<Self> {
        let protocol = parsed.key.protocol;
        let is_icmp = matches!(protocol, protocol::ICMP | protocol::ICMPV6);
        if !is_icmp || parsed.fragment && !parsed.first_fragment {
            return None;
        }
        let message = packet.get(parsed.transport_offset as usize..)?;
        let &[kind, code, _, _, a, b, c, d] = message.first_chunk::<HEADER_LEN>()?;
        let is_echo = matches!(
            (protocol, kind),
            (protocol::ICMP, 0 | 8) | (protocol::ICMPV6, 128 | 129)
        );
        Some(Self {
            protocol,
            kind,
            code,
            echo: is_echo.then(|| Echo {
                id: u16::from_be_bytes([a, b]),
                sequence: u16::from_be_bytes([c, d]),
            }),
        })
    }

    /// The name of its type (IANA), of those that are met.
    fn name(&self) -> Option<&'static str> {
        Some(match (self.protocol, self.kind) {
            (protocol::ICMP, 0) | (protocol::ICMPV6, 129) => "echo reply",
            (protocol::ICMP, 3) | (protocol::ICMPV6, 1) => "destination unreachable",
            (protocol::ICMP, 5) | (protocol::ICMPV6, 137) => "redirect",
            (protocol::ICMP, 8) | (protocol::ICMPV6, 128) => "echo request",
            (protocol::ICMP, 11) | (protocol::ICMPV6, 3) => "time exceeded",
            (protocol::ICMP, 12) | (protocol::ICMPV6, 4) => "parameter problem",
            (protocol::ICMP, 13) => "timestamp",
            (protocol::ICMP, 14) => "timestamp reply",
            (protocol::ICMPV6, 2) => "packet too big",
            (protocol::ICMPV6, 133) => "router solicitation",
            (protocol::ICMPV6, 134) => "router advertisement",
            (protocol::ICMPV6, 135) => "neighbor solicitation",
            (protocol::ICMPV6, 136) => "neighbor advertisement",
            _ => return None,
        })
    }
}

impl fmt::Display for IcmpMessage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name)?,
            None => write!(f, "type {}", self.kind)?,
        }
        if self.code != 0 {
            write!(f, " code {}", self.code)?;
        }
        if let Some(Echo { id, sequence }) = self.echo {
            write!(f, " id {id} seq {sequence}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use router_common::packet::parse;

    use super::*;

    /// An IPv4 packet with the start of a message in it.
    fn packet(protocol: u8, message: [u8; HEADER_LEN], fragment_offset: u8) -> Vec<u8> {
        let mut packet = vec![0x45, 0, 0, 28, 0, 1, 0, fragment_offset, 64, protocol, 0, 0];
        packet.extend([10, 42, 0, 1, 10, 42, 0, 2]);
        packet.extend(message);
        packet
    }

    fn said(packet: &[u8]) -> Option<String> {
        let parsed = parse(packet, packet.len() as u32).unwrap();
        IcmpMessage::read(&parsed, packet).map(|message| message.to_string())
    }

    #[test]
    fn a_message_is_named_and_an_echo_has_its_number() {
        for (message, expected) in [
            ([8, 0, 0, 0, 1, 2, 0, 3], "echo request id 258 seq 3"),
            ([0, 0, 0, 0, 1, 2, 0, 3], "echo reply id 258 seq 3"),
            ([3, 4, 0, 0, 0, 0, 5, 0], "destination unreachable code 4"),
            ([200, 1, 0, 0, 0, 0, 0, 0], "type 200 code 1"),
        ] {
            let packet = packet(protocol::ICMP, message, 0);
            assert_eq!(said(&packet).as_deref(), Some(expected));
        }
    }

    #[test]
    fn other_protocols_and_later_fragments_say_nothing() {
        let echo = [8, 0, 0, 0, 1, 2, 0, 3];

        assert_eq!(said(&packet(protocol::GRE, echo, 0)), None);
        assert_eq!(said(&packet(protocol::ICMP, echo, 100)), None);
    }
}
