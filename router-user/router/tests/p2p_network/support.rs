//! Namespaces, nodes, and waiting with a limit.

use std::{fmt, future::Future, sync::Arc, time::Duration};

use futures::{AsyncReadExt, AsyncWriteExt};
use nix::sched::{CloneFlags, unshare};
use rtnetlink::LinkUnspec;
use tokio::{
    runtime::{Handle, Runtime},
    sync::mpsc,
    task::JoinHandle,
    time::timeout,
};

use super::wait;
use stream_router::p2p::{
    ConnectMode, ConnectionId, DataStream, DiscoveryConfig, Dscp, InboundStreams, Keypair, Multiaddr,
    Network, NetworkConfig, NetworkEvent, NetworkHandle, PeerConfig, PeerId, RelayConfig, StartError,
    TcpConfig,
};

/// Longer than anything takes that works.
pub(crate) const LIMIT: Duration = Duration::from_secs(30);

/// Waits until a condition holds.
pub(crate) async fn until(what: impl fmt::Display, holds: impl FnMut() -> bool) {
    wait::until(what, LIMIT, holds).await;
}

pub(crate) fn runtime() -> Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime")
}

/// Runs `test` on a current-thread runtime in a network namespace with nothing but loopback.
pub(crate) fn in_own_network<F: Future<Output = ()>>(test: impl FnOnce() -> F + Send) {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            unshare(CloneFlags::CLONE_NEWNET).expect("a network namespace of its own needs root");
            let runtime = runtime();
            runtime.block_on(async {
                with_netlink(async |netlink| {
                    let up = LinkUnspec::new_with_index(1).up().build();
                    netlink.link().set(up).execute().await.expect("set lo up");
                })
                .await;
                timeout(2 * LIMIT, test()).await.expect("the test ends in time");
            });
        });
        thread
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    });
}

/// Lets `work` talk to the kernel of the current namespace.
pub(crate) async fn with_netlink(work: impl AsyncFnOnce(rtnetlink::Handle)) {
    let (connection, netlink, _) = rtnetlink::new_connection().expect("netlink");
    let connection = tokio::spawn(connection);
    work(netlink).await;
    connection.abort();
}

pub(crate) fn address(text: &str) -> Multiaddr {
    text.parse().expect("an address")
}

/// A stream a peer opened, and the runtime it was handed over on.
pub(crate) struct Arrival {
    pub(crate) peer: PeerId,
    pub(crate) connection: ConnectionId,
    pub(crate) stream: DataStream,
    pub(crate) runtime: Handle,
}

struct Inbox(mpsc::Sender<Arrival>);

impl InboundStreams for Inbox {
    fn accept(&self, peer: PeerId, connection: ConnectionId, stream: DataStream) {
        let arrival = Arrival {
            peer,
            connection,
            stream,
            runtime: Handle::current(),
        };
        // A test that has ended takes no more streams.
        let _ended = self.0.try_send(arrival);
    }
}

/// One of our nodes.
pub(crate) struct Node {
    pub(crate) id: PeerId,
    pub(crate) handle: NetworkHandle,
    pub(crate) events: mpsc::Receiver<NetworkEvent>,
    pub(crate) arrivals: mpsc::Receiver<Arrival>,
    pub(crate) task: JoinHandle<()>,
}

/// What a node is started with.
pub(crate) struct Setup {
    pub(crate) keypair: Keypair,
    pub(crate) listen: Vec<Multiaddr>,
    pub(crate) peers: Vec<PeerConfig>,
    pub(crate) data_runtime: Option<Handle>,
    pub(crate) discovery: DiscoveryConfig,
    pub(crate) idle_time: Duration,
    pub(crate) relay: RelayConfig,
}

impl Setup {
    pub(crate) fn new(keypair: &Keypair) -> Self {
        Self {
            keypair: keypair.clone(),
            listen: Vec::new(),
            peers: Vec::new(),
            data_runtime: None,
            discovery: DiscoveryConfig::default(),
            idle_time: NetworkConfig::DEFAULT_IDLE_TIME,
            relay: RelayConfig::default(),
        }
    }

    pub(crate) fn listen(mut self, text: &str) -> Self {
        self.listen.push(address(text));
        self
    }

    pub(crate) fn peer(mut self, peer: PeerId, addresses: &[Multiaddr]) -> Self {
        self.peers.push(PeerConfig::new(peer, addresses.to_vec()));
        self
    }

    pub(crate) fn on_demand(mut self, peer: PeerId, addresses: &[Multiaddr]) -> Self {
        let mut config = PeerConfig::new(peer, addresses.to_vec());
        config.connect = ConnectMode::OnDemand;
        self.peers.push(config);
        self
    }

    pub(crate) fn data_runtime(mut self, runtime: &Handle) -> Self {
        self.data_runtime = Some(runtime.clone());
        self
    }

