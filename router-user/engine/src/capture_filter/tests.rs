use std::convert::Infallible;
use std::net::IpAddr;

use etherparse::PacketBuilder;
use proptest::prelude::*;
use router_common::packet::parse;

use super::*;

/// A packet as its maker knows it.
#[derive(Clone, Debug)]
struct Made {
    source: IpAddr,
    destination: IpAddr,
    kind: Kind,
    payload: usize,
    peer: Option<u32>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Tcp(u16, u16),
    Udp(u16, u16),
    Echo,
}

impl Made {
    fn bytes(&self) -> Vec<u8> {
        let builder = match (self.source, self.destination) {
            (IpAddr::V4(from), IpAddr::V4(to)) => PacketBuilder::ipv4(from.octets(), to.octets(), 64),
            (IpAddr::V6(from), IpAddr::V6(to)) => PacketBuilder::ipv6(from.octets(), to.octets(), 64),
            _ => panic!("two families"),
        };
        let payload = vec![0; self.payload];
        let mut bytes = Vec::new();
        match (self.kind, self.source.is_ipv4()) {
            (Kind::Tcp(from, to), _) => builder.tcp(from, to, 1, 1).write(&mut bytes, &payload),
            (Kind::Udp(from, to), _) => builder.udp(from, to).write(&mut bytes, &payload),
            (Kind::Echo, true) => builder.icmpv4_echo_request(7, 1).write(&mut bytes, &payload),
            (Kind::Echo, false) => builder.icmpv6_echo_request(7, 1).write(&mut bytes, &payload),
        }
        .unwrap();
        bytes
    }

    fn protocol(&self) -> &'static str {
        match (self.kind, self.source.is_ipv4()) {
            (Kind::Tcp(..), _) => "tcp",
            (Kind::Udp(..), _) => "udp",
            (Kind::Echo, true) => "icmp",
            (Kind::Echo, false) => "icmpv6",
        }
    }

    fn ports(&self) -> Option<(u16, u16)> {
        match self.kind {
            Kind::Tcp(from, to) | Kind::Udp(from, to) => Some((from, to)),
            Kind::Echo => None,
        }
    }

    fn matches(&self, filter: &CaptureFilter) -> bool {
        let filter = filter
            .resolve(|peer| Ok::<u32, Infallible>(peer.parse().unwrap()))
            .unwrap();
        let bytes = self.bytes();
        filter.matches(&FilterInput {
            parsed: &parse(&bytes[..], bytes.len() as u32).unwrap(),
            len: bytes.len(),
            peer: self.peer.as_ref(),
        })
    }
}

