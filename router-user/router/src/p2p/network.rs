//! Starting the network.

use std::{fmt, io, sync::Arc};

use futures::future::BoxFuture;
use libp2p::{Multiaddr, Swarm, identity::Keypair, metrics::Registry, swarm};
use tokio::{runtime::Handle, sync::mpsc, time::Instant};
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use super::{
    address::{AddressError, check_address},
    address_discovery::AddressDiscovery,
    behaviour::StreamBehaviour,
    config::{NetworkConfig, check_peers, check_relays, with_relays},
    departure::DepartureBehaviour,
    dht,
    driver::{Channels, Driver, Punches, Ways},
    duplicates::DuplicatesBehaviour,
    error::StartError,
    event::NetworkEvent,
    handle::NetworkHandle,
    inbound::NextConnectionTask,
    keepalive::KeepaliveBehaviour,
    limits::{MAX_STREAMS_PER_SIDE, MAX_UPLINKS},
    local_network::LocalNetwork,
    names::{HostLookup, Lookups},
    next_connection::NextConnection,
    node_behaviour::NodeBehaviour,
    punch::{Candidates, PunchBehaviour, PunchBook},
    relay_server::RelayServer,
    reservations::Reservations,
    state::NetworkState,
    transport::{self, SocketMarks},
    uplink::Uplinks,
};

/// Events that may wait for the receiver.
const EVENT_CAPACITY: usize = 256;

/// What identify calls this network.
const IDENTIFY_VERSION: &str = "stream-router/1";

/// Requests that may wait for the driver.
const REQUEST_CAPACITY: usize = 64;

/// A network that listens, and does the rest once its driver runs.
#[derive(Debug)]
pub struct Network {
    /// The handle that opens streams, closes connections, returns the state, and shuts the network down.
    pub handle: NetworkHandle,
    /// What happens on the network, which waits while it is not received. When the receiver is dropped, events are
    /// discarded.
    pub events: mpsc::Receiver<NetworkEvent>,
    /// The task of the network, to be spawned on the runtime that is to do handshakes and dialling.
    pub driver: NetworkDriver,
}

/// The task of a network.
pub struct NetworkDriver(Box<Driver>);

