//! The TUN device from its creation to its removal: addresses, routes, injection.

mod ethtool;
mod host_changes;
mod host_networks;
mod host_routes;
mod icmp;
mod inject;
mod link_state;
mod netlink;
mod nft;
mod rate_limit;
mod route;
mod rule;
mod seen_route;
mod sysctl;
mod tc_filters;
#[cfg(test)]
mod tests;
mod tun;

use std::time::{Duration, Instant};

use ipnet::IpNet;
use thiserror::Error;
use tokio::time::sleep;
use tracing::warn;

pub use ethtool::{Offload, driver, has_offload};
pub use host_changes::{HostChange, HostChanges};
pub use icmp::{MAX_REPLY_LEN, NoReply, ReplyBuffer, Unreachable, unreachable};
pub use inject::{InjectError, Injector};
pub use link_state::{AddressState, LinkState};
pub use netlink::{Interface, Netlink, NetlinkError};
pub use nft::{
    NftError, NftRules, is_there as has_nft_table, n_rules as n_nft_rules, remove as remove_nft_table,
    table as nft_table,
};
pub use rate_limit::TokenBucket;
pub use route::{Route, RouteTarget, TABLE_LOCAL, TABLE_MAIN};
pub use rule::{NOWHERE, Rule, SeenRule};
pub use seen_route::{SeenRoute, Way};
pub use sysctl::Sysctl;
pub use tc_filters::TcFilter;
pub use tun::{READ_OR_GONE, Tun, TunError, Whereabouts};

/// Longest wait for the addresses. The kernel needs some milliseconds; on a host with IPv6 off the wait is in vain.
const ADDRESSES_TIMEOUT: Duration = Duration::from_secs(2);
const ADDRESSES_POLL: Duration = Duration::from_millis(2);

/// What a device is made from; the configuration has checked the values.
#[derive(Clone, Copy, Debug)]
pub struct DeviceSettings<'a> {
    /// Name of the interface.
    pub name: &'a str,
    /// Addresses with the lengths of their on-link prefixes.
    pub addresses: &'a [IpNet],
    /// MTU in bytes.
    pub mtu: u32,
}

/// Why a device cannot be made or changed.
#[derive(Debug, Error)]
pub enum DeviceError {
    /// Making the TUN device failed.
    #[error(transparent)]
    Tun(#[from] TunError),
    /// A look-up in the network namespace failed.
    #[error(transparent)]
    Netlink(#[from] NetlinkError),
    /// Setting the device up failed.
    #[error("cannot set up the device {name}")]
    SetUp {
        /// Name of the device.
        name: String,
        /// What failed.
        source: NetlinkError,
    },
    /// The interface vanished while it was set up.
    #[error("the device {name} was removed by somebody else")]
    Gone {
        /// Name of the device.
        name: String,
    },
}

/// The node's TUN device.
///
/// Dropping it closes its descriptor; the interface goes when the last [`Injector`] is dropped too, or at once with
/// [`Device::remove`]. Addresses and routes go with the interface.
#[derive(Debug)]
pub struct Device {
    name: String,
    index: u32,
    tun: Tun,
    netlink: Netlink,
}

impl Device {
    /// Makes the device in the network namespace of the calling thread, with its addresses, and leaves it down: nothing
    /// crosses it before [`Device::start`], so programs can be attached in between.
    ///
    /// # Errors
    /// The name is taken, a privilege or the driver is missing, or the kernel refuses a setting; nothing is left then.
    ///
    /// # Panics
    /// Outside a tokio runtime with I/O enabled.
    pub async fn create(settings: DeviceSettings<'_>) -> Result<Self, DeviceError> {
        let netlink = Netlink::open()?;
        let name = settings.name.to_owned();
        if netlink.link_by_name(&name).await?.is_some() {
            return Err(TunError::NameTaken { name }.into());
        }
        let tun = Tun::create(&name)?;
        let link = netlink.link_by_name(&name).await?;
        let index = link
            .ok_or_else(|| DeviceError::Gone { name: name.clone() })?
            .index;
        let device = Self {
            name,
            index,
            tun,
            netlink,
        };
        device
            .configure(settings)
            .await
            .map_err(|source| device.set_up_error(source))?;
        Ok(device)
    }

    async fn configure(&self, settings: DeviceSettings<'_>) -> Result<(), NetlinkError> {
        // Before the MTU: below 1280 the kernel forgets IPv6 for the device, and this setting with it.
        self.netlink.disable_ipv6_autoconfiguration(self.index).await?;
        self.netlink.set_mtu(self.index, settings.mtu).await?;
        for address in settings.addresses {
            self.netlink.add_address(self.index, *address).await?;
        }
        Ok(())
    }

    /// Brings the device up, waits until the host takes packets for its addresses, and routes `networks` to it.
    ///
    /// # Errors
    /// The kernel refuses, or one of the networks is routed elsewhere.
    pub async fn start(&self, networks: impl IntoIterator<Item = IpNet>) -> Result<(), DeviceError> {
        self.netlink
            .set_up(self.index)
            .await
            .map_err(|source| self.set_up_error(source))?;
        self.wait_for_addresses()
            .await
            .map_err(|source| self.set_up_error(source))?;
        for net in networks {
            self.add_route(net).await?;
        }
        Ok(())
    }

    async fn wait_for_addresses(&self) -> Result<(), NetlinkError> {
        let deadline = Instant::now() + ADDRESSES_TIMEOUT;
        let wanted = self.netlink.addresses(self.index).await?;
        loop {
            let local = self.netlink.local_addresses(self.index).await?;
            if wanted.iter().all(|net| local.contains(&net.addr())) {
                return Ok(());
            }
            if Instant::now() >= deadline {
                warn!(
                    device = self.name,
                    "the host is slow to take packets for the device's addresses"
                );
                return Ok(());
            }
            sleep(ADDRESSES_POLL).await;
        }
    }

    /// Routes one more network to the device, which is up.
    ///
    /// # Errors
    /// The kernel refuses, or the network is routed elsewhere.
    pub async fn add_route(&self, net: IpNet) -> Result<(), DeviceError> {
        self.netlink
            .add_route(self.index, net)
            .await
            .map_err(|source| self.set_up_error(source))
    }

    /// Removes the route of a network to the device.
    ///
    /// # Errors
    /// The kernel refuses, or has no such route.
    pub async fn remove_route(&self, net: IpNet) -> Result<(), DeviceError> {
        self.netlink
            .remove_route(self.index, net)
            .await
            .map_err(|source| self.set_up_error(source))
    }

    /// Removes the interface, even while an [`Injector`] exists; its writes give [`InjectError::Gone`] then.
    ///
    /// # Errors
    /// The kernel refuses; the interface then goes with the last descriptor.
    pub async fn remove(self) -> Result<(), DeviceError> {
        // In another namespace it goes with its descriptors, and its index may be somebody else's here.
        if self.tun.whereabouts() != Whereabouts::Here {
            return Ok(());
        }
        self.netlink
            .remove_link(self.index)
            .await
            .map_err(|source| self.set_up_error(source))
    }

    /// Returns the name of the interface.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns the index of the interface.
    pub fn index(&self) -> u32 {
        self.index
    }

    /// Returns the descriptor, to read what the egress program let pass.
    pub fn tun(&self) -> &Tun {
        &self.tun
    }

    /// Returns a handle that writes packets into the host.
    pub fn injector(&self) -> Injector {
        self.tun.injector()
    }

    fn set_up_error(&self, source: NetlinkError) -> DeviceError {
        DeviceError::SetUp {
            name: self.name.clone(),
            source,
        }
    }
}
