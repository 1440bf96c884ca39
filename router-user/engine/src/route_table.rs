//! The route table, which says which peer an inner address belongs to: longest-prefix match over the `allowed_ips` of
//! every peer.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

/// The index of a configured peer, the same in user space and in the kernel's tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PeerIndex(pub u32);

/// A longest-prefix table from inner addresses to peers.
///
/// One table answers both where a packet *for* an address goes, and whether a packet *from* an address may come from a
/// peer. It does not change, so it is kept as the ranges of addresses that the prefixes make, which one binary search
/// finds.
#[derive(Clone, Debug, Default)]
pub struct RouteTable {
    v4: Ranges<u32>,
    v6: Ranges<u128>,
}

/// Each range reaches to the start of the next one. The first starts at 0, unless there is none.
#[derive(Clone, Debug, Default)]
struct Ranges<A> {
    starts: Vec<A>,
    owners: Vec<Option<PeerIndex>>,
}

impl RouteTable {
    /// Builds a table. Of two equal prefixes the later one counts.
    pub fn new(prefixes: impl IntoIterator<Item = (IpNet, PeerIndex)>) -> Self {
        let (mut v4, mut v6) = (BTreeMap::new(), BTreeMap::new());
        for (prefix, peer) in prefixes {
            let (first, last) = (bits(prefix.network()), bits(prefix.broadcast()));
            let family = if prefix.addr().is_ipv4() { &mut v4 } else { &mut v6 };
            family.insert((first, prefix.prefix_len()), (last, peer));
        }
        let Ranges { starts, owners } = Ranges::new(v4, u32::MAX.into());
        Self {
            v4: Ranges {
                starts: starts.into_iter().map(|start| start as u32).collect(),
                owners,
            },
            v6: Ranges::new(v6, u128::MAX),
        }
    }

    /// Returns the peer with the longest prefix that contains `address`.
    pub fn lookup(&self, address: IpAddr) -> Option<PeerIndex> {
        match address {
            IpAddr::V4(address) => self.v4.owner(address.to_bits()),
            IpAddr::V6(address) => self.v6.owner(address.to_bits()),
        }
    }

    /// Returns the largest network around `address` all of which belongs to whom `address` does, or to nobody likewise.
    pub fn network(&self, address: IpAddr) -> (IpNet, Option<PeerIndex>) {
        let (first, last, owner) = match address {
            IpAddr::V4(address) => self.v4.range(address.to_bits(), u32::MAX),
            IpAddr::V6(address) => self.v6.range(address.to_bits(), u128::MAX),
        };
        let host = IpNet::from(address);
        let widths = (0..host.max_prefix_len()).filter_map(|len| IpNet::new(address, len).ok());
        let network = widths
            .map(|network| network.trunc())
            .find(|network| bits(network.network()) >= first && bits(network.broadcast()) <= last);
        (network.unwrap_or(host), owner)
    }

    /// Says whether a packet from `source` may come from `peer`.
    pub(crate) fn owns(&self, peer: PeerIndex, source: IpAddr) -> bool {
        self.lookup(source) == Some(peer)
    }
}

impl Ranges<u128> {
    /// Makes the table of prefixes, which come by first address and length, so that one that holds another comes first.
    fn new(prefixes: BTreeMap<(u128, u8), (u128, PeerIndex)>, most: u128) -> Self {
        let mut ranges = vec![(0, None)];
        // Those that hold where the last range starts, the longest one last.
        let mut holding: Vec<(u128, PeerIndex)> = Vec::new();
        let close = |holding: &mut Vec<(u128, PeerIndex)>, ranges: &mut Vec<_>, before: Option<u128>| {
            while let Some((last, _)) = holding.pop_if(|(last, _)| before.is_none_or(|before| *last < before))
            {
                if last < most {
                    ranges.push((last + 1, holding.last().map(|(_, peer)| *peer)));
                }
            }
        };
        for ((first, _), (last, peer)) in prefixes {
            close(&mut holding, &mut ranges, Some(first));
            ranges.push((first, Some(peer)));
            holding.push((last, peer));
        }
        close(&mut holding, &mut ranges, None);
        // Of those that start at the same place the last one counts.
        ranges.reverse();
        ranges.dedup_by_key(|(start, _)| *start);
        ranges.reverse();
        ranges.dedup_by_key(|(_, owner)| *owner);
        let (starts, owners) = ranges.into_iter().unzip();
        Self { starts, owners }
    }
}

impl<A: Copy + Ord + Into<u128>> Ranges<A> {
    fn owner(&self, address: A) -> Option<PeerIndex> {
        *self.owners.get(self.behind(address).checked_sub(1)?)?
    }

    /// Returns the first and last address of the range that holds `address`, and whose it is.
    fn range(&self, address: A, most: A) -> (u128, u128, Option<PeerIndex>) {
        let behind = self.behind(address);
        let first = behind.checked_sub(1).and_then(|at| self.starts.get(at));
        let last = self.starts.get(behind).map(|start| (*start).into() - 1);
        (
            first.map_or(0, |first| (*first).into()),
            last.unwrap_or(most.into()),
            self.owner(address),
        )
    }

    /// Returns the index of the range behind the one that holds `address`.
    fn behind(&self, address: A) -> usize {
        self.starts.partition_point(|start| *start <= address)
    }
}

