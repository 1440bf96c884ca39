//! Addresses by a table that does not change.

use std::collections::HashMap;
use std::future;
use std::net::IpAddr;

use futures::future::BoxFuture;
use ipnet::IpNet;
use libp2p_identity::PeerId;

use super::{Answer, DiscoveryError, PeerDiscovery};
use stream_router_engine::route_table::{PeerIndex, RouteTable};

/// An address belongs to the peer with the longest prefix that holds it. What a node makes of its peers' `allowed_ips`.
///
/// ```
/// use stream_router::discovery::{Answer, PeerDiscovery, StaticDiscovery};
/// # use stream_router::PeerId;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let (site, host) = (PeerId::random(), PeerId::random());
/// let discovery = StaticDiscovery::new([
///     ("10.1.0.0/16".parse()?, site),
///     ("10.1.2.3/32".parse()?, host),
/// ]);
///
/// assert_eq!(discovery.owner([10, 1, 2, 3].into()), Some(host));
/// assert_eq!(discovery.owner([10, 1, 2, 4].into()), Some(site));
/// assert_eq!(discovery.owner([10, 2, 0, 1].into()), None);
/// // Its answers are as wide as they are true: the host is not in what it says of the rest of the site.
/// let answer = discovery.find_peer([10, 1, 9, 9].into()).await?;
/// assert_eq!(answer, Answer::network("10.1.8.0/21".parse()?, site));
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, Default)]
pub struct StaticDiscovery {
    routes: RouteTable,
    peers: Vec<PeerId>,
}

impl StaticDiscovery {
    /// Builds the table; of two equal prefixes the later one counts.
    pub fn new(prefixes: impl IntoIterator<Item = (IpNet, PeerId)>) -> Self {
        let (mut peers, mut known) = (Vec::new(), HashMap::new());
        let mut index_of = |peer: PeerId| {
            *known.entry(peer).or_insert_with(|| {
                peers.push(peer);
                PeerIndex(peers.len() as u32 - 1)
            })
        };
        let routes = RouteTable::new(
            prefixes
                .into_iter()
                .map(|(prefix, peer)| (prefix, index_of(peer))),
        );
        Self { routes, peers }
    }

    /// Returns the owner of an address.
    pub fn owner(&self, address: IpAddr) -> Option<PeerId> {
        self.peer(self.routes.lookup(address)?)
    }

    fn peer(&self, index: PeerIndex) -> Option<PeerId> {
        self.peers.get(index.0 as usize).copied()
    }
}

impl PeerDiscovery for StaticDiscovery {
    fn find_peer(&self, destination: IpAddr) -> BoxFuture<'_, Result<Answer, DiscoveryError>> {
        let (prefix, owner) = self.routes.network(destination);
        let answer = match owner.and_then(|index| self.peer(index)) {
            Some(peer) => Answer::network(prefix, peer),
            None => Answer::nobody_in(prefix),
        };
        Box::pin(future::ready(Ok(answer)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_later_of_two_equal_prefixes_counts() {
        let (first, second) = (PeerId::random(), PeerId::random());
        let prefix: IpNet = "10.0.0.0/8".parse().unwrap();

        let discovery = StaticDiscovery::new([(prefix, first), (prefix, second)]);

        assert_eq!(discovery.owner([10, 0, 0, 1].into()), Some(second));
    }
}
