//! A node from start to stop, and the order of both.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::assembly::Assembly;
use super::capture::CaptureTaps;
use super::connections::Connections;
use super::data_thread::{DataThreads, Runtimes};
use super::error::NodeError;
use super::event_log::EventLog;
use super::exit_host::{ExitHost, ExitNeeds};
use super::export::Export;
use super::hooks::{Hooks, PeerEvents};
use super::observability::{self, Observability};
use super::peers::LivePeers;
use super::port_mapping;
use super::reloadable::{ReloadError, Reloadable, Reloaded};
use super::traffic_looks;
use super::tunnel_routes::{self, StopReason};
use super::uncaptured;
use super::worker_pool::WorkerBoard;
use crate::config::Config;
use crate::control::{ControlRequests, ControlServer, EventKind, ReloadRequest, ScaleRequest};
use crate::device::{Device, Netlink};
use crate::kernel::Kernel;
use crate::spans::Spans;
use stream_router::p2p::{Keypair, Network, NetworkHandle};

/// Requests for another number of workers or streams that may wait.
const MAX_REQUESTS: usize = 4;

/// How long a stopping node tries to deliver what it has accepted, and then to close its connections.
const STOP_TIMEOUT: Duration = Duration::from_secs(3);

/// A running node. `Node::stop` delivers what it has accepted; dropping it does not.
pub struct Node {
    // Dropped in this order: the way in, the tasks with their descriptors of the device, the device itself.
    observability: Option<Observability>,
    _control: ControlServer,
    events: Arc<EventLog>,
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
    /// Hooks end with the one for the stop.
    hooks: CancellationToken,
    /// The gateway is told that it need not forward any more.
    port_mapping: CancellationToken,
}

/// The tasks of a node, most of them on the first data thread.
#[derive(Default)]
struct Tasks {
    workers: JoinSet<io::Result<()>>,
    connections: JoinSet<()>,
    /// Beside everything that carries packets, on the main runtime.
    hooks: JoinSet<()>,
    /// Empty without [`TransportSection::port_mapping`](crate::config::TransportSection::port_mapping).
    port_mapping: JoinSet<()>,
    network: JoinSet<()>,
    stream_scaler: JoinSet<()>,
    uncaptured: JoinSet<io::Result<()>>,
    /// Keeps the host as the node wants it.
    host: JoinSet<io::Result<()>>,
    /// Keeps what is asked for as the traffic of the last minute.
    traffic_looks: JoinSet<()>,
    /// Empty without gateways.
    host_networks: JoinSet<io::Result<()>>,
}

impl Tasks {
    /// Starts what runs on the first data thread: the network, the senders' connections, and what goes by way
    /// of the device.
    fn on_data_thread(
        config: &Config,
        assembly: &Assembly,
        network: Network,
        hooks: PeerEvents,
        spans: &Spans,
        ends: &Ends,
    ) -> Self {
        let (mut tasks, data_path) = (Self::default(), &assembly.data_path);
        let first = assembly.data_threads.first();
        let connections = Connections::new(
            data_path.clone(),
            network.handle,
            hooks,
            (assembly.events.clone(), spans.clone()),
            assembly.n_connections(config),
            ends.senders.clone(),
        );
        let uncaptured = uncaptured::run(
            assembly.device.tun().clone(),
            assembly.device.name().to_owned(),
            data_path.clone(),
            assembly.kernel.settings.hash_key(),
        );
        tasks.network.spawn_on(network.driver.run(), first);
        tasks.connections.spawn_on(connections.run(network.events), first);
        tasks.uncaptured.spawn_on(uncaptured, first);
        tasks
    }
}

/// The ends of the control socket's requests for another number of workers or streams.
struct Requested {
    workers: mpsc::Receiver<ScaleRequest>,
    streams: mpsc::Receiver<ScaleRequest>,
}

fn requests(reload: mpsc::Sender<ReloadRequest>) -> (ControlRequests, Requested) {
    let (workers, requested_workers) = mpsc::channel(MAX_REQUESTS);
    let (streams, requested_streams) = mpsc::channel(MAX_REQUESTS);
    let requests = ControlRequests {
        workers,
        streams,
        reload: Some(reload),
    };
    let requested = Requested {
        workers: requested_workers,
        streams: requested_streams,
    };
    (requests, requested)
}

