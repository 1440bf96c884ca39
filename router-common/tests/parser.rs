//! The parser against an independent one, and against bytes that nobody should send.
#![expect(clippy::unwrap_used, reason = "helpers fail as tests do")]

use etherparse::{
    Icmpv4Slice, IpAuthHeader, IpFragOffset, IpNumber, Ipv4Header, Ipv4Options, Ipv6FragmentHeader,
    Ipv6Header, Ipv6RawExtHeader, NetSlice, SlicedPacket, TcpHeader, TransportSlice, UdpHeader,
};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::RngSeed;
use router_common::flow_key::{FAMILY_V4, FAMILY_V6, FlowKey};
use router_common::fragment::{FragmentPorts, make_packet_key};
use router_common::packet::{Parsed, parse, protocol, reversed};
use router_common::reason::Reason;

/// Echo request and reply among neighbours that are no echo.
const ICMP_TYPES: [u8; 6] = [0, 3, 7, 8, 9, 11];
const ICMPV6_TYPES: [u8; 6] = [1, 127, 128, 129, 130, 135];
/// GRE, ESP, no next header, OSPF, and one that nobody uses.
const OTHER_PROTOCOLS: [u8; 5] = [47, 50, 59, 89, 253];

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 2000,
        rng_seed: RngSeed::Fixed(0x5eed),
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn parser_agrees_with_etherparse(packet in packet()) {
        let parsed = parse_all(&packet).unwrap();
        let mut expected = parsed_by_etherparse(&packet);
        if parsed.first_fragment {
            // It reads no ports there.
            expected.key.source_port_be = parsed.key.source_port_be;
            expected.key.destination_port_be = parsed.key.destination_port_be;
        }
        prop_assert_eq!(parsed, expected);
    }

    #[test]
    fn every_cut_of_a_packet_is_refused(packet in packet()) {
        for len in 0..packet.len() {
            prop_assert!(parse_all(&packet[..len]).is_err(), "cut to {} bytes", len);
        }
    }

    #[test]
    fn a_super_packet_without_length_parses_as_soon_as_its_headers_are_there(mut packet in packet()) {
        let whole = parse_all(&packet).unwrap();
        let length = if packet[0] >> 4 == 4 { 2..4 } else { 4..6 };
        packet[length].fill(0);

        let shortest = (0..=packet.len()).find(|len| parse_all(&packet[..*len]).is_ok()).unwrap();

        prop_assert_eq!(shortest as u32, whole.transport_offset + transport_header_len(&whole));
        for len in shortest..=packet.len() {
            let mut expected = Parsed { total_len: 0, ..whole };
            if whole.first_fragment && len < whole.transport_offset as usize + 8 {
                // Its ports come with the first 8 bytes of payload.
                (expected.key.source_port_be, expected.key.destination_port_be) = ([0; 2], [0; 2]);
            }
            prop_assert_eq!(parse_all(&packet[..len]), Ok(expected));
        }
    }

    #[test]
    fn bytes_behind_a_packet_change_nothing(packet in packet(), behind in vec(any::<u8>(), 1..64)) {
        let alone = parse_all(&packet);

        prop_assert_eq!(parse_all(&[packet, behind].concat()), alone);
    }

    #[test]
    fn random_bytes_give_a_packet_or_a_reason(
        version in prop_oneof![Just(0x40), Just(0x60), any::<u8>()],
        mut bytes in vec(any::<u8>(), 0..160),
    ) {
        if let Some(first) = bytes.first_mut() {
            *first = version | *first & 0x0f;
        }
        assert_plausible(&bytes)?;
    }

    #[test]
    fn a_packet_with_one_wrong_byte_gives_a_packet_or_a_reason(
        mut packet in packet(),
        at in any::<prop::sample::Index>(),
        wrong in any::<u8>(),
    ) {
        let at = at.index(packet.len());
        packet[at] = wrong;
        assert_plausible(&packet)?;
    }

    #[test]
    fn all_fragments_of_an_ipv4_packet_are_one_flow(
        addresses in any::<[[u8; 4]; 2]>(),
        options in vec(vec(any::<u8>(), 0..=10), 3),
        (protocol, payload) in transport(false),
    ) {
        let fragments = pieces(&payload).into_iter().zip(options).map(|((offset, more, piece), options)| {
            ipv4(addresses, &options, (offset, more), protocol, piece)
        });

        assert_one_flow(&ipv4(addresses, &[], (0, false), protocol, &payload), fragments)?;
    }

    #[test]
    fn all_fragments_of_an_ipv6_packet_are_one_flow(
        addresses in any::<[[u8; 16]; 2]>(),
        before in extensions(),
        behind in extensions(),
        (protocol, payload) in transport(true),
        identification in any::<u32>(),
    ) {
        let (first, payload) = chain(&behind, protocol, payload);
        let whole = ipv6(addresses, first, &payload);
        let fragments = pieces(&payload).into_iter().map(|(offset, more, piece)| {
            let header = Ipv6FragmentHeader::new(IpNumber(first), frag_offset(offset), more, identification);
            let (next, payload) = chain(&before, protocol::FRAGMENT, [&header.to_bytes()[..], piece].concat());
            ipv6(addresses, next, &payload)
        });

        assert_one_flow(&whole, fragments)?;
    }
}