    pub(crate) fn discovery(mut self, discovery: DiscoveryConfig) -> Self {
        self.discovery = discovery;
        self
    }

    pub(crate) fn relay(mut self, relay: RelayConfig) -> Self {
        self.relay = relay;
        self
    }

    pub(crate) fn idle_time(mut self, time: Duration) -> Self {
        self.idle_time = time;
        self
    }

    pub(crate) fn start(self) -> Node {
        self.try_start().expect("the network starts")
    }

    pub(crate) fn try_start(self) -> Result<Node, StartError> {
        let (sender, arrivals) = mpsc::channel(1024);
        let data_runtime = self.data_runtime.unwrap_or_else(Handle::current);
        let id = self.keypair.public().to_peer_id();
        let Network {
            handle,
            events,
            driver,
        } = Network::start(NetworkConfig {
            punch: true,
            keypair: self.keypair,
            listen: self.listen,
            peers: self.peers,
            placement: Arc::new(move |_, _| data_runtime.clone()),
            inbound: Arc::new(Inbox(sender)),
            dscp: Dscp::default(),
            fwmark: None,
            tcp: TcpConfig::default(),
            uplinks: Vec::new(),
            keepalive: NetworkConfig::DEFAULT_KEEPALIVE,
            idle_time: self.idle_time,
            discovery: self.discovery,
            relay: self.relay,
        })?;
        Ok(Node {
            id,
            handle,
            events,
            arrivals,
            task: tokio::spawn(driver.run()),
        })
    }
}

impl Node {
    /// The next event that `pick` wants.
    pub(crate) async fn event<T>(&mut self, mut pick: impl FnMut(NetworkEvent) -> Option<T>) -> T {
        let wanted = async {
            loop {
                let event = self.events.recv().await.expect("the network runs");
                if let Some(wanted) = pick(event) {
                    return wanted;
                }
            }
        };
        timeout(LIMIT, wanted).await.expect("the event comes in time")
    }

    pub(crate) async fn listening(&mut self) -> Multiaddr {
        self.event(|event| match event {
            NetworkEvent::Listening { address } => Some(address),
            _ => None,
        })
        .await
    }

    pub(crate) async fn connected(&mut self) -> (PeerId, ConnectionId) {
        self.event(|event| match event {
            NetworkEvent::Connected { peer, connection, .. } => Some((peer, connection)),
            _ => None,
        })
        .await
    }

    pub(crate) async fn disconnected(&mut self) -> ConnectionId {
        self.event(|event| match event {
            NetworkEvent::Disconnected { connection, .. } => Some(connection),
            _ => None,
        })
        .await
    }

    pub(crate) async fn arrival(&mut self) -> Arrival {
        timeout(LIMIT, self.arrivals.recv())
            .await
            .expect("a stream comes in time")
            .expect("the network runs")
    }

    /// Waits until the state is as wanted.
    pub(crate) async fn until(&self, wanted: impl Fn(&stream_router::p2p::NetworkSnapshot) -> bool) {
        let what = fmt::from_fn(|f| write!(f, "the state is as wanted; it is {:?}", self.handle.snapshot()));
        until(what, || wanted(&self.handle.snapshot())).await;
    }

    pub(crate) async fn stop(self) {
        self.handle.shutdown();
        timeout(LIMIT, self.task)
            .await
            .expect("the network ends in time")
            .expect("without panic");
    }
}

/// Two nodes of ours, connected over `listen`, the first dialling.
pub(crate) async fn connected_pair(listen: &str) -> (Node, Node, ConnectionId) {
    let (near, far) = (Keypair::generate_ed25519(), Keypair::generate_ed25519());
    let near_id = near.public().to_peer_id();
    let mut far = Setup::new(&far).listen(listen).peer(near_id, &[]).start();
    let far_address = far.listening().await;
    let mut near = Setup::new(&near).peer(far.id, &[far_address]).start();
    let (_, connection) = near.connected().await;
    far.connected().await;
    (near, far, connection)
}

/// Bytes that are the same for the same seed and differ everywhere else.
pub(crate) fn content(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

/// Sends all of `bytes` and closes, while receiving until the other side has closed.
pub(crate) async fn exchange<S>(stream: S, bytes: Vec<u8>) -> Vec<u8>
where
    S: futures::AsyncRead + futures::AsyncWrite + Unpin,
{
    let (mut reader, mut writer) = stream.split();
    let send = async {
        for part in bytes.chunks(64 * 1024) {
            writer.write_all(part).await.expect("write");
        }
        writer.close().await.expect("close");
    };
    let mut received = Vec::with_capacity(bytes.len());
    let receive = async { reader.read_to_end(&mut received).await.expect("read") };
    timeout(LIMIT, async { tokio::join!(send, receive) })
        .await
        .expect("the exchange ends in time");
    received
}
