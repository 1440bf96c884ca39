//! Packets that are not captured: for each the verdict and the one counter that moves, and no trace of a flow.

use anyhow::Context;

use crate::bench::{Bench, OK, Outcome, SHOT};
use crate::packets::*;
use router_common::packet::protocol::{
    AH, DESTINATION_OPTIONS, FRAGMENT, HOP_BY_HOP, ICMP, ICMPV6, ROUTING, SCTP, TCP, UDP,
};
use router_common::reason::Reason;

/// The kernel takes nothing shorter for a run; the device's tests do.
const SHORTEST_RUN: usize = 14;

#[test]
fn packets_that_are_not_ours_pass_untouched() {
    let to4 = |to: [u8; 4]| ipv4_full((A4, to.into()), 0, WHOLE, UDP, &udp(1, 2, b""));
    let to6 = |to: &str| ipv6_between((A6, to.parse().unwrap()), UDP, &udp(1, 2, b""));
    let mut cases = vec![
        ("multicast DNS".into(), to4([224, 0, 0, 251]), Reason::Multicast),
        (
            "administrative multicast".into(),
            to4([239, 1, 2, 3]),
            Reason::Multicast,
        ),
        ("broadcast".into(), to4([255, 255, 255, 255]), Reason::Multicast),
        ("all nodes".into(), to6("ff02::1"), Reason::Multicast),
        ("all routers".into(), to6("ff02::2"), Reason::Multicast),
        ("global multicast".into(), to6("ff0e::101"), Reason::Multicast),
    ];
    for version in (0..16).filter(|version| ![4, 6].contains(version)) {
        let mut packet = ipv4(UDP, &udp(1, 2, b""));
        packet[0] = version << 4 | 5;
        cases.push((format!("version {version}"), packet, Reason::NotIp));
    }
    assert_uncaptured(OK, cases);
}

#[test]
fn packets_cut_anywhere_in_their_headers_are_refused() {
    use Reason::{BadHeaderLength, Truncated};
    let long_tcp = ipv4_full((A4, B4), 2, WHOLE, TCP, &tcp(1, 2, 2));
    let mut cases = Vec::new();

    for (name, packet, reasons) in [
        (
            "TCP with options in IPv4 with options",
            long_tcp,
            &[
                (20, Truncated),
                (28, BadHeaderLength),
                (48, Truncated),
                (56, BadHeaderLength),
            ][..],
        ),
        ("TCP in IPv4", ipv4(TCP, &tcp(1, 2, 0)), &[(40, Truncated)]),
        ("UDP in IPv4", ipv4(UDP, &udp(1, 2, b"")), &[(28, Truncated)]),
        ("SCTP in IPv4", ipv4(SCTP, &sctp(1, 2)[..12]), &[(32, Truncated)]),
        ("echo in IPv4", ipv4(ICMP, &icmp(8, 1)[..8]), &[(28, Truncated)]),
        (
            "TCP in IPv6",
            ipv6(TCP, &tcp(1, 2, 1)),
            &[(60, Truncated), (64, BadHeaderLength)],
        ),
        ("UDP in IPv6", ipv6(UDP, &udp(1, 2, b"")), &[(48, Truncated)]),
        ("SCTP in IPv6", ipv6(SCTP, &sctp(1, 2)[..12]), &[(52, Truncated)]),
        (
            "echo in IPv6",
            ipv6(ICMPV6, &icmp(128, 1)[..8]),
            &[(48, Truncated)],
        ),
        (
            "fragment of IPv6",
            ipv6(FRAGMENT, &fragment(UDP, (3, true), b"")),
            &[(48, Truncated)],
        ),
        (
            "extension headers",
            ipv6(HOP_BY_HOP, &long_chain(&udp(1, 2, b""))),
            &[(120, Truncated)],
        ),
    ] {
        assert_eq!(reasons.last().unwrap().0, packet.len(), "{name}");
        for len in SHORTEST_RUN..packet.len() {
            let cut = with_true_length(packet[..len].to_vec());
            let reason = reasons.iter().find(|(end, _)| len < *end).unwrap().1;
            cases.push((format!("{name} cut to {len}"), cut, reason));
        }
    }
    assert_uncaptured(SHOT, cases);
}

