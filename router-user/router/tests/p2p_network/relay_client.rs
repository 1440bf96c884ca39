//! Stock libp2p nodes that use a relay: with the stock client of it, or with streams that say what a test writes.

use futures::{AsyncReadExt, AsyncWriteExt, StreamExt};
use libp2p::{
    Multiaddr, PeerId, Stream, StreamProtocol, Swarm, SwarmBuilder,
    identity::Keypair,
    noise, relay,
    swarm::{NetworkBehaviour, SwarmEvent, behaviour::toggle::Toggle},
    tcp, yamux,
};
use tokio::{sync::mpsc, task::JoinHandle, time::timeout};

use super::support::LIMIT;

/// A protocol between the nodes of a test.
const TALK: StreamProtocol = StreamProtocol::new("/test/talk/1");

/// A running node.
pub(crate) struct Client {
    pub(crate) id: PeerId,
    orders: mpsc::Sender<Order>,
    events: mpsc::Receiver<Event>,
    control: libp2p_stream::Control,
    streams: mpsc::Receiver<Stream>,
    task: JoinHandle<()>,
}

#[derive(Debug)]
enum Order {
    Listen(Multiaddr),
    Dial(Multiaddr),
}

/// What happened to a node.
#[derive(Debug)]
pub(crate) enum Event {
    Connected(PeerId),
    Reserved,
    /// A connection, an attempt to make one, or a place at a relay.
    Ended,
}

impl Drop for Client {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Client {
    /// Starts a node with the stock client.
    pub(crate) fn stock(keypair: &Keypair) -> Self {
        Self::start(keypair, true)
    }

    /// Starts a node that takes circuits as streams, and says in its own what the test writes.
    pub(crate) fn raw(keypair: &Keypair) -> Self {
        Self::start(keypair, false)
    }

    fn start(keypair: &Keypair, is_stock: bool) -> Self {
        let mut swarm = build(keypair, is_stock);
        let id = *swarm.local_peer_id();
        let (orders, mut ordered) = mpsc::channel(8);
        let (happened, events) = mpsc::channel(64);
        let (opened, streams) = mpsc::channel(64);
        let mut control = swarm.behaviour().streams.new_control();
        let taken = match is_stock {
            true => TALK,
            false => relay::STOP_PROTOCOL_NAME,
        };
        let mut incoming = control.accept(taken).expect("nobody else does");
        let task = tokio::spawn(async move {
            loop {
                let event = tokio::select! {
                    event = swarm.select_next_some() => event,
                    Some((_, stream)) = incoming.next() => {
                        // A test that has ended takes no more streams.
                        let _ended = opened.try_send(stream);
                        continue;
                    }
                    Some(order) = ordered.recv() => {
                        match order {
                            Order::Listen(address) => drop(swarm.listen_on(address).expect("listen")),
                            Order::Dial(address) => swarm.dial(address).expect("dial"),
                        }
                        continue;
                    }
                };
                let event = match event {
                    SwarmEvent::ConnectionEstablished { peer_id, .. } => Event::Connected(peer_id),
                    SwarmEvent::Behaviour(BehaviourEvent::Relay(
                        relay::client::Event::ReservationReqAccepted { .. },
                    )) => Event::Reserved,
                    SwarmEvent::OutgoingConnectionError { .. }
                    | SwarmEvent::ConnectionClosed { .. }
                    | SwarmEvent::ListenerClosed { .. } => Event::Ended,
                    _ => continue,
                };
                if happened.send(event).await.is_err() {
                    return;
                }
            }
        });
        Self {
            id,
            orders,
            events,
            control,
            streams,
            task,
        }
    }

    async fn order(&self, order: Order) {
        self.orders.send(order).await.expect("the node runs");
    }

    pub(crate) async fn listen(&self, address: Multiaddr) {
        self.order(Order::Listen(address)).await;
    }

    pub(crate) async fn dial(&self, address: Multiaddr) {
        self.order(Order::Dial(address)).await;
    }

    /// Dials, and waits until the peer is connected.
    pub(crate) async fn connect(&mut self, address: Multiaddr, peer: PeerId) {
        self.dial(address).await;
        self.until(|event| matches!(event, Event::Connected(id) if *id == peer))
            .await;
    }

    /// Opens a stream that asks of a relay.
    pub(crate) async fn ask(&mut self, relay: PeerId) -> Stream {
        self.open(relay, relay::HOP_PROTOCOL_NAME).await
    }

