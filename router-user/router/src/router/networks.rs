//! Answers that are about more than the address that was asked for.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;

use ipnet::IpNet;
use libp2p_identity::PeerId;
use tokio::time::Instant;

/// Most networks that are remembered.
pub(super) const MAX_NETWORKS: usize = 16_384;

/// What was answered of a network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct NetworkAnswer {
    pub(super) network: IpNet,
    /// Nobody's if `None`.
    pub(super) owner: Option<PeerId>,
    pub(super) answered: Instant,
}

/// Networks by the length of their prefixes, of which there are few, so that a search asks for each length once.
#[derive(Debug, Default)]
pub(super) struct Networks {
    v4: BTreeMap<u8, HashMap<IpNet, NetworkAnswer>>,
    v6: BTreeMap<u8, HashMap<IpNet, NetworkAnswer>>,
    len: usize,
}

impl Networks {
    /// Remembers `answer` in place of what was answered of the same network before; says whether there was room.
    pub(super) fn insert(&mut self, answer: NetworkAnswer) -> bool {
        let network = answer.network;
        let is_full = self.len >= MAX_NETWORKS;
        let family = match network {
            IpNet::V4(_) => &mut self.v4,
            IpNet::V6(_) => &mut self.v6,
        };
        let same_len = family.entry(network.prefix_len()).or_default();
        if is_full && !same_len.contains_key(&network) {
            return false;
        }
        if same_len.insert(network, answer).is_none() {
            self.len += 1;
        }
        true
    }

    /// Returns the answer with the longest prefix that holds `address`.
    pub(super) fn covering(&self, address: IpAddr) -> Option<&NetworkAnswer> {
        let family = match address {
            IpAddr::V4(_) => &self.v4,
            IpAddr::V6(_) => &self.v6,
        };
        family.iter().rev().find_map(|(len, same_len)| {
            let network = IpNet::new(address, *len).ok()?;
            same_len.get(&network.trunc())
        })
    }

    /// Says whether there is an answer of just this network.
    pub(super) fn contains(&self, network: &IpNet) -> bool {
        let family = match network {
            IpNet::V4(_) => &self.v4,
            IpNet::V6(_) => &self.v6,
        };
        let same_len = family.get(&network.prefix_len());
        same_len.is_some_and(|same_len| same_len.contains_key(network))
    }

    /// Forgets the answers about networks around `address` that are `old`.
    pub(super) fn forget(&mut self, address: IpAddr, old: impl Fn(&NetworkAnswer) -> bool) {
        let family = match address {
            IpAddr::V4(_) => &mut self.v4,
            IpAddr::V6(_) => &mut self.v6,
        };
        for (len, same_len) in family {
            let Ok(network) = IpNet::new(address, *len) else {
                continue;
            };
            let network = network.trunc();
            if same_len.get(&network).is_some_and(&old) && same_len.remove(&network).is_some() {
                self.len -= 1;
            }
        }
    }

    /// Forgets the answers that `keep` does not want.
    pub(super) fn retain(&mut self, mut keep: impl FnMut(&NetworkAnswer) -> bool) {
        self.len = 0;
        for family in [&mut self.v4, &mut self.v6] {
            family.retain(|_, same_len| {
                same_len.retain(|_, answer| keep(answer));
                self.len += same_len.len();
                !same_len.is_empty()
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn answer(network: IpNet) -> NetworkAnswer {
        NetworkAnswer {
            network,
            owner: None,
            answered: Instant::now(),
        }
    }

    #[test]
    fn a_full_memory_takes_only_what_it_knows() {
        let mut networks = Networks::default();
        let net = |n: usize| IpNet::new_assert(IpAddr::from((n as u32).to_be_bytes()), 32);

        assert!((0..MAX_NETWORKS).all(|n| networks.insert(answer(net(n)))));
        assert!(!networks.insert(answer(net(MAX_NETWORKS))));
        assert!(networks.insert(answer(net(0))));
        networks.retain(|answer| answer.network != net(1));

        assert!(networks.insert(answer(net(MAX_NETWORKS))));
        assert!(!networks.contains(&net(1)) && networks.contains(&net(2)));
    }

    proptest! {
        #[test]
        fn the_longest_prefix_is_found(
            nets in prop::collection::vec((0..64_u32, 20_u8..=32), 0..20),
            address in 0..64_u32,
        ) {
            let mut networks = Networks::default();
            let nets = nets.into_iter().map(|(bits, len)| {
                IpNet::new_assert(IpAddr::from((bits << 6).to_be_bytes()), len).trunc()
            });
            let nets: Vec<_> = nets.collect();
            let address = IpAddr::from((address << 6 | 5).to_be_bytes());
            for net in &nets {
                networks.insert(answer(*net));
            }

            let found = networks.covering(address).map(|found| found.network);

            let holding = nets.into_iter().filter(|net| net.contains(&address));
            prop_assert_eq!(found, holding.max_by_key(IpNet::prefix_len));
        }
    }
}
