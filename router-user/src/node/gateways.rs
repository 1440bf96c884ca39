//! Gateway interfaces: attached at the start, and kept from taking what the host itself routes.

use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;

use ipnet::IpNet;
use tracing::{debug, info, warn};

use super::error::NodeError;
use crate::config::Config;
use crate::control::GatewayStatus;
use crate::device::{DeviceError, Netlink, RouteChanges};
use crate::engine::host_networks::inside_peers;
use crate::kernel::{AttachedGateway, GatewayInterface, GatewayMode, Kernel};

/// The attached gateways, in the order of the configuration. Dropping it detaches them.
#[derive(Default)]
pub(super) struct Gateways {
    attached: Vec<(String, AttachedGateway)>,
}

impl Gateways {
    /// Attaches every gateway of the configuration. The peers' prefixes and the host's own are in the kernel's
    /// table by now.
    ///
    /// # Errors
    /// An interface is missing, is no Ethernet, or cannot be attached to; none is attached then.
    pub(super) fn attach(kernel: &Kernel, interfaces: Vec<GatewayInterface>) -> Result<Self, NodeError> {
        let mut attached = Vec::with_capacity(interfaces.len());
        for interface in interfaces {
            let gateway = kernel.attach_gateway(&interface)?;
            match gateway.mode() {
                GatewayMode::Native => info!(interface = interface.name, "capturing at a gateway"),
                GatewayMode::Generic => warn!(
                    interface = interface.name,
                    reason = gateway.reason(),
                    "capturing at a gateway in generic mode, which is slower"
                ),
            }
            attached.push((interface.name, gateway));
        }
        Ok(Self { attached })
    }

    /// What `status` shows of them.
    pub(super) fn status(&self) -> Vec<GatewayStatus> {
        let status = |(interface, gateway): &(String, AttachedGateway)| GatewayStatus {
            interface: interface.clone(),
            mode: gateway.mode().to_string(),
            reason: gateway.reason().map(str::to_owned),
        };
        self.attached.iter().map(status).collect()
    }
}

/// Looks the configured interfaces up.
///
/// # Errors
/// One is missing or is no Ethernet.
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
    kernel: Arc<Kernel>,
    netlink: Netlink,
    changes: RouteChanges,
    device: u32,
    peers: BTreeSet<IpNet>,
    written: BTreeSet<IpNet>,
}

impl HostNetworks {
    /// Writes what is routed elsewhere than to `device` now.
    ///
    /// # Errors
    /// Routes cannot be listed, or the table cannot be written.
    pub(super) async fn start(
        config: &Config,
        kernel: Arc<Kernel>,
        netlink: Netlink,
        device: u32,
    ) -> Result<Self, NodeError> {
        let peers = config.peers().iter().flat_map(|peer| peer.allowed_ips());
        let mut networks = Self {
            kernel,
            netlink,
            changes: RouteChanges::open().map_err(DeviceError::from)?,
            device,
            peers: peers.copied().collect(),
            written: BTreeSet::new(),
        };
        networks.update().await?;
        Ok(networks)
    }

    /// Follows changes for as long as routes can be listed.
    ///
    /// # Errors
    /// They cannot be any more.
    pub(super) async fn run(mut self) -> io::Result<()> {
        loop {
            self.changes.wait().await;
            self.update().await.map_err(io::Error::other)?;
        }
    }

    async fn update(&mut self) -> Result<(), NodeError> {
        let host = self
            .netlink
            .networks_elsewhere(self.device)
            .await
            .map_err(DeviceError::from)?;
        let now = inside_peers(&host, &self.peers);
        if now != self.written {
            debug!(n_networks = now.len(), "the host's own networks changed");
            self.kernel.replace_host_prefixes(&self.written, &now)?;
            self.written = now;
        }
        Ok(())
    }
}
