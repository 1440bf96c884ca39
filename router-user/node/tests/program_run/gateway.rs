//! Tables of frames for the gateway programs at both hooks: for each the verdict, the one counter that moves, and the record.

use std::net::{Ipv4Addr, Ipv6Addr};

use anyhow::{Context, Result, ensure};
use ipnet::IpNet;

use crate::bench::{Bench, MTU, Outcome, Plan, Record, STOLEN};
use crate::gateway_bench::*;
use crate::packets::*;
use router_common::flow_hash::flow_hash;
use router_common::flow_key::FlowKey;
use router_common::frame::{FrameHeader, VnetHeader};
use router_common::packet::ethernet::{IPV4, IPV6, QINQ, VLAN};
use router_common::packet::protocol::{DESTINATION_OPTIONS, FRAGMENT, HOP_BY_HOP, ICMP, ICMPV6, TCP, UDP};
use router_common::peer::NO_PEER;
use router_common::reason::Reason;
use router_common::record::{RecordHeader, Unfinished};
use router_common::slots::{slot, worker};
use stream_router_engine::prefix_steps::PrefixStep;
use stream_router_node::kernel::GatewayHook;

const ARP: u16 = 0x0806;
/// Tags that a packet may have.
const TAGS: [&[u16]; 6] = [&[], &[VLAN], &[QINQ], &[QINQ, VLAN], &[VLAN, VLAN], &[VLAN, QINQ]];
/// The kernel takes nothing shorter for a run.
const SHORTEST_RUN: usize = 14;

#[test]
fn packets_for_a_peer_are_captured_behind_every_header_with_a_hop_less() {
    let fragment4 = ipv4_full((A4, B4), 0, (0, true), UDP, &udp(40000, 53, &[1; 16]));
    let cases = [
        (
            "TCP",
            ipv4(TCP, &tcp(40000, 443, 3)),
            key((A4, B4), TCP, 40000, 443),
            0,
        ),
        (
            "UDP",
            ipv4(UDP, &udp(40000, 53, b"question")),
            key((A4, B4), UDP, 40000, 53),
            0,
        ),
        ("echo", ipv4(ICMP, &icmp(8, 77)), key((A4, B4), ICMP, 77, 0), 0),
        ("fragment", fragment4, key((A4, B4), UDP, 40000, 53), 0),
        (
            "TCP over IPv6",
            ipv6(TCP, &tcp(40000, 443, 0)),
            key((A6, B6), TCP, 40000, 443),
            2,
        ),
        (
            "echo over IPv6",
            ipv6(ICMPV6, &icmp(128, 77)),
            key((A6, B6), ICMPV6, 77, 0),
            2,
        ),
        (
            "fragment of IPv6",
            ipv6(FRAGMENT, &fragment(UDP, (0, true), &udp(40000, 53, &[2; 24]))),
            key((A6, B6), UDP, 40000, 53),
            2,
        ),
        (
            "options for the destination",
            ipv6(DESTINATION_OPTIONS, &options(UDP, 1, &udp(1, 2, b"x"))),
            key((A6, B6), UDP, 1, 2),
            2,
        ),
    ];

    for hook in HOOKS {
        let mut gateway = GatewayBench::new(hook).unwrap();
        for (name, packet, key, peer) in &cases {
            for tags in TAGS {
                for hops in [2, 64, 255] {
                    check_captured(&mut gateway, tags, packet, hops, key, *peer)
                        .with_context(|| format!("{name} behind {tags:x?}, {hops} hops, {hook:?}"))
                        .unwrap();
                }
            }
        }
    }
}

#[test]
fn packets_of_every_length_up_to_the_mtu_arrive_whole() {
    for hook in HOOKS {
        let mut gateway = GatewayBench::new(hook).unwrap();
        for len in [28, 29, 45, 46, 47, 63, 64, 65, 511, 512, 513, 1419, MTU as usize] {
            let packet = with_hops(udp_packet(len, 1, 7), 64);

            let record = captured(gateway.run(&padded(tagged(&[], &packet))).unwrap()).unwrap();

            assert_eq!(record.header.frame.len as usize, len);
            assert!(record.packet == with_hops(packet, 63), "{len} bytes, {hook:?}");
        }
    }
}

