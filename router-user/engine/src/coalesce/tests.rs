use std::collections::HashMap;

use bytemuck::bytes_of;
use etherparse::PacketBuilder;
use proptest::prelude::*;
use router_common::frame::{FrameHeader, VnetHeader};
use router_common::packet::parse;

use super::*;
use crate::admission::offload_fits;
use crate::checksum::Sum;
use crate::framing::Decoder;

const TCP_FLAGS: usize = 13;
const FIN: u8 = 0x01;
const PSH: u8 = 0x08;
const URG: u8 = 0x20;
const ECE: u8 = 0x40;

/// A packet to be made, of flow `flow`: two of each family and protocol.
#[derive(Clone, Debug)]
struct Spec {
    flow: u8,
    payload: usize,
    checksum: Checksum,
    oddity: Oddity,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Checksum {
    Partial,
    Full,
    Wrong,
    Zero,
}

/// What sets a packet apart from the one before.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Oddity {
    None,
    HopLimit,
    TrafficClass,
    Fragment,
    MayFragment,
    Identification,
    /// The two before: an identification with a meaning.
    Both,
    IpOptions,
    HeaderChecksum,
    FlowLabel,
    TcpFlags(u8),
    Sequence,
    Acknowledgement,
    Window,
    TcpOptions,
    UdpLength,
    SuperPacket,
}

impl Spec {
    fn plain(flow: u8, payload: usize) -> Self {
        Self {
            flow,
            payload,
            checksum: Checksum::Partial,
            oddity: Oddity::None,
        }
    }

    fn with(self, oddity: Oddity) -> Self {
        Self { oddity, ..self }
    }

    fn is_tcp(&self) -> bool {
        self.flow & 1 != 0
    }

    fn is_v4(&self) -> bool {
        self.flow & 2 == 0
    }
}

/// What a sender keeps of its flows.
#[derive(Default)]
struct Sender {
    n_packets: u8,
    sequences: HashMap<u8, u32>,
    ids: HashMap<u8, u16>,
}

impl Sender {
    fn frame(&mut self, spec: &Spec) -> Vec<u8> {
        self.n_packets = self.n_packets.wrapping_add(1);
        let payload: Vec<u8> = (0..spec.payload).map(|i| self.n_packets ^ i as u8).collect();
        let mut packet = self.packet(spec, &payload);
        let transport = if spec.is_v4() { 20 } else { 40 };
        let id = self.ids.entry(spec.flow).or_insert(u16::MAX - 2);
        *id = id.wrapping_add(1);
        if spec.is_v4() {
            packet[4..6].copy_from_slice(&id.to_be_bytes());
        }
        let mut vnet = VnetHeader::default();
        let checksum_at = transport + if spec.is_tcp() { 16 } else { 6 };
        match spec.oddity {
            Oddity::HopLimit => packet[if spec.is_v4() { 8 } else { 7 }] = 9,
            Oddity::TrafficClass => packet[1] |= 0x20,
            Oddity::FlowLabel if !spec.is_v4() => packet[3] = 1,
            Oddity::MayFragment if spec.is_v4() => packet[6] = 0,
            Oddity::Fragment if spec.is_v4() => packet[6] = 0x20,
            Oddity::Identification if spec.is_v4() => packet[5] ^= 0x50,
            Oddity::Both if spec.is_v4() => (packet[5], packet[6]) = (packet[5] ^ 0x50, 0),
            Oddity::UdpLength if !spec.is_tcp() => packet[transport + 5] -= 1,
            Oddity::TcpFlags(flags) if spec.is_tcp() => packet[transport + TCP_FLAGS] |= flags,
            _ => {}
        }
        if spec.oddity == Oddity::IpOptions && spec.is_v4() {
            packet.splice(20..20, [1; 4]);
            (packet[0], packet[3]) = (0x46, packet[3] + 4);
            packet[6..12].fill(0);
            finish_ip(&mut packet);
            return framed(vnet, &packet);
        }
        if spec.is_v4() {
            finish_ip(&mut packet);
            packet[10] ^= u8::from(spec.oddity == Oddity::HeaderChecksum);
        }
        let checksum = match spec.checksum {
            // No offload knows fragments.
            Checksum::Partial if spec.oddity == Oddity::Fragment => [1; 2],
            Checksum::Partial => {
                vnet.flags = VnetHeader::NEEDS_CSUM;
                vnet.csum_start = transport as u16;
                vnet.csum_offset = (checksum_at - transport) as u16;
                pseudo(&packet, transport).fold()
            }
            Checksum::Full => transport_checksum(&packet, transport, checksum_at),
            Checksum::Wrong => transport_checksum(&packet, transport, checksum_at).map(|byte| byte ^ 1),
            Checksum::Zero => [0; 2],
        };
        packet[checksum_at..checksum_at + 2].copy_from_slice(&checksum);
        if spec.oddity == Oddity::SuperPacket && vnet.flags != 0 && spec.payload > 16 {
            vnet.gso_type = match (spec.is_tcp(), spec.is_v4()) {
                (true, true) => VnetHeader::GSO_TCPV4,
                (true, false) => VnetHeader::GSO_TCPV6,
                (false, _) => VnetHeader::GSO_UDP_L4,
            };
            vnet.gso_size = 16;
            vnet.hdr_len = (packet.len() - spec.payload) as u16;
        }
        framed(vnet, &packet)
    }

