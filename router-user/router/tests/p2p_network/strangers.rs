//! Hosts without the key of a peer, which begin handshakes in order to keep a configured peer out.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket},
    ops::Range,
    process::Command,
    sync::Arc,
    time::{Duration, Instant},
};

use libp2p::{multiaddr::Protocol, tls};
use quinn_proto::{
    ClientConfig, Connection, DatagramEvent, Endpoint, EndpointConfig, crypto::rustls::QuicClientConfig,
};
use stream_router::p2p::{Keypair, Multiaddr};
use tokio::{
    io::AsyncWriteExt,
    net::{TcpSocket, TcpStream},
    task::JoinHandle,
    time::{interval, sleep, timeout},
};

use super::{
    stock::{Security, StockNode},
    support::{LIMIT, Node, Setup, in_own_network},
};

const TCP: &str = "/ip4/127.0.0.1/tcp/0";
const QUIC: &str = "/ip4/127.0.0.1/udp/0/quic-v1";

/// More connections than there are places for strangers.
const MANY: usize = 144;

/// After which time a stranger whose connection was closed makes another.
const AGAIN: Duration = Duration::from_millis(250);

/// What a stranger does over TCP once it is connected.
#[derive(Clone, Copy, Debug)]
enum Manner {
    Silent,
    /// It sends a byte of a good negotiation every half second.
    Trickling,
    Garbage,
    /// It agrees on TLS, and then says nothing.
    SilentInHandshake,
    /// It says that it will send nothing more, and stays.
    HalfClosed,
}

/// A node, and the one peer that it knows, which has to dial in.
struct Scene {
    node: Node,
    peer: Keypair,
    tcp: Multiaddr,
    quic: Multiaddr,
}

#[test]
fn hosts_that_hold_connections_over_tcp_keep_no_peer_out() {
    for manner in [
        Manner::Silent,
        Manner::Trickling,
        Manner::Garbage,
        Manner::SilentInHandshake,
        Manner::HalfClosed,
    ] {
        in_own_network(|| async {
            let mut scene = Scene::start().await;
            let strangers = scene.hold_over_tcp(2..11, MANY / 9, manner).await;
            let tcp = scene.tcp.clone();

            scene.assert_peer_gets_in(&tcp, &format!("{manner:?}")).await;

            strangers.abort();
            scene.node.stop().await;
        });
    }
}

#[test]
fn a_peer_that_shares_its_address_with_silent_connections_gets_in() {
    in_own_network(|| async {
        let mut scene = Scene::start().await;
        // The peer dials from there, too.
        let strangers = scene.hold_over_tcp(1..2, MANY, Manner::Silent).await;
        scene
            .node
            .until(|state| state.counters.handshakes_refused >= MANY as u64 - 16)
            .await;
        let tcp = scene.tcp.clone();

        scene.assert_peer_gets_in(&tcp, "an address shared").await;

        strangers.abort();
        scene.node.stop().await;
    });
}

#[test]
fn forged_addresses_over_quic_keep_no_peer_out() {
    for (n_at_once, pause_ms) in [(1, 1000 / 32), (30, 10)] {
        in_own_network(|| async move {
            let mut scene = Scene::start().await;
            let flood = scene.flood(n_at_once, Duration::from_millis(pause_ms));
            scene
                .node
                .until(|state| state.counters.addresses_validated > 50)
                .await;

            for at in [scene.quic.clone(), scene.tcp.clone()] {
                let what = format!("{n_at_once} forged Initials every {pause_ms} ms, {at}");
                scene.assert_peer_gets_in(&at, &what).await;
            }

            flood.abort();
            scene.node.stop().await;
        });
    }
}

#[test]
fn two_nodes_with_one_key_are_noticed_and_told_over_both_transports_and_one_that_comes_again_is_not() {
    for over_quic in [false, true] {
        in_own_network(|| async move {
            let mut scene = Scene::start().await;
            let at = match over_quic {
                true => scene.quic.clone(),
                false => scene.tcp.clone(),
            };
            let node = scene.node.id;
            let start = || {
                Setup::new(&scene.peer)
                    .peer(node, std::slice::from_ref(&at))
                    .start()
            };
            for _ in 0..3 {
                let alone = start();
                scene.node.connected().await;
                alone.stop().await;
                scene.node.disconnected().await;
            }
            assert_eq!(scene.node.handle.snapshot().counters.duplicate_identities, 0);

            let mut one = start();
            let (_, connection) = one.connected().await;
            let mut other = start();
            other.connected().await;
            one.handle.close_connection(connection).await;

            scene
                .node
                .until(|state| state.counters.duplicate_identities > 0)
                .await;
            // Neither knows by itself.
            for machine in [&one, &other] {
                machine
                    .until(|state| state.counters.duplicate_identities == 1)
                    .await;
            }
            one.stop().await;
            other.stop().await;
            scene.node.stop().await;
        });
    }
}