/// More than one page, which a driver gives in several buffers.
#[test]
fn packets_in_several_buffers_arrive_whole() {
    let plan = Plan {
        device_mtu: 32_000,
        ..Plan::default()
    };
    let mut gateway = GatewayBench::with(GatewayHook::Xdp, plan).unwrap();

    for len in [3000, 4096, 9000, 17_000, 32_000] {
        let packet = with_hops(udp_packet(len, 1, 9), 64);

        let record = captured(gateway.run(&tagged(&[VLAN], &packet)).unwrap()).unwrap();

        assert!(record.packet == with_hops(packet, 63), "{len} bytes");
    }
}

/// Of a socket buffer the kernel says it.
#[test]
fn open_checksums_are_described_and_finished_ones_are_not() {
    let mut gateway = GatewayBench::new(GatewayHook::Xdp).unwrap();
    for (packet, offset, protocol) in [
        (ipv4(TCP, &tcp(1, 2, 2)), 20, TCP),
        (ipv4(UDP, &udp(1, 2, b"odd")), 20, UDP),
        (ipv6(TCP, &tcp(1, 2, 0)), 40, TCP),
        (ipv6(UDP, &udp(1, 2, b"even")), 40, UDP),
    ] {
        let open = VnetHeader {
            flags: VnetHeader::NEEDS_CSUM,
            csum_start: offset as u16,
            csum_offset: checksum_offset(protocol) as u16,
            ..VnetHeader::default()
        };
        for (packet, vnet) in [
            (with_open_checksum(packet.clone(), offset, protocol), open),
            (with_checksum(packet, offset, protocol), VnetHeader::default()),
        ] {
            let frame = padded(tagged(&[], &with_hops(packet, 64)));

            let record = captured(gateway.run(&frame).unwrap()).unwrap();

            assert_eq!(record.header.frame.vnet, vnet);
        }
    }
}

#[test]
fn a_flow_has_one_lane_at_every_hook() {
    for hook in HOOKS {
        let mut gateway = GatewayBench::new(hook).unwrap();
        let packet = with_hops(udp_packet(200, 9, 1), 64);

        let at_egress = gateway.bench.run(&packet).unwrap();
        let at_gateway = gateway.run(&tagged(&[], &packet)).unwrap();

        assert_eq!(at_egress.verdict, STOLEN);
        let (egress, gateway_record) = (&at_egress.records[0], &at_gateway.records[0]);
        assert_eq!(egress.worker, gateway_record.worker);
        assert_eq!(egress.header, gateway_record.header);
        let conn = gateway
            .bench
            .connections
            .get(&key((A4, B4), UDP, 9, 53), 0)
            .unwrap();
        assert_eq!((conn.packets, conn.bytes), (2, 400));
    }
}

