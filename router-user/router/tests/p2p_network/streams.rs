//! What streams promise: content, order, ends, and that one does not hurt another.

use std::time::Duration;

use futures::{AsyncReadExt, AsyncWriteExt};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream, tcp},
    time::timeout,
};

use super::support::{
    LIMIT, Node, Setup, address, connected_pair, content, exchange, in_own_network, runtime,
};
use stream_router::p2p::{Keypair, Multiaddr, NetworkEvent, PeerConfig};

const TCP: &str = "/ip4/127.0.0.1/tcp/0";
const QUIC: &str = "/ip4/127.0.0.1/udp/0/quic-v1";

#[test]
fn large_transfers_both_ways_at_once_arrive_intact() {
    in_own_network(|| async {
        const LENGTH: usize = 64 * 1024 * 1024;
        let (near, mut far, connection) = connected_pair(TCP).await;
        let stream = near.handle.open_stream(connection).await.expect("open");
        let arrival = far.arrival().await;
        let (to_far, to_near) = (content(3, LENGTH), content(4, LENGTH));
        let (at_near, at_far) = tokio::join!(
            exchange(stream, to_far.clone()),
            exchange(arrival.stream, to_near.clone())
        );
        assert!(at_near == to_near, "what the dialler received");
        assert!(at_far == to_far, "what the listener received");
        near.stop().await;
        far.stop().await;
    });
}

#[test]
fn many_streams_of_one_connection_do_not_mix() {
    in_own_network(|| async {
        const LENGTH: usize = 1024 * 1024;
        let (near, mut far, connection) = connected_pair(TCP).await;
        let mut tasks = Vec::new();
        for seed in 1..=16 {
            let stream = near.handle.open_stream(connection).await.expect("open");
            let arrival = far.arrival().await;
            tasks.push(tokio::spawn(async move {
                let (to_far, to_near) = (content(seed, LENGTH), content(seed + 100, LENGTH));
                let (at_near, at_far) = tokio::join!(
                    exchange(stream, to_far.clone()),
                    exchange(arrival.stream, to_near.clone())
                );
                assert!(at_near == to_near && at_far == to_far, "stream {seed}");
            }));
        }
        for task in tasks {
            task.await.expect("the exchange");
        }
        near.stop().await;
        far.stop().await;
    });
}

#[test]
fn closing_one_direction_leaves_the_other_open() {
    for listen in [TCP, QUIC] {
        in_own_network(|| async {
            let (near, mut far, connection) = connected_pair(listen).await;
            let mut stream = near.handle.open_stream(connection).await.expect("open");
            stream.write_all(b"question").await.expect("write");
            stream.close().await.expect("close");

            let mut arrival = far.arrival().await;
            let mut question = Vec::new();
            arrival.stream.read_to_end(&mut question).await.expect("read");
            assert_eq!(question, b"question");
            arrival.stream.write_all(b"answer").await.expect("write");
            arrival.stream.close().await.expect("close");

            let mut answer = Vec::new();
            stream.read_to_end(&mut answer).await.expect("read");
            assert_eq!(answer, b"answer");
            near.stop().await;
            far.stop().await;
        });
    }
}

#[test]
fn dropped_stream_ends_for_the_peer_and_nothing_else_does() {
    for listen in [TCP, QUIC] {
        in_own_network(|| async {
            let (near, mut far, connection) = connected_pair(listen).await;
            let mut kept = near.handle.open_stream(connection).await.expect("open");
            let mut kept_far = far.arrival().await;
            let dropped = near.handle.open_stream(connection).await.expect("open");
            let mut dropped_far = far.arrival().await;

            drop(dropped);
            let mut bytes = [0; 1];
            let ended = timeout(LIMIT, dropped_far.stream.read(&mut bytes))
                .await
                .expect("the peer learns of it");
            assert!(matches!(ended, Ok(0) | Err(_)), "{ended:?}");

            kept.write_all(b"x").await.expect("write");
            kept_far.stream.read_exact(&mut bytes).await.expect("read");
            assert_eq!(&bytes, b"x");
            near.stop().await;
            far.stop().await;
        });
    }
}

#[test]
fn data_written_before_a_shutdown_arrives() {
    in_own_network(|| async {
        let (near, mut far, connection) = connected_pair(TCP).await;
        let mut stream = near.handle.open_stream(connection).await.expect("open");
        let mut arrival = far.arrival().await;
        // Less than the window, so it is all on its way when the network stops.
        let sent = content(5, 150_000);
        stream.write_all(&sent).await.expect("write");
        stream.close().await.expect("close");
        near.stop().await;

        let mut received = Vec::new();
        timeout(LIMIT, arrival.stream.read_to_end(&mut received))
            .await
            .expect("in time")
            .expect("read");
        assert!(received == sent, "{} of {}", received.len(), sent.len());
        far.stop().await;
    });
}