#[test]
fn a_stock_dialler_answers_from_its_address_when_it_is_asked_to() {
    in_own_network(|| async {
        let mut scene = Scene::start().await;
        let flood = scene.flood(1, Duration::from_millis(1000 / 32));
        scene
            .node
            .until(|state| state.counters.addresses_validated > 0)
            .await;

        let at = Some(scene.quic.clone());
        let _stock = StockNode::start(&scene.peer, Security::TlsAndNoise, QUIC, at, 0).await;

        let (peer, _) = scene.node.connected().await;
        assert_eq!(peer, scene.peer.public().to_peer_id());
        flood.abort();
        scene.node.stop().await;
    });
}

#[test]
fn initials_that_end_their_connection_keep_no_peer_out() {
    for from_peer in [false, true] {
        in_own_network(|| async move {
            let mut scene = Scene::start().await;
            let quic = scene.quic.clone();
            let hosts: Vec<_> = match from_peer {
                true => vec![Ipv4Addr::LOCALHOST; 16],
                false => forged_hosts(),
            };
            // From now on the node knows where the peer comes from.
            scene.assert_peer_gets_in(&quic, "nobody else").await;
            let flood = scene.flood_from(&hosts, ending_initials(1000), 30, Duration::from_millis(10));
            scene
                .node
                .until(|state| state.counters.addresses_validated > 1000)
                .await;

            for at in [quic, scene.tcp.clone()] {
                let what = format!("Initials that end their connection, from the peer: {from_peer}, {at}");
                let n_failed = scene.assert_peer_gets_in(&at, &what).await;
                // The flood takes a processor as well.
                assert!(n_failed <= 1, "{what}: {n_failed} dials failed");
            }

            flood.abort();
            scene.node.stop().await;
        });
    }
}

#[test]
fn a_flood_over_quic_takes_little_memory() {
    assert_grows_little("strangers::memory_under_a_flood");
}

#[test]
fn handshakes_that_are_ended_from_the_address_of_a_peer_take_little_memory() {
    assert_grows_little("strangers::memory_after_ended_handshakes");
}

/// The memory of a process is of all of its tests, so such a test runs in one of its own.
fn assert_grows_little(test: &str) {
    let alone = Command::new(std::env::current_exe().expect("this program"))
        .args(["--exact", test, "--ignored", "--nocapture"])
        .output()
        .expect("this program runs");
    let said = String::from_utf8_lossy(&alone.stderr);
    let grown = said.lines().find(|line| line.starts_with("grown by "));
    eprintln!("{test}: {}", grown.unwrap_or(&said));
    assert!(alone.status.success() && grown.is_some(), "{said}");
}

#[test]
#[ignore = "a_flood_over_quic_takes_little_memory runs it"]
fn memory_under_a_flood() {
    /// What a half-open connection costs, for all that there may be over QUIC, and what has ended and is remembered.
    const MAX_GROWTH_KIB: u64 = 24 * 1024;

    in_own_network(|| async {
        let scene = Scene::start().await;
        let initials = initials(3000);
        let before = resident_kib();
        let flood = scene.flood_of(initials, 30, Duration::from_millis(10));
        let (mut most, mut n_wanted) = (before, 0);
        for _ in 0..10 {
            n_wanted += 2000;
            scene
                .node
                .until(|state| state.counters.addresses_validated >= n_wanted)
                .await;
            most = most.max(resident_kib());
        }
        flood.abort();
        eprintln!(
            "grown by {} KiB from {before} KiB after {n_wanted} Initials",
            most - before
        );
        assert!(most - before < MAX_GROWTH_KIB, "{before} KiB, then {most} KiB");
        scene.node.stop().await;
    });
}