#[test]
fn what_is_not_for_a_peer_or_not_to_be_forwarded_passes() {
    let question = udp(1, 2, b"x");
    let from_to4 = |source: [u8; 4], destination: [u8; 4]| {
        let packet = ipv4_full((source.into(), destination.into()), 0, WHOLE, UDP, &question);
        tagged(&[], &with_hops(packet, 64))
    };
    let from_to6 = |source: &str, destination: &str| {
        let addresses: (Ipv6Addr, Ipv6Addr) = (source.parse().unwrap(), destination.parse().unwrap());
        tagged(&[], &ipv6_between(addresses, UDP, &question))
    };
    let (a, b) = (A4.octets(), B4.octets());
    let (ours4, ours6) = (ipv4(UDP, &question), ipv6(UDP, &question));
    let sized = |packet: Vec<u8>| tagged(&[], &with_hops(packet, 64));
    let mut cases = vec![
        ("ARP", frame(HOST, &[], ARP, &[0; 46]), Reason::NotIp),
        ("IEEE 802.3", frame(HOST, &[], 46, &[0x42; 46]), Reason::NotIp),
        ("three tags", tagged(&[QINQ, VLAN, VLAN], &ours4), Reason::NotIp),
        (
            "another host's frame",
            frame([2, 0, 0, 0, 0, 9], &[], IPV4, &ours4),
            Reason::PassedNotOurs,
        ),
        (
            "unicast in a broadcast frame",
            frame([0xff; 6], &[VLAN], IPV4, &ours4),
            Reason::PassedNotOurs,
        ),
        (
            "nobody's address",
            from_to4(a, [10, 2, 0, 1]),
            Reason::PassedNotOurs,
        ),
        (
            "nobody's IPv6 address",
            from_to6("fd09::1", "2001:db8::1"),
            Reason::PassedNotOurs,
        ),
        ("multicast", from_to4(a, [224, 0, 0, 251]), Reason::Multicast),
        ("broadcast", from_to4(a, [255; 4]), Reason::Multicast),
        (
            "multicast of IPv6",
            from_to6("fd09::1", "ff02::1"),
            Reason::Multicast,
        ),
        ("from a peer", from_to4([10, 1, 0, 9], b), Reason::PassedSource),
        (
            "from another peer",
            from_to4([10, 1, 2, 9], b),
            Reason::PassedSource,
        ),
        ("from nowhere", from_to4([0; 4], b), Reason::PassedSource),
        ("from loopback", from_to4([127, 0, 0, 1], b), Reason::PassedSource),
        (
            "from multicast",
            from_to4([224, 0, 0, 1], b),
            Reason::PassedSource,
        ),
        (
            "from a peer's IPv6",
            from_to6("fd01::9", "fd01::2"),
            Reason::PassedSource,
        ),
        (
            "from IPv6 nowhere",
            from_to6("::", "fd01::2"),
            Reason::PassedSource,
        ),
        (
            "from IPv6 loopback",
            from_to6("::1", "fd01::2"),
            Reason::PassedSource,
        ),
        (
            "from link-local",
            from_to6("fe80::1", "fd01::2"),
            Reason::PassedSource,
        ),
        (
            "from IPv6 multicast",
            from_to6("ff02::1", "fd01::2"),
            Reason::PassedSource,
        ),
        (
            "one option",
            tagged(&[], &ipv4_full((A4, B4), 1, WHOLE, UDP, &question)),
            Reason::PassedOptions,
        ),
        (
            "all options",
            tagged(&[VLAN], &ipv4_full((A4, B4), 10, WHOLE, UDP, &question)),
            Reason::PassedOptions,
        ),
        (
            "options for every hop",
            tagged(&[], &ipv6(HOP_BY_HOP, &options(UDP, 0, &question))),
            Reason::PassedOptions,
        ),
        (
            "one byte too long",
            sized(udp_packet(MTU as usize + 1, 1, 1)),
            Reason::PassedTooBig,
        ),
        (
            "much too long",
            sized(udp_packet(9000, 1, 1)),
            Reason::PassedTooBig,
        ),
        (
            "IPv6 in an IPv4 frame",
            frame(HOST, &[], IPV4, &ours6),
            Reason::PassedMalformed,
        ),
        (
            "IPv4 in an IPv6 frame",
            frame(HOST, &[], IPV6, &ours4),
            Reason::PassedMalformed,
        ),
        (
            "version 5",
            frame(HOST, &[], IPV4, &[0x55; 46]),
            Reason::PassedMalformed,
        ),
        (
            "no IPv4 length",
            tagged(&[], &with_length(ours4.clone(), 0)),
            Reason::PassedMalformed,
        ),
        (
            "no IPv6 length",
            tagged(&[], &with_length(ours6.clone(), 0)),
            Reason::PassedMalformed,
        ),
        (
            "length over by one",
            tagged(&[], &with_length(ours4.clone(), ours4.len() as u16 + 1)),
            Reason::PassedMalformed,
        ),
    ];
    for hops in [0, 1] {
        for packet in [&ours4, &ours6] {
            cases.push((
                "last hop",
                padded(tagged(&[], &with_hops(packet.clone(), hops))),
                Reason::PassedTtl,
            ));
        }
    }
    assert_passed(
        cases
            .into_iter()
            .map(|(name, frame, reason)| (name.to_owned(), frame, reason)),
    );
}

