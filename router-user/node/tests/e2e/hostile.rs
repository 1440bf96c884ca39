//! Peers that do not keep to the protocol, and peers that nobody knows.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use etherparse::PacketBuilder;
use futures::{AsyncReadExt, StreamExt};
use libp2p::identity::Keypair;
use libp2p::swarm::SwarmEvent;
use libp2p::{Multiaddr, SwarmBuilder, noise, ping, yamux};

use crate::support::record_peer::RecordPeer;
use crate::support::stock_peer::{LANE_PROTOCOL, PROTOCOL, StockPeer};
use crate::support::{NODE, machine, runtime};
use xtask::lab::probe::Gate;
use xtask::lab::probe::PingPlan;
use xtask::lab::{Namespace, Pair, PairPlan, PeerConfig, ScratchDir, Status, link};

const LIMIT: Duration = Duration::from_secs(10);
const HOSTILE_ADDRESS: [u8; 4] = [10, 42, 0, 66];
const NODE_ADDRESS: [u8; 4] = [10, 42, 0, 1];
const VNET_NONE: [u8; 12] = [0; 12];

/// Two nodes, and a stock peer on a host of its own that the first node knows.
struct Scene {
    identity: Keypair,
    pair: Pair,
    host: Namespace,
}

#[test]
fn a_stream_that_breaks_the_protocol_is_reset_and_everything_else_goes_on() {
    let _machine = machine::shared();
    let scene = Scene::start();
    let broken: [(&str, Vec<u8>, bool); 6] = [
        ("garbage", vec![0xFF; 4096], false),
        (
            "a length above the largest packet",
            frame_of_len(65_536, &[0; 64]),
            false,
        ),
        (
            "a length below the smallest packet",
            frame_of_len(19, &[0; 19]),
            false,
        ),
        ("no length", frame_of_len(0, &[]), false),
        ("a packet cut short", frame_of_len(1000, &[0x45; 10]), true),
        ("a header cut short", vec![64, 0, 0], true),
    ];

    scene.run(async |peer| {
        for (name, bytes, finished) in broken {
            let before = scene.counter("rx_protocol_error");
            let mut stream = peer.open(PROTOCOL).await?;
            peer.send(&mut stream, &bytes).await?;
            if finished {
                peer.finish(&mut stream).await?;
            }
            peer.wait_ended(&mut stream).await?;
            let after = scene.wait_for(name, |status| status.counters["rx_protocol_error"] > before);
            assert_eq!(after.counters["rx_protocol_error"], before + 1, "{name}");
            scene.assert_others_go_on();
        }
        scene.assert_honest_frames_arrive(peer).await
    });
}

#[test]
fn a_connection_whose_records_break_the_rules_ends_is_counted_and_everything_else_goes_on() {
    let _machine = machine::shared();
    let scene = Scene::start();
    let at: SocketAddr = "[2001:db8:1::1]:4001".parse().unwrap();
    let [open, data, credit] = [0, 1, 4];
    let record = |content: &[u8], stream: u32, kind: u8| {
        let number = stream.to_le_bytes();
        [content, &number, &[kind]].concat()
    };
    // Streams of a dialler have even numbers.
    let with_open = |last: Vec<u8>| vec![record(&[], 0, open), last];
    let broken: [(&str, Vec<Vec<u8>>); 8] = [
        ("too short to say what it is", vec![vec![0; 4]]),
        ("of no kind", vec![record(&[], 0, 9)]),
        ("an opening with content", vec![record(b"more", 0, open)]),
        (
            "a credit of three bytes",
            with_open(record(&[1, 0, 0], 0, credit)),
        ),
        (
            "more credit than can be",
            with_open(record(&u32::MAX.to_le_bytes(), 0, credit)),
        ),
        ("a stream of the other side", vec![record(&[], 1, open)]),
        ("a number that is taken", with_open(record(&[], 0, open))),
        ("data of no stream", vec![record(b"lost", 100, data)]),
    ];

    for (name, records) in broken {
        scene.assert_ends_connection(name, |peer| {
            for record in &records {
                // The node may end the connection before it has read everything.
                if peer.send(record).is_err() {
                    break;
                }
            }
            Ok(())
        });
    }
    scene.assert_ends_connection("sealed by nobody", |peer| peer.send_unsealed(100));
    let keeps_the_rules = || {
        let mut peer = RecordPeer::connect(&scene.identity, at)?;
        peer.send(&record(&[], 0, open))?;
        peer.send(&record(b"anything", 0, data))?;
        Ok(peer)
    };
    let before = scene.counter("record_violations");
    let honest = scene.host.enter(keeps_the_rules).unwrap();
    scene.assert_others_go_on();
    assert_eq!(scene.counter("record_violations"), before);
    drop(honest);
    scene.run(async |peer| scene.assert_honest_frames_arrive(peer).await);
}

