//! The program at the egress of a real TUN device: what a run cannot give it.

use std::fs;
use std::net::{Ipv4Addr, UdpSocket};

use anyhow::Result;
use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrIn, connect, setsockopt, socket, sockopt};
use tokio::runtime::Runtime;

use crate::bench::{Bench, DEVICE, Plan, Record};
use crate::offload::packets_with_checksums;
use crate::packet_socket::PacketSocket;
use crate::packets::*;
use router_common::frame::{MAX_PACKET_LEN, VnetHeader};
use router_common::packet::protocol::{GRE, IPIP, TCP, UDP};
use router_common::reason::Reason;
use router_common::record::Work;
use stream_router_node::device::{Device, DeviceSettings};

const MTU: u32 = 65_535;
const ESP: u8 = 50;
/// What send(2) gives for a packet that the program refused.
const REFUSED: Errno = Errno::ENOBUFS;

#[test]
fn device_gets_what_passes_and_nothing_else() {
    let mut wire = Wire::new().unwrap();
    let multicast = ipv4_full(
        (A4, Ipv4Addr::new(224, 0, 0, 251)),
        0,
        WHOLE,
        UDP,
        &udp(1, 2, b"x"),
    );
    let foreign = [&[0x55], &[7; 30][..]].concat();

    for packet in [&multicast, &foreign] {
        wire.socket.send(packet).unwrap();
        assert_eq!(wire.read().unwrap(), *packet);
    }
    wire.socket.send(&ipv4(UDP, &udp(1, 2, b"captured"))).unwrap();
    let cut = &ipv4(UDP, &udp(1, 2, b"refused"))[..30];
    assert_eq!(wire.socket.send(cut), Err(REFUSED));

    assert_eq!(wire.read(), None);
    let counted = wire.counted().unwrap();
    let once = |reason| (reason, 1);
    let reasons = [
        Reason::Captured,
        Reason::NotIp,
        Reason::Multicast,
        Reason::BadTotalLength,
    ];
    assert_eq!(counted, reasons.map(once));
    assert_eq!(wire.bench.drain().len(), 1);
}

#[test]
fn packets_too_short_for_any_header_are_refused() {
    let mut wire = Wire::new().unwrap();
    let whole = [ipv4(UDP, &udp(1, 2, b"")), ipv6(UDP, &udp(1, 2, b""))];

    for len in 1..20 {
        for packet in &whole {
            assert_eq!(wire.socket.send(&packet[..len]), Err(REFUSED), "{len} bytes");
        }
    }

    assert_eq!(wire.counted().unwrap(), [(Reason::Truncated, 2 * 19)]);
    assert_eq!(wire.read(), None);
    assert_eq!(wire.bench.drain(), []);
}

#[test]
fn packets_of_every_size_are_copied_whole() {
    let mut wire = Wire::new().unwrap();

    for len in [
        28,
        63,
        64,
        65,
        127,
        128,
        511,
        512,
        513,
        1500,
        4095,
        4096,
        4097,
        8191,
        8192,
        8193,
        32_769,
        61_440,
        61_441,
        65_534,
        MAX_PACKET_LEN,
    ] {
        let packet = udp_packet(len, 40000, len as u8);

        wire.socket.send(&packet).unwrap();

        let record = wire.one_record();
        assert_eq!(record.header.frame.len as usize, len);
        assert!(record.packet == packet, "the bytes of a packet of {len} bytes");
    }
}

#[test]
fn packet_larger_than_a_ring_is_refused() {
    let mut wire = Wire::with(4096).unwrap();

    assert_eq!(wire.socket.send(&udp_packet(4097, 1, 1)), Err(REFUSED));

    assert_eq!(wire.counted().unwrap(), [(Reason::RingFull, 1)]);
    wire.socket.send(&udp_packet(1400, 1, 1)).unwrap();
    wire.one_record();
}

