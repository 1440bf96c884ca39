//! A node from start to stop, and the order of both.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::capture::CaptureTaps;
use super::connections::Connections;
use super::data_path::DataPath;
use super::data_thread::{DataThreads, Runtimes};
use super::error::NodeError;
use super::gateways::{Gateways, HostNetworks};
use super::observability::Observability;
use super::peer_registry::PeerRegistry;
use super::peers::{LivePeers, QUEUE_LIMITS};
use super::prefixes::PrefixTable;
use super::receiver::Receivers;
use super::reloadable::{ReloadError, Reloadable, Reloaded, network_peers};
use super::status::{NodeStatus, StatusParts};
use super::stream_scaler::StreamScaler;
use super::worker_pool::{WorkerBoard, WorkerPool};
use super::{discovery, gateways, privileges, uncaptured};
use crate::config::{Config, MAX_STREAMS_PER_PEER};
use crate::control::{ControlRequests, ControlServer, ReloadRequest};
use crate::device::{Device, DeviceError, DeviceSettings, Netlink};
use crate::kernel::{BPFFS, Kernel, KernelConfig};
use stream_router::egress::lanes::PeerLanes;
use stream_router::p2p::{Keypair, Network, NetworkConfig, NetworkHandle, identity};
use stream_router_engine::flow_cache::FlowCache;
use stream_router_engine::route_table::PeerIndex;

/// ControlRequests for another number of workers that may wait.
const MAX_REQUESTS: usize = 4;

/// How long a stopping node tries to deliver what it has accepted, and then to close its connections.
const STOP_TIMEOUT: Duration = Duration::from_secs(3);

/// A running node. [`Node::stop`] delivers what it has accepted; dropping it does not.
pub struct Node {
    // Dropped in this order: the way in, the tasks with their descriptors of the device, the device itself.
    observability: Option<Observability>,
    _control: ControlServer,
    taps: Arc<CaptureTaps>,
    kernel: Arc<Kernel>,
    network: NetworkHandle,
    reloadable: Reloadable,
    ends: Ends,
    tasks: Tasks,
    data_threads: DataThreads,
    device: Device,
}

/// How the way of a packet is emptied, from its beginning.
#[derive(Default)]
struct Ends {
    /// Workers end once their rings are empty.
    workers: CancellationToken,
    /// Senders end once their outboxes are empty.
    senders: stream_router::egress::cancellation::CancellationToken,
}

/// The tasks of a node, most of them on the first data thread.
#[derive(Default)]
struct Tasks {
    workers: JoinSet<io::Result<()>>,
    connections: JoinSet<()>,
    network: JoinSet<()>,
    stream_scaler: JoinSet<()>,
    uncaptured: JoinSet<io::Result<()>>,
    /// Empty without gateways.
    host_networks: JoinSet<io::Result<()>>,
}

impl Node {
    /// Brings everything up, or nothing.
    ///
    /// # Errors
    /// [`NodeError`] says which part could not be had and what to do; what had been made is gone again.
    ///
    /// # Panics
    /// Outside a tokio runtime with I/O and time enabled.
    pub async fn start(config: &Config) -> Result<Self, NodeError> {
        Self::start_with(config, None).await
    }