#[test]
fn a_bad_packet_in_a_good_frame_is_counted_and_its_stream_goes_on() {
    let _machine = machine::shared();
    let scene = Scene::start();
    let good = packet(HOSTILE_ADDRESS, b"fine");
    let mut short_total = good.clone();
    short_total[2..4].copy_from_slice(&10_u16.to_be_bytes());
    let gso_without_size: [u8; 12] = [1, 1, 40, 0, 0, 0, 20, 0, 16, 0, 0, 0];
    let checksum_outside: [u8; 12] = [1, 0, 0, 0, 0, 0, 0xFF, 0xFF, 6, 0, 0, 0];
    let segments_of_a_byte: [u8; 12] = [1, 5, 28, 0, 1, 0, 20, 0, 6, 0, 0, 0];
    let segments_of_8: [u8; 12] = [1, 1, 40, 0, 8, 0, 20, 0, 16, 0, 0, 0];
    let bad: [(&str, &str, Vec<u8>); 8] = [
        ("IP version 0", "rx_malformed_packet", frame(VNET_NONE, &[0; 40])),
        (
            "an IPv6 header cut short",
            "rx_malformed_packet",
            frame(VNET_NONE, &[0x60; 30]),
        ),
        (
            "a total length below the header",
            "rx_malformed_packet",
            frame(VNET_NONE, &short_total),
        ),
        (
            "segments of no size",
            "rx_bad_offload_header",
            frame(gso_without_size, &good),
        ),
        (
            "a checksum outside the packet",
            "rx_bad_offload_header",
            frame(checksum_outside, &good),
        ),
        (
            "a hundred datagrams of a byte",
            "rx_bad_offload_header",
            frame(segments_of_a_byte, &packet(HOSTILE_ADDRESS, &[0; 100])),
        ),
        (
            "eight thousand segments",
            "rx_bad_offload_header",
            frame(segments_of_8, &tcp_packet(HOSTILE_ADDRESS, &[0; 65_000])),
        ),
        (
            "another's source",
            "rx_source_not_allowed",
            frame(VNET_NONE, &packet([10, 42, 0, 2], b"forged")),
        ),
    ];

    scene.run(async |peer| {
        let mut stream = peer.open(PROTOCOL).await?;
        for (name, counter, bytes) in bad {
            let before = scene.counter(counter);
            peer.send(&mut stream, &bytes).await?;
            let after = scene.wait_for(name, |status| status.counters[counter] > before);
            assert_eq!(after.counters[counter], before + 1, "{name}");
        }
        let receiver = scene.receiver();
        peer.send(&mut stream, &frame(VNET_NONE, &good)).await?;
        let mut buffer = [0; 64];
        let len = receiver.recv(&mut buffer)?;
        assert_eq!(&buffer[..len], b"fine");
        assert_eq!(scene.counter("rx_protocol_error"), 0);
        Ok(())
    });
    scene.assert_others_go_on();
}

