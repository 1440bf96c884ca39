//! A relay that tampers with what it passes on, or holds it back. It can deny its own service, and nothing else.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use futures::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, StreamExt};
use libp2p::{
    Multiaddr, PeerId, Stream, StreamProtocol, SwarmBuilder, identity::Keypair, swarm::SwarmEvent, tcp, tls,
    yamux,
};
use prost::Message;
use tokio::{
    task::{JoinHandle, JoinSet},
    time::{sleep, timeout},
};

use super::{
    relays::{is_over, talk, via},
    support::{LIMIT, Node, Setup, content, in_own_network},
};
use stream_router::p2p::{ConnectionId, TransportKind};

const TCP: &str = "/ip4/127.0.0.1/tcp/0";
const HOP: StreamProtocol = StreamProtocol::new("/libp2p/circuit/relay/0.2.0/hop");
const STOP: StreamProtocol = StreamProtocol::new("/libp2p/circuit/relay/0.2.0/stop");
const PING: StreamProtocol = StreamProtocol::new("/ipfs/ping/1.0.0");

/// More than a circuit holds under way, so that a sender meets what the relay does.
const LENGTH: usize = 4 * 1024 * 1024;

/// What the relay does with a piece of a circuit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Deed {
    Pass,
    Delay,
    Flip,
    Repeat,
    Swap,
    Omit,
    Swallow,
    Cut,
}

#[derive(Clone, PartialEq, Message)]
struct Hop {
    #[prost(int32, required, tag = "1")]
    kind: i32,
    #[prost(message, optional, tag = "2")]
    peer: Option<Peer>,
    #[prost(message, optional, tag = "3")]
    reservation: Option<Reservation>,
    #[prost(int32, optional, tag = "5")]
    status: Option<i32>,
}

#[derive(Clone, PartialEq, Message)]
struct Stop {
    #[prost(int32, required, tag = "1")]
    kind: i32,
    #[prost(message, optional, tag = "2")]
    peer: Option<Peer>,
    #[prost(int32, optional, tag = "4")]
    status: Option<i32>,
}

#[derive(Clone, PartialEq, Message)]
struct Peer {
    #[prost(bytes = "vec", required, tag = "1")]
    id: Vec<u8>,
}

#[derive(Clone, PartialEq, Message)]
struct Reservation {
    #[prost(uint64, required, tag = "1")]
    expire: u64,
    #[prost(bytes = "vec", repeated, tag = "2")]
    addresses: Vec<Vec<u8>>,
}

const RESERVE: i32 = 0;
const HOP_CONNECT: i32 = 1;
const HOP_STATUS: i32 = 2;
const STOP_CONNECT: i32 = 0;
const OK: i32 = 100;

#[derive(Clone)]
struct Relay {
    at: Multiaddr,
    control: libp2p_stream::Control,
    deed: Arc<Mutex<Deed>>,
}

struct CrookedRelay {
    id: PeerId,
    at: Multiaddr,
    deed: Arc<Mutex<Deed>>,
    task: JoinHandle<()>,
}

impl Drop for CrookedRelay {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl CrookedRelay {
    async fn start() -> Self {
        let mut swarm = SwarmBuilder::with_existing_identity(Keypair::generate_ed25519())
            .with_tokio()
            .with_tcp(tcp::Config::default(), tls::Config::new, yamux::Config::default)
            .expect("transport")
            .with_behaviour(|_| libp2p_stream::Behaviour::new())
            .expect("behaviour")
            .with_swarm_config(|config| config.with_idle_connection_timeout(2 * LIMIT))
            .build();
        swarm.listen_on(TCP.parse().expect("an address")).expect("listen");
        let at = loop {
            if let SwarmEvent::NewListenAddr { address, .. } = swarm.select_next_some().await {
                break address;
            }
        };
        let id = *swarm.local_peer_id();
        let mut control = swarm.behaviour().new_control();
        let mut hops = control.accept(HOP).expect("nobody else does");
        let mut pings = control.accept(PING).expect("nobody else does");
        let deed = Arc::new(Mutex::new(Deed::Pass));
        let relay = Relay {
            at: at.clone(),
            control,
            deed: Arc::clone(&deed),
        };
        let task = tokio::spawn(async move {
            let mut streams = JoinSet::new();
            loop {
                tokio::select! {
                    _ = swarm.select_next_some() => {}
                    Some((peer, stream)) = hops.next() => {
                        streams.spawn(relay.clone().serve(peer, stream));
                    }
                    Some((_, stream)) = pings.next() => {
                        let (from, to) = stream.split();
                        let honest = Arc::new(Mutex::new(Deed::Pass));
                        streams.spawn(async move {
                            pass(from, to, honest).await;
                        });
                    }
                }
            }
        });
        Self { id, at, deed, task }
    }

