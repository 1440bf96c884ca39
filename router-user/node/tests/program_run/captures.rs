//! Captured packets: for each the verdict, the one counter that moves, the record and the flow's entry.

use std::net::{Ipv4Addr, Ipv6Addr};

use anyhow::{Context, Result, ensure};

use crate::bench::{Bench, Outcome, Plan, Record, STOLEN};
use crate::packets::*;
use router_common::flow_hash::flow_hash;
use router_common::flow_key::FlowKey;
use router_common::frame::{FrameHeader, VnetHeader};
use router_common::packet::parse;
use router_common::packet::protocol::{
    AH, DESTINATION_OPTIONS, FRAGMENT, GRE, HOP_BY_HOP, ICMP, ICMPV6, ROUTING, SCTP, TCP, UDP,
};
use router_common::peer::NO_PEER;
use router_common::reason::Reason;
use router_common::record::{RecordHeader, Unfinished};
use router_common::slots::{slot, worker};

const ESP: u8 = 50;
const NO_NEXT: u8 = 59;

#[test]
fn whole_ipv4_packets_are_captured() {
    let with_options = |words, payload: &[u8]| ipv4_full((A4, B4), words, WHOLE, TCP, payload);
    let flow = |protocol, source, destination| key((A4, B4), protocol, source, destination);
    assert_captured(&[
        ("TCP", ipv4(TCP, &tcp(40000, 443, 0)), flow(TCP, 40000, 443), 0),
        (
            "TCP with options",
            ipv4(TCP, &tcp(40001, 443, 3)),
            flow(TCP, 40001, 443),
            0,
        ),
        (
            "TCP with all options",
            ipv4(TCP, &tcp(40002, 443, 10)),
            flow(TCP, 40002, 443),
            0,
        ),
        (
            "TCP with payload",
            ipv4(TCP, &[tcp(40003, 443, 0), vec![7; 1000]].concat()),
            flow(TCP, 40003, 443),
            0,
        ),
        (
            "one IPv4 option",
            with_options(1, &tcp(40004, 443, 0)),
            flow(TCP, 40004, 443),
            0,
        ),
        (
            "all IPv4 options",
            with_options(10, &tcp(40005, 443, 0)),
            flow(TCP, 40005, 443),
            0,
        ),
        (
            "all options of both",
            with_options(10, &tcp(40006, 443, 10)),
            flow(TCP, 40006, 443),
            0,
        ),
        (
            "UDP",
            ipv4(UDP, &udp(40000, 53, b"question")),
            flow(UDP, 40000, 53),
            0,
        ),
        (
            "UDP without payload",
            ipv4(UDP, &udp(40001, 53, b"")),
            flow(UDP, 40001, 53),
            0,
        ),
        (
            "UDP with an odd payload",
            ipv4(UDP, &udp(40002, 53, b"odd")),
            flow(UDP, 40002, 53),
            0,
        ),
        ("SCTP", ipv4(SCTP, &sctp(5000, 5001)), flow(SCTP, 5000, 5001), 0),
        ("echo request", ipv4(ICMP, &icmp(8, 77)), flow(ICMP, 77, 0), 0),
        ("echo reply", ipv4(ICMP, &icmp(0, 78)), flow(ICMP, 78, 0), 0),
        ("unreachable", ipv4(ICMP, &icmp(3, 79)), flow(ICMP, 0, 0), 0),
        (
            "ICMPv6 in IPv4",
            ipv4(ICMPV6, &icmp(8, 80)),
            flow(ICMPV6, 0, 0),
            0,
        ),
        ("GRE", ipv4(GRE, &[0; 24]), flow(GRE, 0, 0), 0),
        ("ESP", ipv4(ESP, &[9; 24]), flow(ESP, 0, 0), 0),
        (
            "AH is a protocol of its own",
            ipv4(AH, &authentication(TCP, 0, &tcp(1, 2, 0))),
            flow(AH, 0, 0),
            0,
        ),
        ("header alone", ipv4(NO_NEXT, b""), flow(NO_NEXT, 0, 0), 0),
        (
            "wrong UDP length",
            ipv4(UDP, &with_udp_length(udp(40003, 53, b"x"), 3)),
            flow(UDP, 40003, 53),
            0,
        ),
    ]);
}