#[test]
fn super_packet_that_is_too_long_for_a_frame_passes() {
    let mut wire = Wire::new().unwrap();
    let segment = |len| with_length(ipv6(TCP, &[tcp(1, 2, 0), vec![0; len - 60]].concat()), 0);
    let offload = VnetHeader {
        gso_type: VnetHeader::GSO_TCPV6,
        gso_size: 1400,
        hdr_len: 60,
        ..open_checksum(40, TCP)
    };

    wire.socket
        .send_offloaded(&offload, &segment(MAX_PACKET_LEN))
        .unwrap();
    wire.one_record();
    wire.socket
        .send_offloaded(&offload, &segment(MAX_PACKET_LEN + 1))
        .unwrap();

    assert_eq!(
        wire.counted().unwrap(),
        [(Reason::Captured, 1), (Reason::TooLarge, 1)]
    );
    assert_eq!(wire.bench.drain(), []);
    assert!(wire.read().is_some());
}

#[test]
fn offload_header_of_a_socket_buffer_comes_out_as_it_went_in() {
    let mut wire = Wire::new().unwrap();
    let tcp = [tcp(1, 2, 3), vec![9; 5000]].concat();
    let udp = udp(1, 2, &[9; 5000]);
    let gso = |gso_type, hdr_len, offset, protocol| VnetHeader {
        gso_type,
        hdr_len,
        gso_size: 1000,
        ..open_checksum(offset, protocol)
    };

    for (name, packet, offset, protocol, offload) in [
        ("no offload", ipv4(TCP, &tcp), 20, TCP, VnetHeader::default()),
        (
            "open TCP checksum",
            ipv4(TCP, &tcp),
            20,
            TCP,
            open_checksum(20, TCP),
        ),
        (
            "open UDP checksum",
            ipv6(UDP, &udp),
            40,
            UDP,
            open_checksum(40, UDP),
        ),
        (
            "TCP super-packet",
            ipv4(TCP, &tcp),
            20,
            TCP,
            gso(VnetHeader::GSO_TCPV4, 52, 20, TCP),
        ),
        (
            "TCP super-packet of IPv6",
            ipv6(TCP, &tcp),
            40,
            TCP,
            gso(VnetHeader::GSO_TCPV6, 72, 40, TCP),
        ),
        (
            "UDP super-packet",
            ipv4(UDP, &udp),
            20,
            UDP,
            gso(VnetHeader::GSO_UDP_L4, 28, 20, UDP),
        ),
        (
            "UDP super-packet of IPv6",
            ipv6(UDP, &udp),
            40,
            UDP,
            gso(VnetHeader::GSO_UDP_L4, 48, 40, UDP),
        ),
    ] {
        let packet = if offload == VnetHeader::default() {
            with_checksum(packet, offset, protocol)
        } else {
            with_open_checksum(packet, offset, protocol)
        };

        wire.socket.send_offloaded(&offload, &packet).unwrap();

        let record = wire.one_record();
        assert_eq!(record.header.frame.vnet, offload, "{name}");
        assert!(record.packet == packet, "{name}");
    }
}

#[test]
fn an_open_udp_checksum_is_announced_whatever_its_field_holds() {
    let mut wire = Wire::new().unwrap();

    for (name, packet, offset, protocol) in packets_with_checksums() {
        if protocol != UDP {
            continue;
        }
        let packet = with_open_checksum(packet, offset, protocol);
        wire.socket
            .send_offloaded(&open_checksum(offset, UDP), &packet)
            .unwrap();
        let open = wire.one_record();
        // By accident, a finished checksum is the pseudo-header's sum.
        wire.socket.send(&packet).unwrap();
        let finished = wire.one_record();

        assert_eq!(open.header.frame.vnet, open_checksum(offset, UDP), "{name}");
        assert_eq!(finished.header.frame.vnet, VnetHeader::default(), "{name}");
        assert_eq!(open.header.unfinished.work(), Some(Work::Nothing), "{name}");
    }
}