    fn packet(&mut self, spec: &Spec, payload: &[u8]) -> Vec<u8> {
        let host = 10 + (spec.flow >> 2);
        let (source, destination) = ([0xfd; 16].map(|byte| byte ^ host), [0xfd; 16]);
        let builder = if spec.is_v4() {
            PacketBuilder::ipv4([10, 42, 0, host], [10, 42, 0, 1], 64)
        } else {
            PacketBuilder::ipv6(source, destination, 64)
        };
        let mut packet = Vec::new();
        if !spec.is_tcp() {
            let builder = builder.udp(1000, 2000);
            builder.write(&mut packet, payload).expect("a vector takes it");
            return packet;
        }
        let sequence = self.sequences.entry(spec.flow).or_insert(u32::MAX - 100);
        let sent = sequence.wrapping_add(u32::from(spec.oddity == Oddity::Sequence));
        *sequence = sequence.wrapping_add(payload.len() as u32);
        let acknowledged = 1 + u32::from(spec.oddity == Oddity::Acknowledgement);
        let window = 500 + u16::from(spec.oddity == Oddity::Window);
        let timestamp = u8::from(spec.oddity == Oddity::TcpOptions);
        let builder = builder
            .tcp(3000, 4000, sent, window)
            .ack(acknowledged)
            .options_raw(&[1, 1, 8, 10, 0, 0, 0, timestamp, 0, 0, 0, 7])
            .expect("12 bytes of options fit");
        builder.write(&mut packet, payload).expect("a vector takes it");
        packet
    }
}

fn framed(vnet: VnetHeader, packet: &[u8]) -> Vec<u8> {
    let len = packet.len() as u32;
    [bytes_of(&FrameHeader { len, vnet }), packet].concat()
}

fn finish_ip(packet: &mut [u8]) {
    let len = usize::from(packet[0] & 15) * 4;
    packet[10..12].fill(0);
    let checksum = Sum::default().add_bytes(&packet[..len]).finish();
    packet[10..12].copy_from_slice(&checksum);
}

fn pseudo(packet: &[u8], transport: usize) -> Sum {
    let (addresses, protocol) = match packet[0] >> 4 {
        4 => (&packet[12..20], packet[9]),
        _ => (&packet[8..40], packet[6]),
    };
    let len = (packet.len() - transport) as u32;
    Sum::default()
        .add_bytes(addresses)
        .add_bytes(&u32::from(protocol).to_be_bytes())
        .add_bytes(&len.to_be_bytes())
}

fn transport_checksum(packet: &[u8], transport: usize, at: usize) -> [u8; 2] {
    let (before, after) = (&packet[transport..at], &packet[at + 2..]);
    match pseudo(packet, transport)
        .add_bytes(before)
        .add_bytes(after)
        .finish()
    {
        [0, 0] => [0xff; 2],
        checksum => checksum,
    }
}

