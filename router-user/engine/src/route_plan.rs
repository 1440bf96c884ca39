//! In which routing table a peer's network is routed, and which routes of the host it collides with.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;

/// Longest prefix of a network that is half of all addresses, or all.
const WIDEST: u8 = 1;

/// A routing table that a node uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RouteTable {
    /// The host's own table. The longest prefix in it counts, whoever routes it.
    Main,
    /// A table of the node that is looked at after the main table without its default route, and not for the packets
    /// between nodes.
    Exit,
    /// A table of the node that is looked at before the main table, and not for the packets between nodes.
    Override,
}

/// Returns the table of each network: `peers` gives the networks of each peer and whether they go before the host's own,
/// and `underlay` the addresses at which peers are dialled.
pub fn plan<'a>(
    peers: impl IntoIterator<Item = (&'a [IpNet], bool)>,
    underlay: &Underlay,
) -> BTreeMap<IpNet, RouteTable> {
    let mut planned = BTreeMap::new();
    for (networks, overrides) in peers {
        for net in networks {
            let table = match overrides {
                // A default route of the host is no network that it could lose.
                true if !is_widest(*net) => RouteTable::Override,
                _ if underlay.is_taken_by(*net) => RouteTable::Exit,
                _ => RouteTable::Main,
            };
            planned.insert(*net, table);
        }
    }
    planned
}

/// The addresses at which peers are dialled. There may be tens of thousands, and as many networks to ask about.
#[derive(Clone, Debug, Default)]
pub struct Underlay(BTreeSet<IpAddr>);

impl Underlay {
    /// Returns whether packets between nodes would go into the tunnel if `net` was routed to it like any network.
    pub fn is_taken_by(&self, net: IpNet) -> bool {
        is_widest(net) || self.0.range(net.network()..=net.broadcast()).next().is_some()
    }
}

impl FromIterator<IpAddr> for Underlay {
    fn from_iter<T: IntoIterator<Item = IpAddr>>(addresses: T) -> Self {
        Self(addresses.into_iter().collect())
    }
}

/// Returns whether a network is half of all addresses, or all.
pub fn is_widest(net: IpNet) -> bool {
    net.prefix_len() <= WIDEST
}

/// A route of the host's main table that is not the node's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostRoute {
    /// The destination.
    pub net: IpNet,
    /// Name of the interface that it leads through.
    pub through: String,
    /// Whether it is a network of an Ethernet interface, which is reached without a router.
    pub is_lan: bool,
}

/// A peer's network and a route of the host of which one takes packets of the other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Overlap {
    /// The peer's network.
    pub network: IpNet,
    /// The route of the host.
    pub host: HostRoute,
    /// How they lie to each other.
    pub kind: OverlapKind,
}

/// How a peer's network and a route of the host lie to each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OverlapKind {
    /// The two are one network, or the host's route takes the place of the peer's: one of the two is of no use.
    Same,
    /// The peer's network lies inside the host's and would take packets from it, or get none.
    Inside,
    /// The host's network lies inside the peer's and stays the host's.
    Around,
}

impl OverlapKind {
    /// Returns whether the network cannot be routed to the tunnel unless it is to go before the host's own.
    pub fn is_conflict(self) -> bool {
        self != Self::Around
    }
}