    fn does(&self, deed: Deed) {
        *self.deed.lock().unwrap_or_else(PoisonError::into_inner) = deed;
    }
}

impl Relay {
    async fn serve(mut self, from: PeerId, mut stream: Stream) {
        let Some(asked) = read::<Hop>(&mut stream).await else {
            return;
        };
        let status = |reservation| Hop {
            kind: HOP_STATUS,
            peer: None,
            reservation,
            status: Some(OK),
        };
        if asked.kind == RESERVE {
            let in_an_hour = SystemTime::now() + Duration::from_secs(3600);
            let reservation = Reservation {
                expire: in_an_hour.duration_since(UNIX_EPOCH).expect("a clock").as_secs(),
                addresses: vec![self.at.to_vec()],
            };
            write(&mut stream, &status(Some(reservation))).await;
            return;
        }
        assert_eq!(asked.kind, HOP_CONNECT);
        let to = PeerId::from_bytes(&asked.peer.expect("a peer").id).expect("an id");
        let Ok(mut far) = self.control.open_stream(to, STOP).await else {
            return;
        };
        let connect = Stop {
            kind: STOP_CONNECT,
            peer: Some(Peer { id: from.to_bytes() }),
            status: None,
        };
        write(&mut far, &connect).await;
        let answer = read::<Stop>(&mut far).await;
        if answer.is_none_or(|answer| answer.status != Some(OK)) {
            return;
        }
        write(&mut stream, &status(None)).await;
        let (near_from, near_to) = stream.split();
        let (far_from, far_to) = far.split();
        // A circuit of which one way has ended is over.
        tokio::select! {
            () = pass(near_from, far_to, Arc::clone(&self.deed)) => {}
            () = pass(far_from, near_to, self.deed) => {}
        }
    }
}

/// Passes on what comes until the end, or until it is cut.
async fn pass(mut from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin, deed: Arc<Mutex<Deed>>) {
    let mut piece = vec![0; 4096];
    let mut held: Option<Vec<u8>> = None;
    loop {
        let n = match from.read(&mut piece).await {
            Ok(n) if n > 0 => n,
            _ => return,
        };
        let piece = &mut piece[..n];
        let deed = *deed.lock().unwrap_or_else(PoisonError::into_inner);
        let mut out = Vec::new();
        match deed {
            Deed::Pass => out.extend_from_slice(piece),
            Deed::Delay => {
                sleep(Duration::from_millis(5)).await;
                out.extend_from_slice(piece);
            }
            Deed::Flip => {
                piece[n / 2] ^= 1;
                out.extend_from_slice(piece);
            }
            Deed::Repeat => out.extend_from_slice(&piece.repeat(2)),
            Deed::Swap => match held.take() {
                Some(earlier) => out.extend_from_slice(&[&*piece, &*earlier].concat()),
                None => held = Some(piece.to_vec()),
            },
            Deed::Omit => out.extend_from_slice(&piece[1..]),
            Deed::Swallow => {}
            Deed::Cut => return,
        }
        if to.write_all(&out).await.is_err() || to.flush().await.is_err() {
            return;
        }
    }
}

async fn write(stream: &mut Stream, message: &impl Message) {
    // The other side may have gone.
    let _gone = stream.write_all(&message.encode_length_delimited_to_vec()).await;
    let _gone = stream.flush().await;
}

/// Reads a message of less than 128 bytes, which those of a client are.
async fn read<M: Message + Default>(stream: &mut Stream) -> Option<M> {
    let mut length = [0];
    stream.read_exact(&mut length).await.ok()?;
    let mut bytes = vec![0; usize::from(length[0])];
    stream.read_exact(&mut bytes).await.ok()?;
    Some(M::decode(&*bytes).expect("a message"))
}

/// How much of what is sent from one node arrives at the other. Nothing else does.
async fn arrives(near: &Node, far: &mut Node, over: ConnectionId) -> usize {
    let sent = content(3, LENGTH);
    let Ok(stream) = near.handle.open_stream(over).await else {
        return 0;
    };
    let send = async {
        let (_from, mut to) = stream.split();
        match to.write_all(&sent).await {
            Ok(()) => to.close().await.is_ok(),
            Err(_) => false,
        }
    };
    let receive = async {
        let mut n = 0;
        // If nothing of the stream comes through, the peer never learns of it.
        let Ok(arrived) = timeout(LIMIT / 2, far.arrivals.recv()).await else {
            return n;
        };
        let mut stream = arrived.expect("the network runs").stream;
        let mut piece = vec![0; 64 * 1024];
        while let Ok(got @ 1..) = stream.read(&mut piece).await {
            assert!(sent[n..].starts_with(&piece[..got]), "other bytes than were sent");
            n += got;
        }
        n
    };
    tokio::join!(send, receive).1
}

fn connection_to(node: &Node, peer: PeerId) -> Option<ConnectionId> {
    let snapshot = node.handle.snapshot();
    let peer = snapshot.peers.iter().find(|known| known.peer == peer)?;
    Some(peer.connections.first()?.connection)
}

/// Two nodes that have only the relay between them, and a third that the first has a way of its own to.
async fn check(deed: Deed) {
    let relay = CrookedRelay::start().await;
    let keypairs = [(); 3].map(|()| Keypair::generate_ed25519());
    let [near_id, far_id, other_id] = keypairs.each_ref().map(|keypair| keypair.public().to_peer_id());
    let at = std::slice::from_ref(&relay.at);
    let mut other = Setup::new(&keypairs[2]).listen(TCP).peer(near_id, &[]).start();
    let other_at = other.listening().await;
    let near = Setup::new(&keypairs[0])
        .peer(relay.id, at)
        .peer(far_id, &[])
        .peer(other_id, &[other_at])
        .relay(via(relay.id))
        .start();
    let mut far = Setup::new(&keypairs[1])
        .peer(relay.id, at)
        .peer(near_id, &[])
        .relay(via(relay.id))
        .start();
    near.until(|snapshot| is_over(snapshot, far_id, TransportKind::Relay))
        .await;
    far.until(|snapshot| is_over(snapshot, near_id, TransportKind::Relay))
        .await;
    near.until(|snapshot| is_over(snapshot, other_id, TransportKind::Tcp))
        .await;
    talk(&near, &mut far).await;
    let relayed = connection_to(&near, far_id).expect("it is connected");
    let direct = connection_to(&near, other_id);

    relay.does(deed);
    let arrived = arrives(&near, &mut far, relayed).await;
    match deed {
        Deed::Pass | Deed::Delay => assert_eq!(arrived, LENGTH, "{deed:?}"),
        _ => {
            assert!(arrived < LENGTH, "{deed:?}");
            let is_another = || connection_to(&near, far_id) != Some(relayed);
            super::support::until("the circuit is given up", is_another).await;
        }
    }
    talk(&near, &mut other).await;
    assert_eq!(connection_to(&near, other_id), direct, "{deed:?}");

    relay.does(Deed::Pass);
    let works = |node: &Node, to| is_over(&node.handle.snapshot(), to, TransportKind::Relay);
    super::support::until("they reach each other again", || {
        works(&near, far_id) && works(&far, near_id)
    })
    .await;
    while far.arrivals.try_recv().is_ok() {}
    talk(&near, &mut far).await;
    for node in [near, far, other] {
        node.stop().await;
    }
}

#[test]
fn what_a_relay_delays_arrives() {
    in_own_network(|| check(Deed::Delay));
}

#[test]
fn what_a_relay_flips_is_no_packet() {
    in_own_network(|| check(Deed::Flip));
}

#[test]
fn what_a_relay_repeats_arrives_once() {
    in_own_network(|| check(Deed::Repeat));
}

#[test]
fn what_a_relay_swaps_does_not_arrive_in_another_order() {
    in_own_network(|| check(Deed::Swap));
}

#[test]
fn what_a_relay_omits_is_noticed() {
    in_own_network(|| check(Deed::Omit));
}

#[test]
fn a_relay_that_swallows_everything_is_noticed() {
    in_own_network(|| check(Deed::Swallow));
}

#[test]
fn a_circuit_that_a_relay_cuts_is_made_anew() {
    in_own_network(|| check(Deed::Cut));
}
