//! A relay, and clients of it that are not of ours.

use std::time::{Duration, Instant};

use futures::{AsyncReadExt, AsyncWriteExt};
use libp2p::Stream;
use tokio::time::timeout;

use super::{
    relay_client::{Client, Event, RESERVE, connect_to, status, take_circuit, write},
    support::{LIMIT, Node, Setup, content, exchange, in_own_network},
};
use stream_router::p2p::{
    Keypair, Multiaddr, NetworkSnapshot, PeerId, RelayConfig, RelayRates, ServeConfig, ServedSnapshot,
};

const OK: u16 = 100;
const RESOURCE_LIMIT_EXCEEDED: u16 = 201;
const PERMISSION_DENIED: u16 = 202;
const CONNECTION_FAILED: u16 = 203;
const NO_RESERVATION: u16 = 204;
const MALFORMED_MESSAGE: u16 = 400;
const UNEXPECTED_MESSAGE: u16 = 401;

/// A relay for two peers.
struct Relay {
    node: Node,
    at: Multiaddr,
}

impl Relay {
    async fn start(serve: ServeConfig, peers: &[Keypair]) -> Self {
        let own = Keypair::generate_ed25519();
        let setup = Setup::new(&own).listen("/ip4/127.0.0.1/tcp/0");
        let ids = peers.iter().map(|keypair| keypair.public().to_peer_id());
        let setup = ids.fold(setup, |setup, id| setup.peer(id, &[]));
        let mut node = setup
            .relay(RelayConfig {
                via: Vec::new(),
                serve: Some(serve),
            })
            .start();
        let at = node.listening().await;
        Self { node, at }
    }

    fn circuit(&self) -> Multiaddr {
        let text = format!("{}/p2p/{}/p2p-circuit", self.at, self.node.id);
        text.parse().expect("an address")
    }

    fn serves(&self) -> ServedSnapshot {
        self.node.handle.reach().serves.expect("it is a relay")
    }

    async fn until(&self, wanted: impl Fn(&NetworkSnapshot, ServedSnapshot) -> bool) {
        let wanted = |snapshot: &NetworkSnapshot| {
            snapshot
                .reach
                .serves
                .is_some_and(|serves| wanted(snapshot, serves))
        };
        self.node.until(wanted).await;
    }
}

fn keypairs() -> [Keypair; 2] {
    [(); 2].map(|()| Keypair::generate_ed25519())
}

/// A relay, and two nodes that say what a test writes; the second has a place.
async fn pair(serve: ServeConfig) -> (Relay, Client, Client) {
    let keypairs = keypairs();
    let relay = Relay::start(serve, &keypairs).await;
    let [mut near, mut far] = keypairs.each_ref().map(Client::raw);
    for client in [&mut near, &mut far] {
        client.connect(relay.at.clone(), relay.node.id).await;
    }
    assert_eq!(asked(&mut far, relay.node.id, &RESERVE).await, OK);
    (relay, near, far)
}

/// Asks a relay, and returns the status that it answers with.
async fn asked(client: &mut Client, relay: PeerId, request: &[u8]) -> u16 {
    let mut stream = client.ask(relay).await;
    write(&mut stream, request).await;
    status(&mut stream).await
}

/// Makes a circuit.
async fn circuit(relay: &Relay, near: &mut Client, far: &mut Client) -> [Stream; 2] {
    let mut stream = near.ask(relay.node.id).await;
    write(&mut stream, &connect_to(far.id)).await;
    let at_far = take_circuit(far, near.id, OK).await;
    assert_eq!(status(&mut stream).await, OK);
    [stream, at_far]
}

/// Sends all on one stream, and closes it; reads all from the other one, to its end.
async fn carry(from: &mut Stream, to: &mut Stream, bytes: &[u8]) -> Vec<u8> {
    let mut received = Vec::new();
    let work = async {
        let send = async {
            from.write_all(bytes).await.expect("write");
            from.close().await.expect("close");
        };
        let (_, read) = tokio::join!(send, to.read_to_end(&mut received));
        read.expect("read");
    };
    timeout(LIMIT, work).await.expect("it arrives in time");
    received
}