#[test]
fn whole_ipv6_packets_are_captured_behind_every_extension_header() {
    let flow = |protocol, source, destination| key((A6, B6), protocol, source, destination);
    let question = udp(40000, 53, b"question");
    let over = |protocol, header: Vec<u8>| (ipv6(protocol, &header), flow(UDP, 40000, 53));
    let mut cases = vec![
        ("TCP", (ipv6(TCP, &tcp(40000, 443, 0)), flow(TCP, 40000, 443))),
        (
            "TCP with options",
            (ipv6(TCP, &tcp(40001, 443, 10)), flow(TCP, 40001, 443)),
        ),
        ("UDP", (ipv6(UDP, &question), flow(UDP, 40000, 53))),
        ("SCTP", (ipv6(SCTP, &sctp(5000, 5001)), flow(SCTP, 5000, 5001))),
        (
            "echo request",
            (ipv6(ICMPV6, &icmp(128, 77)), flow(ICMPV6, 77, 0)),
        ),
        ("echo reply", (ipv6(ICMPV6, &icmp(129, 78)), flow(ICMPV6, 78, 0))),
        ("packet too big", (ipv6(ICMPV6, &icmp(2, 79)), flow(ICMPV6, 0, 0))),
        ("ICMP in IPv6", (ipv6(ICMP, &icmp(128, 80)), flow(ICMP, 0, 0))),
        ("GRE", (ipv6(GRE, &[0; 24]), flow(GRE, 0, 0))),
        ("ESP", (ipv6(ESP, &[9; 24]), flow(ESP, 0, 0))),
        ("header alone", (ipv6(NO_NEXT, b""), flow(NO_NEXT, 0, 0))),
    ];
    cases.extend([
        ("hop-by-hop options", over(HOP_BY_HOP, options(UDP, 0, &question))),
        (
            "long hop-by-hop options",
            over(HOP_BY_HOP, options(UDP, 30, &question)),
        ),
        ("routing header", over(ROUTING, options(UDP, 2, &question))),
        (
            "destination options",
            over(DESTINATION_OPTIONS, options(UDP, 1, &question)),
        ),
        ("short AH", over(AH, authentication(UDP, 0, &question))),
        ("AH of SHA-256", over(AH, authentication(UDP, 4, &question))),
        ("atomic fragment", over(FRAGMENT, fragment(UDP, WHOLE, &question))),
        ("chain of all", over(HOP_BY_HOP, long_chain(&question))),
    ]);
    let chain = options_chain(8);
    cases.push((
        "eight headers",
        (ipv6(DESTINATION_OPTIONS, &chain), flow(NO_NEXT, 0, 0)),
    ));
    let cases: Vec<_> = cases
        .into_iter()
        .map(|(name, (packet, key))| (name, packet, key, 2))
        .collect();
    assert_captured(&cases);
}

#[test]
fn fragments_are_captured_as_the_flow_of_their_packet() {
    let flow4 = key((A4, B4), UDP, 40000, 53);
    let flow6 = || key((A6, B6), UDP, 40000, 53);
    let (question, rest) = (udp(40000, 53, &[1; 16]), [2; 24]);
    let piece4 = |at, payload: &[u8]| ipv4_full((A4, B4), 0, at, UDP, payload);
    let piece6 = |at, payload: &[u8]| ipv6(FRAGMENT, &fragment(UDP, at, payload));
    assert_captured(&[
        ("first of IPv4", piece4((0, true), &question), flow4, 0),
        (
            "first of IPv4 with options",
            ipv4_full((A4, B4), 2, (0, true), UDP, &question),
            flow4,
            0,
        ),
        ("middle of IPv4", piece4((3, true), &rest), flow4, 0),
        ("last of IPv4", piece4((6, false), &rest), flow4, 0),
        ("last of IPv4 of one byte", piece4((9, false), &[3]), flow4, 0),
        (
            "first of IPv4 inside the UDP header",
            piece4((0, true), &question[..4]),
            key((A4, B4), UDP, 0, 0),
            0,
        ),
        ("first of IPv6", piece6((0, true), &question), flow6(), 2),
        ("middle of IPv6", piece6((3, true), &rest), flow6(), 2),
        ("last of IPv6", piece6((6, false), &rest), flow6(), 2),
        ("empty last of IPv6", piece6((9, false), b""), flow6(), 2),
        (
            "middle of IPv6 behind options",
            ipv6(
                HOP_BY_HOP,
                &options(FRAGMENT, 0, &fragment(UDP, (3, true), &rest)),
            ),
            flow6(),
            2,
        ),
        (
            "first of IPv6 before options",
            ipv6(
                FRAGMENT,
                &fragment(DESTINATION_OPTIONS, (0, true), &options(UDP, 0, &question)),
            ),
            flow6(),
            2,
        ),
        (
            "middle that begins like a header",
            ipv6(FRAGMENT, &fragment(DESTINATION_OPTIONS, (1, true), &[0xff; 16])),
            flow6(),
            2,
        ),
    ]);
}