/// Packets inside of the headers of every kind of tunnel, by name; where the inner packet starts.
fn tunnels(inner: &[u8]) -> Vec<(&'static str, Vec<u8>, usize)> {
    const ETHERNET: [u8; 14] = [2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0];
    const VXLAN: [u8; 8] = [8, 0, 0, 0, 0, 0, 100, 0];
    const GENEVE: [u8; 8] = [0, 0, 0x65, 0x58, 0, 0, 100, 0];
    let over_udp = |port, header: &[u8]| udp(50_000, port, &[header, inner].concat());
    let gre = |header: &[u8]| [header, inner].concat();
    let vxlan = [&VXLAN[..], &ETHERNET].concat();
    let geneve = [&GENEVE[..], &ETHERNET].concat();
    let mut checked = over_udp(4789, &vxlan);
    checked[6..8].copy_from_slice(&[0x12, 0x34]);
    vec![
        ("VXLAN", ipv4(UDP, &over_udp(4789, &vxlan)), 50),
        ("VXLAN with a checksum", ipv4(UDP, &checked), 50),
        ("VXLAN over IPv6", ipv6(UDP, &over_udp(4789, &vxlan)), 70),
        ("Geneve", ipv4(UDP, &over_udp(6081, &geneve)), 50),
        ("FOU", ipv4(UDP, &over_udp(5555, &[])), 28),
        ("GRE", ipv4(GRE, &gre(&[0, 0, 8, 0])), 24),
        (
            "GRE with a key",
            ipv6(GRE, &gre(&[0x20, 0, 8, 0, 0, 0, 0, 7])),
            48,
        ),
        ("IPIP", ipv4(IPIP, inner), 20),
        ("IPv4 in IPv6", ipv6(IPIP, inner), 40),
    ]
}

#[test]
fn a_checksum_that_is_open_inside_of_a_tunnel_is_work_for_the_worker() {
    let mut wire = Wire::new().unwrap();
    let segment = [tcp(1, 2, 0), vec![9; 500]].concat();

    for (protocol, inner) in [
        (TCP, ipv4(TCP, &segment)),
        (UDP, ipv4(UDP, &udp(1, 2, &[9; 500]))),
    ] {
        let inner = with_open_checksum(inner, 20, protocol);
        for (name, packet, at) in tunnels(&inner) {
            let open = open_checksum(at + 20, protocol);
            wire.socket.send_offloaded(&open, &packet).unwrap();
            let left = wire.one_record();
            wire.socket.send(&packet).unwrap();
            let finished = wire.one_record();

            assert_eq!(
                left.header.unfinished.work(),
                Some(Work::CompleteChecksum),
                "{name}"
            );
            assert_eq!(left.header.frame.vnet, open, "{name}");
            assert_eq!(left.packet, packet, "{name}");
            assert_eq!(finished.header.unfinished.work(), Some(Work::Nothing), "{name}");
            assert_eq!(finished.header.frame.vnet, VnetHeader::default(), "{name}");
        }
    }
}

#[test]
fn a_super_packet_inside_of_a_tunnel_is_work_for_the_worker() {
    let mut wire = Wire::new().unwrap();
    let segment = [tcp(1, 2, 0), vec![9; 5000]].concat();
    let inner = with_open_checksum(ipv4(TCP, &segment), 20, TCP);

    for (name, packet, at) in tunnels(&inner) {
        let offload = VnetHeader {
            gso_type: VnetHeader::GSO_TCPV4,
            gso_size: 1000,
            hdr_len: at as u16 + 40,
            ..open_checksum(at + 20, TCP)
        };
        wire.socket.send_offloaded(&offload, &packet).unwrap();

        let record = wire.one_record();
        assert_eq!(record.header.unfinished.work(), Some(Work::Segment), "{name}");
        assert_eq!(
            record.header.frame.vnet,
            VnetHeader {
                hdr_len: 0,
                ..offload
            },
            "{name}"
        );
        assert_eq!(record.packet, packet, "{name}");
    }
}

