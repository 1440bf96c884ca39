//! A node from start to stop, and the order of both.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::connections::Connections;
use super::counters::Counters;
use super::data_thread::DataThreads;
use super::error::NodeError;
use super::forwarder::Forwarder;
use super::gateways::{Gateways, HostNetworks};
use super::observed::Observed;
use super::peers::PeerTable;
use super::receiver::Receivers;
use super::status::{NodeStatus, Parts};
use super::stream_scaler::StreamScaler;
use super::streams::Streams;
use super::worker_pool::{WorkerBoard, WorkerPool};
use super::{gateways, uncaptured};
use crate::config::Config;
use crate::control::{ControlServer, Wishes};
use crate::device::{Device, DeviceError, DeviceSettings, Netlink};
use crate::engine::flow_cache::FlowCache;
use crate::engine::route_table::PeerIndex;
use crate::kernel::{BPFFS, Kernel, KernelConfig};
use crate::p2p::{Keypair, Network, NetworkConfig, NetworkHandle, PeerConfig, identity};

/// Wishes for another number of workers that may wait.
const MAX_WISHES: usize = 4;

/// How long a stopping node tries to deliver what it has accepted, and then to close its connections.
const STOP_TIMEOUT: Duration = Duration::from_secs(3);

/// A running node. [`Node::stop`] delivers what it has accepted; dropping it does not.
pub struct Node {
    // Dropped in this order: the way in, the tasks with their descriptors of the device, the device itself.
    observed: Option<Observed>,
    _control: ControlServer,
    kernel: Arc<Kernel>,
    network: NetworkHandle,
    stop_workers: CancellationToken,
    finish_senders: CancellationToken,
    tasks: Tasks,
    data_threads: DataThreads,
    device: Device,
}

