//! A captured packet as a line for people, or as JSON.

use std::net::{IpAddr, SocketAddr};

use serde::Serialize;

use super::icmp::IcmpMessage;
use crate::cli::units::short_name;
use crate::control::{CapturedPacket, IpProtocol};
use router_common::frame::VnetHeader;
use router_common::packet::{Parsed, parse, protocol};

const NS_PER_S: u64 = 1_000_000_000;

/// Names of the flags in a TCP header, from the lowest bit, as tcpdump writes them.
const TCP_FLAGS: [char; 8] = ['F', 'S', 'R', 'P', '.', 'U', 'E', 'W'];

/// A packet as JSON; API.md lists the fields.
#[derive(Debug, PartialEq, Serialize)]
struct PacketLine {
    time_ns: u64,
    direction: &'static str,
    peer: Option<String>,
    peer_name: Option<String>,
    source: Option<IpAddr>,
    source_port: Option<u16>,
    destination: Option<IpAddr>,
    destination_port: Option<u16>,
    protocol: Option<IpProtocol>,
    tcp_flags: Option<String>,
    icmp_type: Option<u8>,
    icmp_code: Option<u8>,
    icmp_id: Option<u16>,
    icmp_sequence: Option<u16>,
    #[serde(skip)]
    icmp: Option<IcmpMessage>,
    fragment: bool,
    length: u32,
    segments: u32,
    segment_bytes: Option<u16>,
}

impl PacketLine {
    fn new(packet: &CapturedPacket<'_>) -> Self {
        // Its headers say its whole length, so the parser is told that.
        let parsed = parse(&packet.bytes[..], packet.len).ok();
        let key = parsed.map(|parsed| parsed.key);
        let ports = parsed.filter(has_ports).map(|parsed| parsed.key);
        let is_tcp = |parsed: &Parsed| parsed.key.protocol == protocol::TCP && !parsed.fragment;
        let icmp = parsed.and_then(|parsed| IcmpMessage::read(&parsed, &packet.bytes));
        let echo = icmp.and_then(|icmp| icmp.echo);
        Self {
            time_ns: packet.time_ns,
            direction: packet.direction.name(),
            peer: packet.peer.map(|peer| peer.to_string()),
            peer_name: packet.peer_name.as_deref().map(str::to_owned),
            source: key.map(|key| key.source_addr()),
            source_port: ports.map(|key| u16::from_be_bytes(key.source_port_be)),
            destination: key.map(|key| key.destination_addr()),
            destination_port: ports.map(|key| u16::from_be_bytes(key.destination_port_be)),
            protocol: key.map(|key| IpProtocol(key.protocol)),
            tcp_flags: parsed.filter(is_tcp).map(|parsed| tcp_flags(parsed.tcp_flags)),
            icmp_type: icmp.map(|icmp| icmp.kind),
            icmp_code: icmp.map(|icmp| icmp.code),
            icmp_id: echo.map(|echo| echo.id),
            icmp_sequence: echo.map(|echo| echo.sequence),
            icmp,
            fragment: parsed.is_some_and(|parsed| parsed.fragment),
            length: packet.len,
            segments: n_segments(packet),
            segment_bytes: (packet.vnet.gso_size > 0).then_some(packet.vnet.gso_size),
        }
    }

    fn text(&self, is_numeric: bool) -> String {
        let name = self.peer_name.as_deref().filter(|_| !is_numeric);
        let peer = self.peer.as_deref().map_or("-", |id| short_name(name, id));
        let mut text = format!("{} {:<3} {peer:<8} ", time_of_day(self.time_ns), self.direction);
        match (self.source, self.destination, self.protocol) {
            (Some(source), Some(destination), Some(protocol)) => {
                text += &format!(
                    "{} > {}: {protocol}",
                    endpoint(source, self.source_port),
                    endpoint(destination, self.destination_port),
                );
            }
            _ => text += "headers not captured:",
        }
        if let Some(flags) = &self.tcp_flags {
            text += &format!(" [{flags}]");
        }
        if let Some(icmp) = &self.icmp {
            text += &format!(" {icmp}");
        }
        if self.fragment {
            text += " fragment";
        }
        text += &format!(" length {}", self.length);
        if let Some(segment_bytes) = self.segment_bytes {
            text += &format!(", {} segments of {segment_bytes}", self.segments);
        }
        text
    }
}

/// Appends a line for people, in which names are ids if it is to be numeric.
pub(super) fn put_line(into: &mut Vec<u8>, packet: &CapturedPacket<'_>, is_numeric: bool) {
    into.extend_from_slice(PacketLine::new(packet).text(is_numeric).as_bytes());
    into.push(b'\n');
}

/// Appends a line of JSON.
pub(super) fn put_json(into: &mut Vec<u8>, packet: &CapturedPacket<'_>) {
    // Texts and numbers always become JSON.
    if let Ok(json) = serde_json::to_vec(&PacketLine::new(packet)) {
        into.extend_from_slice(&json);
        into.push(b'\n');
    }
}

fn has_ports(parsed: &Parsed) -> bool {
    !parsed.fragment
        && matches!(
            parsed.key.protocol,
            protocol::TCP | protocol::UDP | protocol::SCTP
        )
}