/// What the kernel makes of a write: segments with finished checksums (`inet_gso_segment`, `tcp_gso_segment`,
/// `__udp_gso_segment`).
fn delivered(vnet: &VnetHeader, packet: &[u8]) -> Vec<Vec<u8>> {
    if vnet.flags != VnetHeader::NEEDS_CSUM {
        return vec![packet.to_vec()];
    }
    let transport = usize::from(vnet.csum_start);
    let checksum_at = transport + usize::from(vnet.csum_offset);
    assert_eq!(
        packet[checksum_at..checksum_at + 2],
        pseudo(packet, transport).fold()
    );
    let header_len = match vnet.gso_type {
        VnetHeader::GSO_NONE => packet.len(),
        _ => usize::from(vnet.hdr_len),
    };
    let (headers, payload) = packet.split_at(header_len);
    let empty: &[&[u8]] = &[&[]];
    let cut: Vec<&[u8]> = payload.chunks(usize::from(vnet.gso_size).max(1)).collect();
    let cut = if payload.is_empty() { empty } else { &cut };
    let mut sent = 0;
    let mut segments = Vec::new();
    for (i, payload) in cut.iter().enumerate() {
        let mut segment = [headers, payload].concat();
        let len = segment.len();
        if segment[0] >> 4 == 4 {
            let id = u16::from_be_bytes([headers[4], headers[5]]).wrapping_add(i as u16);
            segment[2..4].copy_from_slice(&(len as u16).to_be_bytes());
            segment[4..6].copy_from_slice(&id.to_be_bytes());
            if vnet.gso_type != VnetHeader::GSO_NONE {
                finish_ip(&mut segment);
            }
        } else {
            segment[4..6].copy_from_slice(&((len - 40) as u16).to_be_bytes());
        }
        if vnet.csum_offset == 16 {
            let at = transport + 4;
            let first = segment[at..].first_chunk::<4>().expect("a whole header");
            let sequence = u32::from_be_bytes(*first).wrapping_add(sent);
            segment[at..at + 4].copy_from_slice(&sequence.to_be_bytes());
            if i + 1 < cut.len() {
                segment[transport + TCP_FLAGS] &= !(FIN | PSH);
            }
        } else if vnet.gso_type != VnetHeader::GSO_NONE {
            segment[transport + 4..transport + 6].copy_from_slice(&((len - transport) as u16).to_be_bytes());
        }
        let checksum = transport_checksum(&segment, transport, checksum_at);
        segment[checksum_at..checksum_at + 2].copy_from_slice(&checksum);
        sent += payload.len() as u32;
        segments.push(segment);
    }
    segments
}

/// Returns the packet without its IPv4 identification, where that means nothing.
fn meaningful(mut packet: Vec<u8>) -> Vec<u8> {
    let ip_len = usize::from(packet[0] & 15) * 4;
    let is_v4 = packet[0] >> 4 == 4;
    if is_v4 && packet[6] & 0x40 != 0 && Sum::default().add_bytes(&packet[..ip_len]).is_right() {
        packet[4..6].fill(0);
        finish_ip(&mut packet);
    }
    packet
}

/// One write: its header, its packet and how many frames it stands for.
type Written = (VnetHeader, Vec<u8>, u64);

fn coalesced(frames: &[Vec<u8>], merges_udp: bool) -> Vec<Written> {
    let stream = frames.concat();
    let mut decoder = Decoder::default();
    let (mut written, mut wire_len) = (Vec::new(), 0);
    for bytes in stream.chunks(100_000) {
        let mut bytes = bytes;
        while !bytes.is_empty() {
            let space = decoder.space();
            let n = bytes.len().min(space.len());
            space[..n].copy_from_slice(&bytes[..n]);
            decoder.handle_read(n);
            bytes = &bytes[n..];
            let mut sink = |packet: CoalescedPacket<'_>| {
                let joined = packet.parts.iter().flat_map(|part| part.to_vec());
                let joined: Vec<u8> = joined.collect();
                let (vnet, bytes) = joined.split_at(VnetHeader::LEN);
                wire_len += packet.wire_len;
                written.push((
                    bytemuck::pod_read_unaligned(vnet),
                    bytes.to_vec(),
                    packet.n_frames,
                ));
            };
            let mut coalescer = Coalescer::new(merges_udp);
            for frame in decoder.frames() {
                let frame = frame.expect("whole frames were sent");
                let parsed = parsed(frame.packet());
                coalescer.push(frame, &parsed, &mut sink);
            }
            coalescer.flush(&mut sink);
        }
    }
    assert_eq!(wire_len, stream.len() as u64);
    written
}