#[test]
fn stock_nodes_reach_each_other_through_a_relay_of_ours() {
    in_own_network(async || {
        let keypairs = keypairs();
        let relay = Relay::start(ServeConfig::default(), &keypairs).await;
        let [mut near, mut far] = keypairs.each_ref().map(Client::stock);

        far.listen(relay.circuit()).await;
        far.until(|event| matches!(event, Event::Reserved)).await;
        let to_far = relay.circuit().with(libp2p::multiaddr::Protocol::P2p(far.id));
        near.connect(to_far, far.id).await;

        let (here, there) = (content(1, 4 << 20), content(2, 4 << 20));
        let stream = near.talk(far.id).await;
        let answer = async { exchange(far.stream().await, there.clone()).await };
        let (at_near, at_far) = tokio::join!(exchange(stream, here.clone()), answer);

        assert!(at_near == there && at_far == here);
        let served = relay.serves();
        assert_eq!((served.n_reservations, served.n_circuits), (1, 1));
        assert!(served.n_bytes > 8 << 20, "{served:?}");
        let counters = relay.node.handle.counters();
        assert_eq!((counters.reservations_given, counters.circuits_relayed), (1, 1));
        relay.node.stop().await;
    });
}

#[test]
fn a_stranger_gets_neither_a_place_nor_a_circuit_and_is_counted() {
    in_own_network(async || {
        let (relay, _near, far) = pair(ServeConfig::default()).await;
        for listens in [true, false] {
            let mut stranger = Client::stock(&Keypair::generate_ed25519());
            let to_far = relay.circuit().with(libp2p::multiaddr::Protocol::P2p(far.id));
            match listens {
                true => stranger.listen(relay.circuit()).await,
                false => stranger.dial(to_far).await,
            }
            stranger.until(|event| matches!(event, Event::Ended)).await;
        }
        relay
            .until(|snapshot, _| snapshot.counters.unknown_peers_refused >= 2)
            .await;
        let counters = relay.node.handle.counters();
        assert_eq!((counters.reservations_given, counters.circuits_relayed), (1, 0));
        assert_eq!(relay.serves().n_circuits, 0);
        relay.node.stop().await;
    });
}

#[test]
fn what_is_no_request_ends_its_stream_alone() {
    in_own_network(async || {
        let (relay, mut near, _far) = pair(ServeConfig::default()).await;
        let id = relay.node.id;
        for (request, answer) in [
            (&[3, 0x08, 0xff, 0xff][..], MALFORMED_MESSAGE),
            (&[2, 0x08, 9], MALFORMED_MESSAGE),
            (&[2, 0x08, 1], MALFORMED_MESSAGE),
            (&[0xff, 0xff, 0x7f], MALFORMED_MESSAGE),
            (&[4, 0x08, 2, 0x28, 100], UNEXPECTED_MESSAGE),
        ] {
            assert_eq!(asked(&mut near, id, request).await, answer, "{request:?}");
        }

        // One that says nothing is waited for, and as many as may be; the rest end at once.
        let mut silent = Vec::new();
        for _ in 0..40 {
            silent.push(near.ask(id).await);
        }
        relay
            .until(|snapshot, _| snapshot.counters.relay_requests_refused >= 5 + 8)
            .await;
        relay
            .until(|snapshot, _| snapshot.counters.relay_requests_refused == 5 + 40)
            .await;

        assert_eq!(asked(&mut near, id, &RESERVE).await, OK);
        assert_eq!(relay.serves().n_reservations, 2);
        relay.node.stop().await;
    });
}

