//! What the coalescer makes, as the kernel takes it.

use std::io::Read;
use std::net::TcpListener;

use nix::sys::time::{TimeVal, TimeValLike};

use super::*;
use router_common::frame::FrameHeader;
use router_common::packet::parse;
use stream_router_engine::coalesce::{CoalescedPacket, Coalescer};
use stream_router_engine::framing::Decoder;

const N_PACKETS: u8 = 32;

fn payload_of(packet: u8) -> Vec<u8> {
    // The last is shorter.
    vec![packet; if packet + 1 == N_PACKETS { 50 } else { 100 }]
}

/// Injects the packets through a decoder and a coalescer; how many frames each write was.
fn inject_coalesced(device: &Device, packets: &[Vec<u8>]) -> Vec<u64> {
    let mut decoder = Decoder::default();
    let frames = packets.iter().map(|packet| {
        let header = FrameHeader {
            len: packet.len() as u32,
            vnet: VnetHeader::default(),
        };
        [bytemuck::bytes_of(&header), packet].concat()
    });
    let stream: Vec<u8> = frames.flatten().collect();
    decoder.space()[..stream.len()].copy_from_slice(&stream);
    decoder.handle_read(stream.len());
    let injector = device.injector();
    let mut n_frames = Vec::new();
    let mut sink = |packet: CoalescedPacket<'_>| {
        injector
            .inject_parts(packet.parts)
            .expect("the kernel takes what was merged");
        n_frames.push(packet.n_frames);
    };
    let mut coalescer = Coalescer::new(injector.udp_offload());
    for frame in decoder.frames() {
        let frame = frame.expect("these are frames");
        let parsed = parse(frame.packet(), frame.packet().len() as u32).expect("these are packets");
        coalescer.push(frame, &parsed, &mut sink);
    }
    coalescer.flush(&mut sink);
    n_frames
}

#[test]
fn merged_datagrams_reach_their_socket_one_by_one() {
    in_netns(async || {
        let device = started(&[]).await;
        assert!(device.tun().udp_offload(), "these tests need Linux 6.2");
        for here in [IpAddr::from(HERE_V4), IpAddr::from(HERE_V6)] {
            let socket = UdpSocket::bind((here, 2000)).unwrap();
            socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
            let packets: Vec<_> = (0..N_PACKETS)
                .map(|i| {
                    let mut packet = Vec::new();
                    let builder = match here {
                        IpAddr::V4(_) => PacketBuilder::ipv4(THERE_V4, HERE_V4, 64),
                        IpAddr::V6(_) => PacketBuilder::ipv6(THERE_V6, HERE_V6, 64),
                    };
                    let builder = builder.udp(1000, 2000);
                    builder.write(&mut packet, &payload_of(i)).unwrap();
                    packet
                })
                .collect();

            let n_frames = inject_coalesced(&device, &packets);

            assert_eq!(n_frames, [u64::from(N_PACKETS)]);
            let mut buffer = [0; 4000];
            for i in 0..N_PACKETS {
                let (len, from) = socket.recv_from(&mut buffer).unwrap();
                assert_eq!(from.port(), 1000);
                assert_eq!(buffer[..len], payload_of(i), "datagram {i} over {here}");
            }
        }
    });
}

#[test]
fn merged_tcp_segments_reach_their_socket_in_order() {
    for here in [IpAddr::from(HERE_V4), IpAddr::from(HERE_V6)] {
        in_netns(async || {
            let device = started(&[]).await;
            let listener = TcpListener::bind((here, 2000)).unwrap();
            // It counts for accept(2) too.
            let timeout = TimeVal::seconds(10);
            setsockopt(&listener, sockopt::ReceiveTimeout, &timeout).unwrap();
            let tcp = |sequence| {
                let builder = match here {
                    IpAddr::V4(_) => PacketBuilder::ipv4(THERE_V4, HERE_V4, 64),
                    IpAddr::V6(_) => PacketBuilder::ipv6(THERE_V6, HERE_V6, 64),
                };
                builder.tcp(1000, 2000, sequence, 60_000)
            };
            let mut syn = Vec::new();
            tcp(99).syn().write(&mut syn, &[]).unwrap();
            device.injector().inject(&with_header([0; 12], &syn)).unwrap();
            let answer = next_packet(device.tun());
            let parsed = PacketHeaders::from_ip_slice(&answer[VnetHeader::LEN..]).unwrap();
            let Some(TransportHeader::Tcp(syn_ack)) = parsed.transport else {
                panic!("{:?}", parsed.transport)
            };
            let mut sequence = 100;
            let mut packets = Vec::new();
            for i in 0..N_PACKETS {
                let mut packet = Vec::new();
                let builder = tcp(sequence).ack(syn_ack.sequence_number.wrapping_add(1));
                builder.write(&mut packet, &payload_of(i)).unwrap();
                sequence += payload_of(i).len() as u32;
                packets.push(packet);
            }

            let n_frames = inject_coalesced(&device, &packets);

            assert_eq!(n_frames, [u64::from(N_PACKETS)]);
            let (mut stream, _) = listener.accept().unwrap();
            stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
            let sent: Vec<u8> = (0..N_PACKETS).flat_map(payload_of).collect();
            let mut received = vec![0; sent.len()];
            stream.read_exact(&mut received).unwrap();
            assert_eq!(received, sent, "over {here}");
        });
    }
}