#[test]
fn reader_that_stops_holds_up_neither_memory_nor_other_streams() {
    for listen in [TCP, QUIC] {
        in_own_network(|| async {
            let (near, mut far, connection) = connected_pair(listen).await;
            let mut stuck = near.handle.open_stream(connection).await.expect("open");
            let stuck_far = far.arrival().await;

            // The peer never reads: what it, we, and the kernel hold for it is bounded.
            let part = content(6, 64 * 1024);
            let mut sent = Vec::new();
            while let Ok(written) = timeout(Duration::from_millis(500), stuck.write(&part)).await {
                let n = written.expect("write");
                sent.extend_from_slice(&part[..n]);
                assert!(
                    sent.len() < 16 * 1024 * 1024,
                    "a stream nobody reads took {} bytes",
                    sent.len()
                );
            }
            assert!(sent.len() >= 250_000, "the window was open: {}", sent.len());

            let stream = near.handle.open_stream(connection).await.expect("open");
            let arrival = far.arrival().await;
            let (to_far, to_near) = (content(7, 4 * 1024 * 1024), content(8, 4 * 1024 * 1024));
            let (at_near, at_far) = tokio::join!(
                exchange(stream, to_far.clone()),
                exchange(arrival.stream, to_near.clone())
            );
            assert!(at_near == to_near && at_far == to_far);

            // And it goes on when it is read after all.
            let mut reader = stuck_far.stream;
            let mut received = vec![0; sent.len()];
            timeout(LIMIT, reader.read_exact(&mut received))
                .await
                .expect("in time")
                .expect("read");
            assert!(received == sent);
            near.stop().await;
            far.stop().await;
        });
    }
}

#[test]
fn connection_and_its_streams_run_where_they_were_placed() {
    for listen in [TCP, QUIC] {
        in_own_network(|| async {
            let data = DataThread::start();
            let (near, far) = (Keypair::generate_ed25519(), Keypair::generate_ed25519());
            let near_id = near.public().to_peer_id();
            let mut far = Setup::new(&far)
                .listen(listen)
                .peer(near_id, &[])
                .data_runtime(&data.handle)
                .start();
            let address = far.listening().await;
            let mut near = Setup::new(&near)
                .peer(far.id, &[address])
                .data_runtime(&data.handle)
                .start();

            let (connection, runtime) = near
                .event(|event| match event {
                    NetworkEvent::Connected {
                        connection, runtime, ..
                    } => Some((connection, runtime)),
                    _ => None,
                })
                .await;
            assert_eq!(runtime.id(), data.handle.id());
            let stream = near.handle.open_stream(connection).await.expect("open");
            let arrival = far.arrival().await;
            assert_eq!(arrival.runtime.id(), data.handle.id());
            assert_eq!(arrival.peer, near_id);
            let seen = far.handle.snapshot().peers[0].connections[0].connection;
            assert_eq!(arrival.connection, seen);

            let (to_far, to_near) = (content(9, 4 * 1024 * 1024), content(10, 4 * 1024 * 1024));
            let (a, b) = (to_far.clone(), to_near.clone());
            let near_end = data.handle.spawn(exchange(stream, a));
            let far_end = data.handle.spawn(exchange(arrival.stream, b));
            assert!(near_end.await.expect("near") == to_near && far_end.await.expect("far") == to_far);
            stop_both(near, far).await;
        });
    }
}

#[test]
fn a_peer_is_dialled_once_more_where_it_was_reached() {
    in_own_network(|| async {
        let (mut near, mut far, first) = connected_pair(TCP).await;
        // It did not dial, so it knows no address.
        assert!(!far.handle.dial_another(near.id).await);
        assert!(near.handle.dial_another(far.id).await);

        let (peer, second) = near.connected().await;
        far.connected().await;
        assert!(peer == far.id && second != first);
        assert_eq!(far.handle.snapshot().peers[0].connections.len(), 2);
        let mut arrived = Vec::new();
        for connection in [first, second] {
            let mut stream = near.handle.open_stream(connection).await.expect("open");
            stream.write_all(b"here").await.expect("write");
            stream.flush().await.expect("flush");
            let mut arrival = far.arrival().await;
            let mut bytes = [0; 4];
            arrival.stream.read_exact(&mut bytes).await.expect("read");
            assert_eq!(&bytes, b"here");
            arrived.push(arrival.connection);
        }
        assert_ne!(arrived[0], arrived[1]);
        stop_both(near, far).await;
    });
}

