//! Traffic of real applications over two nodes.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::Path;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::sys::socket::{setsockopt, sockopt};

use crate::support::lan::forward_packets;
use crate::support::{NODE, machine, noise};
use xtask::lab::probe::{IperfServer, PingPlan, iperf, path_mtu};
use xtask::lab::process::{output, text};
use xtask::lab::{Namespace, Pair, PairPlan, ScratchDir, Side, Transport, Underlay, link};

/// A stalled socket fails its test after this time.
const PATIENCE: Duration = Duration::from_secs(10);
/// A rate that a stalling path does not reach, and a debug build on a busy machine does.
const FLOOR_BITS_PER_SECOND: f64 = 20e6;

#[test]
fn pings_of_every_size_cross_in_both_protocols() {
    let _machine = machine::shared();
    let pair = Pair::unique(Path::new(NODE)).unwrap();

    for (from, to) in both_ways(&pair) {
        for to in [to.v4, to.v6] {
            for payload_bytes in [
                0, 1, 7, 8, 56, 1371, 1372, 1373, 1391, 1392, 1393, 1472, 2000, 4096, 8000,
            ] {
                let report = PingPlan {
                    payload_bytes,
                    ..PingPlan::new(to)
                }
                .run(&from.host)
                .unwrap();
                assert_eq!(
                    (report.n_sent, report.n_received),
                    (3, 3),
                    "{payload_bytes} bytes to {to}"
                );
            }
        }
    }
}

#[test]
fn two_hundred_connections_at_once_echo_their_bytes() {
    let _machine = machine::shared();
    const CONNECTIONS: u32 = 200;
    const BYTES: usize = 128 * 1024;
    let pair = Pair::unique(Path::new(NODE)).unwrap();
    let at = SocketAddr::new(pair.b.v4, 7000);
    let listener = pair.b.host.enter(|| Ok(TcpListener::bind(at)?)).unwrap();
    let server = thread::spawn(move || -> Result<()> {
        let accepted: Vec<TcpStream> = (0..CONNECTIONS)
            .map(|_| Ok(listener.accept()?.0))
            .collect::<Result<_>>()?;
        let echoes: Vec<_> = accepted
            .into_iter()
            .map(|stream| thread::spawn(move || echo(stream)))
            .collect();
        echoes.into_iter().try_for_each(join)
    });

    let clients: Vec<TcpStream> = pair
        .a
        .host
        .enter(|| {
            (0..CONNECTIONS)
                .map(|_| Ok(TcpStream::connect_timeout(&at, PATIENCE)?))
                .collect()
        })
        .unwrap();
    let clients: Vec<_> = clients
        .into_iter()
        .zip(0..)
        .map(|(stream, seed)| thread::spawn(move || send_and_compare(stream, &noise(seed, BYTES))))
        .collect();

    assert_eq!(clients.len(), CONNECTIONS as usize);
    clients.into_iter().try_for_each(join).unwrap();
    join(server).unwrap();
}

#[test]
fn datagrams_cross_both_ways_at_once_in_order_and_unchanged() {
    let _machine = machine::shared();
    const ROUNDS: u32 = 200;
    let pair = Pair::unique(Path::new(NODE)).unwrap();

    for (v6, largest) in [(false, 1392), (true, 1372)] {
        let address = |side: &Side, port| SocketAddr::new(if v6 { side.v6 } else { side.v4 }, port);
        let (at_a, at_b) = (address(&pair.a, 7001), address(&pair.b, 7002));
        let socket_a = connected(&pair.a.host, at_a, at_b).unwrap();
        let socket_b = connected(&pair.b.host, at_b, at_a).unwrap();

        let side_a = thread::spawn(move || exchange(&socket_a, ROUNDS, largest, 1, 2));
        let side_b = thread::spawn(move || exchange(&socket_b, ROUNDS, largest, 2, 1));

        join(side_a).unwrap();
        join(side_b).unwrap();
    }
}

