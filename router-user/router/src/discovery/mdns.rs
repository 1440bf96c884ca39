//! Addresses of the peers on the local network.

use std::net::IpAddr;

use futures::future::BoxFuture;
use libp2p::PeerId;

use super::{Answer, DhtDiscovery, DiscoveryError, PeerDiscovery, TrustedOwners};
use crate::p2p::{FoundBy, NetworkHandle};

/// Believes what the peers say of themselves that mDNS sees on the local network now, as far as its list allows.
///
/// mDNS itself proves nothing, so it names no owners: it says whom to ask, and their signed records are had as by
/// [`DhtDiscovery`]. Needs a network with both mDNS and the DHT on ([`DiscoveryConfig`](crate::p2p::DiscoveryConfig)).
/// Before a farther discovery in a [`ChainDiscovery`](super::ChainDiscovery) it prefers neighbours.
#[derive(Clone, Debug)]
pub struct MdnsDiscovery {
    network: NetworkHandle,
    trusted: TrustedOwners,
    records: DhtDiscovery,
}

impl MdnsDiscovery {
    /// Asks this network about the peers of this list.
    pub fn new(network: NetworkHandle, trusted: TrustedOwners) -> Self {
        Self {
            records: DhtDiscovery::new(network.clone(), trusted.clone()),
            network,
            trusted,
        }
    }

    fn neighbours(&self, destination: IpAddr) -> Vec<PeerId> {
        let mut candidates = self.trusted.candidates(destination);
        let peers = self.network.snapshot().peers;
        candidates.retain(|candidate| {
            let known = peers.iter().find(|known| known.peer == *candidate);
            known.is_some_and(|known| known.found.iter().any(|found| found.by == FoundBy::Mdns))
        });
        candidates
    }
}

impl PeerDiscovery for MdnsDiscovery {
    fn find_peer(&self, destination: IpAddr) -> BoxFuture<'_, Result<Answer, DiscoveryError>> {
        Box::pin(async move {
            let neighbours = self.neighbours(destination);
            Ok(self.records.find_among(destination, neighbours).await?.into())
        })
    }
}