#[test]
fn an_atomic_fragment_is_a_whole_packet() {
    let udp = UdpHeader {
        source_port: 1,
        destination_port: 2,
        length: 8,
        checksum: 0,
    }
    .to_bytes();
    let mut header = Ipv6FragmentHeader::new(IpNumber(protocol::UDP), frag_offset(0), false, 7).to_bytes();
    // Reserved bits, which a receiver ignores.
    header[3] |= 0b110;
    let payload = [&header[..], &udp].concat();

    let parsed = parse_all(&ipv6([[1; 16], [2; 16]], protocol::FRAGMENT, &payload)).unwrap();

    assert!(!parsed.fragment);
    assert_eq!(parsed.transport_offset, 48);
    assert_eq!(
        (parsed.key.source_port_be, parsed.key.destination_port_be),
        ([0, 1], [0, 2])
    );
}

#[test]
fn a_cut_fragment_header_of_a_packet_without_length_is_refused() {
    let header = Ipv6FragmentHeader::new(IpNumber(protocol::UDP), frag_offset(0), true, 7).to_bytes();
    let mut packet = ipv6([[1; 16], [2; 16]], protocol::FRAGMENT, &header);
    packet[4..6].fill(0);

    assert!(parse_all(&packet).is_ok());
    for len in 40..48 {
        assert_eq!(parse_all(&packet[..len]), Err(Reason::Truncated), "{len} bytes");
    }
}

#[test]
fn eight_extension_headers_are_followed_and_a_ninth_is_too_many() {
    let packet = |n_headers| {
        let (next, payload) = chain(&vec![Extension::Destination(0); n_headers], 59, Vec::new());
        ipv6([[1; 16], [2; 16]], next, &payload)
    };

    assert_eq!(
        parse_all(&packet(8)).map(|parsed| parsed.transport_offset),
        Ok(40 + 8 * 8)
    );
    assert_eq!(parse_all(&packet(9)), Err(Reason::TooManyHeaders));
}

#[test]
fn other_versions_are_not_ip() {
    for version in (0..16).filter(|version| ![4, 6].contains(version)) {
        assert_eq!(
            parse_all(&[version << 4 | 5; 60]),
            Err(Reason::NotIp),
            "version {version}"
        );
    }
    assert_eq!(parse_all(&[]), Err(Reason::Truncated));
}