#[test]
fn frames_cut_anywhere_in_their_headers_pass() {
    let mut cases = Vec::new();
    for tags in TAGS {
        for (name, packet) in [
            ("TCP in IPv4", ipv4(TCP, &tcp(1, 2, 2))),
            ("UDP in IPv4", ipv4(UDP, &udp(1, 2, b""))),
            ("TCP in IPv6", ipv6(TCP, &tcp(1, 2, 2))),
            ("fragment of IPv6", ipv6(FRAGMENT, &fragment(UDP, (3, true), b""))),
        ] {
            let whole = tagged(tags, &packet);
            let header_len = whole.len() - packet.len();
            for len in SHORTEST_RUN..whole.len() {
                let name = format!("{name} behind {tags:x?} cut to {len}");
                let honest = tagged(
                    tags,
                    &with_true_length(packet[..len.saturating_sub(header_len)].to_vec()),
                );
                if len >= header_len {
                    // The type of an empty payload is the whole one's.
                    let honest = [&whole[..header_len], &honest[header_len..]].concat();
                    cases.push((format!("{name}, honest"), honest, Reason::PassedMalformed));
                }
                cases.push((name, whole[..len].to_vec(), Reason::PassedMalformed));
            }
        }
    }
    assert_passed(cases);
}

#[test]
fn the_hosts_own_networks_inside_a_peers_prefix_are_the_hosts() {
    HOOKS.into_iter().for_each(the_hosts_own_networks_are_the_hosts);
}

fn the_hosts_own_networks_are_the_hosts(hook: GatewayHook) {
    let mut gateway = GatewayBench::new(hook).unwrap();
    let own: IpNet = "10.1.7.0/24".parse().unwrap();
    let packet = |source: Ipv4Addr, to: Ipv4Addr| {
        let packet = ipv4_full((source, to), 0, WHOLE, UDP, &udp(1, 2, b"x"));
        tagged(&[], &with_hops(packet, 64))
    };
    let own_host = Ipv4Addr::new(10, 1, 7, 1);
    let to_host = packet(A4, own_host);
    let from_host = packet(own_host, B4);
    let reasons = |gateway: &mut GatewayBench| {
        [&to_host, &from_host].map(|frame| gateway.run(frame).unwrap().counted[0].0)
    };

    let before = reasons(&mut gateway);
    gateway
        .bench
        .kernel
        .prefixes
        .change([PrefixStep::Write(own, NO_PEER)])
        .unwrap();
    let with = reasons(&mut gateway);
    gateway
        .bench
        .kernel
        .prefixes
        .change([PrefixStep::Remove(own)])
        .unwrap();

    assert_eq!(before, [Reason::Captured, Reason::PassedSource]);
    assert_eq!(with, [Reason::PassedNotOurs, Reason::Captured]);
    assert_eq!(reasons(&mut gateway), before);
}

#[test]
fn an_interface_that_is_no_gateway_gives_nothing() {
    for hook in HOOKS {
        let mut gateway = GatewayBench::new(hook).unwrap();
        let frame = tagged(&[], &with_hops(udp_packet(100, 1, 1), 64));
        assert_eq!(gateway.verdict(&frame).unwrap(), DROP);

        gateway.bench.kernel.gateways.add(1, [2, 0, 0, 0, 0, 7]).unwrap();

        assert_eq!(gateway.run(&frame).unwrap().counted, [(Reason::PassedNotOurs, 1)]);
    }
}

#[test]
fn a_full_ring_and_a_full_queue_drop_by_name() {
    HOOKS.into_iter().for_each(a_full_ring_and_a_full_queue_drop);
}