#[test]
fn other_protocols_are_captured_as_they_are() {
    let mut wire = Wire::new().unwrap();

    for (name, protocol) in [
        ("ESP", 50),
        ("AH", 51),
        ("SCTP", 132),
        ("OSPF", 89),
        ("UDP-Lite", 136),
    ] {
        let packet = ipv4(protocol, &[7; 60]);
        wire.socket.send(&packet).unwrap();

        let record = wire.one_record();
        assert_eq!(record.header.unfinished.work(), Some(Work::Nothing), "{name}");
        assert_eq!(record.header.frame.vnet, VnetHeader::default(), "{name}");
        assert_eq!(record.packet, packet, "{name}");
    }
}

#[test]
fn what_nobody_here_can_finish_is_left_to_the_kernel_with_all_of_its_flow() {
    let mut wire = Wire::new().unwrap();
    let segment = [tcp(1, 2, 0), vec![9; 5000]].concat();
    let inner = with_open_checksum(ipv4(TCP, &segment), 20, TCP);
    // A super-packet behind a header that is no tunnel's.
    let large = ipv4(ESP, &[&[0; 8][..], &inner].concat());
    let offload = VnetHeader {
        gso_type: VnetHeader::GSO_TCPV4,
        gso_size: 1000,
        hdr_len: 68,
        ..open_checksum(48, TCP)
    };
    let small = ipv4(ESP, &[7; 60]);

    wire.socket.send(&small).unwrap();
    wire.one_record();
    wire.socket.send_offloaded(&offload, &large).unwrap();
    wire.socket.send(&small).unwrap();

    assert_eq!(
        wire.counted().unwrap(),
        [(Reason::Captured, 1), (Reason::LeftToDevice, 2)]
    );
    assert_eq!(wire.bench.drain(), []);
    // The kernel knows no way to cut the large one either.
    assert_eq!(wire.read(), Some(small));
    assert_eq!(wire.read(), None);
}

#[test]
fn super_packets_that_no_peer_admits_are_work_for_the_worker() {
    let mut wire = Wire::new().unwrap();
    let tcp = with_open_checksum(ipv4(TCP, &[tcp(1, 2, 0), vec![9; 5000]].concat()), 20, TCP);
    let udp = with_open_checksum(ipv4(UDP, &udp(1, 2, &[9; 120])), 20, UDP);
    let large = |gso_type, gso_size, hdr_len, protocol| VnetHeader {
        gso_type,
        gso_size,
        hdr_len,
        ..open_checksum(20, protocol)
    };

    for (packet, offload, work) in [
        (&tcp, large(VnetHeader::GSO_TCPV4, 48, 40, TCP), Work::Nothing),
        (&tcp, large(VnetHeader::GSO_TCPV4, 47, 40, TCP), Work::Segment),
        (&udp, large(VnetHeader::GSO_UDP_L4, 28, 28, UDP), Work::Nothing),
        (&udp, large(VnetHeader::GSO_UDP_L4, 1, 28, UDP), Work::Segment),
    ] {
        wire.socket.send_offloaded(&offload, packet).unwrap();

        let record = wire.one_record();
        assert_eq!(record.header.unfinished.work(), Some(work), "{offload:?}");
        assert_eq!(record.header.frame.vnet, offload);
    }
}