#[test]
fn a_segmented_datagram_arrives_as_its_segments() {
    let _machine = machine::shared();
    const SEGMENT: i32 = 1000;
    const SEGMENTS: usize = 40;
    let pair = Pair::unique(Path::new(NODE)).unwrap();
    let (at_a, at_b) = (SocketAddr::new(pair.a.v4, 7001), SocketAddr::new(pair.b.v4, 7002));
    let sender = connected(&pair.a.host, at_a, at_b).unwrap();
    let receiver = connected(&pair.b.host, at_b, at_a).unwrap();
    setsockopt(&sender, sockopt::UdpGsoSegment, &SEGMENT).unwrap();
    let sent = noise(9, SEGMENT as usize * SEGMENTS);

    assert_eq!(sender.send(&sent).unwrap(), sent.len());

    let mut buffer = [0; 2048];
    for segment in sent.chunks(SEGMENT as usize) {
        let len = receiver.recv(&mut buffer).unwrap();
        assert_eq!(&buffer[..len], segment);
    }
}

#[test]
fn iperf_in_both_directions_at_once_stalls_in_neither() {
    let _machine = machine::alone();
    let pair = Pair::unique(Path::new(NODE)).unwrap();
    let _server = IperfServer::start(&pair.b.host).unwrap();

    for to in [pair.b.v4, pair.b.v6] {
        let report = iperf(&pair.a.host, to, Duration::from_secs(4), &["--bidir"]).unwrap();

        let reverse = report.reverse_bits_per_second.unwrap();
        assert!(
            report.received_bits_per_second > FLOOR_BITS_PER_SECOND,
            "{report:?}"
        );
        assert!(reverse > FLOOR_BITS_PER_SECOND, "{report:?}");
    }
}

#[test]
fn the_path_mtu_is_the_devices() {
    let _machine = machine::shared();
    let plan = PairPlan {
        mtu: 1380,
        ..PairPlan::unique()
    };
    let pair = Pair::start(Path::new(NODE), &plan).unwrap();

    for (from, to) in both_ways(&pair) {
        assert_eq!(path_mtu(&from.host, to.v4).unwrap(), 1380);
        assert_eq!(path_mtu(&from.host, to.v6).unwrap(), 1380);
    }
}

#[test]
fn a_host_behind_a_node_learns_the_mtu_and_gets_through() {
    let _machine = machine::alone();
    let mut pair = Pair::prepare(
        Path::new(NODE),
        &PairPlan::unique(),
        ScratchDir::unique("lan").unwrap(),
    )
    .unwrap();
    let lan = Namespace::unique("lan").unwrap();
    put_behind(&lan, &pair.a, &mut pair.b, 7).unwrap();
    pair.start_nodes().unwrap();

    for (to, payload_bytes, told) in [
        (pair.b.v4, "1472", "Frag needed and DF set (mtu = 1420)"),
        (pair.b.v6, "1452", "Packet too big: mtu=1420"),
    ] {
        let mut ping = lan.command("ping");
        ping.args([
            "-n",
            "-c1",
            "-W2",
            "-M",
            "do",
            "-s",
            payload_bytes,
            &to.to_string(),
        ]);
        let output = output(&mut ping, PATIENCE).unwrap();

        let printed = String::from_utf8_lossy(&output.stdout);
        assert!(printed.contains(told), "{printed}");
        assert_eq!(path_mtu(&lan, to).unwrap(), 1420);
    }
    // What it has just learnt would have it offer no more than fits.
    lan.ip(&["route", "flush", "cache"]).unwrap();
    let _server = IperfServer::start(&pair.b.host).unwrap();
    for args in [&[][..], &["--reverse"]] {
        let report = iperf(&lan, pair.b.v4, Duration::from_secs(2), args).unwrap();
        assert!(
            report.received_bits_per_second > FLOOR_BITS_PER_SECOND,
            "{args:?} {report:?}"
        );
    }
    // The network behind the node has an MTU of 1500, and its host's connections offered what that carries.
    let counted = pair.b.node.status().unwrap();
    assert!(counted.counter("rx_mss_clamped").unwrap() >= 2);
    assert_eq!(counted.counter("rx_bad_offload_header").unwrap(), 0);
}