#[test]
fn a_circuit_that_cannot_be_is_refused_with_the_reason_and_counted() {
    in_own_network(async || {
        let one = ServeConfig {
            max_circuits_per_peer: 1,
            ..ServeConfig::default()
        };
        let (relay, mut near, mut far) = pair(one).await;
        let id = relay.node.id;
        let to_near = connect_to(near.id);
        assert_eq!(asked(&mut far, id, &to_near).await, NO_RESERVATION);

        let mut stream = near.ask(id).await;
        write(&mut stream, &connect_to(far.id)).await;
        drop(take_circuit(&mut far, near.id, PERMISSION_DENIED).await);
        assert_eq!(status(&mut stream).await, CONNECTION_FAILED);
        relay
            .until(|snapshot, serves| snapshot.counters.circuits_without_end == 2 && serves.n_circuits == 0)
            .await;

        let standing = circuit(&relay, &mut near, &mut far).await;
        let again = connect_to(far.id);
        assert_eq!(asked(&mut near, id, &again).await, RESOURCE_LIMIT_EXCEEDED);
        relay
            .until(|snapshot, _| snapshot.counters.circuits_refused == 1)
            .await;

        drop(standing);
        relay.until(|_, serves| serves.n_circuits == 0).await;
        circuit(&relay, &mut near, &mut far).await;
        relay.node.stop().await;
    });
}

#[test]
fn each_direction_of_a_circuit_ends_on_its_own_and_the_circuit_with_both() {
    in_own_network(async || {
        let (relay, mut near, mut far) = pair(ServeConfig::default()).await;
        let [mut at_near, mut at_far] = circuit(&relay, &mut near, &mut far).await;

        let (there, back) = (content(1, 3 << 20), content(2, 3 << 20));
        assert!(carry(&mut at_near, &mut at_far, &there).await == there);
        assert_eq!(relay.serves().n_circuits, 1);
        assert!(carry(&mut at_far, &mut at_near, &back).await == back);

        relay.until(|_, serves| serves.n_circuits == 0).await;
        assert_eq!(relay.serves().n_bytes, 6 << 20);
        relay.node.stop().await;
    });
}

#[test]
fn a_circuit_ends_with_the_connection_of_either_end() {
    in_own_network(async || {
        let (relay, mut near, mut far) = pair(ServeConfig::default()).await;
        let [mut at_near, _at_far] = circuit(&relay, &mut near, &mut far).await;
        drop(far);

        let mut rest = Vec::new();
        // It ends, whether or not with an error.
        let end = timeout(LIMIT, at_near.read_to_end(&mut rest)).await;
        assert!(end.is_ok() && rest.is_empty());
        relay
            .until(|_, serves| (serves.n_circuits, serves.n_reservations) == (0, 0))
            .await;
        relay.node.stop().await;
    });
}

#[test]
fn a_rate_is_kept_without_the_loss_of_a_byte_and_another_one_counts_at_once() {
    in_own_network(async || {
        const RATE: u32 = 200_000;
        for both in [true, false] {
            let rates = RelayRates {
                all: both.then_some(RATE).and_then(std::num::NonZeroU32::new),
                per_peer: std::num::NonZeroU32::new(if both { 4 * RATE } else { RATE }),
            };
            let (relay, mut near, mut far) = pair(ServeConfig {
                rates,
                ..ServeConfig::default()
            })
            .await;
            let [mut at_near, mut at_far] = circuit(&relay, &mut near, &mut far).await;
            let (there, back) = (content(1, 3 * RATE as usize), content(2, 16 << 20));

            let begun = Instant::now();
            assert!(carry(&mut at_near, &mut at_far, &there).await == there);
            let took = begun.elapsed();
            assert!(took >= Duration::from_millis(2500), "{took:?}");

            relay.node.handle.set_relay_rates(RelayRates::default()).await;
            // It would take longer than a test waits.
            assert!(carry(&mut at_far, &mut at_near, &back).await == back);
            relay.node.stop().await;
        }
    });
}