#[test]
fn endless_frames_and_a_frame_that_never_ends_stop_nobody_else() {
    let _machine = machine::alone();
    const FRAMES: u64 = 200_000;
    const PER_WRITE: u64 = 500;
    let scene = Scene::start();
    let forged = frame(VNET_NONE, &packet([10, 42, 0, 2], b"")).repeat(PER_WRITE as usize);

    scene.run(async |peer| {
        let mut held = peer.open(PROTOCOL).await?;
        peer.send(&mut held, &frame_of_len(65_535, &[0x45; 100])).await?;
        let mut endless = peer.open(PROTOCOL).await?;
        let before = scene.counter("rx_source_not_allowed");
        for write in 0..FRAMES / PER_WRITE {
            peer.send(&mut endless, &forged).await?;
            if write % 100 == 0 {
                scene.assert_others_go_on();
            }
        }
        let counted = |status: &Status| status.counters["rx_source_not_allowed"] >= before + FRAMES;
        peer.drive(async {
            let after = scene.wait_for("every frame is counted", counted);
            assert_eq!(after.counters["rx_source_not_allowed"], before + FRAMES);
            Ok(())
        })
        .await?;
        scene.assert_honest_frames_arrive(peer).await
    });
}

#[test]
fn a_peer_that_stalls_holds_nobody_up() {
    let _machine = machine::alone();
    let scene = Scene::start();
    let stop = Gate::default();
    let flood = || {
        scene.pair.a.host.enter(|| {
            let socket = UdpSocket::bind((scene.pair.a.v4, 0))?;
            while !stop.is_open() {
                // Dropped once the peer's queue is full, as it has to be.
                let _ = socket.send_to(&[0; 1200], (Ipv4Addr::from(HOSTILE_ADDRESS), 9));
            }
            Ok(())
        })
    };

    // The peer is there and reads nothing, for as long as the pings take.
    scene.run(async |_stalled| {
        thread::scope(|scope| {
            let flood = scope.spawn(flood);
            let stop = stop.open_on_drop();
            for _ in 0..5 {
                scene.assert_others_go_on();
            }
            drop(stop);
            flood.join().expect("no panic")
        })
    });

    scene.wait_for("the stalled peer's queue filled up", |status| {
        status.counters["tx_queue_full"] > 1000
    });
}

#[test]
fn more_streams_than_a_peer_may_have_are_refused() {
    let _machine = machine::shared();
    const ATTEMPTS: u64 = 100;
    const MAX_STREAMS: u64 = 32;
    let scene = Scene::start();

    scene.run(async |peer| {
        let mut streams = Vec::new();
        for _ in 0..ATTEMPTS {
            // A refused stream may be reset before its negotiation ends.
            streams.extend(peer.open(PROTOCOL).await.ok());
        }
        let refused = |status: &Status| status.counters["streams_refused"] >= ATTEMPTS - MAX_STREAMS;
        let status = scene.wait_for("the rest is refused", refused);
        assert_eq!(status.counters["streams_refused"], ATTEMPTS - MAX_STREAMS);
        assert_eq!(u64::from(status.peers[1].streams), MAX_STREAMS);
        Ok(())
    });
    scene.assert_others_go_on();
    scene.run(async |peer| scene.assert_honest_frames_arrive(peer).await);
}

