//! Reads what the kernel has of what the node wants.

use std::fs;

use super::wanted::Wanted;
use crate::device::{
    AddressState, LinkState, Netlink, NetlinkError, NftRules, Route, RouteTarget, SeenRule, Sysctl, TcFilter,
    n_nft_rules,
};
use crate::kernel::Kernel;
use crate::node::exit_host::OffSetting;
use crate::node::gateways::{GatewayPlace, Gateways};

/// What the kernel has.
#[derive(Clone, Debug)]
pub(in crate::node) struct Found {
    /// The device.
    pub(in crate::node) link: LinkState,
    /// IPv6 of the device is turned off by the administrator; `None` where that cannot be read.
    pub(in crate::node) ipv6_disabled: Option<bool>,
    /// Its addresses, in the kernel's order.
    pub(in crate::node) addresses: Vec<AddressState>,
    /// The routes that lead to the device, those to its own addresses, and those that lead nowhere if any is wanted; `None`
    /// if they were not looked at.
    pub(in crate::node) routes: Option<Vec<Route>>,
    /// All policy rules.
    pub(in crate::node) rules: Vec<SeenRule>,
    /// The filters at the egress of the device, in the order in which packets come by.
    pub(in crate::node) filters: Vec<TcFilter>,
    /// Ids of the programs that packets come by before all filters (TCX).
    pub(in crate::node) before_filters: Vec<u32>,
    /// The filters at the ingress of the device.
    pub(in crate::node) ingress_filters: Vec<TcFilter>,
    /// Ids of the programs at the ingress of the device beside filters (TCX).
    pub(in crate::node) ingress_programs: Vec<u32>,
    /// The rules that the node's table of nftables is to have, and how many there are; they are not looked for if none
    /// is to be there.
    pub(in crate::node) nft: (NftRules, u32),
    /// The settings that have to be on, and those of them that are off.
    pub(in crate::node) settings: (Vec<Sysctl>, Vec<OffSetting>),
    /// The interfaces of the gateways, by their names; `None` where there is none.
    pub(in crate::node) gateways: Vec<Option<FoundGateway>>,
    /// Where the node has attached the gateways.
    pub(in crate::node) places: Vec<GatewayPlace>,
    /// Names of the pins that are missing.
    pub(in crate::node) missing_pins: Vec<String>,
}

/// The interface of a gateway.
#[derive(Clone, Debug)]
pub(in crate::node) struct FoundGateway {
    /// The interface.
    pub(in crate::node) link: LinkState,
    /// Ids of the programs at its ingress, of each hook that a gateway may use.
    pub(in crate::node) programs: Vec<u32>,
}

impl Found {
    /// Reads what the kernel has of `wanted`, its routes only `with_routes`; `None` if the device is not where it was made.
    ///
    /// # Errors
    /// The kernel refuses to say.
    pub(in crate::node) async fn read(
        netlink: &Netlink,
        kernel: &Kernel,
        gateways: &Gateways,
        wanted: &Wanted,
        with_routes: bool,
    ) -> Result<Option<Self>, NetlinkError> {
        let index = wanted.device.index;
        let Some(link) = netlink.link_state(index).await?.filter(|link| link.is_tun) else {
            return Ok(None);
        };
        let routes = match with_routes {
            true => Some(routes(netlink, wanted).await?),
            false => None,
        };
        let nft = wanted.exit.nft();
        let n_rules = match nft.is_empty() {
            true => 0,
            false => n_nft_rules(&wanted.device.name).map_err(|source| NetlinkError::Refused {
                action: "look up the node's table of nftables".to_owned(),
                source,
            })?,
        };
        let mut interfaces = Vec::with_capacity(wanted.gateways.len());
        for name in &wanted.gateways {
            let link = netlink.link_state_by_name(name).await?;
            interfaces.push(link.map(|link| FoundGateway {
                programs: [link.xdp.clone(), kernel.programs.at_ingress(link.index)].concat(),
                link,
            }));
        }
        let settings = wanted.exit.settings(&wanted.device.name);
        let off = OffSetting::among(&settings);
        Ok(Some(Self {
            nft: (nft, n_rules),
            settings: (settings, off),
            gateways: interfaces,
            places: gateways.places(kernel),
            missing_pins: kernel.programs.missing_pins(),
            ipv6_disabled: ipv6_disabled(&link.name),
            addresses: netlink.address_states(index).await?,
            routes,
            rules: netlink.seen_rules().await?,
            filters: netlink.egress_filters(index).await?,
            before_filters: kernel.programs.before_filters(index),
            ingress_filters: netlink.ingress_filters(index).await?,
            ingress_programs: kernel.programs.at_ingress(index),
            link,
        }))
    }
}

async fn routes(netlink: &Netlink, wanted: &Wanted) -> Result<Vec<Route>, NetlinkError> {
    let mut routes = netlink.routes_of(wanted.device.index).await?;
    let leads_nowhere = |route: &Route| route.target == RouteTarget::Unreachable;
    if wanted.routes.iter().any(leads_nowhere) {
        routes.extend(netlink.unreachable_routes().await?);
    }
    Ok(routes)
}

/// Returns the setting by which an administrator turns IPv6 of an interface off.
pub(super) fn ipv6_setting(device: &str) -> String {
    format!("/proc/sys/net/ipv6/conf/{device}/disable_ipv6")
}

fn ipv6_disabled(device: &str) -> Option<bool> {
    let text = fs::read_to_string(ipv6_setting(device)).ok()?;
    Some(text.trim() != "0")
}