#[test]
fn peers_come_and_go_and_the_others_stay_connected() {
    in_own_network(|| async {
        let (mut near, mut far, connection) = connected_pair(TCP).await;
        let third = Keypair::generate_ed25519();
        let mut third = Setup::new(&third).listen(TCP).peer(near.id, &[]).start();
        let third_address = third.listening().await;
        let config = |peer, addresses: &[&Multiaddr]| {
            PeerConfig::new(peer, addresses.iter().copied().cloned().collect())
        };

        let both = vec![config(far.id, &[]), config(third.id, &[&third_address])];
        near.handle.set_peers(both).await.expect("valid peers");
        let (peer, second) = near.connected().await;
        assert_eq!(peer, third.id);
        third.connected().await;
        let mut stream = near
            .handle
            .open_stream(connection)
            .await
            .expect("still connected");
        stream.write_all(b"here").await.expect("write");
        stream.flush().await.expect("flush");
        assert_eq!(
            far.arrival().await.connection,
            far.handle.snapshot().peers[0].connections[0].connection
        );

        let twice = vec![config(far.id, &[]), config(far.id, &[])];
        near.handle.set_peers(twice).await.expect_err("listed twice");
        let first_only = vec![config(far.id, &[])];
        near.handle.set_peers(first_only).await.expect("valid peers");
        assert_eq!(near.disconnected().await, second);
        third.disconnected().await;
        let snapshot = near.handle.snapshot();
        assert_eq!(snapshot.peers.len(), 1);
        assert_eq!(snapshot.peers[0].connections[0].connection, connection);
        third.stop().await;
        stop_both(near, far).await;
    });
}

#[test]
fn a_peer_that_sends_byte_by_byte_is_understood_and_holds_nobody_up() {
    in_own_network(|| async {
        let (slow, quick) = (Keypair::generate_ed25519(), Keypair::generate_ed25519());
        let ids = [slow.public().to_peer_id(), quick.public().to_peer_id()];
        let far = Keypair::generate_ed25519();
        let mut far = Setup::new(&far)
            .listen(TCP)
            .peer(ids[0], &[])
            .peer(ids[1], &[])
            .start();
        let far_address = far.listening().await;
        let dribble = Dribble::start(&far_address).await;
        let mut slow = Setup::new(&slow).peer(far.id, &[dribble]).start();
        let (_, slow_connection) = slow.connected().await;
        let slow_stream = slow.handle.open_stream(slow_connection).await.expect("open");
        let slow_arrival = far.arrival().await;
        // Less than a whole record holds: one that takes seconds to come, as it does on a busy machine, is no sign of life.
        let slow_content = [content(11, 4_000), content(12, 4_000)];
        let slow_exchange = tokio::spawn(async move {
            tokio::join!(
                exchange(slow_stream, slow_content[0].clone()),
                exchange(slow_arrival.stream, slow_content[1].clone())
            ) == (slow_content[1].clone(), slow_content[0].clone())
        });

        let mut quick = Setup::new(&quick).peer(far.id, &[far_address]).start();
        let (_, connection) = quick.connected().await;
        let stream = quick.handle.open_stream(connection).await.expect("open");
        let arrival = far.arrival().await;
        let (to_far, to_near) = (content(13, 1 << 20), content(14, 1 << 20));
        let (at_near, at_far) = tokio::join!(
            exchange(stream, to_far.clone()),
            exchange(arrival.stream, to_near.clone())
        );

        assert!(at_near == to_near && at_far == to_far, "the quick peer's");
        assert!(slow_exchange.await.expect("exchange"), "the slow peer's");
        slow.stop().await;
        stop_both(quick, far).await;
    });
}

async fn stop_both(near: Node, far: Node) {
    near.stop().await;
    far.stop().await;
}

/// Passes TCP connections on, a byte per segment.
struct Dribble;

impl Dribble {
    /// Returns where it listens for connections to `target`.
    async fn start(target: &Multiaddr) -> Multiaddr {
        let port = target.to_string().rsplit('/').next().map(str::parse::<u16>);
        let port = port.expect("a port").expect("a number");
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
        let at = listener.local_addr().expect("address");
        tokio::spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                let far = TcpStream::connect(("127.0.0.1", port)).await.expect("connect");
                for socket in [&near, &far] {
                    socket.set_nodelay(true).expect("nodelay");
                }
                let (near, far) = (near.into_split(), far.into_split());
                tokio::spawn(Self::pass(near.0, far.1));
                tokio::spawn(Self::pass(far.0, near.1));
            }
        });
        address(&format!("/ip4/127.0.0.1/tcp/{}", at.port()))
    }

    /// Ends with either side.
    async fn pass(mut from: tcp::OwnedReadHalf, mut to: tcp::OwnedWriteHalf) {
        while let Ok(byte) = from.read_u8().await {
            if to.write_u8(byte).await.is_err() {
                return;
            }
            tokio::task::yield_now().await;
        }
    }
}

/// A current-thread runtime on a thread of its own, in the namespace of the test.
struct DataThread {
    handle: tokio::runtime::Handle,
    stop: Option<tokio::sync::oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl DataThread {
    fn start() -> Self {
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let runtime = runtime();
        let handle = runtime.handle().clone();
        let thread = std::thread::spawn(move || {
            // It ends when the sender is dropped, too.
            let _ended = runtime.block_on(stopped);
        });
        Self {
            handle,
            stop: Some(stop),
            thread: Some(thread),
        }
    }
}

impl Drop for DataThread {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            thread.join().expect("the data thread ends");
        }
    }
}
