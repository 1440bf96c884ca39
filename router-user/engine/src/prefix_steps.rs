//! The steps that change one prefix table into another while the table is in use.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use ipnet::IpNet;

/// A prefix table: the owner of each prefix. The longest prefix that contains an address decides whose it is.
pub type Prefixes = BTreeMap<IpNet, u32>;

/// One change of a prefix table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PrefixStep {
    /// Inserts a prefix with its owner, or replaces the owner of a prefix that is there.
    Write(IpNet, u32),
    /// Removes a prefix.
    Remove(IpNet),
}

/// Returns the steps that lead from `before` to `after`.
///
/// A lookup between two steps finds the owner that an address has before or after, and no other: writes come first,
/// from the longest prefix to the shortest, and removals last, from the shortest to the longest.
pub fn steps(before: &Prefixes, after: &Prefixes) -> Vec<PrefixStep> {
    let mut written: Vec<_> = after
        .iter()
        .filter(|(net, owner)| before.get(net) != Some(owner))
        .map(|(net, owner)| (*net, *owner))
        .collect();
    written.sort_by_key(|(net, _)| Reverse(net.prefix_len()));
    let mut removed: Vec<_> = before.keys().filter(|net| !after.contains_key(net)).collect();
    removed.sort_by_key(|net| net.prefix_len());
    let written = written
        .into_iter()
        .map(|(net, owner)| PrefixStep::Write(net, owner));
    written
        .chain(removed.into_iter().copied().map(PrefixStep::Remove))
        .collect()
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use ipnet::Ipv4Net;
    use proptest::prelude::*;

    use super::*;

    fn owner(table: &Prefixes, address: Ipv4Addr) -> Option<u32> {
        let holding = table
            .iter()
            .filter(|(net, _)| net.contains(&IpNet::from(Ipv4Net::from(address))));
        holding
            .max_by_key(|(net, _)| net.prefix_len())
            .map(|(_, owner)| *owner)
    }

    fn take(table: &mut Prefixes, step: PrefixStep) {
        match step {
            PrefixStep::Write(net, owner) => table.insert(net, owner),
            PrefixStep::Remove(net) => table.remove(&net),
        };
    }

    #[test]
    fn equal_tables_are_no_steps_apart() {
        let table = Prefixes::from([("10.0.0.0/8".parse().unwrap(), 1), ("::/0".parse().unwrap(), 2)]);
        assert_eq!(steps(&table, &table), []);
    }

    #[test]
    fn a_prefix_that_changes_hands_is_written_over() {
        let net = "10.0.0.0/8".parse().unwrap();
        assert_eq!(
            steps(&Prefixes::from([(net, 1)]), &Prefixes::from([(net, 2)])),
            [PrefixStep::Write(net, 2)]
        );
    }

    /// Prefixes of up to 4 bits, so that they nest.
    fn table() -> impl Strategy<Value = Prefixes> {
        let prefix = (0..16_u8, 0..=4_u8).prop_map(|(bits, len)| {
            IpNet::from(Ipv4Net::new([bits << 4, 0, 0, 0].into(), len).unwrap().trunc())
        });
        prop::collection::btree_map(prefix, 0..3_u32, 0..12)
    }

    proptest! {
        #[test]
        fn an_address_is_at_every_moment_whose_it_was_or_whose_it_will_be(before in table(), after in table()) {
            let addresses = || (0..16_u8).map(|bits| Ipv4Addr::from([bits << 4, 0, 0, 1]));
            let mut now = before.clone();
            for step in steps(&before, &after) {
                take(&mut now, step);
                for address in addresses() {
                    let (was, is, will) = (owner(&before, address), owner(&now, address), owner(&after, address));
                    prop_assert!(is == was || is == will, "{}: {:?} between {:?} and {:?}", address, is, was, will);
                }
            }
            prop_assert_eq!(now, after);
        }
    }
}
