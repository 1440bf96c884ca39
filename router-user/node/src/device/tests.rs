//! Against the kernel, each test in a network namespace of its own; needs root.

mod host_changes;
mod seen_routes;
mod super_packets;

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::time::{Duration, Instant};

use etherparse::{Icmpv4Type, Icmpv6Type, NetHeaders, PacketBuilder, PacketHeaders, TransportHeader};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::{CloneFlags, unshare};
use nix::sys::socket::{setsockopt, sockopt};

use super::*;
use router_common::frame::VnetHeader;

const HERE_V4: [u8; 4] = [10, 42, 0, 1];
const THERE_V4: [u8; 4] = [10, 42, 0, 2];
const HERE_V6: [u8; 16] = [0xfd, 0x42, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
const THERE_V6: [u8; 16] = [0xfd, 0x42, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2];

/// Runs a test on a thread in a fresh network namespace, which goes with the thread.
fn in_netns(test: impl AsyncFnOnce() + Send) {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            unshare(CloneFlags::CLONE_NEWNET).expect("these tests need root");
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(test());
        });
        if let Err(panic) = thread.join() {
            std::panic::resume_unwind(panic);
        }
    });
}

fn nets(texts: &[&str]) -> Vec<IpNet> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

async fn create(name: &str, mtu: u32) -> Result<Device, DeviceError> {
    let addresses = nets(&["10.42.0.1/24", "fd42::1/64"]);
    let addresses = if mtu < 1280 {
        &addresses[..1]
    } else {
        &addresses[..]
    };
    Device::create(DeviceSettings { name, addresses, mtu }).await
}

/// Waits until the interface of a dropped device is gone: a process that another test is just starting has its
/// descriptor until it executes its program.
async fn gone(netlink: &Netlink, index: u32) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while netlink.link_by_index(index).await.unwrap().is_some() {
        assert!(Instant::now() < deadline, "the interface stays");
        sleep(Duration::from_millis(1)).await;
    }
}

async fn started(networks: &[&str]) -> Device {
    let device = create("sr0", 1420).await.unwrap();
    device.start(nets(networks)).await.unwrap();
    device
}

/// The next packet read from the device, with its header.
fn next_packet(tun: &Tun) -> Vec<u8> {
    let deadline = Instant::now() + Duration::from_secs(10);
    let mut buffer = vec![0; 70_000];
    loop {
        if let Some(len) = tun.try_read(&mut buffer).unwrap() {
            buffer.truncate(len);
            return buffer;
        }
        assert!(Instant::now() < deadline, "the device gives no packet");
        let fd = tun.as_raw_fd();
        let mut fds = [PollFd::new(borrow(&fd), PollFlags::POLLIN)];
        poll(&mut fds, PollTimeout::from(1000_u16)).unwrap();
    }
}

#[expect(unsafe_code, reason = "poll wants a borrowed descriptor")]
fn borrow(fd: &i32) -> BorrowedFd<'_> {
    // SAFETY: the device that owns the descriptor outlives the call of its only user.
    unsafe { BorrowedFd::borrow_raw(*fd) }
}

fn with_header(header: [u8; 12], packet: &[u8]) -> Vec<u8> {
    [&header[..], packet].concat()
}

fn ping_v4(from: [u8; 4], to: [u8; 4], payload: &[u8]) -> Vec<u8> {
    let mut packet = Vec::new();
    PacketBuilder::ipv4(from, to, 64)
        .icmpv4_echo_request(7, 9)
        .write(&mut packet, payload)
        .unwrap();
    packet
}

fn ping_v6(from: [u8; 16], to: [u8; 16], payload: &[u8]) -> Vec<u8> {
    let mut packet = Vec::new();
    PacketBuilder::ipv6(from, to, 64)
        .icmpv6_echo_request(7, 9)
        .write(&mut packet, payload)
        .unwrap();
    packet
}

