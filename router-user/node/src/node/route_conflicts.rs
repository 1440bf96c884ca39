//! Networks of peers that collide with the host's own: looked for before a route is added.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use ipnet::IpNet;
use libp2p::PeerId;
use thiserror::Error;

use crate::config::Config;
use crate::device::{Netlink, NetlinkError};
use stream_router_engine::route_plan::{HostRoute, Overlap, OverlapKind, RouteTable, overlaps};

/// A network that is to lead to the device, and that the host has a route for already.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RouteOverlap {
    /// The peer whose network it is; `None` for that of an address of the device.
    pub(crate) peer: Option<PeerId>,
    /// What the two take from each other.
    pub(crate) overlap: Overlap,
}

/// Networks of peers that cannot be routed to the tunnel, as the host has them itself.
#[derive(Debug, Error)]
pub struct RouteConflicts {
    conflicts: Vec<RouteOverlap>,
}

impl fmt::Display for RouteConflicts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, conflict) in self.conflicts.iter().enumerate() {
            let separator = if at == 0 { "" } else { "; " };
            write!(f, "{separator}{conflict}")?;
        }
        if self.conflicts.iter().any(|conflict| conflict.peer.is_none()) {
            write!(f, "; choose other device.addresses")?;
        }
        if self.conflicts.iter().any(|conflict| conflict.peer.is_some()) {
            write!(
                f,
                "; narrow allowed_ips, or say override = true in the [[peer]] section to have the tunnel go first"
            )?;
        }
        Ok(())
    }
}

impl fmt::Display for RouteOverlap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Overlap { network, host, kind } = &self.overlap;
        let HostRoute { net, through, .. } = host;
        let owner = match self.peer {
            Some(peer) => format!("peer {peer}"),
            None => "device.addresses".to_owned(),
        };
        match kind {
            OverlapKind::Same if net == network => {
                write!(
                    f,
                    "{network} of {owner} is routed by this host already, through {through}"
                )
            }
            OverlapKind::Same => write!(
                f,
                "{network} of {owner} would stay unused beside {net}, which this host routes through {through}"
            ),
            OverlapKind::Inside => write!(
                f,
                "{network} of {owner} lies inside {net}, which this host reaches through {through}"
            ),
            OverlapKind::Around => write!(
                f,
                "{net}, which this host reaches through {through}, lies inside {network} of {owner} and stays this \
                 host's"
            ),
        }
    }
}

/// What was found of the networks of a configuration.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Overlaps {
    /// Networks that cannot be routed to the tunnel.
    pub(crate) conflicts: Vec<RouteOverlap>,
    /// Networks of the host that stay its own inside of a peer's.
    pub(crate) kept: Vec<RouteOverlap>,
}

impl Overlaps {
    /// Looks in the host's main table for what the networks of a configuration collide with, but for those in `routed`,
    /// which a running node has.
    ///
    /// # Errors
    /// The routes cannot be listed.
    pub(crate) async fn look(
        config: &Config,
        routed: &BTreeMap<IpNet, RouteTable>,
        netlink: &Netlink,
    ) -> Result<Self, NetlinkError> {
        let host = netlink.host_routes(config.device().name()).await?;
        let found = Self::of(config, routed, &host);
        // A running node has its addresses.
        Ok(match routed.is_empty() {
            true => found.with_addresses(config, &host),
            false => found,
        })
    }

    fn of(config: &Config, routed: &BTreeMap<IpNet, RouteTable>, host: &[HostRoute]) -> Self {
        let mut found = Self::default();
        let planned = config.routes();
        for peer in config.peers() {
            for net in peer.allowed_ips() {
                let Some(table) = planned.get(net).filter(|table| routed.get(net) != Some(table)) else {
                    continue;
                };
                for overlap in overlaps(*net, *table, host) {
                    let list = match overlap.kind.is_conflict() {
                        true => &mut found.conflicts,
                        false => &mut found.kept,
                    };
                    list.push(RouteOverlap {
                        peer: Some(peer.id()),
                        overlap,
                    });
                }
            }
        }
        found
    }