fn bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => Ipv4Addr::to_bits(address).into(),
        IpAddr::V6(address) => Ipv6Addr::to_bits(address),
    }
}

#[cfg(test)]
mod tests {
    use ipnet::Ipv4Net;
    use proptest::prelude::*;

    use super::*;

    fn table(prefixes: &[(&str, u32)]) -> RouteTable {
        RouteTable::new(
            prefixes
                .iter()
                .map(|(net, peer)| (net.parse().unwrap(), PeerIndex(*peer))),
        )
    }

    fn lookup(table: &RouteTable, address: &str) -> Option<u32> {
        table.lookup(address.parse().unwrap()).map(|peer| peer.0)
    }

    #[test]
    fn longest_prefix_wins_whatever_the_order() {
        let forwards = table(&[("10.0.0.0/8", 0), ("10.1.0.0/16", 1), ("0.0.0.0/0", 2)]);
        let backwards = table(&[("0.0.0.0/0", 2), ("10.1.0.0/16", 1), ("10.0.0.0/8", 0)]);
        for table in [forwards, backwards] {
            assert_eq!(lookup(&table, "10.1.2.3"), Some(1));
            assert_eq!(lookup(&table, "10.2.2.3"), Some(0));
            assert_eq!(lookup(&table, "192.0.2.1"), Some(2));
        }
    }

    #[test]
    fn address_outside_every_prefix_has_no_peer() {
        let table = table(&[("10.42.0.2/32", 0), ("fd42::2/128", 0)]);
        assert_eq!(lookup(&table, "10.42.0.3"), None);
        assert_eq!(lookup(&table, "fd42::3"), None);
    }

    #[test]
    fn families_do_not_mix() {
        let table = table(&[("::/0", 0)]);
        assert_eq!(lookup(&table, "10.0.0.1"), None);
        assert_eq!(lookup(&table, "::ffff:10.0.0.1"), Some(0));
    }

    #[test]
    fn source_inside_anothers_longer_prefix_is_not_owned() {
        let table = table(&[("10.0.0.0/8", 0), ("10.1.0.0/16", 1)]);
        assert!(table.owns(PeerIndex(0), "10.2.0.1".parse().unwrap()));
        assert!(!table.owns(PeerIndex(0), "10.1.0.1".parse().unwrap()));
        assert!(table.owns(PeerIndex(1), "10.1.0.1".parse().unwrap()));
    }

    #[test]
    fn a_network_leaves_out_what_is_anothers() {
        let table = table(&[
            ("10.0.0.0/8", 0),
            ("10.1.0.0/16", 1),
            ("10.1.0.128/32", 0),
            ("fd00::/8", 2),
        ]);
        let network = |address: &str| {
            let (network, owner) = table.network(address.parse().unwrap());
            (network.to_string(), owner.map(|peer| peer.0))
        };
        let of = |network: &str, owner| (network.to_owned(), owner);

        assert_eq!(network("10.1.0.7"), of("10.1.0.0/25", Some(1)));
        assert_eq!(network("10.1.0.128"), of("10.1.0.128/32", Some(0)));
        assert_eq!(network("10.0.0.1"), of("10.0.0.0/16", Some(0)));
        assert_eq!(network("10.128.0.1"), of("10.128.0.0/9", Some(0)));
        assert_eq!(network("192.0.2.1"), of("128.0.0.0/1", None));
        assert_eq!(network("fd42::1"), of("fd00::/8", Some(2)));
        assert_eq!(
            RouteTable::default().network([10, 0, 0, 1].into()),
            ("0.0.0.0/0".parse().unwrap(), None)
        );
    }

    proptest! {
        #[test]
        fn agrees_with_a_linear_scan(
            nets in prop::collection::vec((any::<u32>(), 0u8..=32), 0..40),
            addresses in prop::collection::vec(any::<u32>(), 1..40),
            pick in any::<prop::sample::Index>(),
        ) {
            let nets: Vec<Ipv4Net> = nets
                .into_iter()
                .map(|(bits, len)| Ipv4Net::new_assert(bits.into(), len).trunc())
                .collect();
            let table = RouteTable::new(nets.iter().enumerate().map(|(i, n)| ((*n).into(), PeerIndex(i as u32))));
            let near = nets.get(pick.index(nets.len().max(1))).map(|net| net.addr());
            for address in addresses.into_iter().map(Ipv4Addr::from).chain(near) {
                // Of equal prefixes the later one counts, as in the table.
                let naive = nets
                    .iter()
                    .enumerate()
                    .filter(|(_, net)| net.contains(&address))
                    .max_by_key(|(i, net)| (net.prefix_len(), *i))
                    .map(|(i, _)| PeerIndex(i as u32));
                prop_assert_eq!(table.lookup(address.into()), naive);
                let (network, owner) = table.network(address.into());
                prop_assert!(network.contains(&IpAddr::from(address)));
                prop_assert_eq!(owner, naive);
                prop_assert_eq!(table.lookup(network.network()), naive);
                prop_assert_eq!(table.lookup(network.broadcast()), naive);
                let reaches_in = |net: &Ipv4Net| {
                    network.contains(&IpNet::from(*net)) && net.prefix_len() > network.prefix_len()
                };
                let inside = nets.iter().filter(|net| reaches_in(net));
                for net in inside {
                    prop_assert_eq!(table.lookup(net.addr().into()), naive);
                }
            }
        }
    }
}
