//! Connections that are left in order: those that nothing is sent on, and those beside better ones.

use std::time::Duration;

use futures::{AsyncReadExt, AsyncWriteExt};
use libp2p::identity::Keypair;
use tokio::{
    net::{TcpListener, TcpStream},
    task::{JoinHandle, JoinSet},
    time::{sleep, timeout},
};

use super::support::{Arrival, LIMIT, Node, Setup, address, content, in_own_network, until};
use stream_router::p2p::{ConnectionId, Multiaddr, NetworkEvent, OpenError};

const TRANSPORTS: [&str; 2] = ["tcp/400N", "udp/400N/quic-v1"];

/// After so long without packets a connection is left.
const IDLE_TIME: Duration = Duration::from_secs(3);

/// Longer than a node takes to dial a peer that it has lost.
const REDIALLED: Duration = Duration::from_secs(3);

/// Two nodes that each know where the other one is, and connect on demand.
async fn pair_on_demand(transport: &str) -> [Node; 2] {
    let keys = [(); 2].map(|()| Keypair::generate_ed25519());
    let at = ["1", "2"].map(|n| format!("/ip4/127.0.0.1/{}", transport.replace('N', n)));
    let ids = [0, 1].map(|n| keys[n].public().to_peer_id());
    let start = |own: usize, other: usize| {
        Setup::new(&keys[own])
            .listen(&at[own])
            .on_demand(ids[other], &[address(&at[other])])
            .idle_time(IDLE_TIME)
            .start()
    };
    let mut nodes = [start(0, 1), start(1, 0)];
    for node in &mut nodes {
        node.listening().await;
    }
    nodes
}

/// Has the first node dial the second. Returns the connection, as each of them names it.
async fn dial(near: &mut Node, far: &mut Node) -> [ConnectionId; 2] {
    near.handle.dial_wanted(far.id).await;
    let (_, connection) = near.connected().await;
    [connection, far.connected().await.1]
}

async fn leaving(node: &mut Node) -> ConnectionId {
    let leaving = async {
        loop {
            let event = node.events.recv().await.expect("the network runs");
            if let NetworkEvent::Leaving { connection, .. } = event {
                return connection;
            }
        }
    };
    // A better address is dialled every half minute.
    timeout(2 * LIMIT, leaving).await.expect("it is left in time")
}

async fn read_all(mut arrival: Arrival) -> Vec<u8> {
    let mut bytes = Vec::new();
    let read = arrival.stream.read_to_end(&mut bytes);
    timeout(LIMIT, read).await.expect("in time").expect("read");
    bytes
}

#[test]
fn both_sides_rest_once_nothing_is_sent_and_either_brings_the_other_back() {
    for transport in TRANSPORTS {
        in_own_network(|| async move {
            let [mut one, mut two] = pair_on_demand(transport).await;
            for round in 0..2 {
                let (near, far) = match round {
                    0 => (&mut one, &mut two),
                    _ => (&mut two, &mut one),
                };
                dial(near, far).await;

                near.disconnected().await;
                far.disconnected().await;

                // Nothing is there to wait for but time.
                sleep(REDIALLED).await;
                for node in [&mut *near, &mut *far] {
                    let snapshot = node.handle.snapshot();
                    assert!(snapshot.peers[0].connections.is_empty(), "{snapshot:?}");
                    let more = std::iter::from_fn(|| node.events.try_recv().ok());
                    let more: Vec<_> = more
                        .filter(|event| matches!(event, NetworkEvent::Connected { .. }))
                        .collect();
                    assert!(more.is_empty(), "{transport}: {more:?}");
                }
            }
            one.stop().await;
            two.stop().await;
        });
    }
}

#[test]
fn a_peer_that_is_wanted_while_it_comes_to_rest_is_dialled_anew() {
    in_own_network(|| async {
        let [mut near, mut far] = pair_on_demand(TRANSPORTS[0]).await;
        let [first, far_first] = dial(&mut near, &mut far).await;
        let mut sending = far.handle.open_stream(far_first).await.expect("open");
        sending.write_all(b"early").await.expect("write");
        sending.flush().await.expect("flush");
        let arrival = near.arrival().await;
        assert_eq!(leaving(&mut near).await, first);

        let [second, _] = dial(&mut near, &mut far).await;

        assert_ne!(second, first);
        let state = near.handle.snapshot();
        let leaving: Vec<_> = state.peers[0]
            .connections
            .iter()
            .map(|connection| (connection.connection, connection.is_leaving))
            .collect();
        assert_eq!(leaving, [(second, false), (first, true)]);
        drop((sending, arrival));
        assert_eq!(near.disconnected().await, first);
        near.stop().await;
        far.stop().await;
    });
}