fn parsed(packet: &[u8]) -> Parsed {
    parse(packet, packet.len() as u32).expect("whole packets were sent")
}

fn by_flow(packets: impl Iterator<Item = Vec<u8>>) -> HashMap<FlowKey, Vec<Vec<u8>>> {
    let mut flows = HashMap::<_, Vec<_>>::new();
    for packet in packets {
        flows
            .entry(parsed(&packet).key)
            .or_default()
            .push(meaningful(packet));
    }
    flows
}

/// Checks that nothing is lost, changed or out of its flow's order, and says how many frames each write took.
fn check(specs: &[Spec]) -> Vec<u64> {
    let mut sender = Sender::default();
    let frames: Vec<_> = specs.iter().map(|spec| sender.frame(spec)).collect();
    let sent = frames.iter().flat_map(|frame| {
        let vnet = bytemuck::pod_read_unaligned(&frame[4..16]);
        delivered(&vnet, &frame[16..])
    });
    let written = coalesced(&frames, true);
    for (vnet, packet, n_frames) in &written {
        let parsed = parsed(packet);
        assert_eq!(parsed.total_len as usize, packet.len());
        assert!(offload_fits(vnet, &parsed, packet.len()), "{vnet:?}");
        let alone = frames
            .iter()
            .any(|frame| frame[4..] == [bytes_of(vnet), packet].concat());
        assert_eq!(alone, *n_frames == 1, "{vnet:?}");
    }
    let arrived = written
        .iter()
        .flat_map(|(vnet, packet, _)| delivered(vnet, packet));
    assert_eq!(by_flow(arrived), by_flow(sent));
    written.iter().map(|(_, _, n_frames)| *n_frames).collect()
}

const UDP4: u8 = 0;
const TCP4: u8 = 1;
const UDP6: u8 = 2;
const TCP6: u8 = 3;

#[test]
fn a_train_of_equal_packets_is_one_write() {
    for flow in [UDP4, TCP4, UDP6, TCP6] {
        for checksum in [Checksum::Partial, Checksum::Full] {
            let spec = Spec {
                checksum,
                ..Spec::plain(flow, 36)
            };
            assert_eq!(check(&vec![spec; 40]), [40], "flow {flow}, {checksum:?}");
        }
    }
}

#[test]
fn a_train_ends_at_the_most_segments_and_at_the_longest_packet() {
    for flow in [UDP4, TCP4, UDP6, TCP6] {
        assert_eq!(check(&vec![Spec::plain(flow, 36); 130]), [64, 64, 2]);
        let n_longest = 65_535 / (1300 + 72);
        let written = check(&vec![Spec::plain(flow, 1300); 60]);
        assert!(written[0] >= n_longest && written[0] < 51, "{written:?}");
    }
}

#[test]
fn a_shorter_packet_ends_its_train_and_a_longer_one_begins_its_own() {
    for flow in [UDP4, TCP4, UDP6, TCP6] {
        let specs = [36, 36, 12, 12, 36, 36].map(|payload| Spec::plain(flow, payload));
        assert_eq!(check(&specs), [3, 1, 2]);
    }
}

#[test]
fn eight_interleaved_flows_merge_each_for_itself() {
    let specs: Vec<_> = (0..80).map(|i| Spec::plain(i % 8, 36)).collect();
    assert_eq!(check(&specs), [10; 8]);
    let specs: Vec<_> = (0..90).map(|i| Spec::plain(i % 9, 36)).collect();
    assert_eq!(check(&specs), [1; 90]);
}

