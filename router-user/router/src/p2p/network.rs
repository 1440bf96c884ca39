//! Starting the network, and what it reports.

use std::{collections::HashSet, fmt, io, net::IpAddr, sync::Arc, time::Duration};

use libp2p::{
    Multiaddr, PeerId, Swarm,
    identity::Keypair,
    metrics::Registry,
    ping,
    swarm::{self, ConnectionId},
};
use tokio::{runtime::Handle, sync::mpsc};
use tokio_util::sync::CancellationToken;

use super::{
    AddressError, Direction, InboundStreams, MAX_STREAMS_PER_SIDE, NetworkHandle, Placement, TransportError,
    TransportKind,
    address::check_address,
    behaviour::{NextTask, Streams},
    connections::Connections,
    dht::{self, Dht},
    driver::{Behaviour, Driver, Finding},
    local_network::LocalNetwork,
    port::check_free,
    transport,
};

/// Events that may wait for the receiver.
const EVENT_CAPACITY: usize = 256;

/// Requests that may wait for the driver.
const REQUEST_CAPACITY: usize = 64;

const PING_INTERVAL: Duration = Duration::from_secs(1);
const PING_TIMEOUT: Duration = Duration::from_secs(4);

pub use super::dht::DhtConfig;

/// What a network needs to know.
#[derive(Clone)]
pub struct NetworkConfig {
    /// The identity of this node.
    pub keypair: Keypair,
    /// Addresses to listen on; may be none.
    pub listen: Vec<Multiaddr>,
    /// The peers that may connect, and are connected to.
    pub peers: Vec<PeerConfig>,
    /// Where connections run.
    pub placement: Placement,
    /// Who receives the streams peers open.
    pub inbound: Arc<dyn InboundStreams>,
    /// How peers' addresses are found beyond those configured.
    pub discovery: DiscoveryConfig,
}

/// How addresses of configured peers are found; by default not at all.
///
/// What is found is dialled after the configured addresses, and who answers has to prove that it is the peer. Nobody
/// else gets a connection.
#[derive(Clone)]
pub struct DiscoveryConfig {
    /// By mDNS, among those on the local network (IPv4).
    pub mdns: bool,
    /// In a DHT among the peers.
    pub dht: Option<DhtConfig>,
    /// Which of a peer's found addresses are dialled first.
    pub prefer: TransportKind,
    /// Says of an IP address that it is inside the tunnel: then it is neither dialled nor announced.
    pub is_inner: Arc<dyn Fn(IpAddr) -> bool + Send + Sync>,
}

impl Default for DiscoveryConfig {
    fn default() -> Self {
        Self {
            mdns: false,
            dht: None,
            prefer: TransportKind::Tcp,
            is_inner: Arc::new(|_| false),
        }
    }
}

impl fmt::Debug for DiscoveryConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DiscoveryConfig")
            .field("mdns", &self.mdns)
            .field("dht", &self.dht)
            .field("prefer", &self.prefer)
            .finish_non_exhaustive()
    }
}

/// A peer and where it is found.
#[derive(Clone, Debug)]
pub struct PeerConfig {
    /// Its id.
    pub peer: PeerId,
    /// Its addresses, the best first; none if it dials us.
    pub addresses: Vec<Multiaddr>,
}

/// What happens on the network.
#[derive(Clone, Debug)]
pub enum NetworkEvent {
    /// A connection is up. A peer may have several; the oldest is the one to prefer.
    Connected {
        /// The peer.
        peer: PeerId,
        /// The new connection.
        connection: ConnectionId,
        /// The peer's address.
        address: Multiaddr,
        /// Who dialled.
        direction: Direction,
        /// What carries it.
        transport: TransportKind,
        /// Where its task runs, and writers and readers of its streams should.
        runtime: Handle,
    },
    /// A connection is down. Comes once for each [`NetworkEvent::Connected`], after it.
    Disconnected {
        /// The peer.
        peer: PeerId,
        /// The former connection.
        connection: ConnectionId,
        /// Why, for the log.
        cause: String,
    },
    /// A round trip was measured. Left out while the receiver is behind.
    Rtt {
        /// The peer.
        peer: PeerId,
        /// The connection.
        connection: ConnectionId,
        /// The round trip.
        rtt: Duration,
    },
    /// The node can be reached at an address of its own. Comes for every address of an unspecified one such as 0.0.0.0.
    Listening {
        /// The address.
        address: Multiaddr,
    },
}