/// Returns what a network and the routes of the host take from each other.
pub fn overlaps(network: IpNet, table: RouteTable, host: &[HostRoute]) -> Vec<Overlap> {
    let kind_of = |route: &HostRoute| match table {
        RouteTable::Override => None,
        // A default route of the host is what the tunnel is to replace.
        _ if route.net.prefix_len() == 0 => None,
        RouteTable::Exit if is_widest(network) => {
            (is_widest(route.net) && network.contains(&route.net)).then_some(OverlapKind::Same)
        }
        _ if route.net == network => Some(OverlapKind::Same),
        // Only the prefix counts in one table: a network inside one that goes to a router is an exception from it.
        RouteTable::Main => (route.is_lan && route.net.contains(&network)).then_some(OverlapKind::Inside),
        RouteTable::Exit => route.net.contains(&network).then_some(OverlapKind::Inside),
    };
    let around = |route: &HostRoute| {
        let is_around = table != RouteTable::Override
            && !is_widest(network)
            && route.net != network
            && network.contains(&route.net);
        is_around.then_some(OverlapKind::Around)
    };
    let overlaps = host.iter().filter_map(|route| {
        let kind = kind_of(route).or_else(|| around(route))?;
        Some(Overlap {
            network,
            host: route.clone(),
            kind,
        })
    });
    overlaps.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn net(text: &str) -> IpNet {
        text.parse().unwrap()
    }

    fn lan(text: &str) -> HostRoute {
        HostRoute {
            net: net(text),
            through: "u0".to_owned(),
            is_lan: true,
        }
    }

    fn by_router(text: &str) -> HostRoute {
        HostRoute {
            is_lan: false,
            ..lan(text)
        }
    }

    fn kinds(network: &str, table: RouteTable, host: &[HostRoute]) -> Vec<(String, OverlapKind)> {
        let overlaps = overlaps(net(network), table, host).into_iter();
        overlaps.map(|one| (one.host.net.to_string(), one.kind)).collect()
    }

    #[test]
    fn what_would_take_the_nodes_own_packets_has_a_table_of_its_own() {
        let underlay = ["192.0.2.2", "2001:db8::2"].map(|text| text.parse().unwrap());
        let underlay = Underlay::from_iter(underlay);
        let plain = ["10.42.0.2/32", "192.0.0.0/16", "0.0.0.0/0", "128.0.0.0/1"].map(net);
        let first = ["fd42::/64", "::/0", "2001:db8::/32", "8000::/1"].map(net);
        let planned = plan([(&plain[..], false), (&first[..], true)], &underlay);

        let table = |text| planned[&net(text)];
        for (text, expected) in [
            ("10.42.0.2/32", RouteTable::Main),
            ("192.0.0.0/16", RouteTable::Exit),
            ("0.0.0.0/0", RouteTable::Exit),
            ("128.0.0.0/1", RouteTable::Exit),
            ("fd42::/64", RouteTable::Override),
            ("2001:db8::/32", RouteTable::Override),
            ("::/0", RouteTable::Exit),
            ("8000::/1", RouteTable::Exit),
        ] {
            assert_eq!(table(text), expected, "{text}");
        }
    }

    #[test]
    fn a_network_of_the_lan_or_inside_it_is_a_conflict_and_one_around_it_is_none() {
        let host = [
            lan("192.168.1.0/24"),
            lan("fd77::/64"),
            by_router("0.0.0.0/0"),
            by_router("::/0"),
        ];
        let kind = |network| kinds(network, RouteTable::Main, &host);

        for (network, lan, expected) in [
            ("192.168.1.0/24", "192.168.1.0/24", OverlapKind::Same),
            ("192.168.1.128/25", "192.168.1.0/24", OverlapKind::Inside),
            ("192.168.1.7/32", "192.168.1.0/24", OverlapKind::Inside),
            ("192.168.0.0/16", "192.168.1.0/24", OverlapKind::Around),
            ("fd77::/64", "fd77::/64", OverlapKind::Same),
            ("fd77::5/128", "fd77::/64", OverlapKind::Inside),
            ("fd00::/8", "fd77::/64", OverlapKind::Around),
        ] {
            assert_eq!(kind(network), [(lan.to_owned(), expected)], "{network}");
            assert_eq!(expected.is_conflict(), expected != OverlapKind::Around);
            assert_eq!(kinds(network, RouteTable::Override, &host), []);
        }
        assert_eq!(kind("192.168.2.0/24"), []);
        assert_eq!(kinds("0.0.0.0/0", RouteTable::Exit, &host), []);
        assert_eq!(kinds("128.0.0.0/1", RouteTable::Exit, &host), []);
    }

    #[test]
    fn a_route_by_a_router_is_in_the_way_of_its_own_network_only_and_stays_where_it_is_inside() {
        let host = [by_router("10.0.0.0/8"), by_router("10.1.2.0/24")];

        assert_eq!(kinds("10.9.0.0/16", RouteTable::Main, &host), []);
        assert_eq!(
            kinds("10.1.2.0/24", RouteTable::Main, &host),
            [("10.1.2.0/24".to_owned(), OverlapKind::Same)]
        );
        assert_eq!(
            kinds("10.1.0.0/16", RouteTable::Main, &host),
            [("10.1.2.0/24".to_owned(), OverlapKind::Around)]
        );
    }

    #[test]
    fn the_main_table_goes_before_that_of_an_exit_with_all_but_its_default_route() {
        let halves = [by_router("0.0.0.0/1"), by_router("128.0.0.0/1")];
        let same = |text: &str| (text.to_owned(), OverlapKind::Same);

        assert_eq!(
            kinds("0.0.0.0/0", RouteTable::Exit, &halves),
            [same("0.0.0.0/1"), same("128.0.0.0/1")]
        );
        assert_eq!(
            kinds("128.0.0.0/1", RouteTable::Exit, &halves),
            [same("128.0.0.0/1")]
        );
        assert_eq!(
            kinds("10.1.0.0/16", RouteTable::Exit, &[by_router("10.0.0.0/8")]),
            [("10.0.0.0/8".to_owned(), OverlapKind::Inside)]
        );
    }
}