#[test]
fn a_stream_that_has_no_place_in_its_lane_is_reset_and_everything_else_goes_on() {
    let _machine = machine::shared();
    let scene = Scene::start();
    let changed = |at: usize, byte: u8| {
        let mut bytes = preamble(5, false);
        bytes[at] = byte;
        bytes
    };
    let bad = [
        ("no number", preamble(0, false)),
        ("a lane that there is not", changed(24, 32)),
        ("an unknown flag", changed(26, 2)),
        ("an unused byte", changed(31, 1)),
        ("a number that is taken", preamble(9, true)),
        ("a number that is passed", preamble(8, true)),
    ];

    scene.run(async |peer| {
        let mut held = peer.open(LANE_PROTOCOL).await?;
        peer.send(&mut held, &preamble(9, false)).await?;
        let receiver = scene.receiver();
        let honest = frame(VNET_NONE, &packet(HOSTILE_ADDRESS, b"in its lane"));
        let mut buffer = [0; 64];
        peer.send(&mut held, &honest).await?;
        let len = receiver.recv(&mut buffer)?;
        assert_eq!(&buffer[..len], b"in its lane");
        for (n_before, (name, bytes)) in (0..).zip(bad) {
            let mut stream = peer.open(LANE_PROTOCOL).await?;
            peer.send(&mut stream, &bytes).await?;
            peer.wait_ended(&mut stream).await?;
            assert_eq!(scene.counter("lane_streams_refused"), n_before + 1, "{name}");
        }
        peer.send(&mut held, &honest).await?;
        let len = receiver.recv(&mut buffer)?;
        assert_eq!(&buffer[..len], b"in its lane");
        scene.assert_others_go_on();
        Ok(())
    });
}

#[test]
fn streams_of_a_lane_that_never_end_hold_up_that_lane_for_a_bounded_time() {
    let _machine = machine::shared();
    let scene = Scene::start();

    scene.run(async |peer| {
        let receiver = scene.receiver();
        let mut streams = Vec::new();
        // The first is read and never ends; each of the others waits for it and for those between.
        for number in 1..=4 {
            let mut stream = peer.open(LANE_PROTOCOL).await?;
            let text = format!("of stream {number}");
            let packet = packet(HOSTILE_ADDRESS, text.as_bytes());
            peer.send(&mut stream, &preamble(number, false)).await?;
            peer.send(&mut stream, &frame(VNET_NONE, &packet)).await?;
            streams.push(stream);
        }
        let mut buffer = [0; 64];
        let len = receiver.recv(&mut buffer)?;
        assert_eq!(&buffer[..len], b"of stream 1");
        // A peer that does not answer pings meanwhile would lose the connection, as one with waiting streams is doubted.
        let deadline = Instant::now() + LIMIT;
        while scene.counter("lane_streams_cut") < 3 {
            ensure!(Instant::now() < deadline, "all but the last are to be cut");
            peer.drive(async {
                tokio::time::sleep(Duration::from_millis(50)).await;
                Ok(())
            })
            .await?;
        }

        // Those between may have had a moment each, in their order.
        let mut last = 1;
        while last < 4 {
            let len = receiver.recv(&mut buffer)?;
            let text = std::str::from_utf8(&buffer[..len])?;
            let number: u64 = text.strip_prefix("of stream ").expect(text).parse()?;
            assert!(number > last, "{number} came after {last}");
            last = number;
        }
        assert_eq!(scene.counter("lane_streams_refused"), 0);
        Ok(())
    });
    scene.assert_others_go_on();
}

#[test]
fn an_unknown_peer_is_refused() {
    let _machine = machine::shared();
    let scene = Scene::start();
    let before = scene.pair.a.node.status().unwrap();

    let opened = scene.host.enter(|| {
        runtime().block_on(async {
            let mut stranger = StockPeer::connect(&Keypair::generate_ed25519(), scene.at()).await?;
            stranger.open(PROTOCOL).await.map(drop)
        })
    });

    assert!(opened.is_err(), "a stranger opened a stream");
    let after = scene.pair.a.node.status().unwrap();
    assert_eq!(after.peers.len(), before.peers.len());
    scene.assert_others_go_on();
    scene.run(async |peer| scene.assert_honest_frames_arrive(peer).await);
}

