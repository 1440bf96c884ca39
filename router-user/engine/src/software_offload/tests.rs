use etherparse::PacketBuilder;
use proptest::prelude::*;

use super::*;

const ETHERNET_AND_VXLAN: [u8; 22] = [8, 0, 0, 0, 0, 0, 100, 0, 2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0];

/// What stands around the packet of an application.
#[derive(Clone, Copy, Debug)]
enum Tunnel {
    None,
    /// VXLAN or Geneve: UDP, with or without a checksum, then headers that are opaque here.
    Udp {
        checksum: bool,
    },
    /// FOU: UDP, and at once the inner packet.
    Fou,
    Gre {
        checksum: bool,
    },
    /// IPIP, SIT and their like.
    Ip,
}

const TUNNELS: [Tunnel; 7] = [
    Tunnel::None,
    Tunnel::Udp { checksum: false },
    Tunnel::Udp { checksum: true },
    Tunnel::Fou,
    Tunnel::Gre { checksum: false },
    Tunnel::Gre { checksum: true },
    Tunnel::Ip,
];

fn builder(v6: bool, host: u8) -> etherparse::PacketBuilderStep<etherparse::IpHeaders> {
    if v6 {
        PacketBuilder::ip(etherparse::IpHeaders::Ipv6(
            etherparse::Ipv6Header {
                source: [host; 16],
                destination: [host + 1; 16],
                hop_limit: 64,
                ..Default::default()
            },
            Default::default(),
        ))
    } else {
        let header = etherparse::Ipv4Header::new(
            0,
            64,
            etherparse::IpNumber::UDP,
            [10, 0, 0, host],
            [10, 0, 0, host + 1],
        );
        let mut header = header.expect("a length that fits");
        header.identification = 77;
        header.dont_fragment = false;
        PacketBuilder::ip(etherparse::IpHeaders::Ipv4(header, Default::default()))
    }
}

/// The packet of an application, with right checksums: the `index`th segment, behind `sent` bytes.
fn inner(v6: bool, tcp: bool, payload: &[u8], index: usize, sent: usize, is_last: bool) -> Vec<u8> {
    let mut packet = Vec::new();
    if tcp {
        let mut step = builder(v6, 1).tcp(40_000, 443, 1000 + sent as u32, 500).ack(9);
        if is_last {
            step = step.psh().fin();
        }
        step = step
            .options(&[etherparse::TcpOptionElement::Timestamp(3, 4)])
            .expect("room for an option");
        step.write(&mut packet, payload).expect("a packet that fits");
    } else {
        let step = builder(v6, 1).udp(40_000, 443);
        step.write(&mut packet, payload).expect("a packet that fits");
    }
    number(&mut packet, v6, index);
    packet
}

/// Gives an IPv4 packet the identification of a segment.
fn number(packet: &mut [u8], v6: bool, index: usize) {
    if v6 {
        return;
    }
    packet[4..6].copy_from_slice(&(77 + index as u16).to_be_bytes());
    packet[10..12].fill(0);
    let sum = Sum::default().add_bytes(&packet[..20]).finish();
    packet[10..12].copy_from_slice(&sum);
}

/// Puts a packet in a tunnel; returns it with the length of what stands before it.
fn outer(tunnel: Tunnel, v6: bool, inner: &[u8], index: usize) -> (Vec<u8>, usize) {
    let mut payload = Vec::new();
    let mut packet = Vec::new();
    let ip_protocol = if inner[0] >> 4 == 6 {
        protocol::IPV6
    } else {
        protocol::IPIP
    };
    match tunnel {
        Tunnel::None => return (inner.to_vec(), 0),
        Tunnel::Udp { .. } | Tunnel::Fou => {
            if !matches!(tunnel, Tunnel::Fou) {
                payload.extend(ETHERNET_AND_VXLAN);
            }
            payload.extend(inner);
            builder(v6, 5)
                .udp(50_000, 4789)
                .write(&mut packet, &payload)
                .expect("fits");
            if !matches!(tunnel, Tunnel::Udp { checksum: true }) {
                let at = if v6 { 40 } else { 20 };
                packet[at + 6..at + 8].fill(0);
            }
        }
        Tunnel::Gre { checksum } => {
            let ether_type: [u8; 2] = if inner[0] >> 4 == 6 { [0x86, 0xdd] } else { [8, 0] };
            payload.extend([if checksum { GRE_CHECKSUM } else { 0 }, 0]);
            payload.extend(ether_type);
            if checksum {
                payload.extend([0; 4]);
            }
            payload.extend(inner);
            if checksum {
                let sum = Sum::default().add_bytes(&payload).finish();
                payload[4..6].copy_from_slice(&sum);
            }
            builder(v6, 5)
                .write(&mut packet, etherparse::IpNumber(protocol::GRE), &payload)
                .expect("fits");
        }
        Tunnel::Ip => {
            payload.extend(inner);
            builder(v6, 5)
                .write(&mut packet, etherparse::IpNumber(ip_protocol), &payload)
                .expect("fits");
        }
    }
    number(&mut packet, v6, index);
    let before = packet.len() - inner.len();
    (packet, before)
}