#[test]
fn a_device_appears_as_asked_for_and_leaves_nothing() {
    in_netns(async || {
        let netlink = Netlink::open().unwrap();
        let device = create("sr0", 1420).await.unwrap();

        let link = netlink.link_by_name("sr0").await.unwrap().unwrap();
        assert_eq!(
            link,
            Interface {
                index: device.index(),
                name: "sr0".to_owned(),
                mtu: 1420,
                up: false,
                ethernet_address: None
            }
        );
        device
            .start(nets(&["192.168.7.0/24", "fd43::/64", "10.42.0.2/32"]))
            .await
            .unwrap();

        let link = netlink.link_by_index(device.index()).await.unwrap().unwrap();
        assert!(link.up);
        let mut addresses = netlink.addresses(device.index()).await.unwrap();
        addresses.sort();
        assert_eq!(
            addresses,
            nets(&["10.42.0.1/24", "fd42::1/64"]),
            "no link-local address either"
        );
        let mut routes = netlink.routes(device.index()).await.unwrap();
        routes.sort();
        let expected = [
            "10.42.0.0/24",
            "10.42.0.2/32",
            "192.168.7.0/24",
            "fd42::/64",
            "fd43::/64",
        ];
        assert_eq!(routes, nets(&expected));

        let index = device.index();
        drop(device);
        gone(&netlink, index).await;
        assert_eq!(netlink.link_by_name("sr0").await.unwrap(), None);
        assert_eq!(netlink.routes(index).await.unwrap(), []);
    });
}

#[test]
fn removing_the_device_does_not_wait_for_its_injectors() {
    in_netns(async || {
        let netlink = Netlink::open().unwrap();
        let device = started(&[]).await;
        let injector = device.injector();
        let packet = with_header([0; 12], &ping_v4(THERE_V4, HERE_V4, &[]));

        device.remove().await.unwrap();

        assert_eq!(netlink.link_by_name("sr0").await.unwrap(), None);
        assert_eq!(injector.inject(&packet), Err(InjectError::Gone));
    });
}

#[test]
fn a_name_that_is_taken_is_refused() {
    in_netns(async || {
        let _first = create("sr0", 1420).await.unwrap();

        let error = create("sr0", 1420).await.unwrap_err();

        assert_eq!(
            error.to_string(),
            "the interface sr0 exists already; remove it or choose another device.name"
        );
        let error = create("lo", 1420).await.unwrap_err();
        assert!(
            matches!(error, DeviceError::Tun(TunError::NameTaken { .. })),
            "{error}"
        );
    });
}

#[test]
fn an_idle_persistent_device_is_not_joined() {
    in_netns(async || {
        let mut settings = ::tun::Configuration::default();
        settings.tun_name("sr0").platform_config(|linux| {
            linux.ensure_root_privileges(false);
        });
        let mut persistent = ::tun::create(&settings).unwrap();
        persistent.persist().unwrap();
        drop(persistent);

        let error = create("sr0", 1420).await.unwrap_err();

        assert!(
            matches!(error, DeviceError::Tun(TunError::NameTaken { .. })),
            "{error}"
        );
    });
}

#[test]
fn a_failed_creation_leaves_nothing() {
    in_netns(async || {
        let netlink = Netlink::open().unwrap();
        let addresses = nets(&["10.42.0.1/24", "10.42.0.1/24"]);

        let error = Device::create(DeviceSettings {
            name: "sr0",
            addresses: &addresses,
            mtu: 1420,
        })
        .await
        .unwrap_err();

        assert_eq!(error.to_string(), "cannot set up the device sr0");
        let cause = std::error::Error::source(&error).unwrap();
        assert_eq!(cause.to_string(), "cannot add the address 10.42.0.1/24");
        if let Some(link) = netlink.link_by_name("sr0").await.unwrap() {
            gone(&netlink, link.index).await;
        }
    });
}

#[test]
fn a_route_that_exists_elsewhere_is_named() {
    in_netns(async || {
        let other = create("other", 1420).await.unwrap();
        other.start(nets(&["192.168.7.0/24", "fd43::/64"])).await.unwrap();
        let addresses = nets(&["10.43.0.1/24", "fd44::1/64"]);
        let device = Device::create(DeviceSettings {
            name: "sr0",
            addresses: &addresses,
            mtu: 1420,
        })
        .await
        .unwrap();

        for net in ["192.168.7.0/24", "fd43::/64"] {
            let error = device.start(nets(&[net])).await.unwrap_err();

            let cause = std::error::Error::source(&error).unwrap();
            assert_eq!(
                cause.to_string(),
                format!(
                    "cannot add the route to {net}: one exists already through other; remove it or narrow allowed_ips"
                )
            );
        }
    });
}

#[test]
fn a_network_that_is_on_link_or_routed_already_is_no_error() {
    in_netns(async || {
        let device = started(&["10.42.0.0/24", "fd42::/64", "192.168.7.0/24"]).await;

        device.add_route("192.168.7.0/24".parse().unwrap()).await.unwrap();
    });
}