impl Node {
    /// Starts every part of the node, or none. Requests to reload go to `reload`, and spans to `export`.
    ///
    /// # Errors
    /// [`NodeError`] says which part could not be had and what to do; what had been made is gone again.
    ///
    /// # Panics
    /// Outside a tokio runtime with I/O and time enabled.
    pub(super) async fn start(
        config: &Config,
        keypair: Keypair,
        reload: mpsc::Sender<ReloadRequest>,
        export: Export,
    ) -> Result<Self, NodeError> {
        let spans = export.spans();
        let exit = ExitHost::new(config.device().name());
        exit.check(config)?;
        let assembly = Assembly::make(config).await?;
        let nonce = port_mapping::nonce(&keypair);
        let mut network = assembly.start_network(config, keypair)?;
        let handle = network.handle.clone();
        let mapper = assembly.port_mapper(config, &handle, nonce)?;
        let board = Arc::new(WorkerBoard::default());
        let mut pool = assembly.worker_pool(config, board.clone())?;
        let (gateways, host_networks) = assembly.start_gateways(config).await?;
        let status = assembly.status(config, &handle, board, &gateways);
        let (requests, requested) = requests(reload);
        let reloads = requests.reload.clone();
        let control = ControlServer::start(config.node().control(), status.clone(), requests)?;
        let metrics = network.driver.take_metrics();
        let observability = Observability::start(
            config,
            status,
            &assembly.data_threads.runtimes(),
            metrics,
            reloads,
            export,
        )?;

        let before = assembly.left_before(config).await?;
        let needs = ExitNeeds::of(config);
        let started = match assembly.start_device(config, &gateways, &before).await {
            Ok(()) => pool.start(gateways).and_then(|()| Ok(exit.apply(&needs)?)),
            Err(error) => Err(error),
        };
        match started {
            Ok(notes) => notes.iter().for_each(|note| warn!("{note}")),
            Err(error) => {
                assembly.clear_started(config, &before).await;
                return Err(error);
            }
        }
        assembly.host.keeper().await.wanted_mut().exit = needs;
        let (limits, _) = watch::channel(config.router().clone());
        let ends = Ends::default();
        let (hooks, peer_events) = Hooks::new(config, spans.clone());
        let mut tasks = Tasks::on_data_thread(config, &assembly, network, peer_events, &spans, &ends);
        let scaler = assembly.stream_scaler(config, &handle, spans);
        let pool = pool.run(requested.workers, limits.subscribe(), ends.workers.clone());
        let scaler = scaler.run(requested.streams, limits.subscribe());
        tasks.workers.spawn(pool);
        tasks.stream_scaler.spawn(scaler);
        tasks.host.spawn(assembly.host.clone().run());
        tasks
            .traffic_looks
            .spawn(traffic_looks::run(assembly.data_path.peers.clone()));
        if let Some(mapper) = mapper {
            tasks.port_mapping.spawn(mapper.run(ends.port_mapping.clone()));
        }
        if let Some(host_networks) = host_networks {
            tasks.host_networks.spawn(host_networks.run());
        }
        if let Some(observability) = &observability {
            observability.up();
        }
        tasks.hooks.spawn(hooks.run(ends.hooks.clone()));
        assembly
            .events
            .note(EventKind::Up, format!("device {}", assembly.device.name()));
        info!(device = assembly.device.name(), "node is up");
        Ok(Self {
            observability,
            _control: control,
            reloadable: Reloadable {
                running: config.clone(),
                registry: assembly.registry,
                peers: assembly.data_path.peers,
                prefixes: assembly.prefixes,
                kernel: assembly.kernel.clone(),
                flows: assembly.data_path.flows,
                received: assembly.data_path.received,
                host: assembly.host,
                exit,
                held: Vec::new(),
                network: handle.clone(),
                limits,
            },
            events: assembly.events,
            taps: assembly.data_path.taps,
            kernel: assembly.kernel,
            network: handle,
            ends,
            tasks,
            data_threads: assembly.data_threads,
            device: assembly.device,
        })
    }

    /// Returns the runtimes of the data threads.
    pub(super) fn runtimes(&self) -> Runtimes {
        self.data_threads.runtimes()
    }

    /// Returns the peers that are configured, now and after a reload.
    pub(super) fn peers(&self) -> Arc<LivePeers> {
        self.reloadable.peers.clone()
    }

    /// Returns where events are noted.
    pub(super) fn events(&self) -> &EventLog {
        &self.events
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
        // A token that cannot be had is found out before anything has changed; the file is read again each time.
        let token = observability::token(new)?;
        let reloaded = self.reloadable.apply(new).await?;
        if let Some(observability) = &self.observability {
            observability.set_token(token);
        }
        Ok(reloaded)
    }

    /// Waits until an indispensable part of the node fails; for ever, if none does.
    pub async fn failed(&mut self) -> NodeError {
        let ended = tokio::select! {
            Some(ended) = self.tasks.workers.join_next() => ended,
            Some(ended) = self.tasks.uncaptured.join_next() => ended,
            Some(ended) = self.tasks.host.join_next() => ended,
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

    /// Stops capturing, delivers what was captured, closes every connection and takes everything down, but for the routes
    /// that keep packets to peers' networks from leaving until the next start, as `reason` and the configuration say.
    ///
    /// # Errors
    /// Capturing cannot be ended, or the device cannot be removed; everything else has been done.
    pub(super) async fn stop(mut self, reason: StopReason) -> Result<(), NodeError> {
        if let Some(observability) = &self.observability {
            observability.stopping();
        }
        // While the device is there; what is run for it ends within a time of its own.
        self.ends.hooks.cancel();
        self.ends.port_mapping.cancel();
        // What is taken down now is not to be put back.
        self.tasks.host.shutdown().await;
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
        while self.tasks.hooks.join_next().await.is_some() {}
        while self.tasks.port_mapping.join_next().await.is_some() {}
        self.tasks.stream_scaler.shutdown().await;
        self.tasks.uncaptured.shutdown().await;
        self.tasks.host_networks.shutdown().await;
        drop(self.data_threads);
        let removed = self.device.remove().await;
        drop(self.reloadable.exit);
        clear_routes(&self.reloadable.running, reason).await;
        if let Some(observability) = &mut self.observability {
            // That this waits keeps nobody: nothing else is left.
            observability.flush();
        }
        info!("node is down");
        detached?;
        Ok(removed?)
    }
}

/// Removes the routes and rules that a stop for this reason is to leave nothing of.
pub(super) async fn clear_routes(config: &Config, reason: StopReason) {
    let is_managed = std::env::var_os("NOTIFY_SOCKET").is_some();
    let cleared = match Netlink::open_filtering() {
        Ok(netlink) => tunnel_routes::clear(config, reason, is_managed, &netlink).await,
        Err(error) => Err(error),
    };
    match cleared {
        Ok(left) => left.iter().for_each(|why| warn!("{why}")),
        Err(error) => warn!(
            error = &error as &dyn std::error::Error,
            "routes that lead nowhere may be left; `stream-router purge` removes them"
        ),
    }
}
