//! The gateway program behind the kernel's merging of frames, on a cable: what a run cannot give it.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use crate::bench::{Bench, Plan, Record};
use crate::gateway_bench::*;
use crate::packets::*;
use router_common::frame::VnetHeader;
use router_common::packet::ethernet::{QINQ, VLAN};
use router_common::packet::protocol::{FRAGMENT, GRE, TCP, UDP};
use router_common::reason::Reason;
use router_common::record::Work;
use stream_router_node::kernel::{GatewayHook, GatewayMode};

const LIMIT: Duration = Duration::from_secs(5);
const SEGMENT: u16 = 1000;
const ETHERNET_LEN: u16 = 14;

#[test]
fn super_packets_stay_whole_behind_every_header_with_a_hop_less() {
    let mut wire = Wire::new().unwrap();
    let tcp = [tcp(1, 2, 3), vec![9; 50_000]].concat();
    let udp = udp(1, 2, &[9; 50_000]);
    let gso = |gso_type, hdr_len, offset, protocol| VnetHeader {
        gso_type,
        hdr_len,
        gso_size: SEGMENT,
        ..open_checksum(offset, protocol)
    };

    for (name, packet, offload) in [
        (
            "TCP",
            with_open_checksum(ipv4(TCP, &tcp), 20, TCP),
            gso(VnetHeader::GSO_TCPV4, 52, 20, TCP),
        ),
        (
            "TCP of IPv6",
            with_open_checksum(ipv6(TCP, &tcp), 40, TCP),
            gso(VnetHeader::GSO_TCPV6, 72, 40, TCP),
        ),
        (
            "UDP",
            with_open_checksum(ipv4(UDP, &udp), 20, UDP),
            gso(VnetHeader::GSO_UDP_L4, 28, 20, UDP),
        ),
        (
            "UDP of IPv6",
            with_open_checksum(ipv6(UDP, &udp), 40, UDP),
            gso(VnetHeader::GSO_UDP_L4, 48, 40, UDP),
        ),
    ] {
        let packet = with_hops(packet, 64);
        let record = wire.captured(&offload, &[], &packet).unwrap();

        assert_eq!(record.header.frame.vnet, offload, "{name}");
        assert_eq!(record.header.unfinished.work(), Some(Work::Nothing), "{name}");
        assert!(record.packet == with_hops(packet, 63), "{name}");
    }
}

#[test]
fn tags_that_the_kernel_has_taken_off_do_no_harm() {
    let mut wire = Wire::new().unwrap();
    let packet = with_hops(ipv4(TCP, &tcp(40000, 443, 3)), 64);

    for tags in [&[VLAN][..], &[QINQ, VLAN], &[VLAN, VLAN]] {
        let record = wire.captured(&VnetHeader::default(), tags, &packet).unwrap();

        assert_eq!(record.packet, with_hops(packet.clone(), 63), "{tags:x?}");
    }
}

#[test]
fn an_open_checksum_is_the_kernels_word_and_not_the_fields() {
    let mut wire = Wire::new().unwrap();
    let packet = with_hops(with_open_checksum(ipv4(UDP, &udp(1, 2, b"odd")), 20, UDP), 64);

    let open = wire.captured(&open_checksum(20, UDP), &[], &packet).unwrap();
    // By accident, a finished checksum is the pseudo-header's sum.
    let finished = wire.captured(&VnetHeader::default(), &[], &packet).unwrap();

    assert_eq!(open.header.frame.vnet, open_checksum(20, UDP));
    assert_eq!(finished.header.frame.vnet, VnetHeader::default());
}

#[test]
fn what_is_open_inside_of_a_tunnel_is_work_for_the_worker() {
    let mut wire = Wire::new().unwrap();
    let segment = [tcp(1, 2, 0), vec![9; 500]].concat();
    let inner = with_open_checksum(ipv4(TCP, &segment), 20, TCP);
    let packet = with_hops(ipv4(GRE, &[&[0, 0, 8, 0][..], &inner].concat()), 64);
    let open = open_checksum(44, TCP);

    let record = wire.captured(&open, &[], &packet).unwrap();

    assert_eq!(record.header.unfinished.work(), Some(Work::CompleteChecksum));
    assert_eq!(record.header.frame.vnet, open);
}

