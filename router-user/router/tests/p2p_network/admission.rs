//! Who gets in, and how far.

use futures::{AsyncReadExt, AsyncWriteExt};

use super::{
    stock::{Security, StockNode},
    support::{LIMIT, Setup, connected_pair, in_own_network},
};
use stream_router::p2p::{
    Keypair, MAX_CONNECTIONS_PER_PEER, MAX_STREAMS_PER_SIDE, NetworkEvent, OpenError, PeerConfig, PeerId,
    StartError,
};

const TCP: &str = "/ip4/127.0.0.1/tcp/0";

#[test]
fn unknown_peer_gets_no_connection() {
    for listen in [TCP, "/ip4/127.0.0.1/udp/0/quic-v1"] {
        in_own_network(|| async {
            let (ours, stranger) = (Keypair::generate_ed25519(), Keypair::generate_ed25519());
            let mut node = Setup::new(&ours)
                .listen(listen)
                .peer(PeerId::random(), &[])
                .start();
            let address = node.listening().await;
            let mut stock =
                StockNode::start(&stranger, Security::TlsAndNoise, listen, Some(address), 1).await;

            stock.ended().await;

            node.until(|state| state.counters.unknown_peers_refused == 1)
                .await;
            assert!(node.arrivals.try_recv().is_err(), "no stream of a stranger");
            while let Ok(event) = node.events.try_recv() {
                assert!(!matches!(event, NetworkEvent::Connected { .. }), "{event:?}");
            }
            node.stop().await;
        });
    }
}

#[test]
fn address_of_another_peer_is_not_taken_for_the_expected_one() {
    for listen in [TCP, "/ip4/127.0.0.1/udp/0/quic-v1"] {
        in_own_network(|| async {
            let (ours, other) = (Keypair::generate_ed25519(), Keypair::generate_ed25519());
            let stock = StockNode::start(&other, Security::TlsAndNoise, listen, None, 0).await;
            let expected = PeerId::random();
            let mut node = Setup::new(&ours)
                .peer(expected, std::slice::from_ref(&stock.address))
                .start();

            let named = stock.id.to_string();
            node.until(|state| {
                state.peers[0]
                    .last_dial_error
                    .as_ref()
                    .is_some_and(|e| e.contains(&named))
            })
            .await;

            // The same reason is told once, however often it is met.
            node.until(|state| state.counters.dial_failures >= 2).await;
            let mut told = Vec::new();
            while let Ok(event) = node.events.try_recv() {
                assert!(!matches!(event, NetworkEvent::Connected { .. }), "{event:?}");
                if let NetworkEvent::Unreached { peer, error, took } = event {
                    assert!(peer == expected && error.contains(&named), "{peer} {error}");
                    told.push(took);
                }
            }
            assert!(told.len() == 1 && !told[0].is_zero(), "{told:?}");
            node.stop().await;
        });
    }
}

#[test]
fn peer_gets_no_more_connections_than_it_may() {
    in_own_network(|| async {
        let (ours, theirs) = (Keypair::generate_ed25519(), Keypair::generate_ed25519());
        let mut node = Setup::new(&ours)
            .listen(TCP)
            .peer(theirs.public().to_peer_id(), &[])
            .start();
        let address = node.listening().await;
        let mut admitted = Vec::new();
        for _ in 0..MAX_CONNECTIONS_PER_PEER {
            admitted
                .push(StockNode::start(&theirs, Security::TlsAndNoise, TCP, Some(address.clone()), 0).await);
            node.connected().await;
        }
        let mut excess =
            StockNode::start(&theirs, Security::TlsAndNoise, TCP, Some(address.clone()), 0).await;

        excess.ended().await;

        let state = node.handle.snapshot();
        assert_eq!(state.counters.connections_refused, 1);
        assert_eq!(state.peers[0].connections.len(), MAX_CONNECTIONS_PER_PEER);
        drop(admitted.pop());
        node.disconnected().await;
        let _next = StockNode::start(&theirs, Security::TlsAndNoise, TCP, Some(address), 0).await;
        node.connected().await;
        node.stop().await;
    });
}

#[test]
fn streams_beyond_the_limit_are_reset_and_counted_and_the_others_go_on() {
    in_own_network(|| async {
        const EXCESS: usize = 8;
        let (ours, theirs) = (Keypair::generate_ed25519(), Keypair::generate_ed25519());
        let mut node = Setup::new(&ours)
            .listen(TCP)
            .peer(theirs.public().to_peer_id(), &[])
            .start();
        let address = node.listening().await;
        let n_open = MAX_STREAMS_PER_SIDE + EXCESS;
        let mut stock = StockNode::start(&theirs, Security::TlsAndNoise, TCP, Some(address), n_open).await;

        let mut far = Vec::new();
        for _ in 0..n_open {
            far.push(stock.stream().await);
        }
        let mut near = Vec::new();
        for _ in 0..MAX_STREAMS_PER_SIDE {
            near.push(node.arrival().await);
        }
        node.until(|state| state.counters.streams_refused == EXCESS as u64)
            .await;
        assert_eq!(
            node.handle.snapshot().peers[0].connections[0].n_inbound_streams,
            MAX_STREAMS_PER_SIDE
        );

        let mut n_alive = 0;
        for arrival in &mut near {
            arrival.stream.write_all(b"still here").await.expect("write");
        }
        for stream in &mut far {
            let mut bytes = [0; 10];
            match tokio::time::timeout(LIMIT, stream.read_exact(&mut bytes))
                .await
                .expect("in time")
            {
                Ok(()) => n_alive += 1,
                Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::UnexpectedEof),
            }
        }
        assert_eq!(n_alive, MAX_STREAMS_PER_SIDE);

        drop(near);
        node.until(|state| state.peers[0].connections[0].n_inbound_streams == 0)
            .await;
        node.stop().await;
    });
}