#[test]
fn destination_decides_the_peer_by_its_longest_prefix() {
    let four = |to: [u8; 4]| {
        let to = Ipv4Addr::from(to);
        let packet = ipv4_full((A4, to), 0, WHOLE, UDP, &udp(1, 2, b""));
        (packet, key((A4, to), UDP, 1, 2))
    };
    let six = |to: &str| {
        let to: Ipv6Addr = to.parse().unwrap();
        (
            ipv6_between((A6, to), UDP, &udp(1, 2, b"")),
            key((A6, to), UDP, 1, 2),
        )
    };
    let cases = [
        ("peer 0", four([10, 1, 1, 255]), 0),
        ("peer 1 inside peer 0", four([10, 1, 2, 0]), 1),
        ("above peer 1", four([10, 1, 3, 0]), 0),
        ("nobody's IPv4 address", four([10, 2, 0, 1]), NO_PEER),
        ("private use", four([192, 168, 0, 1]), NO_PEER),
        ("last unicast address", four([223, 255, 255, 255]), NO_PEER),
        ("peer 2", six("fd01:1::"), 2),
        ("peer 3 inside peer 2", six("fd01:2::1"), 3),
        ("nobody's IPv6 address", six("2001:db8::1"), NO_PEER),
        ("link-local", six("fe80::1"), NO_PEER),
        ("peer 0 as an IPv6 address", six("::ffff:10.1.1.1"), 0),
    ];

    assert_captured(&cases.map(|(name, (packet, key), peer)| (name, packet, key, peer)));
}

/// A device may hold more bytes than the IP header says, and a super-packet may say nothing.
#[test]
fn packets_longer_than_they_say_are_captured_with_all_their_bytes() {
    let flow4 = key((A4, B4), TCP, 1, 2);
    let flow6 = key((A6, B6), TCP, 1, 2);
    let tcp4 = || ipv4(TCP, &[tcp(1, 2, 0), vec![5; 6]].concat());
    let tcp6 = || ipv6(TCP, &[tcp(1, 2, 0), vec![5; 6]].concat());
    assert_captured(&[
        ("padded IPv4", with_length(tcp4(), 40), flow4, 0),
        ("IPv4 header alone, padded", with_length(tcp4(), 20), flow4, 0),
        ("IPv4 without length", with_length(tcp4(), 0), flow4, 0),
        ("padded IPv6", with_length(tcp6(), 20), flow6, 2),
        ("IPv6 with a length of one", with_length(tcp6(), 1), flow6, 2),
        ("IPv6 without length", with_length(tcp6(), 0), flow6, 2),
    ]);
}

type Captured = (&'static str, Vec<u8>, FlowKey, u32);

fn assert_captured(cases: &[Captured]) {
    let mut bench = Bench::with(Plan::default()).unwrap();
    for (name, packet, key, peer) in cases {
        check_captured(&mut bench, packet, key, *peer)
            .with_context(|| (*name).to_owned())
            .unwrap();
    }
}

fn check_captured(bench: &mut Bench, packet: &[u8], key: &FlowKey, peer: u32) -> Result<()> {
    let flow_hash = flow_hash(&bench.settings.hash_key, key);
    let worker = worker(slot(flow_hash), Plan::default().n_workers);
    let len = packet.len() as u32;
    let parsed = parse(packet, len);
    ensure!(
        parsed.is_ok_and(|parsed| parsed.key == *key || (parsed.fragment && !parsed.first_fragment)),
        "user space parses {parsed:?}, expected {key:?}"
    );
    let before = bench.connections.get(key, 0).unwrap_or_default();

    let outcome = bench.run(packet)?;

    let frame = FrameHeader {
        len,
        vnet: VnetHeader::default(),
    };
    let header = RecordHeader {
        flow_hash,
        unfinished: Unfinished::default(),
        frame,
    };
    let record = Record {
        worker,
        header,
        packet: packet.to_vec(),
    };
    let expected = Outcome {
        verdict: STOLEN,
        counted: vec![(Reason::Captured, 1)],
        records: vec![record],
    };
    ensure!(outcome == expected, "{outcome:x?}, expected {expected:x?}");
    let conn = bench.connections.get(key, 0).context("the flow has no entry")?;
    ensure!(
        (conn.packets, conn.bytes) == (before.packets + 1, before.bytes + u64::from(len)),
        "{before:?} became {conn:?}"
    );
    ensure!(
        (conn.worker, conn.peer, conn.flow_hash) == (worker, peer, flow_hash),
        "{conn:?}"
    );
    ensure!(before.first_seen_ns <= conn.first_seen_ns && conn.first_seen_ns <= conn.last_seen_ns);
    Ok(())
}

fn with_udp_length(mut udp: Vec<u8>, len: u16) -> Vec<u8> {
    udp[4..6].copy_from_slice(&len.to_be_bytes());
    udp
}
