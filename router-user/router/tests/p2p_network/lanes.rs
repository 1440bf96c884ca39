//! Streams of one lane on several connections: each is read after the one before it, and only then.

use std::time::Duration;

use futures::{AsyncReadExt, AsyncWriteExt};
use libp2p::identity::Keypair;
use tokio::time::timeout;

use super::stock::{Security, StockNode};
use super::support::{Arrival, LIMIT, Node, Setup, connected_pair, content, exchange, in_own_network};
use stream_router::LaneId;
use stream_router::LaneStream;
use stream_router::p2p::ConnectionId;

const TCP: &str = "/ip4/127.0.0.1/tcp/0";
const QUIC: &str = "/ip4/127.0.0.1/udp/0/quic-v1";

/// Long enough for a stream to be read that nothing keeps from it.
const SOON: Duration = Duration::from_millis(200);

fn place(number: u64, after_loss: bool) -> LaneStream {
    LaneStream {
        lane: LaneId { set: 42, index: 5 },
        number,
        after_loss,
    }
}

/// Opens a stream, writes `bytes`, and closes it if `closed`. Returns what came of it on the other side.
async fn send(
    near: &Node,
    far: &mut Node,
    connection: ConnectionId,
    place: LaneStream,
    bytes: &[u8],
    closed: bool,
) -> (stream_router::p2p::DataStream, Arrival) {
    let opened = near.handle.open_stream_in_lane(connection, place).await;
    let mut stream = opened.expect("open");
    stream.write_all(bytes).await.expect("write");
    stream.flush().await.expect("flush");
    if closed {
        stream.close().await.expect("close");
    }
    let arrival = far.arrival().await;
    (stream, arrival)
}

async fn read(arrival: &mut Arrival, n: usize) -> Vec<u8> {
    let mut bytes = vec![0; n];
    let read = arrival.stream.read_exact(&mut bytes);
    timeout(LIMIT, read).await.expect("in time").expect("read");
    bytes
}

#[test]
fn a_stream_on_another_connection_is_read_once_the_one_before_it_was_read_to_its_end() {
    in_own_network(|| async {
        let (mut near, mut far, first) = connected_pair(TCP).await;
        assert!(near.handle.dial_another(far.id).await);
        let (_, second) = near.connected().await;
        let (_old, mut older) = send(&near, &mut far, first, place(1, false), b"older", false).await;
        let (_new, mut newer) = send(&near, &mut far, second, place(2, false), b"newer", false).await;
        assert_ne!(older.connection, newer.connection);

        let mut byte = [0];
        let early = timeout(SOON, newer.stream.read(&mut byte)).await;
        assert!(early.is_err(), "read before its turn: {early:?}");
        assert_eq!(read(&mut older, 5).await, b"older");
        let early = timeout(SOON, newer.stream.read(&mut byte)).await;
        assert!(early.is_err(), "read before its turn: {early:?}");
        drop(_old);
        let end = timeout(LIMIT, older.stream.read(&mut byte))
            .await
            .expect("in time");
        assert_eq!(end.expect("an end"), 0);

        assert_eq!(read(&mut newer, 5).await, b"newer");
        near.stop().await;
        far.stop().await;
    });
}

#[test]
fn what_came_on_a_lost_connection_is_read_before_the_next_stream() {
    in_own_network(|| async {
        let (mut near, mut far, first) = connected_pair(TCP).await;
        assert!(near.handle.dial_another(far.id).await);
        let (_, second) = near.connected().await;
        let sent = content(1, 150_000);
        let (_old, mut older) = send(&near, &mut far, first, place(1, false), &sent, false).await;
        // Read once, so that all of it is there.
        assert_eq!(read(&mut older, 100_000).await, sent[..100_000]);
        near.handle.close_connection(first).await;
        assert_eq!(near.disconnected().await, first);
        let (_new, mut newer) = send(&near, &mut far, second, place(2, true), b"newer", false).await;
        far.disconnected().await;

        let reads_newer = tokio::spawn(async move { (read(&mut newer, 5).await, newer) });
        tokio::time::sleep(SOON).await;
        assert!(!reads_newer.is_finished());
        assert_eq!(read(&mut older, 50_000).await, sent[100_000..]);
        assert!(!reads_newer.is_finished());
        let mut byte = [0];
        let end = timeout(LIMIT, older.stream.read(&mut byte))
            .await
            .expect("in time");
        assert!(matches!(end, Ok(0) | Err(_)), "{end:?}");

        let (bytes, _newer) = timeout(LIMIT, reads_newer)
            .await
            .expect("in time")
            .expect("no panic");
        assert_eq!(bytes, b"newer");
        assert_eq!(far.handle.snapshot().counters.lane_streams_cut, 0);
        near.stop().await;
        far.stop().await;
    });
}

