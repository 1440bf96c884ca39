//! What the node wants of the host, as one value.

use std::collections::BTreeMap;

use ipnet::IpNet;

use crate::config::Config;
use crate::device::{Route, Rule};
use crate::node::exit_host::ExitNeeds;
use crate::node::tunnel_routes::TunnelRoutes;
use stream_router_engine::route_plan::RouteTable;

/// What the node wants of the host.
#[derive(Clone, Debug)]
pub(in crate::node) struct Wanted {
    /// The device.
    pub(in crate::node) device: WantedDevice,
    /// Routes, each once; those that come with the addresses are not among them.
    pub(in crate::node) routes: Vec<Route>,
    /// Policy rules.
    pub(in crate::node) rules: Vec<Rule>,
    /// Id of the program at the egress of the device; `None` until it is attached.
    pub(in crate::node) hook: Option<u32>,
    /// What an exit needs: a table of nftables, and settings of the kernel.
    pub(in crate::node) exit: ExitNeeds,
    /// The peers' networks, each with the table that it is routed in: the kernel is to send their packets to the device.
    pub(in crate::node) networks: BTreeMap<IpNet, RouteTable>,
    /// Names of the gateways' interfaces, each with the node's program; empty until they are attached.
    pub(in crate::node) gateways: Vec<String>,
    /// Programs and maps are pinned.
    pub(in crate::node) pins: bool,
}

/// What the node wants of its device.
#[derive(Clone, Debug)]
pub(in crate::node) struct WantedDevice {
    pub(in crate::node) index: u32,
    pub(in crate::node) name: String,
    pub(in crate::node) mtu: u32,
    pub(in crate::node) addresses: Vec<IpNet>,
}

impl Wanted {
    /// Returns what a configuration wants, with the device at `index`; nothing is captured yet.
    pub(in crate::node) fn of(config: &Config, index: u32) -> Self {
        let TunnelRoutes { routes, rules } = TunnelRoutes::of(config, index);
        Self {
            device: WantedDevice {
                index,
                name: config.device().name().to_owned(),
                mtu: config.device().mtu(),
                addresses: config.device().addresses().to_vec(),
            },
            routes,
            rules,
            hook: None,
            exit: ExitNeeds::default(),
            networks: config.routes(),
            gateways: Vec::new(),
            pins: false,
        }
    }

    /// Returns the routes that come with the addresses of the device, then the others.
    pub(in crate::node) fn all_routes(&self) -> Vec<Route> {
        let index = self.device.index;
        let mut routes: Vec<Route> = Vec::with_capacity(self.device.addresses.len() + self.routes.len());
        let of_addresses = self.device.addresses.iter();
        for route in of_addresses.filter_map(|address| Route::of_address(index, *address)) {
            // Of several addresses of a network the first makes the route.
            if !routes.iter().any(|other| other.net == route.net) {
                routes.push(route);
            }
        }
        routes.extend(&self.routes);
        routes
    }
}