#[test]
fn we_open_no_more_streams_than_we_may() {
    in_own_network(|| async {
        let (near, mut far, connection) = connected_pair(TCP).await;
        let mut streams = Vec::new();
        for _ in 0..MAX_STREAMS_PER_SIDE {
            streams.push(near.handle.open_stream(connection).await.expect("open"));
            far.arrival().await;
        }
        assert!(matches!(
            near.handle.open_stream(connection).await,
            Err(OpenError::TooManyStreams)
        ));

        streams.pop();
        near.handle
            .open_stream(connection)
            .await
            .expect("there is room again");
        near.stop().await;
        far.stop().await;
    });
}

#[test]
fn stream_on_a_closed_connection_is_an_error() {
    in_own_network(|| async {
        let (mut near, far, connection) = connected_pair(TCP).await;
        far.stop().await;
        assert_eq!(near.disconnected().await, connection);
        assert!(matches!(
            near.handle.open_stream(connection).await,
            Err(OpenError::NotConnected)
        ));
        near.stop().await;
    });
}

#[test]
fn busy_listen_address_is_an_error_that_names_it() {
    in_own_network(|| async {
        for (listen, suffix) in [("/ip4/127.0.0.1/tcp/", ""), ("/ip4/127.0.0.1/udp/", "/quic-v1")] {
            let any = format!("{listen}0{suffix}");
            let mut first = Setup::new(&Keypair::generate_ed25519()).listen(&any).start();
            let taken = first.listening().await;

            let second = Setup::new(&Keypair::generate_ed25519())
                .listen(&taken.to_string())
                .try_start();

            match second.map(|_| ()) {
                Err(StartError::Listen { address, source }) => {
                    assert_eq!(address, taken);
                    assert!(format!("{source:?}").contains("AddrInUse"), "{source:?}");
                }
                other => panic!("{other:?}"),
            }
            first.stop().await;
        }
    });
}

#[test]
fn contradicting_configuration_is_an_error() {
    in_own_network(|| async {
        let keypair = Keypair::generate_ed25519();
        let own = keypair.public().to_peer_id();
        let start = Setup::new(&keypair).peer(own, &[]).try_start();
        assert!(matches!(start.map(|_| ()), Err(StartError::OwnPeer { peer }) if peer == own));

        let twice = PeerId::random();
        let start = Setup::new(&keypair).peer(twice, &[]).peer(twice, &[]).try_start();
        assert!(matches!(start.map(|_| ()), Err(StartError::DuplicatePeer { peer }) if peer == twice));

        let start = Setup::new(&keypair).listen("/ip4/127.0.0.1/tcp/0/ws").try_start();
        assert!(matches!(start.map(|_| ()), Err(StartError::Address(_))));
    });
}

#[test]
fn a_node_that_its_peer_does_not_know_is_told_so_and_connects_once_it_is_known() {
    for listen in [TCP, "/ip4/127.0.0.1/udp/0/quic-v1"] {
        in_own_network(|| async {
            let (near, far) = (Keypair::generate_ed25519(), Keypair::generate_ed25519());
            let mut far = Setup::new(&far)
                .listen(listen)
                .peer(PeerId::random(), &[])
                .start();
            let address = far.listening().await;
            let mut near = Setup::new(&near).peer(far.id, &[address]).start();

            near.until(|state| state.counters.dial_failures >= 2 && state.peers[0].refuses)
                .await;

            let state = near.handle.snapshot();
            let error = state.peers[0].last_dial_error.as_deref().unwrap_or_default();
            assert!(error.contains("does not know this node"), "{listen}: {error}");
            assert!(state.peers[0].connections.is_empty());
            while let Ok(event) = near.events.try_recv() {
                assert!(!matches!(event, NetworkEvent::Connected { .. }), "{event:?}");
            }
            // Each failure is of one dial, which the peer has refused.
            let n_refused = far.handle.snapshot().counters.unknown_peers_refused;
            let n_failed = near.handle.snapshot().counters.dial_failures;
            assert!(n_refused.abs_diff(n_failed) <= 1, "{n_refused} {n_failed}");
            assert_eq!(far.handle.snapshot().counters.inbound_failures, 0);

            let knows = PeerConfig::new(near.id, Vec::new());
            far.handle.set_peers(vec![knows]).await.expect("the peers");
            assert_eq!(near.connected().await.0, far.id);
            assert!(!near.handle.snapshot().peers[0].refuses);
            assert_eq!(near.handle.snapshot().peers[0].last_dial_error, None);
            near.stop().await;
            far.stop().await;
        });
    }
}