#[test]
fn a_push_ends_its_train() {
    let plain = Spec::plain(TCP4, 36);
    let push = plain.clone().with(Oddity::TcpFlags(PSH));
    let specs = [&plain, &plain, &push, &plain, &push, &push].map(Clone::clone);
    assert_eq!(check(&specs), [3, 2, 1]);
}

#[test]
fn a_packet_that_differs_stands_alone() {
    let cases = [
        (UDP4, Oddity::HopLimit),
        (UDP4, Oddity::TrafficClass),
        (UDP4, Oddity::MayFragment),
        (UDP4, Oddity::Fragment),
        (UDP4, Oddity::Both),
        (UDP4, Oddity::IpOptions),
        (UDP4, Oddity::HeaderChecksum),
        (UDP4, Oddity::UdpLength),
        (UDP4, Oddity::SuperPacket),
        (UDP6, Oddity::HopLimit),
        (UDP6, Oddity::TrafficClass),
        (UDP6, Oddity::FlowLabel),
        (UDP6, Oddity::UdpLength),
        (UDP6, Oddity::SuperPacket),
        (TCP4, Oddity::TcpFlags(FIN)),
        (TCP4, Oddity::TcpFlags(URG)),
        (TCP4, Oddity::TcpFlags(ECE)),
        (TCP4, Oddity::Sequence),
        (TCP4, Oddity::Acknowledgement),
        (TCP4, Oddity::Window),
        (TCP4, Oddity::TcpOptions),
        (TCP6, Oddity::FlowLabel),
        (TCP6, Oddity::SuperPacket),
    ];
    for (flow, oddity) in cases {
        let plain = Spec::plain(flow, 36);
        let odd = plain.clone().with(oddity);
        let written = check(&[&plain, &plain, &odd, &plain, &plain].map(Clone::clone));
        assert_eq!(written, [2, 1, 2], "flow {flow}, {oddity:?}");
    }
}

#[test]
fn a_wrong_or_absent_checksum_stays_as_it_is() {
    for flow in [UDP4, TCP4, UDP6, TCP6] {
        for checksum in [Checksum::Wrong, Checksum::Zero] {
            let odd = Spec {
                checksum,
                ..Spec::plain(flow, 36)
            };
            assert_eq!(check(&vec![odd; 3]), [1, 1, 1], "flow {flow}, {checksum:?}");
        }
    }
}

#[test]
fn datagrams_of_tunnels_without_a_checksum_are_merged_and_get_one() {
    for flow in [UDP4, UDP6] {
        for port in [4789_u16, 8472, 6081] {
            let mut sender = Sender::default();
            let mut tunnel = |checksum| {
                let spec = Spec {
                    checksum,
                    ..Spec::plain(flow, 36)
                };
                let mut frame = sender.frame(&spec);
                let transport = FrameHeader::LEN + if spec.is_v4() { 20 } else { 40 };
                frame[transport + 2..transport + 4].copy_from_slice(&port.to_be_bytes());
                frame
            };
            let without = [(); 3].map(|()| tunnel(Checksum::Zero));
            let written = coalesced(&without, true);
            let [(vnet, packet, 3)] = &written[..] else {
                panic!("{written:?}")
            };
            let arrived = delivered(vnet, packet);
            assert_eq!(arrived.len(), 3);
            for (sent, arrived) in without.iter().zip(arrived) {
                let mut sent = sent[FrameHeader::LEN..].to_vec();
                let transport = sent.len() - 36 - 8;
                let checksum = transport_checksum(&sent, transport, transport + 6);
                sent[transport + 6..transport + 8].copy_from_slice(&checksum);
                assert_eq!(meaningful(arrived), meaningful(sent));
            }

            // The one whose checksum is open has another than none.
            let mixed = [Checksum::Zero, Checksum::Zero, Checksum::Partial, Checksum::Zero].map(&mut tunnel);
            let written: Vec<_> = coalesced(&mixed, true).iter().map(|(_, _, n)| *n).collect();
            assert_eq!(written, [2, 1, 1], "flow {flow}, port {port}");
        }
    }
}