#[test]
fn headers_of_impossible_length_are_refused() {
    let tcp = TcpHeader::new(1, 2, 3, 4).to_bytes();
    let packet = ipv4([[1; 4], [2; 4]], &[7; 2], (0, false), protocol::TCP, &tcp);
    let with = |changes: &[(usize, u8)]| {
        let mut packet = packet.clone();
        changes.iter().for_each(|(at, byte)| packet[*at] = *byte);
        parse_all(&packet).map(|parsed| parsed.transport_offset)
    };

    assert_eq!(with(&[]), Ok(28));
    assert_eq!(
        with(&[(0, 0x44)]),
        Err(Reason::BadHeaderLength),
        "IPv4 header of 16 bytes"
    );
    assert_eq!(
        with(&[(0, 0x4d)]),
        Err(Reason::BadHeaderLength),
        "IPv4 header of 52 in 48"
    );
    assert_eq!(
        with(&[(28 + 12, 0x40)]),
        Err(Reason::BadHeaderLength),
        "TCP header of 16 bytes"
    );
    assert_eq!(
        with(&[(28 + 12, 0x60)]),
        Err(Reason::BadHeaderLength),
        "TCP header of 24 in 20"
    );
    assert_eq!(with(&[(3, 49)]), Err(Reason::BadTotalLength), "49 bytes in 48");
    assert_eq!(
        with(&[(3, 27)]),
        Err(Reason::BadTotalLength),
        "an end inside the options"
    );
    assert_eq!(with(&[(3, 28)]), Ok(28), "padding");
}

fn parse_all(packet: &[u8]) -> Result<Parsed, Reason> {
    parse(packet, packet.len() as u32)
}

/// What has to be there of the transport header.
fn transport_header_len(parsed: &Parsed) -> u32 {
    match parsed.key.protocol {
        _ if parsed.fragment => 0,
        protocol::SCTP => 12,
        protocol::ICMP | protocol::ICMPV6 => 8,
        _ => parsed.transport_len,
    }
}

fn parsed_by_etherparse(packet: &[u8]) -> Parsed {
    let sliced = SlicedPacket::from_ip(packet).unwrap();
    let (source, destination, family, payload) = match sliced.net.as_ref().unwrap() {
        NetSlice::Ipv4(ip) => (
            ip.header().source_addr().to_ipv6_mapped(),
            ip.header().destination_addr().to_ipv6_mapped(),
            FAMILY_V4,
            ip.payload(),
        ),
        NetSlice::Ipv6(ip) => (
            ip.header().source_addr(),
            ip.header().destination_addr(),
            FAMILY_V6,
            ip.payload(),
        ),
        NetSlice::Arp(_) => unreachable!("no IP packet"),
    };
    let (is_first, fragment_id) = match sliced.net.as_ref().unwrap() {
        _ if !payload.fragmented => (false, 0),
        NetSlice::Ipv4(ip) => (
            ip.header().fragments_offset().value() == 0,
            ip.header().identification().into(),
        ),
        NetSlice::Ipv6(ip) => {
            let mut headers = ip.extensions().clone().into_iter();
            headers
                .find_map(|header| match header {
                    etherparse::Ipv6ExtensionSlice::Fragment(header) if header.is_fragmenting_payload() => {
                        Some((header.fragment_offset().value() == 0, header.identification()))
                    }
                    _ => None,
                })
                .unwrap()
        }
        NetSlice::Arp(_) => unreachable!("no IP packet"),
    };
    let (ports, transport_len, tcp_flags) = match &sliced.transport {
        Some(TransportSlice::Tcp(tcp)) => (
            (tcp.source_port(), tcp.destination_port()),
            tcp.header_len(),
            tcp.header_slice()[13],
        ),
        Some(TransportSlice::Udp(udp)) => ((udp.source_port(), udp.destination_port()), 8, 0),
        Some(TransportSlice::Icmpv4(icmp)) => (echo_id(icmp), 0, 0),
        Some(TransportSlice::Icmpv6(icmp)) => match icmp.icmp_type() {
            etherparse::Icmpv6Type::EchoRequest(echo) | etherparse::Icmpv6Type::EchoReply(echo) => {
                ((echo.id, 0), 0, 0)
            }
            _ => ((0, 0), 0, 0),
        },
        None if payload.ip_number == IpNumber::SCTP && !payload.fragmented => {
            let port = |at| u16::from_be_bytes([payload.payload[at], payload.payload[at + 1]]);
            ((port(0), port(2)), 0, 0)
        }
        _ => ((0, 0), 0, 0),
    };
    Parsed {
        key: FlowKey {
            source: source.octets(),
            destination: destination.octets(),
            source_port_be: ports.0.to_be_bytes(),
            destination_port_be: ports.1.to_be_bytes(),
            protocol: payload.ip_number.0,
            family,
            padding: [0; 2],
        },
        total_len: if packet.len() == 40 && family == FAMILY_V6 {
            0
        } else {
            packet.len() as u32
        },
        transport_offset: (packet.len() - payload.payload.len()) as u32,
        transport_len: transport_len as u32,
        tcp_flags,
        fragment: payload.fragmented,
        first_fragment: is_first,
        fragment_id,
    }
}

