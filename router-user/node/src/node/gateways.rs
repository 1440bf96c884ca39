//! Gateway interfaces: attached at the start, and kept from taking what the host itself routes.

use std::io;
use std::sync::Arc;

use tracing::{debug, info, warn};

use super::error::NodeError;
use super::gateway_sink::GatewaySink;
use super::host::Host;
use super::prefixes::PrefixTable;
use crate::config::Config;
use crate::control::GatewayStatus;
use crate::device::{DeviceError, Netlink};
use crate::kernel::{AttachedGateway, GatewayInterface, Kernel, KernelError, SocketConsumer, SocketDrops};
use router_common::gateway::MAX_QUEUES;
use router_common::slots::MAX_WORKERS;

/// The attached gateways, in the order of the configuration. They are detached on drop; sockets stay with their
/// workers.
#[derive(Default)]
pub(super) struct Gateways {
    gateways: Vec<RunningGateway>,
}

struct RunningGateway {
    attached: AttachedGateway,
    name: String,
    sink: Arc<GatewaySink>,
    first_socket: u32,
}

impl Gateways {
    /// Attaches every gateway of the configuration. The peers' prefixes and the host's own are in the kernel's
    /// table by now.
    ///
    /// # Errors
    /// An interface is missing, carries no Ethernet frames, or cannot be attached to; none is attached then.
    pub(super) fn attach(
        config: &Config,
        kernel: &Kernel,
        interfaces: Vec<GatewayInterface>,
    ) -> Result<Self, NodeError> {
        let mut gateways = Vec::with_capacity(interfaces.len());
        let mut n_queues = 0;
        for (interface, config_of) in interfaces.into_iter().zip(config.gateways()) {
            let attached = kernel.attach_gateway(&interface)?;
            let sink = GatewaySink::open(
                config_of.sink(),
                &interface,
                config.device().mtu(),
                MAX_QUEUES - n_queues,
            )?;
            let first_socket = n_queues * MAX_WORKERS;
            if let Some(pool) = sink.pool() {
                kernel
                    .gateways
                    .add_with_sockets(&interface, first_socket, pool.n_queues())?;
                n_queues += pool.n_queues();
            }
            let gateway = RunningGateway {
                attached,
                name: interface.name,
                sink: Arc::new(sink),
                first_socket,
            };
            gateway.report();
            gateways.push(gateway);
        }
        Ok(Self { gateways })
    }

    /// Opens the sockets of a worker and redirects packets to them. There are none at gateways that use the rings.
    ///
    /// # Errors
    /// The kernel gives no socket.
    pub(super) fn open_sockets(
        &self,
        kernel: &Kernel,
        worker: u32,
    ) -> Result<Vec<SocketConsumer>, NodeError> {
        let mut all = Vec::new();
        for gateway in &self.gateways {
            let sockets = gateway
                .sink
                .open_sockets()
                .map_err(|source| KernelError::Sockets {
                    interface: gateway.name.clone(),
                    source,
                })?;
            kernel
                .gateways
                .add_sockets(gateway.first_socket, worker, &sockets)?;
            all.extend(sockets);
        }
        Ok(all)
    }

    /// Returns the gateways as `status` shows them.
    pub(super) fn status(&self) -> Vec<GatewayStatus> {
        self.gateways.iter().map(RunningGateway::status).collect()
    }

    /// Returns a function that counts, for `status`, what the sockets of the gateways drop.
    pub(super) fn drops(&self) -> impl Fn() -> SocketDrops + Send + Sync + use<> {
        let sinks: Vec<_> = self.gateways.iter().map(|gateway| gateway.sink.clone()).collect();
        move || {
            let mut sum = SocketDrops::default();
            for pool in sinks.iter().filter_map(|sink| sink.pool()) {
                sum.add(pool.drops());
            }
            sum
        }
    }
}

impl RunningGateway {
    fn report(&self) {
        let GatewayStatus {
            interface,
            mode,
            reason,
            sink,
            sink_reason,
        } = self.status();
        if reason.is_some() || sink_reason.is_some() {
            warn!(
                interface,
                mode, reason, sink, sink_reason, "capturing at a gateway, not in the fastest way"
            );
        } else {
            info!(interface, mode, sink, "capturing at a gateway");
        }
    }

    fn status(&self) -> GatewayStatus {
        let (sink, sink_reason) = self.sink.status();
        GatewayStatus {
            interface: self.name.clone(),
            mode: self.attached.mode().to_string(),
            reason: self.attached.reason().map(str::to_owned),
            sink,
            sink_reason,
        }
    }
}

/// Looks the configured interfaces up.
///
/// # Errors
/// An interface is missing, or carries no Ethernet frames.
pub(super) async fn interfaces(
    config: &Config,
    netlink: &Netlink,
) -> Result<Vec<GatewayInterface>, NodeError> {
    let mut interfaces = Vec::with_capacity(config.gateways().len());
    for gateway in config.gateways() {
        let name = gateway.interface().to_owned();
        let link = netlink.link_by_name(&name).await.map_err(DeviceError::from)?;
        let Some(link) = link else {
            return Err(NodeError::NoGateway { interface: name });
        };
        let Some(address) = link.ethernet_address else {
            return Err(NodeError::NotEthernet { interface: name });
        };
        interfaces.push(GatewayInterface {
            name,
            index: link.index,
            address,
        });
    }
    Ok(interfaces)
}

/// Keeps the host's own networks in the kernel's prefix table.
pub(super) struct HostNetworks {
    prefixes: Arc<PrefixTable>,
    netlink: Netlink,
    host: Arc<Host>,
    device: u32,
}

impl HostNetworks {
    /// Writes the networks that are routed elsewhere than to `device` now.
    ///
    /// # Errors
    /// Routes cannot be listed, or the table cannot be written.
    pub(super) async fn start(
        prefixes: Arc<PrefixTable>,
        netlink: Netlink,
        host: Arc<Host>,
        device: u32,
    ) -> Result<Self, NodeError> {
        let networks = Self {
            prefixes,
            netlink,
            host,
            device,
        };
        networks.update().await?;
        Ok(networks)
    }

    /// Follows changes of routes until the routes cannot be listed.
    ///
    /// # Errors
    /// The routes cannot be listed any more.
    pub(super) async fn run(self) -> io::Result<()> {
        loop {
            self.host.routes_changed().await;
            self.update().await.map_err(io::Error::other)?;
        }
    }

    async fn update(&self) -> Result<(), NodeError> {
        let host = self
            .netlink
            .networks_elsewhere(self.device)
            .await
            .map_err(DeviceError::from)?;
        let n_networks = host.len();
        if self.prefixes.set_host(host)? {
            debug!(n_networks, "the host's own networks changed");
        }
        Ok(())
    }
}