/// A frame whose packet a kernel left unfinished, and what is undone.
struct Left {
    frame: Vec<u8>,
    inner_network: u16,
}

/// Leaves open the transport checksum of a packet, behind `inner_network` bytes; a super-packet if `gso_size` is not 0.
fn leave_open(mut packet: Vec<u8>, inner_network: usize, gso_size: u16) -> Left {
    let is_v4 = packet[inner_network] >> 4 == 4;
    let transport = inner_network + if is_v4 { V4_LEN } else { V6_LEN };
    let protocol = packet[inner_network + if is_v4 { 9 } else { 6 }];
    let tcp = protocol == protocol::TCP;
    let (layer, kind) = if tcp {
        (Layer::Tcp, VnetHeader::GSO_TCPV4)
    } else {
        (Layer::Udp, VnetHeader::GSO_UDP_L4)
    };
    let ip = if is_v4 { Layer::Ipv4 } else { Layer::Ipv6 };
    let at = transport + layer.checksum_offset();
    let sum = ip.pseudo_sum(&packet, inner_network, layer, transport).fold();
    packet[at..at + 2].copy_from_slice(&sum);
    let vnet = VnetHeader {
        flags: VnetHeader::NEEDS_CSUM,
        gso_type: if gso_size == 0 { 0 } else { kind },
        gso_size,
        csum_start: transport as u16,
        csum_offset: layer.checksum_offset() as u16,
        ..VnetHeader::default()
    };
    Left {
        frame: frame(&vnet, &packet),
        inner_network: inner_network as u16,
    }
}

fn frame(vnet: &VnetHeader, packet: &[u8]) -> Vec<u8> {
    let header = FrameHeader {
        len: packet.len() as u32,
        vnet: *vnet,
    };
    [bytemuck::bytes_of(&header), packet].concat()
}

fn finish(unfinished: Unfinished, frame: &[u8]) -> Result<Vec<Vec<u8>>, Unfinishable> {
    let mut frames = Vec::new();
    SoftwareOffload::default().finish(unfinished, frame, |frame| frames.push(frame.to_vec()))?;
    Ok(frames)
}

/// Every tunnel, families of both headers, and protocol.
fn each(mut check: impl FnMut(Tunnel, bool, bool, bool)) {
    for tunnel in TUNNELS {
        for kinds in 0..8 {
            check(tunnel, kinds & 1 != 0, kinds & 2 != 0, kinds & 4 != 0);
        }
    }
}

#[test]
fn an_open_checksum_inside_a_tunnel_is_completed() {
    each(|tunnel, outer_v6, inner_v6, tcp| {
        let whole = inner(inner_v6, tcp, &[7; 101], 0, 0, true);
        let (expected, before) = outer(tunnel, outer_v6, &whole, 0);
        let left = leave_open(expected.clone(), before, 0);

        let frames = finish(Unfinished::new(Work::CompleteChecksum, 0), &left.frame).unwrap();

        let what = format!("{tunnel:?} {outer_v6} {inner_v6} {tcp}");
        assert_eq!(frames, [frame(&VnetHeader::default(), &expected)], "{what}");
    });
}

#[test]
fn a_super_packet_becomes_the_packets_that_a_sender_without_offloads_had_sent() {
    const GSO_SIZE: usize = 100;
    let payload: Vec<u8> = (0..350).map(|i| i as u8).collect();
    each(|tunnel, outer_v6, inner_v6, tcp| {
        let segment = |(i, piece): (usize, &[u8])| {
            let sent = i * GSO_SIZE;
            let packet = inner(inner_v6, tcp, piece, i, sent, sent + piece.len() == payload.len());
            frame(&VnetHeader::default(), &outer(tunnel, outer_v6, &packet, i).0)
        };
        let expected: Vec<_> = payload.chunks(GSO_SIZE).enumerate().map(segment).collect();
        let whole = inner(inner_v6, tcp, &payload, 0, 0, true);
        let (packet, before) = outer(tunnel, outer_v6, &whole, 0);
        let left = leave_open(packet, before, GSO_SIZE as u16);

        // Where the inner header starts is told by the kernel, or found.
        for inner_network in [left.inner_network, 0] {
            let frames = finish(Unfinished::new(Work::Segment, inner_network), &left.frame).unwrap();

            let what = format!("{tunnel:?} {outer_v6} {inner_v6} {tcp} {inner_network}");
            assert_eq!(frames, expected, "{what}");
        }
    });
}