#[test]
fn a_peer_that_does_not_even_speak_libp2p_is_dropped() {
    let _machine = machine::shared();
    let scene = Scene::start();
    let at: SocketAddr = "[2001:db8:1::1]:4001".parse().unwrap();

    scene
        .host
        .enter(|| {
            use std::io::{Read, Write};
            for bytes in [&b"GET / HTTP/1.1\r\n\r\n"[..], &[0xFF; 64 * 1024]] {
                let mut stream = std::net::TcpStream::connect_timeout(&at, LIMIT)?;
                stream.set_read_timeout(Some(Duration::from_secs(30)))?;
                // The node may close before it has read everything.
                let _ = stream.write_all(bytes);
                let mut buffer = [0; 1024];
                loop {
                    match stream.read(&mut buffer) {
                        Ok(0) => break,
                        Ok(_) => {}
                        Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => break,
                        Err(error) => return Err(error.into()),
                    }
                }
            }
            Ok(())
        })
        .unwrap();

    scene.assert_others_go_on();
}

/// What the other tests rest on: a refusal that they see is the node's, and not a fault of the stock peer.
#[test]
fn the_stock_peer_speaks_with_a_stock_swarm() {
    let _machine = machine::shared();
    let host = Namespace::unique("stock").unwrap();
    let work = async {
        let mut swarm = SwarmBuilder::with_new_identity()
            .with_tokio()
            .with_tcp(Default::default(), noise::Config::new, yamux::Config::default)?
            .with_behaviour(|_| ping::Behaviour::default())?
            .build();
        swarm.listen_on("/ip6/::1/tcp/4001".parse()?)?;
        let at = loop {
            if let SwarmEvent::NewListenAddr { address, .. } = swarm.select_next_some().await {
                break address;
            }
        };
        tokio::spawn(async move { while swarm.next().await.is_some() {} });

        let mut peer = StockPeer::connect(&Keypair::generate_ed25519(), at).await?;
        let refused = peer.open(PROTOCOL).await.map(drop);
        let mut stream = peer.open("/ipfs/ping/1.0.0").await?;
        peer.send(&mut stream, &[7; 32]).await?;
        let answer = peer.drive(async {
            let mut answer = [0; 32];
            stream.read_exact(&mut answer).await?;
            Ok(answer)
        });

        assert_eq!(answer.await?, [7; 32]);
        assert!(refused.unwrap_err().to_string().contains("answered \"na\""));
        Ok(())
    };
    host.enter(|| runtime().block_on(work)).unwrap();
}

impl Scene {
    fn start() -> Self {
        Self::try_start().expect("the scene can be set")
    }

    fn try_start() -> Result<Self> {
        let identity = Keypair::generate_ed25519();
        let mut pair = Pair::prepare(
            Path::new(NODE),
            &PairPlan::unique(),
            ScratchDir::unique("hostile")?,
        )?;
        let host = Namespace::unique("hostile")?;
        link(
            (&host, "u0", &["2001:db8:1::2/64"]),
            (&pair.a.host, "u1", &["2001:db8:1::1/64"]),
        )?;
        pair.a.config.listen.push("/ip6/::/tcp/4001".to_owned());
        pair.a.config.peers.push(PeerConfig {
            id: identity.public().to_peer_id().to_string(),
            addresses: Vec::new(),
            allowed_ips: vec!["10.42.0.66/32".to_owned()],
        });
        pair.a.node.configure(&pair.a.config)?;
        pair.start_nodes()?;
        Ok(Self { identity, pair, host })
    }

    fn at(&self) -> Multiaddr {
        "/ip6/2001:db8:1::1/tcp/4001".parse().expect("a multiaddress")
    }

    /// Runs a stock peer with the identity that the node knows.
    fn run(&self, work: impl AsyncFnOnce(&mut StockPeer) -> Result<()> + Send) {
        let run = || {
            runtime().block_on(async {
                let mut peer = StockPeer::connect(&self.identity, self.at()).await?;
                work(&mut peer).await
            })
        };
        self.host.enter(run).expect("the stock peer does its work");
    }