#[test]
fn what_either_side_sends_while_a_connection_is_left_arrives_before_it_is_closed() {
    for transport in TRANSPORTS {
        in_own_network(|| async move {
            let [mut near, mut far] = pair_on_demand(transport).await;
            let [connection, far_connection] = dial(&mut near, &mut far).await;
            let mut from_near = near.handle.open_stream(connection).await.expect("open");
            let mut from_far = far.handle.open_stream(far_connection).await.expect("open");
            for stream in [&mut from_near, &mut from_far] {
                stream.write_all(b"early").await.expect("write");
                stream.flush().await.expect("flush");
            }
            let (at_near, at_far) = (near.arrival().await, far.arrival().await);

            assert_eq!(leaving(&mut near).await, connection);
            assert_eq!(leaving(&mut far).await, far_connection);
            for (node, connection) in [(&near, connection), (&far, far_connection)] {
                let refused = node.handle.open_stream(connection).await;
                assert!(matches!(refused, Err(OpenError::NotConnected)), "{refused:?}");
            }
            let sent = [content(1, 100_000), content(2, 100_000)];
            for (stream, bytes) in [&mut from_near, &mut from_far].into_iter().zip(&sent) {
                stream.write_all(bytes).await.expect("write");
                stream.close().await.expect("close");
            }
            drop((from_near, from_far));
            // Long after everything has come: it is not read yet.
            sleep(2 * IDLE_TIME).await;
            let early = |bytes: &[u8]| [b"early", bytes].concat();
            assert!(
                read_all(at_far).await == early(&sent[0]),
                "{transport}: to the far side"
            );
            assert!(
                read_all(at_near).await == early(&sent[1]),
                "{transport}: to the near side"
            );

            assert_eq!(near.disconnected().await, connection);
            assert_eq!(far.disconnected().await, far_connection);
            near.stop().await;
            far.stop().await;
        });
    }
}

/// Another way to a node over TCP.
struct Way(JoinHandle<()>);

impl Way {
    async fn open(at: &str, to: &Multiaddr) -> Self {
        let listener = TcpListener::bind(at).await.expect("bind");
        let to = to.to_string().rsplit('/').next().map(str::to_owned);
        let to = format!("127.0.0.1:{}", to.expect("a port"));
        Self(tokio::spawn(async move {
            let mut ways = JoinSet::new();
            while let Ok((mut from, _)) = listener.accept().await {
                let mut to = TcpStream::connect(&to).await.expect("connect");
                // It ends as its sides do.
                ways.spawn(async move { tokio::io::copy_bidirectional(&mut from, &mut to).await });
            }
        }))
    }

    async fn close(self) {
        self.0.abort();
        let _aborted = self.0.await;
    }
}

#[test]
fn a_connection_that_was_to_be_left_stays_if_the_better_one_fails() {
    in_own_network(|| async {
        let (near, far) = (Keypair::generate_ed25519(), Keypair::generate_ed25519());
        let near_id = near.public().to_peer_id();
        let mut far = Setup::new(&far)
            .listen("/ip4/127.0.0.1/tcp/0")
            .peer(near_id, &[])
            .start();
        let worse = far.listening().await;
        let better = address("/ip4/127.0.0.1/tcp/4009");
        let mut near = Setup::new(&near)
            .peer(far.id, &[better, worse.clone()])
            .idle_time(IDLE_TIME)
            .start();
        let (_, first) = near.connected().await;
        let (_, far_first) = far.connected().await;
        let mut in_use = near.handle.open_stream(first).await.expect("open");
        in_use.write_all(b"early").await.expect("write");
        in_use.flush().await.expect("flush");
        let mut arrival = far.arrival().await;
        let way = Way::open("127.0.0.1:4009", &worse).await;
        assert_eq!(leaving(&mut near).await, first);
        assert_eq!(leaving(&mut far).await, far_first);

        way.close().await;

        for (node, connection) in [(&mut near, first), (&mut far, far_first)] {
            let stays = node
                .event(|event| match event {
                    NetworkEvent::Staying { connection, .. } => Some(connection),
                    _ => None,
                })
                .await;
            assert_eq!(stays, connection);
        }
        in_use.write_all(b" and late").await.expect("write");
        in_use.close().await.expect("close");
        let mut bytes = Vec::new();
        let read = arrival.stream.read_to_end(&mut bytes);
        timeout(LIMIT, read).await.expect("in time").expect("read");
        assert_eq!(bytes, b"early and late");
        for (node, connection) in [(&near, first), (&far, far_first)] {
            let connections = &node.handle.snapshot().peers[0].connections;
            let stays = |id| {
                connections
                    .iter()
                    .any(|known| known.connection == id && !known.is_leaving)
            };
            assert!(stays(connection), "{connections:?}");
            let mut opened = None;
            // The other side may still be about to hear that it stays.
            while opened.is_none() {
                opened = node.handle.open_stream(connection).await.ok();
                sleep(Duration::from_millis(50)).await;
            }
        }
        until("nothing is left", || {
            near.handle.snapshot().peers[0].connections.len() == 1
        })
        .await;
        near.stop().await;
        far.stop().await;
    });
}