/// Why the network cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The transports cannot be set up.
    #[error(transparent)]
    Transport(#[from] TransportError),
    /// An address in the configuration cannot be used.
    #[error(transparent)]
    Address(#[from] AddressError),
    /// A peer is configured twice.
    #[error("peer {peer} is configured twice")]
    DuplicatePeer {
        /// The peer.
        peer: PeerId,
    },
    /// This node is configured as its own peer.
    #[error("peer {peer} is this node itself")]
    OwnPeer {
        /// The peer.
        peer: PeerId,
    },
    /// The system's interfaces cannot be watched.
    #[error("cannot start mDNS; `mdns = false` in [discovery] does without")]
    Mdns(#[source] io::Error),
    /// An address cannot be listened on.
    #[error("cannot listen on {address}")]
    Listen {
        /// The address.
        address: Multiaddr,
        /// What the system said.
        source: io::Error,
    },
}

/// A network that listens, and will do the rest once its driver runs.
#[derive(Debug)]
pub struct Network {
    /// To open streams, close connections, ask for the state, and shut down.
    pub handle: NetworkHandle,
    /// What happens. When it is not received, the network waits; when it is dropped, events are discarded.
    pub events: mpsc::Receiver<NetworkEvent>,
    /// To be spawned on the runtime that is to do handshakes and dialling.
    pub driver: NetworkDriver,
}

/// The network's own task.
pub struct NetworkDriver(Box<Driver>);

impl NetworkDriver {
    /// The metrics of libp2p, which begin with `libp2p`; empty once taken.
    pub fn take_metrics(&mut self) -> Registry {
        self.0.take_metrics()
    }

    /// Runs the network until it is shut down and its connections are closed.
    pub async fn run(self) {
        self.0.run().await;
    }
}

impl fmt::Debug for NetworkDriver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NetworkDriver").finish_non_exhaustive()
    }
}

impl Network {
    /// Sets up the transports and listens on all addresses.
    ///
    /// Handshakes and, for QUIC, whole connections run on the current runtime.
    ///
    /// # Errors
    ///
    /// When the configuration contradicts itself, or an address cannot be listened on.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime with I/O and time enabled.
    pub fn start(config: NetworkConfig) -> Result<Self, StartError> {
        let NetworkConfig {
            keypair,
            listen,
            peers,
            placement,
            inbound,
            discovery,
        } = config;
        let local_peer = keypair.public().to_peer_id();
        for address in &listen {
            check_address(address, None)?;
        }
        let known = check_peers(local_peer, &peers)?;

        let connections = Arc::new(Connections::new(local_peer, peers.iter().map(|peer| peer.peer)));
        let next_task = NextTask::default();
        let local_network = discovery.mdns.then(|| LocalNetwork::new(local_peer));
        let behaviour = Behaviour {
            local_network: local_network.transpose().map_err(StartError::Mdns)?.into(),
            kad: discovery.dht.as_ref().map(|_| dht::behaviour(local_peer)).into(),
            ping: ping::Behaviour::new(
                ping::Config::new()
                    .with_interval(PING_INTERVAL)
                    .with_timeout(PING_TIMEOUT),
            ),
            streams: Streams::new(
                known,
                Arc::clone(&connections),
                inbound,
                placement,
                next_task.clone(),
            ),
        };
        let own_runtime = Handle::current();
        let executor = move |task| {
            next_task
                .take()
                .unwrap_or_else(|| own_runtime.clone())
                .spawn(task);
        };
        let swarm_config =
            swarm::Config::with_executor(executor).with_max_negotiating_inbound_streams(MAX_STREAMS_PER_SIDE);
        let mut swarm = Swarm::new(transport::build(&keypair)?, behaviour, local_peer, swarm_config);
        for address in listen {
            check_free(&address).map_err(|source| StartError::Listen {
                address: address.clone(),
                source,
            })?;
            swarm
                .listen_on(address.clone())
                .map_err(|error| listen_error(address, error))?;
        }

        let (event_sender, events) = mpsc::channel(EVENT_CAPACITY);
        let (request_sender, requests) = mpsc::channel(REQUEST_CAPACITY);
        let stop = CancellationToken::new();
        let finding = Finding {
            dht: discovery.dht.map(|config| Dht::new(keypair, config)),
            prefer: discovery.prefer,
            is_inner: discovery.is_inner,
        };
        let driver = Driver::new(
            swarm,
            peers,
            Arc::clone(&connections),
            finding,
            event_sender,
            requests,
            stop.clone(),
        );
        Ok(Self {
            handle: NetworkHandle {
                connections,
                requests: request_sender,
                stop,
            },
            events,
            driver: NetworkDriver(Box::new(driver)),
        })
    }
}

/// Says whether these can be the peers of `local_peer`, and who they are.
pub(super) fn check_peers(local_peer: PeerId, peers: &[PeerConfig]) -> Result<HashSet<PeerId>, StartError> {
    let mut known = HashSet::new();
    for PeerConfig { peer, addresses } in peers {
        if *peer == local_peer {
            return Err(StartError::OwnPeer { peer: *peer });
        }
        if !known.insert(*peer) {
            return Err(StartError::DuplicatePeer { peer: *peer });
        }
        for address in addresses {
            check_address(address, Some(*peer))?;
        }
    }
    Ok(known)
}

fn listen_error(address: Multiaddr, error: libp2p::TransportError<io::Error>) -> StartError {
    match error {
        libp2p::TransportError::MultiaddrNotSupported(_) => AddressError::Unsupported { address }.into(),
        libp2p::TransportError::Other(source) => StartError::Listen { address, source },
    }
}
