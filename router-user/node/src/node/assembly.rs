//! What a node is made of before anything of it runs.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use tracing::{info, warn};

use super::data_path::DataPath;
use super::data_thread::DataThreads;
use super::error::NodeError;
use super::event_log::EventLog;
use super::gateways::{self, Gateways};
use super::host::{Host, Keeper, Wanted};
use super::host_networks::HostNetworks;
use super::peer_registry::PeerRegistry;
use super::peers::{LivePeers, QUEUE_LIMITS};
use super::port_mapping::{MappingBoard, Nonce, PortMapper};
use super::prefixes::PrefixTable;
use super::receiver::Receivers;
use super::reloadable::network_peers;
use super::route_conflicts::Overlaps;
use super::status::{NodeStatus, StatusParts};
use super::stream_scaler::StreamScaler;
use super::tunnel_routes::{OwnNumbers, TunnelRoutes};
use super::worker_pool::{WorkerBoard, WorkerPool};
use super::{discovery, privileges, proxy_password};
use crate::config::{Config, MAX_STREAMS_PER_PEER};
use crate::device::{Device, DeviceError, DeviceSettings, Netlink};
use crate::kernel::{BPFFS, Kernel, KernelConfig};
use crate::spans::Spans;
use router_common::flow_hash::HashKey;
use stream_router::egress::lanes::PeerLanes;
use stream_router::p2p::{Keypair, Network, NetworkConfig, NetworkHandle};
use stream_router_engine::flow_cache::FlowCache;
use stream_router_engine::fragments::FragmentTable;
use stream_router_engine::received_flows::ReceivedFlows;
use stream_router_engine::route_table::PeerIndex;

/// The device, the kernel side and what the data path works with. Dropped in this order: the device goes after all that
/// belongs to it.
pub(super) struct Assembly {
    pub(super) data_path: DataPath,
    pub(super) prefixes: Arc<PrefixTable>,
    pub(super) registry: PeerRegistry,
    pub(super) host: Arc<Host>,
    pub(super) events: Arc<EventLog>,
    pub(super) port_mapping: Arc<MappingBoard>,
    pub(super) kernel: Arc<Kernel>,
    pub(super) device: Device,
    pub(super) data_threads: DataThreads,
}

impl Assembly {
    /// Makes every part, or none; no packet is captured yet.
    ///
    /// # Errors
    /// [`NodeError`] says which part could not be had and what to do.
    pub(super) async fn make(config: &Config) -> Result<Self, NodeError> {
        privileges::check(config)?;
        check_routes(config).await?;
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
        if !device.tun().udp_offload() {
            info!(
                "the kernel takes no UDP super-packets (Linux 6.2 does): those of peers are cut into their packets"
            );
        }
        let kernel = load_kernel(config)?;
        let wanted = Wanted::of(config, device.index());
        let events = Arc::<EventLog>::default();
        let keeper = Keeper::new(wanted, device.tun().clone(), kernel.clone(), events.clone());
        let keeper = keeper.map_err(DeviceError::from)?;
        let host = Host::watch(keeper, device.index()).map_err(DeviceError::from)?;
        let mut registry = peer_registry(&kernel);
        let table = registry.table(config.peers(), config.streams().scaling().scaler.min)?;
        let table = table.with_disabled(config.disabled());
        table.apply_rates();
        let prefixes = Arc::new(PrefixTable::new(kernel.clone()));
        prefixes.set_peers(&table)?;
        let data_path = DataPath {
            peers: Arc::new(LivePeers::from_pointee(table)),
            flows: flow_cache(config),
            received: received_flows(config, kernel.settings.hash_key()),
            received_fragments: Arc::new(FragmentTable::new(kernel.settings.hash_key())),
            counters: Arc::default(),
            injector: device.injector(),
            clamp_mtu: config.device().clamp_mtu(),
            taps: Arc::default(),
            hold_time: config.transport().hold_time(),
            busy_poll: config.transport().busy_poll(),
            demand: Arc::default(),
        };
        Ok(Self {
            data_path,
            prefixes,
            registry,
            host,
            events,
            port_mapping: Arc::default(),
            kernel,
            device,
            data_threads,
        })
    }