    /// Starts every part of the node, or none. Requests to reload go to `reload`, if the node has a configuration file.
    pub(super) async fn start_with(
        config: &Config,
        reload: Option<mpsc::Sender<ReloadRequest>>,
    ) -> Result<Self, NodeError> {
        let keypair = identity::load(config.node().key())?;
        privileges::check(config)?;
        let data_threads =
            DataThreads::start(config.workers().threads()).map_err(|source| NodeError::System {
                action: "start the data threads",
                source,
            })?;
        let device = Device::create(DeviceSettings {
            name: config.device().name(),
            addresses: config.device().addresses(),
            mtu: config.device().mtu(),
        })
        .await?;
        let kernel = load_kernel(config)?;
        let mut registry = peer_registry(&kernel);
        let table = registry.table(config.peers(), config.streams().scaling().scaler.min)?;
        let prefixes = Arc::new(PrefixTable::new(kernel.clone()));
        prefixes.set_peers(&table)?;
        let data_path = DataPath {
            peers: Arc::new(LivePeers::from_pointee(table)),
            flows: flow_cache(config),
            counters: Arc::default(),
            injector: device.injector(),
            taps: Arc::default(),
        };

        let mut network = start_network(config, keypair, &data_path, &data_threads)?;
        let board = Arc::new(WorkerBoard::default());
        let mut pool = WorkerPool::new(
            kernel.clone(),
            config.workers(),
            config.connections(),
            data_threads.runtimes(),
            data_path.clone(),
            board.clone(),
        )?;
        let (gateways, host_networks) = start_gateways(config, &kernel, &prefixes, &device).await?;
        let status = Arc::new(NodeStatus::new(
            config,
            StatusParts {
                device_index: device.index(),
                kernel: kernel.clone(),
                data_path: data_path.clone(),
                network: network.handle.clone(),
                workers: board,
                runtimes: data_threads.runtimes(),
                gateways: gateways.status(),
                socket_drops: Box::new(gateways.drops()),
            },
        ));
        let (worker_requests, requested_workers) = mpsc::channel(MAX_REQUESTS);
        let (stream_requests, requested_streams) = mpsc::channel(MAX_REQUESTS);
        let requests = ControlRequests {
            workers: worker_requests,
            streams: stream_requests,
            reload,
        };
        let control = ControlServer::start(config.node().control(), status.clone(), requests)?;
        let network_metrics = network.driver.take_metrics();
        let observability = Observability::start(config, status, &data_threads.runtimes(), network_metrics)?;

        kernel.programs.attach_egress()?;
        let networks = config.peers().iter().flat_map(|peer| peer.allowed_ips());
        device.start(networks.copied()).await?;

        pool.start(gateways)?;
        let (limits, _) = watch::channel(config.router().clone());
        let ends = Ends::default();
        let n_connections = config.transport().connections_per_peer(data_threads.n());
        let mut tasks = Tasks::default();
        let connections = Connections::new(
            data_path.clone(),
            network.handle.clone(),
            n_connections,
            ends.senders.clone(),
        );
        tasks.network.spawn_on(network.driver.run(), data_threads.first());
        tasks
            .connections
            .spawn_on(connections.run(network.events), data_threads.first());
        tasks.uncaptured.spawn_on(
            uncaptured::run(device.tun().clone(), data_path.counters.clone()),
            data_threads.first(),
        );
        tasks
            .workers
            .spawn(pool.run(requested_workers, limits.subscribe(), ends.workers.clone()));
        let scaler = StreamScaler::new(
            data_path.clone(),
            network.handle.clone(),
            n_connections,
            config.streams(),
        );
        tasks
            .stream_scaler
            .spawn(scaler.run(requested_streams, limits.subscribe()));
        if let Some(host_networks) = host_networks {
            tasks.host_networks.spawn(host_networks.run());
        }
        if let Some(observability) = &observability {
            observability.up();
        }
        info!(peer_id = %network.handle.local_peer(), device = device.name(), "node is up");
        Ok(Self {
            observability,
            _control: control,
            reloadable: Reloadable {
                running: config.clone(),
                registry,
                peers: data_path.peers,
                prefixes,
                kernel: kernel.clone(),
                flows: data_path.flows,
                network: network.handle.clone(),
                limits,
            },
            taps: data_path.taps,
            kernel,
            network: network.handle,
            ends,
            tasks,
            data_threads,
            device,
        })
    }

    /// Returns the runtimes of the data threads.
    pub(super) fn runtimes(&self) -> Runtimes {
        self.data_threads.runtimes()
    }

    /// Returns a handle of the network.
    pub(super) fn network(&self) -> NetworkHandle {
        self.network.clone()
    }

    /// Returns the configuration that the node runs with.
    pub fn config(&self) -> &Config {
        &self.reloadable.running
    }

    /// Applies what a running node can take of `new`: peers, their prefixes and addresses, limits. Flows of peers that
    /// stay are not affected. Fields that need a restart are named, and stay as they are.
    ///
    /// # Errors
    /// The node cannot take it; nothing has changed then.
    pub async fn reload(&mut self, new: &Config) -> Result<Reloaded, ReloadError> {
        self.reloadable.apply(&self.device, new).await
    }

    /// Waits until an indispensable part of the node fails; for ever, if none does.
    pub async fn failed(&mut self) -> NodeError {
        let ended = tokio::select! {
            Some(ended) = self.tasks.workers.join_next() => ended,
            Some(ended) = self.tasks.uncaptured.join_next() => ended,
            Some(ended) = self.tasks.host_networks.join_next() => ended,
            Some(ended) = self.tasks.connections.join_next() => ended.map(Ok),
            Some(ended) = self.tasks.stream_scaler.join_next() => ended.map(Ok),
            Some(ended) = self.tasks.network.join_next() => ended.map(Ok),
        };
        let source = match ended {
            Ok(Ok(())) => io::Error::other("a task ended"),
            Ok(Err(error)) => error,
            Err(panic) => io::Error::other(panic),
        };
        if let Some(observability) = &self.observability {
            observability.failed(&source);
        }
        NodeError::System {
            action: "go on",
            source,
        }
    }