fn echo_id(icmp: &Icmpv4Slice<'_>) -> (u16, u16) {
    match icmp.icmp_type() {
        etherparse::Icmpv4Type::EchoRequest(echo) | etherparse::Icmpv4Type::EchoReply(echo) => (echo.id, 0),
        _ => (0, 0),
    }
}

fn assert_plausible(bytes: &[u8]) -> Result<(), TestCaseError> {
    if let Ok(parsed) = parse_all(bytes) {
        let len = bytes.len() as u32;
        prop_assert!(parsed.total_len <= len);
        prop_assert!(parsed.transport_offset + parsed.transport_len <= len);
        prop_assert!([FAMILY_V4, FAMILY_V6].contains(&parsed.key.family));
        prop_assert_eq!(parsed.key.padding, [0; 2]);
    }
    Ok(())
}

/// The first fragment has the flow key of the whole packet if it has the ports, and leaves them where the others look.
fn assert_one_flow(whole: &[u8], fragments: impl IntoIterator<Item = Vec<u8>>) -> Result<(), TestCaseError> {
    let whole = parse_all(whole).unwrap();
    let mut left = None;
    for packet in fragments {
        let parsed = parse_all(&packet).unwrap();
        prop_assert!(parsed.fragment);
        let mut packet_key = parsed.key;
        make_packet_key(&mut packet_key, parsed.fragment_id);
        let (first_key, ports) = *left.get_or_insert_with(|| (packet_key, FragmentPorts::of(&parsed.key, 0)));
        prop_assert_eq!(packet_key, first_key);
        let mut key = parsed.key;
        ports.complete(&mut key);
        if parsed.first_fragment {
            prop_assert_eq!(key, parsed.key);
            let has_ports = parsed.transport_offset as usize + 8 <= packet.len();
            let is_chain = key.protocol != whole.key.protocol;
            prop_assert!(
                key == whole.key || !has_ports || is_chain,
                "{:?} {:?}",
                key,
                whole.key
            );
        }
    }
    Ok(())
}

/// First, middle and last piece of a payload: offset in units of 8 bytes, whether more follow, bytes.
fn pieces(payload: &[u8]) -> [(u16, bool, &[u8]); 3] {
    let (first, rest) = payload.split_at(8.min(payload.len()));
    let (middle, last) = rest.split_at(rest.len() / 16 * 8);
    let last_offset = 1 + middle.len() as u16 / 8;
    [(0, true, first), (1, true, middle), (last_offset, false, last)]
}

#[derive(Clone, Debug)]
enum Extension {
    HopByHop(usize),
    Routing(usize),
    Destination(usize),
    Authentication(usize),
    AtomicFragment,
}

