//! Frames of 64-byte datagrams per second into a TUN device, one by one and coalesced; needs root.
//!
//! Admission is part of both, and so is the count of what came of each flow; how long such a count takes by itself is measured
//! too. The device and a socket that nobody reads lie in a namespace of the benchmark.
#![expect(clippy::print_stdout, reason = "a benchmark prints its figures")]

use std::net::UdpSocket;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use etherparse::PacketBuilder;
use nix::sched::{CloneFlags, unshare};

use router_common::flow_hash::HashKey;
use router_common::flow_key::{FAMILY_V4, FlowKey};
use router_common::frame::{FrameHeader, VnetHeader};
use router_common::packet::protocol;
use stream_router_engine::admission::admit;
use stream_router_engine::coalesce::{CoalescedPacket, Coalescer};
use stream_router_engine::framing::{DECODER_CAPACITY, Decoder};
use stream_router_engine::received_flows::ReceivedFlows;
use stream_router_engine::route_table::{PeerIndex, RouteTable};
use stream_router_node::device::{Device, DeviceSettings, Injector};

const PACKET_LEN: usize = 64;
const HEADER_LEN: usize = 28;
const MEASURED: Duration = Duration::from_millis(200);
/// Rounds of both, one after the other; the median counts.
const N_ROUNDS: usize = 9;
const PEER: PeerIndex = PeerIndex(0);
/// Reads of so many frames, in which so many flows take turns.
const READS: [(usize, u16); 8] = [
    (1, 1),
    (2, 1),
    (8, 1),
    (64, 1),
    (64, 8),
    (64, 16),
    (3000, 1),
    (3000, 8),
];
/// Live flows while counts are measured, of a table with room for [`MAX_FLOWS`].
const COUNTED_FLOWS: [u32; 3] = [1, 1000, 100_000];
const MAX_FLOWS: u32 = 262_144;
const TTL: Duration = Duration::from_secs(300);

fn main() -> Result<()> {
    ensure!(
        nix::unistd::geteuid().is_root(),
        "the benchmark makes a TUN device, so it needs root"
    );
    println!("live flows | ns for a count");
    for n_flows in COUNTED_FLOWS {
        println!("{n_flows:>10} | {:>14.1}", count_ns(n_flows));
    }
    unshare(CloneFlags::CLONE_NEWNET).context("cannot make a namespace")?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let addresses = ["10.42.0.1/24".parse()?];
        let settings = DeviceSettings {
            name: "sr-bench0",
            addresses: &addresses,
            mtu: 1420,
        };
        let device = Device::create(settings).await?;
        device.start([]).await?;
        let _unread = UdpSocket::bind("10.42.0.1:2000")?;
        let bench = Bench {
            injector: device.injector(),
            routes: RouteTable::new([("10.42.0.2/32".parse()?, PEER)]),
            received: received(),
        };
        println!("frames of a read   flows | M/s one by one   coalesced");
        for (n_frames, n_flows) in READS {
            let stream = stream(n_frames, n_flows);
            let (mut single, mut merged) = ([0.0; N_ROUNDS], [0.0; N_ROUNDS]);
            for (single, merged) in single.iter_mut().zip(&mut merged) {
                *single = bench.measure(&stream, n_frames, false)?;
                *merged = bench.measure(&stream, n_frames, true)?;
            }
            let (single, merged) = (median(single), median(merged));
            println!("{n_frames:>16} {n_flows:>7} | {single:>14.2} {merged:>11.2}");
        }
        Ok(())
    })
}

struct Bench {
    injector: Injector,
    routes: RouteTable,
    received: ReceivedFlows,
}

impl Bench {
    fn measure(&self, stream: &[u8], n_frames: usize, merge: bool) -> Result<f64> {
        let mut decoder = Decoder::default();
        let start = Instant::now();
        let mut n_injected = 0;
        while start.elapsed() < MEASURED {
            for _ in 0..4096_usize.div_ceil(n_frames) {
                decoder.space()[..stream.len()].copy_from_slice(stream);
                decoder.handle_read(stream.len());
                n_injected += if merge {
                    self.coalesced(&mut decoder)?
                } else {
                    self.one_by_one(&mut decoder)?
                };
            }
        }
        Ok(n_injected as f64 / start.elapsed().as_secs_f64() / 1e6)
    }