    /// Adds what the networks of the device's own addresses, which need not be there yet, collide with: each makes a
    /// route as a network of a peer does.
    fn with_addresses(mut self, config: &Config, host: &[HostRoute]) -> Self {
        let addresses = config.device().addresses().iter();
        let networks: BTreeSet<_> = addresses
            .filter(|net| net.prefix_len() < net.max_prefix_len())
            .map(IpNet::trunc)
            .collect();
        for net in networks {
            for overlap in overlaps(net, RouteTable::Main, host) {
                let list = match overlap.kind.is_conflict() {
                    true => &mut self.conflicts,
                    false => &mut self.kept,
                };
                list.push(RouteOverlap { peer: None, overlap });
            }
        }
        self
    }

    /// Returns what is no conflict; or, with a conflict, all of them.
    ///
    /// # Errors
    /// There is a conflict.
    pub(crate) fn refuse(self) -> Result<Vec<RouteOverlap>, RouteConflicts> {
        match self.conflicts.is_empty() {
            true => Ok(self.kept),
            false => Err(RouteConflicts {
                conflicts: self.conflicts,
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    const PEER: &str = "12D3KooWDpJ7As7BWAwRMfu1VU2WCqNjvq387JEYKDBj4kx6nXTN";

    fn config(allowed_ips: &str, rest: &str) -> Config {
        let text = format!(
            "[device]\naddresses = ['10.42.0.1/24']\n[[peer]]\nid = '{PEER}'\nallowed_ips = {allowed_ips}\n{rest}\n"
        );
        Config::parse(&text, Path::new("sr.toml")).unwrap()
    }

    fn lan() -> Vec<HostRoute> {
        vec![HostRoute {
            net: "192.168.1.0/24".parse().unwrap(),
            through: "eth0".to_owned(),
            is_lan: true,
        }]
    }

    #[test]
    fn a_conflict_names_both_networks_the_peer_and_the_interface() {
        let none = BTreeMap::new();
        let refused = |allowed_ips: &str| {
            let found = Overlaps::of(&config(allowed_ips, ""), &none, &lan());
            found.refuse().unwrap_err().to_string()
        };

        assert_eq!(
            refused("['192.168.1.0/24', '192.168.1.128/25']"),
            format!(
                "192.168.1.0/24 of peer {PEER} is routed by this host already, through eth0; 192.168.1.128/25 of peer \
                 {PEER} lies inside 192.168.1.0/24, which this host reaches through eth0; narrow allowed_ips, or say \
                 override = true in the [[peer]] section to have the tunnel go first"
            )
        );
    }

    #[test]
    fn what_a_running_node_routes_already_is_not_asked_again_and_an_override_asks_nothing() {
        let same = config("['192.168.1.0/24']", "");
        let overriding = config("['192.168.1.0/24']", "override = true");

        assert_eq!(Overlaps::of(&same, &same.routes(), &lan()), Overlaps::default());
        assert_eq!(
            Overlaps::of(&overriding, &BTreeMap::new(), &lan()),
            Overlaps::default()
        );
        // Without it the network changes its table.
        assert_eq!(
            Overlaps::of(&same, &overriding.routes(), &lan()).conflicts.len(),
            1
        );
    }

    #[test]
    fn an_address_of_the_device_is_in_no_network_of_the_host() {
        let with_address = |address: &str| {
            let text = format!("[device]\naddresses = ['{address}']\n");
            let config = Config::parse(&text, Path::new("sr.toml")).unwrap();
            Overlaps::default().with_addresses(&config, &lan())
        };

        assert_eq!(
            with_address("192.168.1.77/25").refuse().unwrap_err().to_string(),
            "192.168.1.0/25 of device.addresses lies inside 192.168.1.0/24, which this host reaches through eth0; choose \
             other device.addresses"
        );
        assert_eq!(with_address("192.168.1.77/24").conflicts.len(), 1);
        assert_eq!(with_address("192.168.7.1/16").kept.len(), 1);
        // It makes no route but the host's own to itself.
        assert_eq!(with_address("192.168.1.77/32"), Overlaps::default());
    }

    #[test]
    fn a_network_of_the_host_inside_a_peers_is_named_and_no_conflict() {
        let found = Overlaps::of(&config("['192.168.0.0/16']", ""), &BTreeMap::new(), &lan());

        let kept = found.refuse().unwrap();
        assert_eq!(
            kept[0].to_string(),
            format!(
                "192.168.1.0/24, which this host reaches through eth0, lies inside 192.168.0.0/16 of peer {PEER} and \
                 stays this host's"
            )
        );
    }
}