#[test]
fn identifications_count_up_where_they_mean_something() {
    let plain = Spec::plain(UDP4, 36).with(Oddity::MayFragment);
    // The third wraps around.
    assert_eq!(check(&vec![plain.clone(); 6]), [6]);
    let odd = plain.clone().with(Oddity::Both);
    let specs = [&plain, &plain, &odd, &plain, &plain].map(Clone::clone);
    assert_eq!(check(&specs), [2, 1, 2]);
}

#[test]
fn identifications_of_df_packets_are_not_looked_at() {
    let plain = Spec::plain(UDP4, 36);
    let odd = plain.clone().with(Oddity::Identification);
    assert_eq!(check(&[&plain, &odd, &plain].map(Clone::clone)), [3]);
}

#[test]
fn a_packet_without_ports_passes_nobody() {
    let mut sender = Sender::default();
    let plain = Spec::plain(UDP4, 36);
    let mut echo = Vec::new();
    let builder = PacketBuilder::ipv4([10, 42, 0, 10], [10, 42, 0, 1], 64);
    builder.icmpv4_echo_request(1, 1).write(&mut echo, &[]).unwrap();
    let fragment = plain.clone().with(Oddity::Fragment);
    for odd in [framed(VnetHeader::default(), &echo), sender.frame(&fragment)] {
        let mut frames: Vec<_> = (0..4).map(|_| sender.frame(&plain)).collect();
        frames.insert(2, odd);
        let written: Vec<_> = coalesced(&frames, true).iter().map(|(_, _, n)| *n).collect();
        assert_eq!(written, [2, 1, 2]);
    }
}

#[test]
fn a_device_without_udp_offload_gets_datagrams_one_by_one() {
    let mut sender = Sender::default();
    let frames: Vec<_> = [UDP4, UDP4, UDP6, UDP6, TCP4, TCP4]
        .map(|flow| sender.frame(&Spec::plain(flow, 36)))
        .into();
    let written: Vec<_> = coalesced(&frames, false).iter().map(|(_, _, n)| *n).collect();
    assert_eq!(written, [1, 1, 1, 1, 2]);
}

fn oddity() -> impl Strategy<Value = Oddity> {
    use Oddity::*;
    let flags = [FIN, PSH, URG, ECE].map(TcpFlags);
    let mut odd = vec![
        HopLimit,
        TrafficClass,
        MayFragment,
        Fragment,
        Identification,
        Both,
        IpOptions,
        HeaderChecksum,
        FlowLabel,
        Sequence,
        Acknowledgement,
        Window,
        TcpOptions,
        UdpLength,
        SuperPacket,
    ];
    odd.extend(flags);
    prop_oneof![9 => Just(None), 1 => prop::sample::select(odd)]
}

fn spec() -> impl Strategy<Value = Spec> {
    let checksum = prop_oneof![
        10 => Just(Checksum::Partial),
        5 => Just(Checksum::Full),
        1 => Just(Checksum::Wrong),
        1 => Just(Checksum::Zero),
    ];
    let payload = prop_oneof![6 => Just(36_usize), 1 => Just(1300), 2 => 0_usize..80];
    let flow = prop_oneof![3 => 0_u8..4, 1 => 0_u8..12];
    (flow, payload, checksum, oddity()).prop_map(|(flow, payload, checksum, oddity)| Spec {
        flow,
        payload,
        checksum,
        oddity,
    })
}

/// A train of each, so that there is something to merge.
fn specs() -> impl Strategy<Value = Vec<Spec>> {
    let train = (spec(), prop_oneof![3 => Just(1_usize), 1 => 2_usize..70]);
    prop::collection::vec(train, 1..40)
        .prop_map(|trains| trains.into_iter().flat_map(|(spec, n)| vec![spec; n]).collect())
}

proptest! {
    #[test]
    fn segmentation_gives_back_every_flow(specs in specs()) {
        let written = check(&specs);
        prop_assert_eq!(written.iter().sum::<u64>(), specs.len() as u64);
    }
}