#[test]
fn what_a_router_merges_into_lists_arrives_as_it_came() {
    let _machine = machine::alone();
    const SEGMENT: i32 = 1000;
    const SEGMENTS: usize = 40;
    let scratch = ScratchDir::unique("lists").unwrap();
    let mut pair = Pair::prepare(Path::new(NODE), &PairPlan::unique(), scratch).unwrap();
    let [from, to] = [7, 8].map(|_| Namespace::unique("lan").unwrap());
    put_behind(&from, &pair.a, &mut pair.b, 7).unwrap();
    put_behind(&to, &pair.b, &mut pair.a, 8).unwrap();
    // The segments leave the sender one by one and whole, so that it is the router that merges them; and the other router
    // finishes what it sends, so that the receiver looks at the checksums.
    let whole = ["-K", "eth0", "tso", "off", "gso", "off", "tx", "off"];
    let lists = [
        "-K",
        "lan0",
        "gro",
        "on",
        "rx-gro-list",
        "on",
        "rx-udp-gro-forwarding",
        "off",
    ];
    let finished = ["-K", "lan0", "tx", "off"];
    for (host, features) in [
        (&from, &whole[..]),
        (&pair.a.host, &lists),
        (&pair.b.host, &finished),
    ] {
        text(host.command("ethtool").args(features), PATIENCE).unwrap();
    }
    pair.start_nodes().unwrap();

    let v6 = |number| Ipv6Addr::new(number, 0, 0, 0, 0, 0, 0, 2).into();
    for (sender_at, receiver_at) in [
        (IpAddr::from([192, 168, 7, 2]), IpAddr::from([192, 168, 8, 2])),
        (v6(0xfd07), v6(0xfd08)),
    ] {
        let at = [(sender_at, 7001), (receiver_at, 7002)].map(SocketAddr::from);
        let sender = connected(&from, at[0], at[1]).unwrap();
        let receiver = connected(&to, at[1], at[0]).unwrap();
        setsockopt(&sender, sockopt::UdpGsoSegment, &SEGMENT).unwrap();
        let mut buffer = [0; 2048];
        for round in 0..12 {
            let sent = noise(round, SEGMENT as usize * SEGMENTS);
            assert_eq!(sender.send(&sent).unwrap(), sent.len());
            for segment in sent.chunks(SEGMENT as usize) {
                let len = receiver.recv(&mut buffer).unwrap();
                assert_eq!(&buffer[..len], segment, "round {round} to {receiver_at}");
            }
        }
    }
    let _server = IperfServer::start(&to).unwrap();
    let report = iperf(&from, [192, 168, 8, 2].into(), Duration::from_secs(2), &[]).unwrap();
    assert!(
        report.received_bits_per_second > FLOOR_BITS_PER_SECOND,
        "{report:?}"
    );
}

#[test]
fn every_underlay_carries_traffic() {
    let _machine = machine::shared();
    for (underlay, transport) in [
        (Underlay::V6, Transport::Tcp),
        (Underlay::V6, Transport::Quic),
        (Underlay::V4, Transport::Quic),
    ] {
        let plan = PairPlan {
            underlay,
            transport,
            ..PairPlan::unique()
        };
        let pair = Pair::start(Path::new(NODE), &plan).unwrap();

        for to in [pair.b.v4, pair.b.v6] {
            let report = PingPlan {
                payload_bytes: 3000,
                ..PingPlan::new(to)
            }
            .run(&pair.a.host)
            .unwrap();
            assert_eq!(report.n_received, 3, "{underlay:?} {transport:?} to {to}");
        }
        let at = SocketAddr::new(pair.b.v6, 7000);
        let listener = pair.b.host.enter(|| Ok(TcpListener::bind(at)?)).unwrap();
        let server = thread::spawn(move || echo(listener.accept()?.0));
        let client = pair
            .a
            .host
            .enter(|| Ok(TcpStream::connect_timeout(&at, PATIENCE)?))
            .unwrap();
        send_and_compare(client, &noise(3, 4 << 20)).unwrap();
        join(server).unwrap();
    }
}