#[test]
fn a_list_of_packets_becomes_a_super_packet_with_an_open_checksum() {
    for (v6, tcp) in [(false, false), (false, true), (true, false), (true, true)] {
        let left = leave_open(inner(v6, tcp, &[5; 400], 0, 0, true), 0, 100);
        let mut listed = left.frame.clone();
        let header: FrameHeader = bytemuck::pod_read_unaligned(&listed[..FrameHeader::LEN]);
        let at = FrameHeader::LEN + usize::from(header.vnet.csum_start + header.vnet.csum_offset);
        listed[at] ^= 0x55;

        let frames = finish(Unfinished::new(Work::ReopenChecksum, 0), &listed).unwrap();

        assert_eq!(frames, [left.frame], "{v6} {tcp}");
    }
}

#[test]
fn datagrams_without_checksum_stay_without() {
    let mut packet = inner(false, false, &[5; 200], 0, 0, true);
    packet[26..28].fill(0);
    let vnet = VnetHeader {
        gso_type: VnetHeader::GSO_UDP_L4,
        gso_size: 100,
        csum_start: 20,
        csum_offset: 6,
        ..VnetHeader::default()
    };

    let frames = finish(Unfinished::new(Work::Segment, 0), &frame(&vnet, &packet)).unwrap();

    assert_eq!(frames.len(), 2);
    for frame in frames {
        assert_eq!(frame[FrameHeader::LEN + 26..][..2], [0, 0]);
    }
}

#[test]
fn only_the_first_segment_says_that_the_window_was_reduced() {
    let mut packet = inner(false, true, &[5; 300], 0, 0, false);
    packet[33] |= CWR;
    let left = leave_open(packet, 0, 100);

    let frames = finish(Unfinished::new(Work::Segment, 0), &left.frame).unwrap();

    let reduced: Vec<_> = frames
        .iter()
        .map(|frame| frame[FrameHeader::LEN + 33] & CWR != 0)
        .collect();
    assert_eq!(reduced, [true, false, false]);
}

#[test]
fn what_the_kernel_left_of_a_packet_of_the_device_is_known_by_its_offload_header() {
    let work = |left: &Left| {
        let (header, packet) = left.frame.split_at(FrameHeader::LEN);
        let header: FrameHeader = bytemuck::pod_read_unaligned(header);
        let parsed = parse(packet, packet.len() as u32).unwrap();
        unfinished(&header.vnet, &parsed, packet.len()).work()
    };
    let large = inner(false, true, &[1; 5000], 0, 0, true);
    let (in_tunnel, before) = outer(Tunnel::Udp { checksum: false }, false, &large, 0);

    assert_eq!(work(&leave_open(large.clone(), 0, 0)), Some(Work::Nothing));
    assert_eq!(work(&leave_open(large.clone(), 0, 1000)), Some(Work::Nothing));
    assert_eq!(work(&leave_open(large, 0, 10)), Some(Work::Segment));
    assert_eq!(
        work(&leave_open(in_tunnel.clone(), before, 0)),
        Some(Work::CompleteChecksum)
    );
    assert_eq!(work(&leave_open(in_tunnel, before, 1000)), Some(Work::Segment));
}

#[test]
fn an_inner_header_inside_of_the_outer_ones_options_is_none() {
    // An option that reads as the header of an IPv4 packet which ends where the whole one does.
    let mut packet = vec![0; 200];
    packet[0] = 0x4f;
    packet[2..4].copy_from_slice(&200_u16.to_be_bytes());
    packet[9] = protocol::UDP;
    packet[20] = 0x45;
    packet[22..24].copy_from_slice(&180_u16.to_be_bytes());
    packet[29] = protocol::TCP;
    packet[52] = 0x50;
    packet[64..66].copy_from_slice(&140_u16.to_be_bytes());
    let vnet = VnetHeader {
        flags: VnetHeader::NEEDS_CSUM,
        gso_type: VnetHeader::GSO_TCPV4,
        gso_size: 139,
        csum_start: 40,
        csum_offset: 16,
        ..VnetHeader::default()
    };

    let finished = finish(Unfinished::new(Work::Segment, 0), &frame(&vnet, &packet));

    assert_eq!(finished, Err(Unfinishable));
}

proptest! {
    #[test]
    fn no_description_and_no_bytes_panic(
        work in 0_u16..6,
        inner_network in any::<u16>(),
        vnet in any::<[u8; 12]>(),
        garbage in prop::collection::vec(any::<u8>(), 0..200),
        whole in any::<bool>(),
        cut in 0_usize..200,
    ) {
        let unfinished = bytemuck::cast([work, inner_network % 100]);
        let vnet = bytemuck::pod_read_unaligned(&vnet);
        let packet = if whole {
            let (mut packet, _) = outer(Tunnel::Gre { checksum: true }, false, &inner(true, true, &garbage, 0, 0, true), 0);
            packet.truncate(packet.len().saturating_sub(cut));
            packet
        } else {
            garbage
        };
        let _ = finish(unfinished, &frame(&vnet, &packet));
    }
}
