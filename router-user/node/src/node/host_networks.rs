//! Keeps gateways from taking what the host itself routes.

use std::io;
use std::sync::Arc;

use tracing::debug;

use super::error::NodeError;
use super::host::Host;
use super::prefixes::PrefixTable;
use crate::device::{DeviceError, Netlink};

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