#[test]
#[ignore = "handshakes_that_are_ended_from_the_address_of_a_peer_take_little_memory runs it"]
fn memory_after_ended_handshakes() {
    /// Those that there are places for, and what the allocator keeps of others.
    const MAX_GROWTH_KIB: u64 = 16 * 1024;
    const N_ENDED: usize = 2000;

    in_own_network(|| async {
        let mut scene = Scene::start().await;
        let quic = scene.quic.clone();
        scene.assert_peer_gets_in(&quic, "nobody else").await;
        end_handshakes(socket_address(&quic), 50).await;
        let before = resident_kib();
        end_handshakes(socket_address(&quic), N_ENDED).await;
        let after = resident_kib();
        eprintln!(
            "grown by {} KiB from {before} KiB after {N_ENDED} handshakes that were ended",
            after.saturating_sub(before)
        );
        assert!(
            after.saturating_sub(before) < MAX_GROWTH_KIB,
            "{before} KiB, then {after} KiB"
        );
        scene.assert_peer_gets_in(&quic, "after ended handshakes").await;
        scene.node.stop().await;
    });
}

/// Begins so many QUIC connections from the address of the peer, answers from there when asked to, and ends each with the
/// next datagram.
async fn end_handshakes(to: SocketAddr, n: usize) {
    let client = client_config();
    let mut endpoint = client_endpoint();
    for _ in 0..n {
        let now = Instant::now();
        let socket = tokio::net::UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))
            .await
            .expect("a socket");
        let (handle, mut connection) = endpoint
            .connect(now, client.clone(), to, "l")
            .expect("a connection");
        let mut bytes = Vec::new();
        let initial = next_datagram(&mut connection, now);
        socket.send_to(&initial, to).await.expect("send");
        let mut answer = [0; 2048];
        let len = timeout(LIMIT, socket.recv(&mut answer))
            .await
            .expect("an answer in time")
            .expect("receive");
        let event = endpoint.handle(now, to, None, None, answer[..len].into(), &mut bytes);
        match event {
            Some(DatagramEvent::ConnectionEvent(of, event)) if of == handle => connection.handle_event(event),
            _ => panic!("the answer is to the connection"),
        }
        connection.close(now, 0_u32.into(), Vec::new().into());
        let last = next_datagram(&mut connection, now);
        socket.send_to(&last, to).await.expect("send");
    }
}

/// Returns the memory of this process that is in use.
fn resident_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("the status of this process");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let number = line.and_then(|line| line.split_whitespace().next());
    number
        .and_then(|number| number.parse().ok())
        .expect("a number of KiB")
}

impl Scene {
    async fn start() -> Self {
        let peer = Keypair::generate_ed25519();
        let mut node = Setup::new(&Keypair::generate_ed25519())
            .listen(TCP)
            .listen(QUIC)
            .peer(peer.public().to_peer_id(), &[])
            .start();
        let (mut tcp, mut quic) = (None, None);
        while tcp.is_none() || quic.is_none() {
            let address = node.listening().await;
            match address.iter().any(|protocol| protocol == Protocol::QuicV1) {
                true => quic = Some(address),
                false => tcp = Some(address),
            }
        }
        Self {
            node,
            peer,
            tcp: tcp.expect("a TCP address"),
            quic: quic.expect("a QUIC address"),
        }
    }

    /// Connects from each of the hosts 127.0.0.n so many times, and again whenever a connection is closed.
    async fn hold_over_tcp(&self, hosts: Range<u8>, n_each: usize, manner: Manner) -> JoinHandle<()> {
        let to = socket_address(&self.tcp);
        let mut held = Vec::new();
        for host in hosts.clone() {
            for _ in 0..n_each {
                held.push(connect(host, to).await);
            }
        }
        tokio::spawn(async move {
            let again = hosts.flat_map(|host| std::iter::repeat_n(host, n_each));
            let strangers = held.into_iter().zip(again).map(|(first, host)| async move {
                let mut stream = first;
                loop {
                    behave(stream, manner).await;
                    sleep(AGAIN).await;
                    stream = connect(host, to).await;
                }
            });
            futures::future::join_all(strangers).await;
        })
    }

    /// Begins QUIC connections from addresses at which nobody answers.
    fn flood(&self, n_at_once: usize, pause: Duration) -> JoinHandle<()> {
        self.flood_of(initials(1000), n_at_once, pause)
    }

    fn flood_of(&self, initials: Vec<Vec<u8>>, n_at_once: usize, pause: Duration) -> JoinHandle<()> {
        self.flood_from(&forged_hosts(), initials, n_at_once, pause)
    }

    fn flood_from(
        &self,
        hosts: &[Ipv4Addr],
        initials: Vec<Vec<u8>>,
        n_at_once: usize,
        pause: Duration,
    ) -> JoinHandle<()> {
        let to = socket_address(&self.quic);
        let sockets: Vec<_> = hosts
            .iter()
            .map(|host| UdpSocket::bind((*host, 0)).expect("a socket"))
            .collect();
        tokio::spawn(async move {
            let mut due = interval(pause);
            let mut datagrams = initials.iter().cycle().zip(sockets.iter().cycle());
            loop {
                due.tick().await;
                for (initial, socket) in datagrams.by_ref().take(n_at_once) {
                    socket.send_to(initial, to).expect("send");
                }
            }
        })
    }

