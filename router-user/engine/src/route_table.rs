//! The route table, which says which peer an inner address belongs to: longest-prefix match over the `allowed_ips` of
//! every peer.

use std::net::IpAddr;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use prefix_trie::PrefixMap;

/// The index of a configured peer, the same in user space and in the kernel's tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PeerIndex(pub u32);

/// A longest-prefix table from inner addresses to peers.
///
/// One table answers both where a packet *for* an address goes, and whether a packet *from* an address may come from a
/// peer.
#[derive(Clone, Debug, Default)]
pub struct RouteTable {
    v4: PrefixMap<Ipv4Net, PeerIndex>,
    v6: PrefixMap<Ipv6Net, PeerIndex>,
}

impl RouteTable {
    /// Builds a table. Of two equal prefixes the later one counts.
    pub fn new(prefixes: impl IntoIterator<Item = (IpNet, PeerIndex)>) -> Self {
        let mut table = Self::default();
        for (prefix, peer) in prefixes {
            match prefix {
                IpNet::V4(net) => table.v4.insert(net.trunc(), peer),
                IpNet::V6(net) => table.v6.insert(net.trunc(), peer),
            };
        }
        table
    }

    /// Returns the peer with the longest prefix that contains `address`.
    pub fn lookup(&self, address: IpAddr) -> Option<PeerIndex> {
        match address {
            IpAddr::V4(address) => self.v4.get_lpm(&Ipv4Net::from(address)).map(|(_, peer)| *peer),
            IpAddr::V6(address) => self.v6.get_lpm(&Ipv6Net::from(address)).map(|(_, peer)| *peer),
        }
    }

    /// Says whether a packet from `source` may come from `peer`.
    pub(crate) fn owns(&self, peer: PeerIndex, source: IpAddr) -> bool {
        self.lookup(source) == Some(peer)
    }
}

#[cfg(test)]
mod tests {
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
            for address in addresses.into_iter().map(std::net::Ipv4Addr::from).chain(near) {
                // Of equal prefixes the later one counts, as in the table.
                let naive = nets
                    .iter()
                    .enumerate()
                    .filter(|(_, net)| net.contains(&address))
                    .max_by_key(|(i, net)| (net.prefix_len(), *i))
                    .map(|(i, _)| PeerIndex(i as u32));
                prop_assert_eq!(table.lookup(address.into()), naive);
            }
        }
    }
}