/// A chain that a packet may have; hop-by-hop options only come first.
fn extensions() -> impl Strategy<Value = Vec<Extension>> {
    let units = 0..4_usize;
    let extension = prop_oneof![
        units.clone().prop_map(Extension::Routing),
        units.clone().prop_map(Extension::Destination),
        units.clone().prop_map(Extension::Authentication),
        Just(Extension::AtomicFragment),
    ];
    (proptest::option::of(units), vec(extension, 0..3)).prop_map(|(first, mut rest)| {
        rest.splice(0..0, first.map(Extension::HopByHop));
        rest
    })
}

/// Puts extension headers before a payload; returns the protocol of the first header too.
fn chain(extensions: &[Extension], protocol: u8, payload: Vec<u8>) -> (u8, Vec<u8>) {
    extensions
        .iter()
        .rev()
        .fold((protocol, payload), |(next, payload), extension| {
            let raw = |units| Ipv6RawExtHeader::new_raw(IpNumber(next), &vec![0x5a; 6 + 8 * units]).unwrap();
            let (protocol, header) = match *extension {
                Extension::HopByHop(units) => (protocol::HOP_BY_HOP, raw(units).to_bytes().to_vec()),
                Extension::Routing(units) => (protocol::ROUTING, raw(units).to_bytes().to_vec()),
                Extension::Destination(units) => {
                    (protocol::DESTINATION_OPTIONS, raw(units).to_bytes().to_vec())
                }
                Extension::Authentication(units) => {
                    let header = IpAuthHeader::new(IpNumber(next), 1, 2, &vec![0x5a; 4 * units]).unwrap();
                    (protocol::AH, header.to_bytes().to_vec())
                }
                Extension::AtomicFragment => {
                    let header = Ipv6FragmentHeader::new(IpNumber(next), frag_offset(0), false, 3);
                    (protocol::FRAGMENT, header.to_bytes().to_vec())
                }
            };
            (protocol, [header, payload].concat())
        })
}

fn packet() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![ipv4_packet(), ipv6_packet()]
}

fn ipv4_packet() -> impl Strategy<Value = Vec<u8>> {
    (
        any::<[[u8; 4]; 2]>(),
        vec(any::<u8>(), 0..=10),
        fragment(),
        transport(false),
    )
        .prop_map(|(addresses, options, fragment, (protocol, payload))| {
            ipv4(addresses, &options, fragment, protocol, &payload)
        })
}

fn ipv6_packet() -> impl Strategy<Value = Vec<u8>> {
    (any::<[[u8; 16]; 2]>(), extensions(), fragment(), transport(true)).prop_map(
        |(addresses, extensions, (offset, more), (protocol, payload))| {
            let (next, payload) = if offset == 0 && !more {
                chain(&extensions, protocol, payload)
            } else {
                let header = Ipv6FragmentHeader::new(IpNumber(protocol), frag_offset(offset), more, 9);
                chain(
                    &extensions,
                    protocol::FRAGMENT,
                    [header.to_bytes().to_vec(), payload].concat(),
                )
            };
            ipv6(addresses, next, &payload)
        },
    )
}

/// Offset in units of 8 bytes and whether more follow; mostly no fragment.
fn fragment() -> impl Strategy<Value = (u16, bool)> {
    prop_oneof![3 => Just((0, false)), 1 => (0..0x1fff_u16, any::<bool>())]
}