fn endpoint(address: IpAddr, port: Option<u16>) -> String {
    match port {
        Some(port) => SocketAddr::new(address, port).to_string(),
        None => address.to_string(),
    }
}

/// Returns how many packets the super-packet becomes on a wire.
fn n_segments(packet: &CapturedPacket<'_>) -> u32 {
    let VnetHeader {
        hdr_len, gso_size, ..
    } = packet.vnet;
    let payload = packet.len.saturating_sub(hdr_len.into());
    match gso_size {
        0 => 1,
        gso_size => payload.div_ceil(gso_size.into()).max(1),
    }
}

fn tcp_flags(flags: u8) -> String {
    let set = TCP_FLAGS
        .iter()
        .enumerate()
        .filter(|(bit, _)| flags & (1 << bit) != 0);
    let names: String = set.map(|(_, name)| name).collect();
    if names.is_empty() {
        "none".to_owned()
    } else {
        names
    }
}

/// Returns the time of day in universal time.
fn time_of_day(time_ns: u64) -> String {
    let (seconds, us) = (time_ns / NS_PER_S, time_ns % NS_PER_S / 1000);
    format!(
        "{:02}:{:02}:{:02}.{us:06}",
        seconds / 3600 % 24,
        seconds / 60 % 60,
        seconds % 60
    )
}

#[cfg(test)]
mod tests {
    use libp2p::PeerId;

    use super::*;
    use crate::control::CaptureDirection;

    fn captured(bytes: &[u8]) -> CapturedPacket<'_> {
        CapturedPacket {
            time_ns: (13 * 3600 + 2 * 60 + 3) * NS_PER_S + 456_789_999,
            direction: CaptureDirection::Out,
            peer: None,
            peer_name: None,
            len: bytes.len() as u32,
            vnet: VnetHeader::default(),
            bytes: bytes.into(),
        }
    }

    fn tcp() -> Vec<u8> {
        let mut packet = Vec::new();
        etherparse::PacketBuilder::ipv4([10, 42, 0, 1], [10, 42, 0, 2], 64)
            .tcp(40_000, 443, 1, 1000)
            .syn()
            .ack(7)
            .write(&mut packet, &[0; 3000])
            .unwrap();
        packet
    }

    fn super_packet(packet: &[u8]) -> PacketLine {
        PacketLine::new(&CapturedPacket {
            vnet: VnetHeader {
                gso_type: VnetHeader::GSO_TCPV4,
                hdr_len: 40,
                gso_size: 1380,
                ..VnetHeader::default()
            },
            peer: Some(PeerId::random()),
            peer_name: Some("paris".into()),
            bytes: packet[..40].into(),
            ..captured(packet)
        })
    }

    #[test]
    fn a_super_packet_is_one_line_though_only_its_headers_are_there() {
        let (named, nameless) = (super_packet(&tcp()), super_packet(&tcp()));
        let nameless = PacketLine {
            peer_name: None,
            ..nameless
        };

        let id = nameless.peer.clone().unwrap();
        let numeric = named.text(true);
        assert!(
            numeric.contains(short_name(None, named.peer.as_ref().unwrap())),
            "{numeric}"
        );
        for (line, peer) in [(named, "paris   "), (nameless, short_name(None, &id))] {
            assert_eq!(
                line.text(false),
                format!(
                    "13:02:03.456789 out {peer} 10.42.0.1:40000 > 10.42.0.2:443: tcp [S.] length 3040, 3 segments of 1380"
                )
            );
        }
    }

    fn ping() -> Vec<u8> {
        let mut packet = Vec::new();
        etherparse::PacketBuilder::ipv6([1; 16], [2; 16], 9)
            .icmpv6_echo_request(7, 1)
            .write(&mut packet, &[0; 8])
            .unwrap();
        packet
    }

    #[test]
    fn a_ping_has_no_ports_and_a_packet_cut_short_only_its_length() {
        let ping = ping();
        let text = PacketLine::new(&captured(&ping)).text(false);
        assert!(
            text.ends_with(
                "101:101:101:101:101:101:101:101 > 202:202:202:202:202:202:202:202: icmpv6 echo request id 7 seq 1 length 56"
            ),
            "{text}"
        );
        let cut = CapturedPacket {
            bytes: ping[..30].into(),
            ..captured(&ping)
        };
        assert_eq!(
            PacketLine::new(&cut).text(false),
            "13:02:03.456789 out -        headers not captured: length 56"
        );
    }

    #[test]
    fn every_field_of_the_json_is_documented() {
        const API: &str = include_str!("../../control/API.md");
        let (_, section) = API.split_once("\n## /v1/capture\n").unwrap();
        let ping = ping();
        let lines = [super_packet(&tcp()), PacketLine::new(&captured(&ping))];
        let [segment, echo] = lines.map(|line| serde_json::to_value(line).unwrap());
        for (name, value) in segment.as_object().unwrap() {
            assert!(!value.is_null() || !echo[name].is_null(), "{name}");
            assert!(section.contains(&format!("`{name}`")), "{name} is not documented");
        }
    }
}