    /// Listens for peers; connections are made once the network's driver runs.
    ///
    /// # Errors
    /// An address cannot be listened on.
    pub(super) fn start_network(&self, config: &Config, keypair: Keypair) -> Result<Network, NodeError> {
        let (runtimes, known) = (self.data_threads.runtimes(), self.data_path.peers.clone());
        let found = self.data_path.peers.clone();
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
                data_path: self.data_path.clone(),
            }),
            dscp: config.transport().dscp(),
            fwmark: config.transport().fwmark(),
            tcp: proxy_password::tcp_config(config.transport())?,
            uplinks: config.transport().uplinks().to_vec(),
            keepalive: config.transport().keepalive(),
            idle_time: config.transport().idle_time(),
            discovery: discovery::settings(config, move |look| {
                let table = found.load();
                table
                    .all()
                    .iter()
                    .flat_map(|peer| &peer.allowed_ips)
                    .for_each(look);
            }),
            relay: config.relay().network_config(),
            punch: config.transport().punch(),
        };
        // Listening sockets belong to the runtime they are made in.
        let _on_data_thread = self.data_threads.first().enter();
        Ok(Network::start(network_config)?)
    }

    /// Returns what has the default gateway forward the node's ports, if the configuration wants it.
    ///
    /// # Errors
    /// The kernel gives no netlink socket.
    pub(super) fn port_mapper(
        &self,
        config: &Config,
        network: &NetworkHandle,
        nonce: Nonce,
    ) -> Result<Option<PortMapper>, NodeError> {
        if !config.transport().port_mapping() {
            return Ok(None);
        }
        let (device, board) = (self.device.index(), self.port_mapping.clone());
        let mapper = PortMapper::new(network.clone(), nonce, device, board).map_err(DeviceError::from)?;
        Ok(Some(mapper))
    }

    /// Opens the rings of the initial workers, which run once the pool is started.
    ///
    /// # Errors
    /// A ring cannot be made, or the slots cannot be written.
    pub(super) fn worker_pool(
        &self,
        config: &Config,
        board: Arc<WorkerBoard>,
    ) -> Result<WorkerPool, NodeError> {
        Ok(WorkerPool::new(
            self.kernel.clone(),
            config.workers(),
            config.connections(),
            self.data_threads.runtimes(),
            self.data_path.clone(),
            board,
        )?)
    }

    /// Returns what scales the streams to each peer.
    pub(super) fn stream_scaler(
        &self,
        config: &Config,
        network: &NetworkHandle,
        spans: Spans,
    ) -> StreamScaler {
        StreamScaler::new(
            self.data_path.clone(),
            network.clone(),
            self.n_connections(config),
            config.streams(),
            spans,
        )
    }

    /// Returns how many connections to a peer are used.
    pub(super) fn n_connections(&self, config: &Config) -> u32 {
        config.transport().connections_per_peer(self.data_threads.n())
    }

    /// Attaches the gateways of the configuration. With any, the host's own networks are returned as well, which are to
    /// be followed.
    ///
    /// # Errors
    /// An interface cannot be attached to, or the routes cannot be listed.
    pub(super) async fn start_gateways(
        &self,
        config: &Config,
    ) -> Result<(Arc<Gateways>, Option<HostNetworks>), NodeError> {
        if config.gateways().is_empty() {
            return Ok((Arc::default(), None));
        }
        let netlink = Netlink::open().map_err(DeviceError::from)?;
        let interfaces = gateways::interfaces(config, &netlink).await?;
        let prefixes = self.prefixes.clone();
        let host_networks =
            HostNetworks::start(prefixes, netlink, self.host.clone(), self.device.index()).await?;
        let gateways = Arc::new(Gateways::attach(config, &self.kernel, interfaces)?);
        Ok((gateways, Some(host_networks)))
    }

    /// Returns what an earlier run has left.
    ///
    /// # Errors
    /// The kernel refuses to say.
    pub(super) async fn left_before(&self, config: &Config) -> Result<TunnelRoutes, NodeError> {
        let netlink = Netlink::open_filtering().map_err(DeviceError::from)?;
        let left = TunnelRoutes::left(&netlink, OwnNumbers::of(config.device().name())).await;
        Ok(left.map_err(DeviceError::from)?)
    }

    /// Removes what a start that has failed has added to what was there `before`.
    pub(super) async fn clear_started(&self, config: &Config, before: &TunnelRoutes) {
        let Ok(netlink) = Netlink::open_filtering() else {
            return;
        };
        match TunnelRoutes::left(&netlink, OwnNumbers::of(config.device().name())).await {
            Ok(now) => {
                for why in now.without(before).take(&netlink).await {
                    warn!("{why}");
                }
            }
            Err(error) => warn!(
                error = &error as &dyn std::error::Error,
                "routes may be left of the start"
            ),
        }
    }

    /// Takes over what an earlier run has `left`, and removes what of it is of no use any more. Begins to capture what is routed to the device, brings the device up, and routes the peers' networks to it.
    ///
    /// # Errors
    /// The kernel refuses, or one of the networks is routed elsewhere.
    pub(super) async fn start_device(
        &self,
        config: &Config,
        gateways: &Arc<Gateways>,
        left: &TunnelRoutes,
    ) -> Result<(), NodeError> {
        self.kernel.programs.attach_egress()?;
        let routes = TunnelRoutes::of(config, self.device.index());
        let netlink = Netlink::open_filtering().map_err(DeviceError::from)?;
        let stale = left.without(&routes);
        let (blocks, rest) = routes.without(left).blocks_first();
        blocks.put(&netlink).await.map_err(DeviceError::from)?;
        self.device.start([]).await?;
        rest.put(&netlink).await.map_err(DeviceError::from)?;
        for why in stale.take(&netlink).await {
            warn!("{why}");
        }
        let mut keeper = self.host.keeper().await;
        keeper.set_hooks(self.kernel.programs.egress_id()?, gateways.clone());
        keeper.compare(true).await?;
        Ok(())
    }

    /// Returns what observers are shown.
    pub(super) fn status(
        &self,
        config: &Config,
        network: &NetworkHandle,
        workers: Arc<WorkerBoard>,
        gateways: &Arc<Gateways>,
    ) -> Arc<NodeStatus> {
        Arc::new(NodeStatus::new(
            config,
            StatusParts {
                device_index: self.device.index(),
                host: self.host.clone(),
                kernel: self.kernel.clone(),
                data_path: self.data_path.clone(),
                network: network.clone(),
                workers,
                runtimes: self.data_threads.runtimes(),
                gateways: gateways.clone(),
                events: self.events.clone(),
                port_mapping: self.port_mapping.clone(),
            },
        ))
    }
}

/// Refuses networks of peers that are the host's own, and tells which of those inside stay so.
async fn check_routes(config: &Config) -> Result<(), NodeError> {
    let netlink = Netlink::open().map_err(DeviceError::from)?;
    let found = Overlaps::look(config, &BTreeMap::new(), &netlink).await;
    for kept in found.map_err(DeviceError::from)?.refuse()? {
        warn!("{kept}");
    }
    Ok(())
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

fn received_flows(config: &Config, hash_key: HashKey) -> Arc<ReceivedFlows> {
    let table = config.connections();
    let flows = ReceivedFlows::new(hash_key, table.max_entries(), table.ttl(), Instant::now());
    Arc::new(flows)
}