#[test]
fn a_super_packet_passes_whose_segments_are_too_long() {
    let mut wire = Wire::new().unwrap();
    let packet = |protocol, payload: &[u8]| {
        let packet = with_open_checksum(ipv4(protocol, payload), 20, protocol);
        with_hops(packet, 64)
    };
    let tcp = packet(TCP, &[tcp(1, 2, 3), vec![9; 50_000]].concat());
    let udp = packet(UDP, &udp(1, 2, &[9; 50_000]));

    for (name, packet, headers, gso_type, protocol) in [
        ("TCP", &tcp, 52, VnetHeader::GSO_TCPV4, TCP),
        ("UDP", &udp, 28, VnetHeader::GSO_UDP_L4, UDP),
    ] {
        let offload = |gso_size| VnetHeader {
            gso_type,
            gso_size,
            hdr_len: headers,
            ..open_checksum(20, protocol)
        };
        let longest = crate::bench::MTU as u16 - headers;

        wire.captured(&offload(longest), &[], packet)
            .with_context(|| name)
            .unwrap();
        wire.send(&offload(longest + 1), &[], packet);

        assert_eq!(wire.counted(), [(Reason::PassedTooBig, 1)], "{name}");
    }
}

#[test]
fn frames_cut_anywhere_in_their_headers_pass() {
    let mut wire = Wire::new().unwrap();
    for packet in [
        ipv4(TCP, &tcp(1, 2, 2)),
        ipv6(TCP, &tcp(1, 2, 2)),
        ipv6(FRAGMENT, &fragment(UDP, (3, true), b"")),
    ] {
        for len in 1..packet.len() {
            for cut in [packet[..len].to_vec(), with_true_length(packet[..len].to_vec())] {
                wire.send(&VnetHeader::default(), &[], &cut);

                assert_eq!(wire.counted(), [(Reason::PassedMalformed, 1)], "{cut:x?}");
            }
        }
    }
    assert_eq!(wire.bench.n_flows(), 0);
}

/// A cable in the bench's namespaces; one end is a gateway.
struct Wire {
    bench: Bench,
    cable: Cable,
    start: Vec<(Reason, u64)>,
}

impl Wire {
    fn new() -> Result<Self> {
        let bench = Bench::with(Plan {
            ring_bytes: 1 << 20,
            ..Plan::default()
        })?;
        // The kernel would send reports of its own.
        std::fs::write("/proc/sys/net/ipv6/conf/default/disable_ipv6", "1")?;
        let cable = Cable::lay(&bench, GatewayHook::Tc)?;
        ensure!(cable.attached.mode() == GatewayMode::Tc, "{:?}", cable.attached);
        Ok(Self {
            start: bench.kernel.counters.read()?,
            bench,
            cable,
        })
    }

    /// Sends a packet whose offload header counts from its IP header.
    fn send(&self, offload: &VnetHeader, tags: &[u16], packet: &[u8]) {
        let before = ETHERNET_LEN + 4 * tags.len() as u16;
        let mut offload = *offload;
        if offload.flags & VnetHeader::NEEDS_CSUM != 0 {
            offload.csum_start += before;
        }
        if offload.gso_size != 0 {
            offload.hdr_len += before;
        }
        self.cable
            .sender
            .send_offloaded(&offload, &tagged(tags, packet))
            .unwrap();
    }

    /// Counters that have moved since the last call; waits for one.
    fn counted(&mut self) -> Vec<(Reason, u64)> {
        let until = Instant::now() + LIMIT;
        loop {
            let counted = self.bench.counted_since(&self.start).unwrap();
            if !counted.is_empty() || Instant::now() > until {
                self.start = self.bench.kernel.counters.read().unwrap();
                return counted;
            }
            thread::sleep(Duration::from_millis(1));
        }
    }

    fn captured(&mut self, offload: &VnetHeader, tags: &[u16], packet: &[u8]) -> Result<Record> {
        self.send(offload, tags, packet);
        let counted = self.counted();
        ensure!(counted == [(Reason::Captured, 1)], "counted {counted:?}");
        let mut records = self.bench.drain();
        ensure!(records.len() == 1, "{} records", records.len());
        records.pop().context("one record")
    }
}