    fn one_by_one(&self, decoder: &mut Decoder) -> Result<u64> {
        let mut n_injected = 0;
        let now = self.received.tick(Instant::now());
        for frame in decoder.frames() {
            let frame = frame?;
            let admitted = admit(&self.routes, PEER, &frame.vnet(), frame.packet());
            ensure!(admitted.is_ok(), "{admitted:?}");
            let key = admitted.map(|parsed| parsed.key).unwrap_or_default();
            self.injector.inject(frame.vnet_and_packet())?;
            n_injected += 1;
            self.received.count(&key, 1, frame.packet().len() as u64, now);
        }
        Ok(n_injected)
    }

    fn coalesced(&self, decoder: &mut Decoder) -> Result<u64> {
        let mut n_injected = 0;
        let now = self.received.tick(Instant::now());
        let mut inject = |packet: CoalescedPacket<'_>| {
            if self.injector.inject_parts(packet.parts).is_ok() {
                n_injected += packet.n_frames;
                self.received
                    .count(packet.flow, packet.n_frames, packet.wire_len, now);
            }
        };
        let mut coalescer = Coalescer::new(self.injector.udp_offload());
        for frame in decoder.frames() {
            let frame = frame?;
            let admitted = admit(&self.routes, PEER, &frame.vnet(), frame.packet());
            let Ok(parsed) = admitted else {
                anyhow::bail!("{admitted:?}");
            };
            coalescer.push(frame, &parsed, &mut inject);
        }
        coalescer.flush(&mut inject);
        Ok(n_injected)
    }
}

fn received() -> ReceivedFlows {
    ReceivedFlows::new(HashKey { k0: 1, k1: 2 }, MAX_FLOWS, TTL, Instant::now())
}

/// Nanoseconds for a count of one of so many flows, which take turns in no order.
fn count_ns(n_flows: u32) -> f64 {
    const N: u32 = 1 << 20;
    let received = received();
    let keys: Vec<_> = (0..N)
        .map(|n| {
            let [a, b, c, d] = (n.wrapping_mul(0x9e37_79b9) % n_flows).to_be_bytes();
            FlowKey {
                source: [10; 16],
                destination: [a; 16],
                source_port_be: [b, c],
                destination_port_be: [d, 0],
                protocol: protocol::UDP,
                family: FAMILY_V4,
                ..FlowKey::default()
            }
        })
        .collect();
    let round = || {
        let start = Instant::now();
        let now = received.tick(start);
        for key in &keys {
            received.count(key, 1, 1000, now);
        }
        start.elapsed().as_nanos() as f64 / f64::from(N)
    };
    // The first makes the entries.
    round();
    let mut rounds = [0.0; N_ROUNDS];
    rounds.fill_with(round);
    median(rounds)
}

fn median(mut rounds: [f64; N_ROUNDS]) -> f64 {
    rounds.sort_by(f64::total_cmp);
    rounds[N_ROUNDS / 2]
}

/// Frames whose checksums are left to the receiver, as a host's own packets are.
fn stream(n_frames: usize, n_flows: u16) -> Vec<u8> {
    let vnet = VnetHeader {
        flags: VnetHeader::NEEDS_CSUM,
        csum_start: 20,
        csum_offset: 6,
        ..VnetHeader::default()
    };
    let header = FrameHeader {
        len: PACKET_LEN as u32,
        vnet,
    };
    let mut stream = Vec::with_capacity(DECODER_CAPACITY);
    for flow in (0..n_flows).cycle().take(n_frames) {
        let mut packet = Vec::with_capacity(PACKET_LEN);
        PacketBuilder::ipv4([10, 42, 0, 2], [10, 42, 0, 1], 64)
            .udp(1000 + flow, 2000)
            .write(&mut packet, &[0; PACKET_LEN - HEADER_LEN])
            .expect("a vector takes every byte");
        let checksum = pseudo_sum(&packet);
        packet[26..28].copy_from_slice(&checksum);
        stream.extend_from_slice(bytemuck::bytes_of(&header));
        stream.extend_from_slice(&packet);
    }
    stream
}

fn pseudo_sum(packet: &[u8]) -> [u8; 2] {
    let words = packet[12..20].chunks(2);
    let addresses: u32 = words
        .map(|word| u32::from(word[0]) << 8 | u32::from(word[1]))
        .sum();
    let sum = addresses + 17 + (packet.len() - 20) as u32;
    ((sum & 0xffff) as u16 + (sum >> 16) as u16).to_be_bytes()
}