#[test]
fn packets_shorter_than_they_say_are_refused() {
    let mut cases = Vec::new();

    for (name, packet, header_len) in [
        ("IPv4", ipv4(UDP, &udp(1, 2, b"payload")), 20),
        ("IPv6", ipv6(UDP, &udp(1, 2, b"payload")), 40),
    ] {
        for len in SHORTEST_RUN..packet.len() {
            let reason = if len < header_len {
                Reason::Truncated
            } else {
                Reason::BadTotalLength
            };
            cases.push((format!("{name} cut to {len}"), packet[..len].to_vec(), reason));
        }
    }
    assert_uncaptured(SHOT, cases);
}

#[test]
fn packets_with_impossible_lengths_are_refused() {
    use Reason::{BadHeaderLength, BadTotalLength, TooManyHeaders, Truncated};
    let tcp4 = || ipv4(TCP, &tcp(1, 2, 0));
    let with_byte = |mut packet: Vec<u8>, at: usize, byte| {
        packet[at] = byte;
        packet
    };
    let long_option = |next| ipv6(next, &with_byte(options(UDP, 0, &udp(1, 2, &[0; 64])), 1, 255));
    let mut cases = vec![
        (
            "IPv4 header beyond the packet".into(),
            with_byte(tcp4(), 0, 0x4f),
            BadHeaderLength,
        ),
        (
            "TCP header beyond the packet".into(),
            with_byte(tcp4(), 32, 0xf0),
            BadHeaderLength,
        ),
        (
            "TCP header over its packet by one word".into(),
            with_byte(tcp4(), 32, 0x60),
            BadHeaderLength,
        ),
        (
            "IPv4 length over by one".into(),
            with_length(tcp4(), 41),
            BadTotalLength,
        ),
        (
            "greatest IPv4 length".into(),
            with_length(tcp4(), 65535),
            BadTotalLength,
        ),
        (
            "IPv4 length of one".into(),
            with_length(tcp4(), 1),
            BadTotalLength,
        ),
        (
            "IPv4 length inside the header".into(),
            with_length(tcp4(), 19),
            BadTotalLength,
        ),
        (
            "IPv4 length inside the options".into(),
            with_length(ipv4_full((A4, B4), 1, WHOLE, TCP, &tcp(1, 2, 0)), 23),
            BadTotalLength,
        ),
        (
            "IPv6 length over by one".into(),
            with_length(ipv6(TCP, &tcp(1, 2, 0)), 21),
            BadTotalLength,
        ),
        (
            "greatest IPv6 length".into(),
            with_length(ipv6(TCP, &tcp(1, 2, 0)), 65535),
            BadTotalLength,
        ),
        (
            "hop-by-hop options beyond the packet".into(),
            long_option(HOP_BY_HOP),
            Truncated,
        ),
        (
            "routing header beyond the packet".into(),
            long_option(ROUTING),
            Truncated,
        ),
        (
            "destination options beyond the packet".into(),
            long_option(DESTINATION_OPTIONS),
            Truncated,
        ),
        ("AH beyond the packet".into(), long_option(AH), Truncated),
        (
            "nine headers".into(),
            ipv6(DESTINATION_OPTIONS, &options_chain(9)),
            TooManyHeaders,
        ),
        (
            "forty headers".into(),
            ipv6(DESTINATION_OPTIONS, &options_chain(40)),
            TooManyHeaders,
        ),
        (
            "nine atomic fragments".into(),
            ipv6(
                FRAGMENT,
                &(0..9).fold(vec![], |inner, _| fragment(FRAGMENT, WHOLE, &inner)),
            ),
            TooManyHeaders,
        ),
    ];
    for words in 0..5 {
        cases.push((
            format!("IPv4 header of {words} words"),
            with_byte(tcp4(), 0, 0x40 | words),
            BadHeaderLength,
        ));
        cases.push((
            format!("TCP header of {words} words"),
            with_byte(tcp4(), 32, words << 4),
            BadHeaderLength,
        ));
    }
    assert_uncaptured(SHOT, cases);
}

fn assert_uncaptured(verdict: u32, cases: Vec<(String, Vec<u8>, Reason)>) {
    let mut bench = Bench::new().unwrap();
    for (name, packet, reason) in &cases {
        let outcome = bench.run(packet).with_context(|| name.clone()).unwrap();

        let expected = Outcome {
            verdict,
            counted: vec![(*reason, 1)],
            records: vec![],
        };
        assert_eq!(outcome, expected, "{name}");
    }
    assert_eq!(bench.n_flows(), 0);
}