/// The tasks, most of them on the data thread.
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
        let keypair = identity::load(config.node().key())?;
        let data_threads =
            DataThreads::start(config.workers().threads()).map_err(|source| NodeError::System {
                action: "start the data threads",
                source,
            })?;
        let settings = DeviceSettings {
            name: config.device().name(),
            addresses: config.device().addresses(),
            mtu: config.device().mtu(),
        };
        let device = Device::create(settings).await?;
        let kernel = load_kernel(config)?;
        let n_streams = config.streams().scaling().scaler;
        let streams_of = |index: PeerIndex| {
            let set_pressure = Box::new(kernel.pressure_switch(index.0));
            Streams::new(n_streams.max, n_streams.min, set_pressure)
        };
        let prefixes = config
            .peers()
            .iter()
            .map(|peer| (peer.id(), peer.allowed_ips().to_vec()));
        let peers = Arc::new(PeerTable::new(prefixes, streams_of));
        kernel.add_prefixes(
            peers
                .all()
                .iter()
                .flat_map(|peer| peer.allowed_ips.iter().map(|net| (*net, peer.index.0))),
        )?;
        let counters = Arc::new(Counters::default());

        let receivers = Receivers {
            peers: peers.clone(),
            counters: counters.clone(),
            injector: device.injector(),
        };
        let mut network = start_network(config, keypair, receivers, &data_threads)?;
        let workers = Arc::new(WorkerBoard::default());
        let flows = flow_cache(config);
        let mut pool = WorkerPool::new(
            kernel.clone(),
            config.workers(),
            config.connections(),
            data_threads.runtimes(),
            new_forwarder(&flows, &peers, &counters, &device),
            workers.clone(),
        )?;
        let (gateways, host_networks) = start_gateways(config, &kernel, &device).await?;
        let status = NodeStatus::new(
            config,
            Parts {
                device_index: device.index(),
                kernel: kernel.clone(),
                peers: peers.clone(),
                counters: counters.clone(),
                flows,
                network: network.handle.clone(),
                workers,
                runtimes: data_threads.runtimes(),
                gateways: gateways.status(),
                socket_drops: Box::new(gateways.drops()),
            },
        );
        let (worker_wishes, wished_workers) = mpsc::channel(MAX_WISHES);
        let (stream_wishes, wished_streams) = mpsc::channel(MAX_WISHES);
        let wishes = Wishes {
            workers: worker_wishes,
            streams: stream_wishes,
        };
        let status = Arc::new(status);
        let control = ControlServer::start(config.node().control(), status.clone(), wishes)?;
        let observed = Observed::start(
            config,
            status,
            &data_threads.runtimes(),
            network.driver.take_metrics(),
        )?;

        kernel.attach()?;
        device
            .start(
                config
                    .peers()
                    .iter()
                    .flat_map(|peer| peer.allowed_ips().iter().copied()),
            )
            .await?;

        let (stop_workers, finish_senders) = (CancellationToken::new(), CancellationToken::new());
        let n_connections = config.transport().connections_per_peer(data_threads.n());
        let connections = Connections::new(
            peers.clone(),
            counters.clone(),
            network.handle.clone(),
            n_connections,
            finish_senders.clone(),
        );
        let on = data_threads.first();
        let mut tasks = Tasks {
            workers: JoinSet::new(),
            connections: JoinSet::new(),
            network: JoinSet::new(),
            stream_scaler: JoinSet::new(),
            uncaptured: JoinSet::new(),
            host_networks: JoinSet::new(),
        };
        if let Some(host_networks) = host_networks {
            tasks.host_networks.spawn(host_networks.run());
        }
        tasks.network.spawn_on(network.driver.run(), on);
        tasks.connections.spawn_on(connections.run(network.events), on);
        let scaler = StreamScaler::new(
            peers.clone(),
            network.handle.clone(),
            n_connections,
            config.streams(),
            config.connections().ttl(),
        );
        tasks.stream_scaler.spawn(scaler.run(wished_streams));
        pool.start(gateways)?;
        tasks
            .workers
            .spawn(pool.run(wished_workers, stop_workers.clone()));
        tasks
            .uncaptured
            .spawn_on(uncaptured::run(device.tun().clone(), counters.clone()), on);
        if let Some(observed) = &observed {
            observed.up();
        }
        info!(peer_id = %network.handle.local_peer(), device = device.name(), "node is up");
        Ok(Self {
            observed,
            _control: control,
            kernel,
            network: network.handle,
            stop_workers,
            finish_senders,
            tasks,
            data_threads,
            device,
        })
    }

    /// Waits until a part of the node fails that it cannot do without; for ever, if none does.
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
        if let Some(observed) = &self.observed {
            observed.failed(&source);
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
        if let Some(observed) = &self.observed {
            observed.stopping();
        }
        let detached = self.kernel.detach();
        let drained = timeout(STOP_TIMEOUT, async {
            self.stop_workers.cancel();
            while self.tasks.workers.join_next().await.is_some() {}
            self.finish_senders.cancel();
            while self.tasks.connections.join_next().await.is_some() {}
        });
        if drained.await.is_err() {
            warn!(?STOP_TIMEOUT, "not everything could be delivered in time");
        }
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

/// Runs a node until SIGINT or SIGTERM, or until it fails.
///
/// # Errors
/// What kept it from starting, running or stopping in order.
pub fn run(config: &Config) -> Result<(), NodeError> {
    let system = |action| move |source| NodeError::System { action, source };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(system("start the main runtime"))?;
    runtime.block_on(async {
        let mut interrupt = signal(SignalKind::interrupt()).map_err(system("handle SIGINT"))?;
        let mut terminate = signal(SignalKind::terminate()).map_err(system("handle SIGTERM"))?;
        let mut stopped = std::pin::pin!(async {
            tokio::select! {
                _ = interrupt.recv() => "SIGINT",
                _ = terminate.recv() => "SIGTERM",
            }
        });
        let mut node = tokio::select! {
            node = Node::start(config) => node?,
            // What has been made so far is taken down as it is dropped.
            _ = &mut stopped => return Ok(()),
        };
        let failure = tokio::select! {
            signal = &mut stopped => {
                info!(signal, "stopping");
                Ok(())
            }
            failure = node.failed() => Err(failure),
        };
        let down = node.stop().await;
        failure.and(down)
    })
}

fn load_kernel(config: &Config) -> Result<Arc<Kernel>, NodeError> {
    let kernel_config = KernelConfig {
        device: config.device().name().to_owned(),
        ring_bytes: config.workers().ring_bytes(),
        device_mtu: config.device().mtu(),
        conn_ttl: config.connections().ttl(),
        max_connections: config.connections().max_entries(),
        bpffs: BPFFS.into(),
    };
    Ok(Arc::new(Kernel::load(&kernel_config)?))
}

fn flow_cache(config: &Config) -> Arc<FlowCache> {
    let table = config.connections();
    let flows = FlowCache::new(table.shards(), table.max_entries(), table.ttl(), Instant::now());
    Arc::new(flows)
}

fn new_forwarder(
    flows: &Arc<FlowCache>,
    peers: &Arc<PeerTable>,
    counters: &Arc<Counters>,
    device: &Device,
) -> Box<dyn Fn() -> Forwarder + Send> {
    let (peers, counters, injector) = (peers.clone(), counters.clone(), device.injector());
    let flows = flows.clone();
    Box::new(move || Forwarder::new(peers.clone(), flows.clone(), counters.clone(), injector.clone()))
}

async fn start_gateways(
    config: &Config,
    kernel: &Arc<Kernel>,
    device: &Device,
) -> Result<(Gateways, Option<HostNetworks>), NodeError> {
    if config.gateways().is_empty() {
        return Ok((Gateways::default(), None));
    }
    let netlink = Netlink::open().map_err(DeviceError::from)?;
    let interfaces = gateways::interfaces(config, &netlink).await?;
    let host_networks = HostNetworks::start(config, kernel.clone(), netlink, device.index()).await?;
    Ok((Gateways::attach(config, kernel, interfaces)?, Some(host_networks)))
}

fn start_network(
    config: &Config,
    keypair: Keypair,
    receivers: Receivers,
    data_threads: &DataThreads,
) -> Result<Network, NodeError> {
    let (runtimes, known) = (data_threads.runtimes(), receivers.peers.clone());
    let peers = config
        .peers()
        .iter()
        .map(|peer| PeerConfig {
            peer: peer.id(),
            addresses: peer.addresses().to_vec(),
        })
        .collect();
    let network_config = NetworkConfig {
        keypair,
        listen: config.node().listen().to_vec(),
        peers,
        // What of a connection's flows comes and goes shares a thread; a peer's connections share as few as can be.
        placement: Arc::new(move |peer, others| {
            let index = known.by_id(&peer).map_or(0, |peer| peer.index.0);
            runtimes.least_taken(index, others).clone()
        }),
        inbound: Arc::new(receivers),
    };
    // Listening sockets belong to the runtime they are made in.
    let _on_data_thread = data_threads.first().enter();
    Ok(Network::start(network_config)?)
}