    /// Opens a stream to a node of the test.
    pub(crate) async fn talk(&mut self, peer: PeerId) -> Stream {
        self.open(peer, TALK).await
    }

    async fn open(&mut self, peer: PeerId, protocol: StreamProtocol) -> Stream {
        timeout(LIMIT, self.control.open_stream(peer, protocol))
            .await
            .expect("a stream opens in time")
            .expect("open")
    }

    /// The next stream that a peer has opened.
    pub(crate) async fn stream(&mut self) -> Stream {
        timeout(LIMIT, self.streams.recv())
            .await
            .expect("a stream comes in time")
            .expect("the node runs")
    }

    /// Waits for something to happen.
    pub(crate) async fn until(&mut self, wanted: impl Fn(&Event) -> bool) -> Event {
        let happened = async {
            loop {
                let event = self.events.recv().await.expect("the node runs");
                if wanted(&event) {
                    return event;
                }
            }
        };
        timeout(LIMIT, happened).await.expect("it happens in time")
    }
}

/// Has a node take a circuit, and checks whose it is. `answer` is the status.
pub(crate) async fn take_circuit(far: &mut Client, from: PeerId, answer: u16) -> Stream {
    let mut stream = far.stream().await;
    let asked = read_message(&mut stream).await;
    let id = from.to_bytes();
    assert!(asked.windows(id.len()).any(|part| part == id), "{asked:?}");
    let [low, high] = [(answer & 0x7f) as u8 | 0x80, (answer >> 7) as u8];
    write(&mut stream, &[5, 0x08, 1, 0x20, low, high]).await;
    stream
}

/// The request for a place at a relay.
pub(crate) const RESERVE: [u8; 3] = [2, 0x08, 0];

/// The request for a circuit.
pub(crate) fn connect_to(peer: PeerId) -> Vec<u8> {
    let id = peer.to_bytes();
    let n = id.len() as u8;
    [&[n + 6, 0x08, 1, 0x12, n + 2, 0x0a, n][..], &id].concat()
}

pub(crate) async fn write(stream: &mut Stream, bytes: &[u8]) {
    let writing = async {
        stream.write_all(bytes).await.expect("write");
        stream.flush().await.expect("flush");
    };
    timeout(LIMIT, writing).await.expect("it is taken in time");
}

/// Reads the answer of a relay. Returns its status.
pub(crate) async fn status(stream: &mut Stream) -> u16 {
    let answer = read_message(stream).await;
    match answer[..] {
        [.., 0x28, status] => status.into(),
        [.., 0x28, low, high] => u16::from(low & 0x7f) | u16::from(high) << 7,
        _ => panic!("no status in {answer:?}"),
    }
}

async fn read_message(stream: &mut Stream) -> Vec<u8> {
    let reading = async {
        let mut length = [0];
        stream.read_exact(&mut length).await.expect("a length");
        assert!(length[0] < 0x80, "the messages of a test are short");
        let mut message = vec![0; length[0].into()];
        stream.read_exact(&mut message).await.expect("a message");
        message
    };
    timeout(LIMIT, reading).await.expect("a message comes in time")
}

fn build(keypair: &Keypair, is_stock: bool) -> Swarm<Behaviour> {
    let identify = |key: &Keypair| {
        libp2p_identify::Behaviour::new(libp2p_identify::Config::new("test/1".to_owned(), key.public()))
    };
    let builder = SwarmBuilder::with_existing_identity(keypair.clone())
        .with_tokio()
        .with_tcp(tcp::Config::default(), noise::Config::new, yamux::Config::default)
        .expect("transport");
    let keep = |config: libp2p::swarm::Config| config.with_idle_connection_timeout(4 * LIMIT);
    match is_stock {
        true => builder
            .with_relay_client(noise::Config::new, yamux::Config::default)
            .expect("the relay's transport")
            .with_behaviour(|key, relay| Behaviour {
                relay: Some(relay).into(),
                identify: identify(key),
                streams: libp2p_stream::Behaviour::new(),
            })
            .expect("behaviour")
            .with_swarm_config(keep)
            .build(),
        false => builder
            .with_behaviour(|key| Behaviour {
                relay: None.into(),
                identify: identify(key),
                streams: libp2p_stream::Behaviour::new(),
            })
            .expect("behaviour")
            .with_swarm_config(keep)
            .build(),
    }
}

#[derive(NetworkBehaviour)]
struct Behaviour {
    relay: Toggle<relay::client::Behaviour>,
    identify: libp2p_identify::Behaviour,
    streams: libp2p_stream::Behaviour,
}