fn a_full_ring_and_a_full_queue_drop(hook: GatewayHook) {
    let plan = Plan {
        n_workers: 1,
        ring_bytes: 4096,
        ..Plan::default()
    };
    let mut gateway = GatewayBench::with(hook, plan).unwrap();
    let frame = tagged(&[], &with_hops(tcp_packet(1400, 1, 1), 64));
    let dropped = |reason| Outcome {
        verdict: DROP,
        counted: vec![(reason, 1)],
        records: vec![],
    };

    gateway.bench.kernel.pressure.switch(0)(true);
    assert_eq!(gateway.run(&frame).unwrap(), dropped(Reason::PeerPressure));
    gateway.bench.kernel.pressure.switch(0)(false);
    for _ in 0..2 {
        assert_eq!(gateway.verdict(&frame).unwrap(), DROP);
    }
    let before = gateway.bench.kernel.counters.read().unwrap();
    assert_eq!(gateway.verdict(&frame).unwrap(), DROP);

    assert_eq!(
        gateway.bench.counted_since(&before).unwrap(),
        [(Reason::RingFull, 1)]
    );
    assert_eq!(gateway.bench.drain().len(), 2);
    assert_eq!(gateway.run(&frame).unwrap().counted, [(Reason::Captured, 1)]);
}

fn check_captured(
    gateway: &mut GatewayBench,
    tags: &[u16],
    packet: &[u8],
    hops: u8,
    key: &FlowKey,
    peer: u32,
) -> Result<()> {
    let packet = with_hops(packet.to_vec(), hops);
    let frame = padded(tagged(tags, &packet));

    let record = captured(gateway.run(&frame)?)?;

    ensure!(
        record == expected(&gateway.bench, &packet, hops, key),
        "{record:x?}"
    );
    let entry = gateway.bench.connections.get(key, 0)?;
    ensure!(entry.peer == peer, "{entry:?}");
    Ok(())
}

fn expected(bench: &Bench, packet: &[u8], hops: u8, key: &FlowKey) -> Record {
    let flow_hash = flow_hash(&bench.settings.hash_key, key);
    Record {
        worker: worker(slot(flow_hash), Plan::default().n_workers),
        header: RecordHeader {
            unfinished: Unfinished::default(),
            flow_hash,
            frame: FrameHeader {
                len: packet.len() as u32,
                vnet: VnetHeader::default(),
            },
        },
        packet: with_hops(packet.to_vec(), hops - 1),
    }
}

/// The one record of a frame that went no further.
fn captured(mut outcome: Outcome) -> Result<Record> {
    ensure!(outcome.verdict == DROP, "verdict {}", outcome.verdict);
    ensure!(
        outcome.counted == [(Reason::Captured, 1)],
        "counted {:?}",
        outcome.counted
    );
    ensure!(outcome.records.len() == 1, "{} records", outcome.records.len());
    outcome.records.pop().context("one record")
}

fn assert_passed(cases: impl IntoIterator<Item = (String, Vec<u8>, Reason)>) {
    let cases: Vec<_> = cases.into_iter().collect();
    for hook in HOOKS {
        let mut gateway = GatewayBench::new(hook).unwrap();
        for (name, frame, reason) in &cases {
            if hook == GatewayHook::Tc && !is_run_for_a_socket_buffer(frame) {
                continue;
            }
            let outcome = gateway.run(frame).with_context(|| name.clone()).unwrap();

            let expected = Outcome {
                verdict: PASS,
                counted: vec![(*reason, 1)],
                records: vec![],
            };
            assert_eq!(outcome, expected, "{name}, {hook:?}");
        }
        assert_eq!(gateway.bench.n_flows(), 0);
    }
}

/// The kernel makes no socket buffer for a run without an IP header behind such an EtherType, or longer than a page less what
/// stands around it.
fn is_run_for_a_socket_buffer(frame: &[u8]) -> bool {
    const LONGEST: usize = 3000;

    let header_len = match u16::from_be_bytes([frame[12], frame[13]]) {
        IPV4 => 20,
        IPV6 => 40,
        _ => 1,
    };
    (SHORTEST_RUN + header_len..LONGEST).contains(&frame.len())
}