    /// Asserts that the peer gets in while the strangers go on, and says how long it took. Returns how many of its dials
    /// failed.
    async fn assert_peer_gets_in(&mut self, at: &Multiaddr, what: &str) -> u64 {
        let started = Instant::now();
        let peer = Setup::new(&self.peer)
            .peer(self.node.id, std::slice::from_ref(at))
            .start();
        let (connected, _) = self.node.connected().await;
        eprintln!("{what}: the peer is in after {:?}", started.elapsed());
        assert_eq!(connected, peer.id);
        let n_failed = peer.handle.snapshot().counters.dial_failures;
        peer.stop().await;
        self.node.disconnected().await;
        n_failed
    }
}

async fn connect(host: u8, to: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket
        .bind((Ipv4Addr::new(127, 0, 0, host), 0).into())
        .expect("an address of loopback");
    socket.connect(to).await.expect("connect")
}

/// Returns when the node has closed the connection.
async fn behave(mut stream: TcpStream, manner: Manner) {
    const AGREE_ON_TLS: &[u8] = b"\x13/multistream/1.0.0\n\x0b/tls/1.0.0\n";
    // The node may close at any time.
    let _ended = async {
        match manner {
            Manner::Silent => {}
            Manner::Trickling => {
                let mut due = interval(Duration::from_millis(500));
                for byte in AGREE_ON_TLS {
                    due.tick().await;
                    stream.write_all(&[*byte]).await?;
                }
            }
            Manner::Garbage => stream.write_all(&[0xFF; 4096]).await?,
            Manner::SilentInHandshake => stream.write_all(AGREE_ON_TLS).await?,
            Manner::HalfClosed => stream.shutdown().await?,
        }
        tokio::io::copy(&mut stream, &mut tokio::io::sink()).await
    }
    .await;
}

/// Returns the hosts that a sender claims to be, at which nobody answers.
fn forged_hosts() -> Vec<Ipv4Addr> {
    (0..250).map(|host| Ipv4Addr::new(127, 0, 1, host)).collect()
}

/// Returns the first datagrams of so many QUIC connections.
fn initials(n: usize) -> Vec<Vec<u8>> {
    first_datagrams(n, |_, _| {})
}

/// Returns the first datagrams of so many QUIC connections, which say nothing but that the connection has ended.
fn ending_initials(n: usize) -> Vec<Vec<u8>> {
    first_datagrams(n, |connection, now| {
        connection.close(now, 0_u32.into(), Vec::new().into());
    })
}

fn first_datagrams(n: usize, prepare: impl Fn(&mut Connection, Instant)) -> Vec<Vec<u8>> {
    let (client, mut endpoint) = (client_config(), client_endpoint());
    let to = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 1);
    let initial = |_| {
        let now = Instant::now();
        let (_, mut connection) = endpoint
            .connect(now, client.clone(), to, "l")
            .expect("a connection");
        prepare(&mut connection, now);
        next_datagram(&mut connection, now)
    };
    (0..n).map(initial).collect()
}

/// Returns the next datagram that a connection sends.
fn next_datagram(connection: &mut Connection, now: Instant) -> Vec<u8> {
    let mut bytes = Vec::new();
    let transmit = connection.poll_transmit(now, 1, &mut bytes).expect("a datagram");
    bytes.truncate(transmit.size);
    bytes
}

fn client_config() -> ClientConfig {
    let tls = tls::make_client_config(&Keypair::generate_ed25519(), None).expect("a certificate");
    let tls = QuicClientConfig::try_from(tls).expect("a cipher of QUIC");
    ClientConfig::new(Arc::new(tls))
}

fn client_endpoint() -> Endpoint {
    Endpoint::new(Arc::new(EndpointConfig::default()), None, false, None)
}

fn socket_address(address: &Multiaddr) -> SocketAddr {
    let (mut ip, mut port) = (None, None);
    for protocol in address {
        match protocol {
            Protocol::Ip4(v4) => ip = Some(v4.into()),
            Protocol::Tcp(n) | Protocol::Udp(n) => port = Some(n),
            _ => {}
        }
    }
    SocketAddr::new(ip.expect("an IP address"), port.expect("a port"))
}