#[test]
fn a_stream_that_does_not_end_is_cut_for_good() {
    for listen in [TCP, QUIC] {
        in_own_network(|| async {
            let (near, mut far, connection) = connected_pair(listen).await;
            let (mut old, mut older) =
                send(&near, &mut far, connection, place(1, false), b"older", false).await;
            assert_eq!(read(&mut older, 5).await, b"older");
            let reads_older = tokio::spawn(async move {
                let mut byte = [0];
                older.stream.read(&mut byte).await
            });
            let (_new, mut newer) = send(&near, &mut far, connection, place(2, true), b"newer", false).await;

            assert_eq!(read(&mut newer, 5).await, b"newer");

            let cut = timeout(LIMIT, reads_older)
                .await
                .expect("in time")
                .expect("no panic");
            assert_eq!(
                cut.expect_err("an error").kind(),
                std::io::ErrorKind::ConnectionAborted
            );
            assert_eq!(far.handle.snapshot().counters.lane_streams_cut, 1);
            // The sender learns of it.
            let mut byte = [0];
            let ended = timeout(LIMIT, old.read(&mut byte)).await.expect("in time");
            assert!(matches!(ended, Ok(0) | Err(_)), "{ended:?}");
            near.stop().await;
            far.stop().await;
        });
    }
}

#[test]
fn a_stream_whose_number_is_passed_is_reset_and_counted() {
    for listen in [TCP, QUIC] {
        in_own_network(|| async {
            let (near, mut far, connection) = connected_pair(listen).await;
            let (_new, mut newer) = send(&near, &mut far, connection, place(7, false), b"newer", true).await;
            assert_eq!(read(&mut newer, 5).await, b"newer");

            let opened = near.handle.open_stream_in_lane(connection, place(6, false)).await;
            let mut older = opened.expect("open");

            let mut byte = [0];
            let ended = timeout(LIMIT, older.read(&mut byte)).await.expect("in time");
            assert!(matches!(ended, Ok(0) | Err(_)), "{ended:?}");
            assert_eq!(far.handle.snapshot().counters.lane_streams_refused, 1);
            assert!(far.arrivals.try_recv().is_err(), "nobody got it");
            near.stop().await;
            far.stop().await;
        });
    }
}

#[test]
fn a_peer_that_knows_only_the_first_version_gets_streams_of_it() {
    in_own_network(|| async {
        let (ours, theirs) = (Keypair::generate_ed25519(), Keypair::generate_ed25519());
        let mut stock = StockNode::start(&theirs, Security::TlsAndNoise, TCP, None, 0).await;
        let mut node = Setup::new(&ours)
            .peer(stock.id, std::slice::from_ref(&stock.address))
            .start();
        let (_, connection) = node.connected().await;

        let opened = node.handle.open_stream_in_lane(connection, place(1, false)).await;
        let near = opened.expect("open");

        let far = stock.stream().await;
        let (to_far, to_near) = (content(1, 100_000), content(2, 100_000));
        let (at_near, at_far) = tokio::join!(exchange(near, to_far.clone()), exchange(far, to_near.clone()));
        assert!(
            at_near == to_near && at_far == to_far,
            "no preamble before the frames"
        );
        node.stop().await;
    });
}
