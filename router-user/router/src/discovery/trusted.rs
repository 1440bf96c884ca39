//! Who may own what, and who of those that claim an address has it.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::net::IpAddr;

use ipnet::IpNet;
use libp2p::PeerId;

use crate::p2p::Announcement;

/// Which peers may own which addresses, in the eyes of the one who holds this list.
///
/// Several may own the same. A peer that is not listed may own nothing; see
/// [whom to believe](crate::discovery#whom-to-believe).
#[derive(Clone, Debug, Default)]
pub struct TrustedOwners {
    by_peer: HashMap<PeerId, Vec<IpNet>>,
}

impl TrustedOwners {
    /// Makes a list of networks and peers that may own addresses in them.
    pub fn new(owners: impl IntoIterator<Item = (IpNet, PeerId)>) -> Self {
        let mut by_peer: HashMap<PeerId, Vec<IpNet>> = HashMap::new();
        for (net, peer) in owners {
            by_peer.entry(peer).or_default().push(net.trunc());
        }
        Self { by_peer }
    }

    /// Returns the peers that may own `address`, those with the longest prefix first, and then those with the smallest id.
    pub(super) fn candidates(&self, address: IpAddr) -> Vec<PeerId> {
        let allowed = |(peer, nets): (&PeerId, &Vec<IpNet>)| Some((Reverse(longest(nets, address)?), *peer));
        let mut candidates: Vec<_> = self.by_peer.iter().filter_map(allowed).collect();
        candidates.sort();
        candidates.into_iter().map(|(_, peer)| peer).collect()
    }

    /// Returns whose `address` is, by what was announced.
    pub(super) fn owner<'a>(
        &self,
        address: IpAddr,
        announcements: impl IntoIterator<Item = &'a Announcement>,
    ) -> Option<PeerId> {
        let rank = |announcement: &Announcement| {
            let allowed = longest(self.by_peer.get(&announcement.peer)?, address)?;
            let claimed = longest(&announcement.networks, address)?;
            Some((Reverse(allowed), Reverse(claimed), announcement.peer))
        };
        let best = announcements.into_iter().filter_map(rank).min();
        best.map(|(_, _, peer)| peer)
    }
}

/// Returns the length of the longest prefix that holds `address`.
fn longest(nets: &[IpNet], address: IpAddr) -> Option<u8> {
    let holding = nets.iter().filter(|net| net.contains(&address));
    holding.map(IpNet::prefix_len).max()
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use proptest::prelude::*;

    use super::*;

    fn net(text: &str) -> IpNet {
        text.parse().unwrap()
    }

    fn claim(peer: PeerId, networks: &[&str]) -> Announcement {
        Announcement {
            peer,
            sequence: 1,
            expires: UNIX_EPOCH,
            addresses: Vec::new(),
            networks: networks.iter().map(|text| net(text)).collect(),
        }
    }

    /// Returns two peers, the smaller id first.
    fn two() -> (PeerId, PeerId) {
        let (one, other) = (PeerId::random(), PeerId::random());
        (one.min(other), one.max(other))
    }

    const ADDRESS: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 1, 2, 3));

    #[test]
    fn a_claim_of_a_peer_that_may_not_own_the_address_counts_for_nothing() {
        let (listed, stranger) = two();
        let trusted = TrustedOwners::new([(net("10.1.0.0/16"), listed), (net("10.2.0.0/16"), stranger)]);

        let owner = |claims: &[Announcement]| trusted.owner(ADDRESS, claims);

        assert_eq!(owner(&[claim(PeerId::random(), &["10.1.2.3/32"])]), None);
        assert_eq!(owner(&[claim(stranger, &["10.1.2.3/32", "0.0.0.0/0"])]), None);
        assert_eq!(owner(&[claim(listed, &["10.1.2.0/24"])]), Some(listed));
        assert_eq!(trusted.candidates(ADDRESS), [listed]);
    }

    #[test]
    fn a_peer_that_may_own_the_address_and_does_not_claim_it_has_it_not() {
        let peer = PeerId::random();
        let trusted = TrustedOwners::new([(net("10.0.0.0/8"), peer)]);

        assert_eq!(
            trusted.owner(ADDRESS, &[claim(peer, &["10.1.3.0/24", "::/0"])]),
            None
        );
        assert_eq!(trusted.owner(ADDRESS, &[]), None);
    }

    #[test]
    fn the_readers_list_comes_before_the_claims() {
        let (small, large) = two();
        let trusted = TrustedOwners::new([(net("10.0.0.0/8"), small), (net("10.1.0.0/16"), large)]);

        let claims = [claim(small, &["10.1.2.3/32"]), claim(large, &["10.0.0.0/8"])];

        assert_eq!(trusted.owner(ADDRESS, &claims), Some(large));
        assert_eq!(trusted.candidates(ADDRESS), [large, small]);
    }

    #[test]
    fn among_equals_the_more_precise_claim_wins_and_then_the_smaller_id() {
        let (small, large) = two();
        let trusted = TrustedOwners::new([small, large].map(|peer| (net("10.0.0.0/8"), peer)));

        let precise = [claim(small, &["10.0.0.0/8"]), claim(large, &["10.1.2.0/24"])];
        let equal = [claim(large, &["10.1.0.0/16"]), claim(small, &["10.1.0.0/16"])];

        assert_eq!(trusted.owner(ADDRESS, &precise), Some(large));
        assert_eq!(trusted.owner(ADDRESS, &equal), Some(small));
    }

    proptest! {
        #[test]
        fn the_order_of_records_does_not_matter(
            claims in prop::collection::vec((0_usize..4, 0_u8..=32), 0..8),
            allowed in prop::collection::vec((0_usize..4, 0_u8..=32), 0..8),
            by in 0_usize..8,
        ) {
            let peers: Vec<_> = (0..4).map(|_| PeerId::random()).collect();
            let prefix = |len| IpNet::new_assert(ADDRESS, len).trunc();
            let trusted = TrustedOwners::new(allowed.iter().map(|(peer, len)| (prefix(*len), peers[*peer])));
            let claims: Vec<_> = claims
                .into_iter()
                .map(|(peer, len)| claim(peers[peer], &[&prefix(len).to_string()]))
                .collect();

            let owner = trusted.owner(ADDRESS, &claims);
            let mut turned = claims.clone();
            turned.rotate_left(by.min(claims.len()));
            turned.reverse();

            prop_assert_eq!(trusted.owner(ADDRESS, &turned), owner);
            if let Some(owner) = owner {
                prop_assert!(trusted.candidates(ADDRESS).contains(&owner));
                prop_assert!(claims.iter().any(|claim| claim.peer == owner));
            }
        }
    }
}