#[test]
fn a_removed_route_is_gone() {
    in_netns(async || {
        let netlink = Netlink::open().unwrap();
        let device = started(&["192.168.7.0/24", "fd43::/64"]).await;

        for net in nets(&["192.168.7.0/24", "fd43::/64"]) {
            device.remove_route(net).await.unwrap();
        }

        let mut routes = netlink.routes(device.index()).await.unwrap();
        routes.sort();
        assert_eq!(routes, nets(&["10.42.0.0/24", "fd42::/64"]));
    });
}

#[test]
fn every_allowed_mtu_can_be_set() {
    in_netns(async || {
        let netlink = Netlink::open().unwrap();
        for mtu in [576, 1279, 1280, 32_000] {
            let device = create("sr0", mtu).await.unwrap();
            device.start([]).await.unwrap();

            let link = netlink.link_by_index(device.index()).await.unwrap().unwrap();

            assert_eq!((link.mtu, link.up), (mtu, true));
            drop(device);
            gone(&netlink, link.index).await;
        }
    });
}

#[test]
fn the_host_answers_an_injected_ping() {
    in_netns(async || {
        let device = started(&[]).await;

        device
            .injector()
            .inject(&with_header([0; 12], &ping_v4(THERE_V4, HERE_V4, b"four")))
            .unwrap();
        let answer = next_packet(device.tun());
        let parsed = PacketHeaders::from_ip_slice(&answer[VnetHeader::LEN..]).unwrap();
        let Some(NetHeaders::Ipv4(ip, _)) = parsed.net else {
            panic!("{:?}", parsed.net)
        };
        assert_eq!((ip.source, ip.destination), (HERE_V4, THERE_V4));
        let Some(TransportHeader::Icmpv4(icmp)) = parsed.transport else {
            panic!("{:?}", parsed.transport)
        };
        assert!(matches!(icmp.icmp_type, Icmpv4Type::EchoReply(echo) if (echo.id, echo.seq) == (7, 9)));
        assert_eq!(parsed.payload.slice(), b"four");

        device
            .injector()
            .inject(&with_header([0; 12], &ping_v6(THERE_V6, HERE_V6, b"six")))
            .unwrap();
        let answer = next_packet(device.tun());
        let parsed = PacketHeaders::from_ip_slice(&answer[VnetHeader::LEN..]).unwrap();
        let Some(NetHeaders::Ipv6(ip, _)) = parsed.net else {
            panic!("{:?}", parsed.net)
        };
        assert_eq!((ip.source, ip.destination), (HERE_V6, THERE_V6));
        let Some(TransportHeader::Icmpv6(icmp)) = parsed.transport else {
            panic!("{:?}", parsed.transport)
        };
        assert!(matches!(icmp.icmp_type, Icmpv6Type::EchoReply(echo) if (echo.id, echo.seq) == (7, 9)));
        assert_eq!(parsed.payload.slice(), b"six");
    });
}

#[test]
fn an_injected_super_packet_reaches_its_socket_as_segments() {
    in_netns(async || {
        let device = started(&[]).await;
        assert!(device.tun().udp_offload(), "these tests need Linux 6.2");
        let socket = UdpSocket::bind(SocketAddr::from((HERE_V4, 2000))).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let mut packet = Vec::new();
        PacketBuilder::ipv4(THERE_V4, HERE_V4, 64)
            .udp(1000, 2000)
            .write(&mut packet, &[5; 3000])
            .unwrap();
        // Segments of 1200 bytes behind 28 bytes of headers, checksum left to the kernel.
        let pseudo_sum = THERE_V4
            .chunks(2)
            .chain(HERE_V4.chunks(2))
            .map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1]));
        let sum = pseudo_sum.sum::<u32>() + 17 + 3008;
        packet[26..28].copy_from_slice(&((sum & 0xffff) as u16 + (sum >> 16) as u16).to_be_bytes());
        let header = VnetHeader {
            flags: VnetHeader::NEEDS_CSUM,
            gso_type: VnetHeader::GSO_UDP_L4,
            hdr_len: 28,
            gso_size: 1200,
            csum_start: 20,
            csum_offset: 6,
            num_buffers: 0,
        };

        let header: [u8; 12] = bytemuck::bytes_of(&header).try_into().unwrap();
        device.injector().inject(&with_header(header, &packet)).unwrap();

        let mut buffer = [0; 4000];
        let lens: Vec<usize> = (0..3).map(|_| socket.recv(&mut buffer).unwrap()).collect();
        assert_eq!(lens, [1200, 1200, 600]);
    });
}