/// An expression as text, and what a packet must be like, said once more in the plainest way.
#[derive(Clone, Debug)]
enum Naive {
    Host(&'static str, IpAddr),
    Net(&'static str, IpNet),
    Port(&'static str, u16),
    ProtocolPort(&'static str, &'static str, u16),
    Range(u16, u16),
    Protocol(&'static str),
    Ip6,
    Peer(u32),
    Greater(usize),
    Not(Box<Self>),
    All(Vec<Self>),
    Any(Vec<Self>),
}

use ipnet::IpNet;

impl Naive {
    fn text(&self) -> String {
        let joined = |inner: &[Self], operator: &str| {
            let inner: Vec<_> = inner.iter().map(|inner| format!("({})", inner.text())).collect();
            inner.join(operator)
        };
        match self {
            Self::Host(side, host) => format!("{side} host {host}"),
            Self::Net(side, net) => format!("{side} net {net}"),
            Self::Port(side, port) => format!("{side} port {port}"),
            Self::ProtocolPort(protocol, side, port) => format!("{protocol} {side} port {port}"),
            Self::Range(first, last) => format!("portrange {first}-{last}"),
            Self::Protocol(name) => (*name).to_owned(),
            Self::Ip6 => "ip6".to_owned(),
            Self::Peer(peer) => format!("peer {peer}"),
            Self::Greater(len) => format!("greater {len}"),
            Self::Not(inner) => format!("not ({})", inner.text()),
            Self::All(inner) => joined(inner, " and "),
            Self::Any(inner) => joined(inner, " || "),
        }
    }

    fn matches(&self, packet: &Made) -> bool {
        let ends = |side: &str, source: bool, destination: bool| match side {
            "src" => source,
            "dst" => destination,
            _ => source || destination,
        };
        match self {
            Self::Host(side, host) => ends(side, packet.source == *host, packet.destination == *host),
            Self::Net(side, net) => ends(
                side,
                net.contains(&packet.source),
                net.contains(&packet.destination),
            ),
            Self::Port(side, port) => packet
                .ports()
                .is_some_and(|(from, to)| ends(side, from == *port, to == *port)),
            Self::ProtocolPort(protocol, side, port) => {
                packet.protocol() == *protocol && Self::Port(side, *port).matches(packet)
            }
            Self::Range(first, last) => packet
                .ports()
                .is_some_and(|(from, to)| (first..=last).contains(&&from) || (first..=last).contains(&&to)),
            Self::Protocol(name) => packet.protocol() == *name,
            Self::Ip6 => packet.source.is_ipv6(),
            Self::Peer(peer) => packet.peer == Some(*peer),
            Self::Greater(len) => packet.bytes().len() >= *len,
            Self::Not(inner) => !inner.matches(packet),
            Self::All(inner) => inner.iter().all(|inner| inner.matches(packet)),
            Self::Any(inner) => inner.iter().any(|inner| inner.matches(packet)),
        }
    }
}

fn any_side() -> impl Strategy<Value = &'static str> {
    prop_oneof![Just(""), Just("src"), Just("dst")]
}

/// Few values, so that packets and expressions meet.
fn any_host() -> impl Strategy<Value = IpAddr> {
    prop_oneof![
        (0u8..4).prop_map(|last| IpAddr::from([10, 42, 0, last])),
        (0u16..4).prop_map(|last| IpAddr::from([0xfd42, 0, 0, 0, 0, 0, 0, last])),
    ]
}

fn any_naive() -> impl Strategy<Value = Naive> {
    let port = 0u16..4;
    let leaf = prop_oneof![
        (any_side(), any_host()).prop_map(|(side, host)| Naive::Host(side, host)),
        (any_side(), any_host(), 29u8..=32).prop_map(|(side, host, len)| {
            let len = if host.is_ipv4() { len } else { len + 96 };
            Naive::Net(side, IpNet::new(host, len).unwrap())
        }),
        (any_side(), Just(())).prop_map(|(side, ())| Naive::Net(side, "::/0".parse().unwrap())),
        (any_side(), port.clone()).prop_map(|(side, port)| Naive::Port(side, port)),
        (prop_oneof![Just("tcp"), Just("udp")], any_side(), port.clone())
            .prop_map(|(protocol, side, port)| Naive::ProtocolPort(protocol, side, port)),
        (port.clone(), port).prop_map(|(a, b)| Naive::Range(a.min(b), a.max(b))),
        prop_oneof![Just("tcp"), Just("udp"), Just("icmp"), Just("icmpv6")].prop_map(Naive::Protocol),
        Just(Naive::Ip6),
        (0u32..3).prop_map(Naive::Peer),
        (20usize..80).prop_map(Naive::Greater),
    ];
    leaf.prop_recursive(4, 24, 4, |inner| {
        prop_oneof![
            inner.clone().prop_map(|inner| Naive::Not(Box::new(inner))),
            prop::collection::vec(inner.clone(), 2..4).prop_map(Naive::All),
            prop::collection::vec(inner, 2..4).prop_map(Naive::Any),
        ]
    })
}

fn any_packet() -> impl Strategy<Value = Made> {
    let kind = prop_oneof![
        (0u16..4, 0u16..4).prop_map(|(from, to)| Kind::Tcp(from, to)),
        (0u16..4, 0u16..4).prop_map(|(from, to)| Kind::Udp(from, to)),
        Just(Kind::Echo),
    ];
    let peer = prop_oneof![Just(None), (0u32..3).prop_map(Some)];
    (any_host(), any_host(), kind, 0usize..40, peer)
        .prop_filter("one family", |(from, to, ..)| from.is_ipv4() == to.is_ipv4())
        .prop_map(|(source, destination, kind, payload, peer)| Made {
            source,
            destination,
            kind,
            payload,
            peer,
        })
}

fn error(text: &str) -> (usize, String) {
    let error = CaptureFilter::parse(text).unwrap_err();
    (error.position, error.to_string())
}

proptest! {
    #[test]
    fn an_expression_matches_what_the_plainest_reading_of_it_matches(
        naive in any_naive(),
        packets in prop::collection::vec(any_packet(), 1..20),
    ) {
        let text = naive.text();
        prop_assume!(text.len() <= MAX_FILTER_BYTES);
        let filter = CaptureFilter::parse(&text).unwrap().unwrap();
        for packet in packets {
            prop_assert_eq!(packet.matches(&filter), naive.matches(&packet), "{} {:?}", text, packet);
        }
    }

    #[test]
    fn any_text_is_an_expression_or_an_error_inside_it(text in "[ ()!&|a-z0-9./:-]{0,64}") {
        if let Err(error) = CaptureFilter::parse(&text) {
            prop_assert!(error.position <= text.len());
        }
    }

    #[test]
    fn any_sequence_of_words_is_an_expression_or_an_error_inside_it(
        words in prop::collection::vec(
            prop::sample::select(vec![
                "and", "or", "not", "(", ")", "host", "net", "src", "dst", "port", "tcp", "10.42.0.1", "80", "peer", "x",
            ]),
            0..40,
        ),
    ) {
        let text = words.join(" ");
        if let Err(error) = CaptureFilter::parse(&text) {
            prop_assert!(error.position <= text.len());
        }
    }
}

#[test]
fn an_empty_expression_is_none() {
    assert_eq!(CaptureFilter::parse(""), Ok(None));
    assert_eq!(CaptureFilter::parse(" \t"), Ok(None));
}

#[test]
fn what_is_wrong_is_named_with_its_position_and_what_is_allowed() {
    for (text, position, said) in [
        ("hots 10.42.0.1", 0, "there is \"hots\""),
        ("tcp and", 7, "the filter ends, and what may stand here is a test"),
        ("host", 4, "an address"),
        ("host 10.42.0", 5, "there is \"10.42.0\""),
        ("net 10.0.0.0/33", 4, "a prefix such as 10.0.0.0/8"),
        ("port 65536", 5, "a port, 0 to 65535"),
        ("portrange 2-1", 10, "the smaller one first"),
        ("tcp udp", 4, "and, or, or the end of the filter"),
        ("(tcp", 4, "and, or, or )"),
        ("tcp)", 3, "there is \")\""),
        ("tcp and udp or icmp", 12, "parentheses say which comes first"),
        ("icmp port 1", 5, "this protocol has no ports"),
        ("tcp src host 10.42.0.1", 8, "port or portrange"),
        ("src tcp", 4, "host, net, port, portrange or an address"),
        (
            "peer",
            4,
            "a peer's name, inner address or id, or the end of the id",
        ),
        (
            "peer a_b",
            5,
            "a peer's name, inner address or id, or the end of the id",
        ),
        ("tcp & udp", 4, "there is \"&\""),
        ("less many", 5, "a number of bytes"),
        ("proto 256", 6, "a number up to 255"),
        ("tcp and ü", 8, "there is \"ü\""),
    ] {
        let (at, message) = error(text);
        assert_eq!(at, position, "{text}: {message}");
        assert!(message.contains(said), "{text}: {message}");
        assert!(
            message.contains(&format!("at character {}:", position + 1)),
            "{message}"
        );
    }
}

#[test]
fn length_and_depth_are_bounded() {
    let long = format!("tcp{}", " ".repeat(MAX_FILTER_BYTES));
    assert!(error(&long).1.contains("1024 are allowed"));
    let nested = |n: usize| format!("{}tcp{}", "(".repeat(n), ")".repeat(n));
    assert!(CaptureFilter::parse(&nested(MAX_FILTER_DEPTH)).is_ok());
    assert_eq!(error(&nested(MAX_FILTER_DEPTH + 1)).0, MAX_FILTER_DEPTH);
    assert!(CaptureFilter::parse(&format!("{}tcp", "!".repeat(MAX_FILTER_DEPTH))).is_ok());
    assert!(CaptureFilter::parse(&format!("{}tcp", "!".repeat(MAX_FILTER_DEPTH + 1))).is_err());
}

#[test]
fn a_peer_that_is_not_found_is_an_error() {
    let filter = CaptureFilter::parse("tcp or (not peer abc)").unwrap().unwrap();

    assert_eq!(
        filter.resolve(|peer| Err::<u32, _>(peer.clone())),
        Err("abc".to_owned())
    );
}

#[test]
fn an_address_alone_stands_behind_src_and_dst() {
    assert_eq!(
        CaptureFilter::parse("src 10.42.0.1"),
        CaptureFilter::parse("src host 10.42.0.1")
    );
    assert_eq!(
        CaptureFilter::parse("icmp6&&!dst fd42::1"),
        CaptureFilter::parse("icmpv6 and not dst host fd42::1")
    );
}

#[test]
fn a_fragment_and_an_echo_have_no_ports() {
    let port = CaptureFilter::parse("portrange 0-65535").unwrap().unwrap();
    let echo = Made {
        source: [10, 42, 0, 1].into(),
        destination: [10, 42, 0, 2].into(),
        kind: Kind::Echo,
        payload: 0,
        peer: None,
    };
    let mut fragment = Made {
        kind: Kind::Udp(1, 2),
        payload: 8,
        ..echo.clone()
    }
    .bytes();
    assert!(!echo.matches(&port));
    // More fragments.
    fragment[6] = 0x20;
    let parsed = parse(&fragment[..], fragment.len() as u32).unwrap();
    let candidate = FilterInput {
        parsed: &parsed,
        len: fragment.len(),
        peer: None,
    };

    assert!(!port.matches(&candidate));
}