    /// Stops capturing, delivers what was captured, closes every connection and takes everything down.
    ///
    /// # Errors
    /// Capturing cannot be ended, or the device cannot be removed; everything else has been done.
    pub async fn stop(mut self) -> Result<(), NodeError> {
        if let Some(observability) = &self.observability {
            observability.stopping();
        }
        let detached = self.kernel.programs.detach_egress();
        let drained = timeout(STOP_TIMEOUT, async {
            self.ends.workers.cancel();
            while self.tasks.workers.join_next().await.is_some() {}
            self.ends.senders.cancel();
            while self.tasks.connections.join_next().await.is_some() {}
        });
        if drained.await.is_err() {
            warn!(?STOP_TIMEOUT, "not everything could be delivered in time");
        }
        self.taps.end().await;
        self.network.shutdown();
        if timeout(STOP_TIMEOUT, async {
            while self.tasks.network.join_next().await.is_some() {}
        })
        .await
        .is_err()
        {
            warn!(?STOP_TIMEOUT, "not every connection closed in time");
        }
        self.tasks.stream_scaler.shutdown().await;
        self.tasks.uncaptured.shutdown().await;
        self.tasks.host_networks.shutdown().await;
        drop(self.data_threads);
        let removed = self.device.remove().await;
        info!("node is down");
        detached?;
        Ok(removed?)
    }
}

fn load_kernel(config: &Config) -> Result<Arc<Kernel>, NodeError> {
    let kernel_config = KernelConfig {
        device: config.device().name().to_owned(),
        ring_bytes: config.workers().ring_bytes(),
        device_mtu: config.device().mtu(),
        flow_ttl: config.connections().ttl(),
        max_connections: config.connections().max_entries(),
        bpffs: BPFFS.into(),
    };
    Ok(Arc::new(Kernel::load(&kernel_config)?))
}

fn peer_registry(kernel: &Arc<Kernel>) -> PeerRegistry {
    let kernel = kernel.clone();
    PeerRegistry::new(move |index: PeerIndex, n_active| {
        let set_pressure = kernel.pressure.switch(index.0);
        // Another peer may have had the index.
        set_pressure(false);
        // A reload may allow more streams than there are at the start.
        PeerLanes::new(
            MAX_STREAMS_PER_PEER,
            n_active,
            QUEUE_LIMITS,
            Box::new(set_pressure),
        )
    })
}

fn flow_cache(config: &Config) -> Arc<FlowCache> {
    let table = config.connections();
    let flows = FlowCache::new(table.shards(), table.max_entries(), table.ttl(), Instant::now());
    Arc::new(flows)
}

async fn start_gateways(
    config: &Config,
    kernel: &Arc<Kernel>,
    prefixes: &Arc<PrefixTable>,
    device: &Device,
) -> Result<(Gateways, Option<HostNetworks>), NodeError> {
    if config.gateways().is_empty() {
        return Ok((Gateways::default(), None));
    }
    let netlink = Netlink::open().map_err(DeviceError::from)?;
    let interfaces = gateways::interfaces(config, &netlink).await?;
    let host_networks = HostNetworks::start(prefixes.clone(), netlink, device.index()).await?;
    Ok((Gateways::attach(config, kernel, interfaces)?, Some(host_networks)))
}

fn start_network(
    config: &Config,
    keypair: Keypair,
    data_path: &DataPath,
    data_threads: &DataThreads,
) -> Result<Network, NodeError> {
    let (runtimes, known) = (data_threads.runtimes(), data_path.peers.clone());
    let found = data_path.peers.clone();
    let network_config = NetworkConfig {
        keypair,
        listen: config.node().listen().to_vec(),
        peers: network_peers(config),
        // What of a connection's flows comes and goes shares a thread; a peer's connections share as few as can be.
        placement: Arc::new(move |peer, others| {
            let index = known.load().by_id(&peer).map_or(0, |peer| peer.index.0);
            runtimes.least_taken(index, others).clone()
        }),
        inbound: Arc::new(Receivers {
            data_path: data_path.clone(),
        }),
        discovery: discovery::settings(config, move |look| {
            let table = found.load();
            table
                .all()
                .iter()
                .flat_map(|peer| &peer.allowed_ips)
                .for_each(look);
        }),
    };
    // Listening sockets belong to the runtime they are made in.
    let _on_data_thread = data_threads.first().enter();
    Ok(Network::start(network_config)?)
}