#[test]
fn datagrams_of_an_application_have_open_checksums_and_whole_batches() {
    const SEGMENT: usize = 1000;
    let mut wire = Wire::new().unwrap();
    let application = UdpSocket::bind((A4, 40000)).unwrap();

    application.send_to(&[1; 5], (B4, 53)).unwrap();
    let one = wire.one_record();
    setsockopt(&application, sockopt::UdpGsoSegment, &(SEGMENT as i32)).unwrap();
    application.send_to(&[2; 10 * SEGMENT + 1], (B4, 53)).unwrap();
    let many = wire.one_record();

    assert_eq!(
        (one.worker, one.header.flow_hash),
        (many.worker, many.header.flow_hash)
    );
    assert_eq!(one.packet.len(), 33);
    assert_eq!(one.header.frame.vnet, open_checksum(20, UDP));
    let batch = VnetHeader {
        gso_type: VnetHeader::GSO_UDP_L4,
        gso_size: SEGMENT as u16,
        hdr_len: 28,
        ..open_checksum(20, UDP)
    };
    assert_eq!(many.header.frame.vnet, batch);
    assert_eq!(many.packet.len(), 28 + 10 * SEGMENT + 1);
    assert!(many.packet[28..].iter().all(|byte| *byte == 2));
}

#[test]
fn connection_attempt_of_an_application_has_an_open_checksum() {
    let mut wire = Wire::new().unwrap();
    let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
    let application = socket(AddressFamily::Inet, SockType::Stream, flags, None).unwrap();
    let to = SockaddrIn::from(std::net::SocketAddrV4::new(B4, 443));

    let attempt = connect(std::os::fd::AsRawFd::as_raw_fd(&application), &to);

    assert_eq!(attempt, Err(Errno::EINPROGRESS));
    let syn = wire.one_record();
    assert_eq!(syn.header.frame.vnet, open_checksum(20, TCP));
    let checksum = u16::from_be_bytes([syn.packet[36], syn.packet[37]]);
    assert_eq!(checksum, pseudo_header_sum(&syn.packet, 20, TCP));
}

#[test]
fn detached_program_captures_nothing_until_it_is_attached_again() {
    let mut wire = Wire::new().unwrap();
    let packet = udp_packet(100, 1, 1);

    wire.bench.kernel.programs.detach_egress().unwrap();
    wire.socket.send(&packet).unwrap();
    assert_eq!(wire.read(), Some(packet.clone()));
    wire.bench.kernel.programs.attach_egress().unwrap();
    wire.socket.send(&packet).unwrap();

    assert_eq!(wire.read(), None);
    assert_eq!(wire.one_record().packet, packet);
}

/// A device with the program at its egress, in the bench's namespaces, and a socket that sends raw packets out of it.
struct Wire {
    bench: Bench,
    socket: PacketSocket,
    device: Device,
    _runtime: Runtime,
    start: Vec<(Reason, u64)>,
}

impl Wire {
    fn new() -> Result<Self> {
        Self::with(1024 * 1024)
    }

    fn with(ring_bytes: u32) -> Result<Self> {
        let bench = Bench::with(Plan {
            ring_bytes,
            ..Plan::default()
        })?;
        // The kernel would send multicast reports of its own.
        fs::write("/proc/sys/net/ipv6/conf/default/disable_ipv6", "1")?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let device = runtime.block_on(async {
            let settings = DeviceSettings {
                name: DEVICE,
                addresses: &["10.9.0.1/24".parse()?],
                mtu: MTU,
            };
            let device = Device::create(settings).await?;
            device.start(["10.1.0.0/16".parse()?]).await?;
            anyhow::Ok(device)
        })?;
        bench.kernel.programs.attach_egress()?;
        Ok(Self {
            socket: PacketSocket::open(device.index())?,
            start: bench.kernel.counters.read()?,
            bench,
            device,
            _runtime: runtime,
        })
    }

    /// The next packet that reached the device.
    fn read(&self) -> Option<Vec<u8>> {
        let mut buffer = vec![0; VnetHeader::LEN + MTU as usize];
        let len = self.device.tun().try_read(&mut buffer).unwrap()?;
        Some(buffer[VnetHeader::LEN..len].to_vec())
    }

    fn counted(&self) -> Result<Vec<(Reason, u64)>> {
        self.bench.counted_since(&self.start)
    }

    fn one_record(&mut self) -> Record {
        let mut records = self.bench.drain();
        assert_eq!(records.len(), 1);
        records.remove(0)
    }
}