    /// Has a peer that speaks in records do something for which the node ends its connection, and counts it.
    fn assert_ends_connection(&self, name: &str, work: impl FnOnce(&mut RecordPeer) -> Result<()> + Send) {
        let at = "[2001:db8:1::1]:4001".parse().expect("an address");
        let before = self.counter("record_violations");
        let run = || {
            let mut peer = RecordPeer::connect(&self.identity, at)?;
            work(&mut peer)?;
            peer.wait_ended()
        };
        self.host.enter(run).expect(name);
        let after = self.wait_for(name, |status| status.counters["record_violations"] > before);
        assert_eq!(after.counters["record_violations"], before + 1, "{name}");
        self.assert_others_go_on();
    }

    fn counter(&self, name: &str) -> u64 {
        let status = self.pair.a.node.status().expect("the node answers");
        status.counter(name).expect("the counter is there")
    }

    fn wait_for(&self, what: &str, condition: impl Fn(&Status) -> bool) -> Status {
        self.pair.a.node.wait_for(what, LIMIT, condition).expect(what).0
    }

    fn assert_others_go_on(&self) {
        for to in [self.pair.b.v4, self.pair.b.v6] {
            let report = PingPlan::new(to).run(&self.pair.a.host).expect("ping runs");
            assert_eq!(report.n_lost(), 0, "pings to {to}");
        }
    }

    /// A socket on the node's host.
    fn receiver(&self) -> UdpSocket {
        let socket = self
            .pair
            .a
            .host
            .enter(|| Ok(UdpSocket::bind((self.pair.a.v4, 7000))?));
        let socket = socket.expect("the port is free");
        socket
            .set_read_timeout(Some(LIMIT))
            .expect("a socket takes a time-out");
        socket
    }

    async fn assert_honest_frames_arrive(&self, peer: &mut StockPeer) -> Result<()> {
        let receiver = self.receiver();
        let mut stream = peer.open(PROTOCOL).await?;
        peer.send(
            &mut stream,
            &frame(VNET_NONE, &packet(HOSTILE_ADDRESS, b"honest")),
        )
        .await?;
        let mut buffer = [0; 64];
        let len = receiver.recv(&mut buffer)?;
        assert_eq!(&buffer[..len], b"honest");
        Ok(())
    }
}

/// The preamble of a stream of the peer's third lane.
fn preamble(number: u64, after_loss: bool) -> [u8; 32] {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&0x5EED_u64.to_le_bytes());
    bytes[16..24].copy_from_slice(&number.to_le_bytes());
    bytes[24] = 2;
    bytes[26] = after_loss.into();
    bytes
}

fn frame(vnet: [u8; 12], packet: &[u8]) -> Vec<u8> {
    let len = u32::try_from(packet.len()).expect("a packet is short");
    [&len.to_le_bytes(), &vnet[..], packet].concat()
}

/// A frame whose header gives this length, whatever follows.
fn frame_of_len(len: u32, packet: &[u8]) -> Vec<u8> {
    [&len.to_le_bytes(), &VNET_NONE[..], packet].concat()
}

fn tcp_packet(source: [u8; 4], payload: &[u8]) -> Vec<u8> {
    let builder = PacketBuilder::ipv4(source, NODE_ADDRESS, 64).tcp(7066, 7000, 1, 1000);
    let mut packet = Vec::with_capacity(builder.size(payload.len()));
    builder
        .write(&mut packet, payload)
        .expect("a vector takes every byte");
    packet
}

fn packet(source: [u8; 4], payload: &[u8]) -> Vec<u8> {
    let builder = PacketBuilder::ipv4(source, NODE_ADDRESS, 64).udp(7066, 7000);
    let mut packet = Vec::with_capacity(builder.size(payload.len()));
    builder
        .write(&mut packet, payload)
        .expect("a vector takes every byte");
    packet
}