#[test]
fn a_sent_super_packet_is_read_whole() {
    in_netns(async || {
        let device = started(&[]).await;
        let socket = UdpSocket::bind(SocketAddr::from((HERE_V4, 2000))).unwrap();
        setsockopt(&socket, sockopt::UdpGsoSegment, &1200).unwrap();

        socket
            .send_to(&[5; 3000], SocketAddr::from((THERE_V4, 1000)))
            .unwrap();

        let packet = next_packet(device.tun());
        let header: VnetHeader = bytemuck::pod_read_unaligned(&packet[..12]);
        assert_eq!((header.gso_type, header.gso_size), (VnetHeader::GSO_UDP_L4, 1200));
        assert_eq!(packet.len(), 12 + 28 + 3000);
    });
}

#[test]
fn injection_failures_are_told_apart() {
    in_netns(async || {
        let device = create("sr0", 1420).await.unwrap();
        let ping = ping_v4(THERE_V4, HERE_V4, &[]);
        let injector = device.injector();
        assert_eq!(
            injector.inject(&with_header([0; 12], &ping)),
            Err(InjectError::Down)
        );
        device.start([]).await.unwrap();

        assert_eq!(injector.inject(&[0; 31]), Err(InjectError::TooShort { len: 31 }));
        let unknown_gso = [0, 77, 20, 0, 100, 0, 0, 0, 0, 0, 0, 0];
        assert_eq!(
            injector.inject(&with_header(unknown_gso, &ping)),
            Err(InjectError::Invalid)
        );
        let checksum_behind_the_end = [1, 0, 0, 0, 0, 0, 0xff, 0x7f, 0, 0, 0, 0];
        assert_eq!(
            injector.inject(&with_header(checksum_behind_the_end, &ping)),
            Err(InjectError::Invalid)
        );
        assert_eq!(
            injector.inject(&with_header([0; 12], &[0; 20])),
            Err(InjectError::Invalid)
        );
        assert_eq!(injector.inject(&with_header([0; 12], &ping)), Ok(()));
    });
}

#[test]
fn the_device_sends_nothing_of_its_own() {
    in_netns(async || {
        let device = started(&["192.168.7.0/24", "fd43::/64"]).await;

        // Whatever the kernel sends when a device comes up it sends at once or in its timers, which these pings outlast.
        for sequence in 0_u16..40 {
            let payload = sequence.to_be_bytes();
            device
                .injector()
                .inject(&with_header([0; 12], &ping_v6(THERE_V6, HERE_V6, &payload)))
                .unwrap();
            let answer = next_packet(device.tun());
            assert_eq!(answer[answer.len() - 2..], payload, "the device sent {answer:x?}");
            sleep(Duration::from_millis(50)).await;
        }
    });
}

#[test]
fn the_sender_learns_that_its_peer_is_unreachable() {
    in_netns(async || {
        let device = started(&[]).await;
        for (here, there) in [
            (IpAddr::from(HERE_V4), IpAddr::from(THERE_V4)),
            (IpAddr::from(HERE_V6), IpAddr::from(THERE_V6)),
        ] {
            let socket = UdpSocket::bind((here, 0)).unwrap();
            socket.connect((there, 1000)).unwrap();
            socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
            // Without this option the kernel keeps soft errors from UDP sockets.
            if here.is_ipv4() {
                setsockopt(&socket, sockopt::Ipv4RecvErr, &true).unwrap();
            } else {
                setsockopt(&socket, sockopt::Ipv6RecvErr, &true).unwrap();
            }
            socket.send(b"anybody there?").unwrap();
            let packet = next_packet(device.tun());

            let mut buffer = ReplyBuffer::default();
            let reply = unreachable(&packet[VnetHeader::LEN..], Unreachable::Host, &mut buffer).unwrap();
            device.injector().inject(reply).unwrap();

            let error = socket.recv(&mut [0; 10]).unwrap_err();
            assert_eq!(
                error.raw_os_error(),
                Some(nix::libc::EHOSTUNREACH),
                "{there}: {error}; the device had sent {packet:x?}"
            );
        }
    });
}