impl NetworkDriver {
    /// Returns the metrics of libp2p, whose names begin with `libp2p`. They can be taken once and are empty then.
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
    /// Returns an error if the configuration contradicts itself, or an address cannot be listened on.
    ///
    /// # Panics
    ///
    /// Panics outside a tokio runtime with I/O and time enabled.
    pub fn start(config: NetworkConfig) -> Result<Self, StartError> {
        let NetworkConfig {
            keypair,
            listen,
            peers,
            placement,
            inbound,
            dscp,
            fwmark,
            tcp,
            uplinks,
            keepalive,
            idle_time,
            discovery,
            relay,
            punch,
        } = config;
        let local_peer = keypair.public().to_peer_id();
        for address in &listen {
            check_address(address, None)?;
        }
        let known = check_peers(local_peer, &peers)?;
        check_relays(&relay.via, &known)?;
        if uplinks.len() > MAX_UPLINKS {
            let n_uplinks = uplinks.len();
            return Err(StartError::TooManyUplinks { n_uplinks });
        }
        let (uplinks, next_connection) = (Uplinks::new(uplinks), NextConnection::default());
        let peers = with_relays(peers, &relay.via);
        let (circuit_transport, circuits) = libp2p::relay::client::new(local_peer);

        let state = Arc::new(NetworkState::new(
            local_peer,
            peers.iter().map(|peer| peer.peer),
            uplinks,
        ));
        state.handshakes.set_peers(&peers);
        let next_task = NextConnectionTask::default();
        let local_network = discovery.mdns.then(|| LocalNetwork::new(local_peer));
        let candidates = Arc::<Candidates>::default();
        let identify = punch.then(|| libp2p_identify::Behaviour::new(identify_config(&keypair)));
        let punch_behaviour = punch.then(|| PunchBehaviour::new(local_peer, Arc::clone(&candidates)));
        let behaviour = NodeBehaviour {
            identify: identify.into(),
            punch: punch_behaviour.into(),
            local_network: local_network.transpose().map_err(StartError::Mdns)?.into(),
            kad: discovery.dht.as_ref().map(|_| dht::behaviour(local_peer)).into(),
            keepalive: KeepaliveBehaviour::new(Arc::clone(&state), keepalive),
            departure: DepartureBehaviour::new(Arc::clone(&state)),
            relay: relay
                .serve
                .map(|limits| RelayServer::new(local_peer, limits, Arc::clone(&state)))
                .into(),
            circuits,
            duplicates: DuplicatesBehaviour::new(Arc::clone(&state.handshakes.instances)),
            streams: StreamBehaviour::new(
                known,
                Arc::clone(&state),
                inbound,
                placement,
                next_task.clone(),
                next_connection.clone(),
            ),
        };
        let own_runtime = Handle::current();
        let executor = move |task: BoxFuture<'static, ()>| {
            match next_task.take() {
                Some((runtime, span)) => runtime.spawn(task.instrument(span)),
                None => own_runtime.spawn(task),
            };
        };
        let swarm_config =
            swarm::Config::with_executor(executor).with_max_negotiating_inbound_streams(MAX_STREAMS_PER_SIDE);
        let admitting = Arc::clone(&state);
        let admits: transport::Admits = Arc::new(move |peer| admitting.admits(peer));
        let proxy = tcp.proxy.clone();
        let hosts = HostLookup::new(SocketMarks { dscp, fwmark }, Arc::clone(&discovery.is_inner));
        let transport = transport::build(
            &keypair,
            Arc::clone(&state.segments),
            Arc::clone(&state.handshakes),
            transport::Ways {
                tcp,
                hosts: hosts.clone(),
                circuits: circuit_transport,
                next_connection: next_connection.clone(),
            },
            keepalive,
            &admits,
        )?;
        let mut swarm = Swarm::new(transport, behaviour, local_peer, swarm_config);
        for address in listen {
            swarm
                .listen_on(address.clone())
                .map_err(|error| listen_error(address, error))?;
        }

        let (event_sender, events) = mpsc::channel(EVENT_CAPACITY);
        let (request_sender, requests) = mpsc::channel(REQUEST_CAPACITY);
        let stop = CancellationToken::new();
        let ids = peers.iter().map(|peer| peer.peer);
        let lookups = Lookups::new(hosts, proxy);
        let ways = Ways {
            lookups,
            punches: Punches {
                book: PunchBook::new(local_peer),
                candidates: Arc::clone(&candidates),
                is_inner: Arc::clone(&discovery.is_inner),
                shows_port: punch && relay.serve.is_none(),
            },
            reservations: Reservations::new(relay.via, Instant::now()),
            next_connection,
        };
        let discovery = AddressDiscovery::new(keypair, discovery, ids);
        let channels = Channels {
            events: event_sender,
            requests,
            stop: stop.clone(),
        };
        let driver = Driver::new(
            swarm,
            peers,
            discovery,
            ways,
            Arc::clone(&state),
            channels,
            idle_time,
        );
        Ok(Self {
            handle: NetworkHandle {
                state,
                requests: request_sender,
                stop,
            },
            events,
            driver: NetworkDriver(Box::new(driver)),
        })
    }
}

/// Returns what this node tells its peers of itself: little but where it sees them.
fn identify_config(keypair: &Keypair) -> libp2p_identify::Config {
    libp2p_identify::Config::new(IDENTIFY_VERSION.to_owned(), keypair.public())
        .with_agent_version("stream-router".to_owned())
        .with_hide_listen_addrs(true)
        .with_cache_size(0)
}

fn listen_error(address: Multiaddr, error: libp2p::TransportError<io::Error>) -> StartError {
    match error {
        libp2p::TransportError::MultiaddrNotSupported(_) => AddressError::Unsupported { address }.into(),
        libp2p::TransportError::Other(source) => StartError::Listen { address, source },
    }
}