/// Protocol number and bytes of a transport header with payload.
fn transport(v6: bool) -> impl Strategy<Value = (u8, Vec<u8>)> {
    let (icmp, types) = if v6 {
        (protocol::ICMPV6, ICMPV6_TYPES)
    } else {
        (protocol::ICMP, ICMP_TYPES)
    };
    let header = prop_oneof![
        (any::<[u16; 3]>(), 0..=10_usize).prop_map(|([source, destination, flags], n_words)| {
            let mut tcp = TcpHeader::new(source, destination, 1, 2);
            [tcp.syn, tcp.ack, tcp.fin, tcp.cwr] = [1, 2, 4, 8].map(|bit| flags & bit != 0);
            tcp.set_options_raw(&vec![1; 4 * n_words]).unwrap();
            (protocol::TCP, tcp.to_bytes().to_vec())
        }),
        any::<[u16; 2]>().prop_map(|[source_port, destination_port]| {
            let udp = UdpHeader {
                source_port,
                destination_port,
                length: 0,
                checksum: 5,
            };
            (protocol::UDP, udp.to_bytes().to_vec())
        }),
        any::<[u8; 12]>().prop_map(|sctp| (protocol::SCTP, sctp.to_vec())),
        (prop::sample::select(types.to_vec()), any::<[u8; 4]>())
            .prop_map(move |(kind, rest)| { (icmp, [&[kind, 0, 0, 0], &rest[..]].concat()) }),
        (
            prop::sample::select(&OTHER_PROTOCOLS[..]),
            vec(any::<u8>(), 0..20)
        ),
    ];
    (header, vec(any::<u8>(), 0..80)).prop_map(|((protocol, header), payload)| {
        let mut bytes = [header, payload].concat();
        if protocol == protocol::UDP {
            let len = bytes.len() as u16;
            bytes[4..6].copy_from_slice(&len.to_be_bytes());
        }
        (protocol, bytes)
    })
}

#[test]
fn an_answer_has_the_reversed_key() {
    let tcp = |from: u16, to| TcpHeader::new(from, to, 1, 1).to_bytes().to_vec();
    let udp = |source_port, destination_port| {
        let udp = UdpHeader {
            source_port,
            destination_port,
            length: 8,
            checksum: 5,
        };
        udp.to_bytes().to_vec()
    };
    let echo = |kind: u8| vec![kind, 0, 0, 0, 0x12, 0x34, 0, 1];
    for (protocol, packet, answer) in [
        (protocol::TCP, tcp(40_000, 80), tcp(80, 40_000)),
        (protocol::UDP, udp(40_000, 53), udp(53, 40_000)),
        (protocol::ICMP, echo(8), echo(0)),
        (protocol::ICMPV6, echo(128), echo(129)),
        (protocol::GRE, vec![0; 8], vec![0; 8]),
    ] {
        let (near, far) = ([10, 42, 0, 1], [10, 42, 0, 2]);
        let packets = [([near, far], &packet), ([far, near], &answer)];
        let keys = packets.map(|(ends, payload)| {
            let packet = if protocol == protocol::ICMPV6 {
                ipv6(ends.map(|end| [end[3]; 16]), protocol, payload)
            } else {
                ipv4(ends, &[], (0, false), protocol, payload)
            };
            parse(&packet[..], packet.len() as u32).unwrap().key
        });
        assert_eq!(reversed(&keys[0]), keys[1], "{protocol}");
        assert_eq!(reversed(&keys[1]), keys[0], "{protocol}");
    }
}

fn ipv4(
    [source, destination]: [[u8; 4]; 2],
    options: &[u8],
    fragment: (u16, bool),
    protocol: u8,
    payload: &[u8],
) -> Vec<u8> {
    let mut header = Ipv4Header::new(0, 64, IpNumber(protocol), source, destination).unwrap();
    let words: Vec<u8> = options.iter().flat_map(|byte| [*byte; 4]).collect();
    header.options = Ipv4Options::try_from(&words[..]).unwrap();
    (header.fragment_offset, header.more_fragments) = (frag_offset(fragment.0), fragment.1);
    header.set_payload_len(payload.len()).unwrap();
    [&header.to_bytes()[..], payload].concat()
}

fn ipv6([source, destination]: [[u8; 16]; 2], next: u8, payload: &[u8]) -> Vec<u8> {
    let header = Ipv6Header {
        payload_length: payload.len() as u16,
        next_header: IpNumber(next),
        hop_limit: 64,
        source,
        destination,
        ..Ipv6Header::default()
    };
    [&header.to_bytes()[..], payload].concat()
}

fn frag_offset(units: u16) -> IpFragOffset {
    IpFragOffset::try_new(units).unwrap()
}