fn both_ways(pair: &Pair) -> [(&Side, &Side); 2] {
    [(&pair.a, &pair.b), (&pair.b, &pair.a)]
}

/// Connects a host to the `near` node, which forwards for it, by a network of this number.
fn put_behind(lan: &Namespace, near: &Side, far: &mut Side, number: u8) -> Result<()> {
    let network = |host: &str| {
        [
            format!("192.168.{number}.{host}/24"),
            format!("fd{number:02}::{host}/64"),
        ]
    };
    let (inside, outside) = (network("2"), network("1"));
    link(
        (lan, "eth0", &inside.each_ref().map(String::as_str)),
        (&near.host, "lan0", &outside.each_ref().map(String::as_str)),
    )?;
    for router in &outside {
        let (address, _) = router.split_once('/').context("an address with its network")?;
        lan.ip(&["route", "add", "default", "via", address])?;
    }
    forward_packets(&near.host)?;
    let peer = far
        .config
        .peers
        .first_mut()
        .context("the pair's nodes are peers")?;
    peer.allowed_ips
        .extend([format!("192.168.{number}.0/24"), format!("fd{number:02}::/64")]);
    far.node.configure(&far.config)
}

fn connected(host: &Namespace, local: SocketAddr, remote: SocketAddr) -> Result<UdpSocket> {
    host.enter(|| {
        let socket = UdpSocket::bind(local)?;
        socket.connect(remote)?;
        socket.set_read_timeout(Some(PATIENCE))?;
        Ok(socket)
    })
}

/// Sends datagrams of all sizes in small bursts and checks those of the other side, one by one.
fn exchange(socket: &UdpSocket, rounds: u32, largest: usize, own_seed: u32, other_seed: u32) -> Result<()> {
    const BURST: u32 = 16;
    let datagram = |seed: u32, number: u32| {
        let len = 8 + number as usize * 37 % (largest - 7);
        noise(seed << 20 | number, len)
    };
    let mut buffer = [0; 2048];
    for round in 0..rounds {
        for number in round * BURST..(round + 1) * BURST {
            socket.send(&datagram(own_seed, number))?;
        }
        for number in round * BURST..(round + 1) * BURST {
            let len = socket
                .recv(&mut buffer)
                .with_context(|| format!("waiting for datagram {number}"))?;
            ensure!(
                buffer[..len] == datagram(other_seed, number),
                "datagram {number} differs"
            );
        }
    }
    Ok(())
}

fn echo(mut stream: TcpStream) -> Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut buffer = [0; 16 * 1024];
    loop {
        match stream.read(&mut buffer)? {
            0 => return Ok(()),
            len => stream.write_all(&buffer[..len])?,
        }
    }
}

fn send_and_compare(mut stream: TcpStream, bytes: &[u8]) -> Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut writer = stream.try_clone()?;
    let received = thread::scope(|scope| {
        let reader = scope.spawn(move || -> Result<Vec<u8>> {
            let mut received = Vec::new();
            stream.read_to_end(&mut received)?;
            Ok(received)
        });
        writer.write_all(bytes)?;
        writer.shutdown(std::net::Shutdown::Write)?;
        reader.join().expect("reading does not panic")
    })?;
    ensure!(
        received == bytes,
        "{} bytes came back for {}, or they differ",
        received.len(),
        bytes.len()
    );
    Ok(())
}

fn join<T>(thread: thread::JoinHandle<Result<T>>) -> Result<T> {
    thread
        .join()
        .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}
