//! Addresses by what their owners say of themselves.

use std::net::IpAddr;

use futures::future::BoxFuture;
use futures::stream::{self, StreamExt};
use libp2p::PeerId;

use super::{Answer, DiscoveryError, PeerDiscovery, TrustedOwners};
use crate::p2p::NetworkHandle;

/// Most peers that are asked about for one address. Those that the list prefers come first.
const MAX_CANDIDATES: usize = 16;

/// Questions that are open at a time.
const PARALLELISM: usize = 4;

/// Asks the DHT what the peers that may own an address say of themselves, and believes them as far as its list allows.
///
/// Needs a network with the DHT on ([`DiscoveryConfig`](crate::p2p::DiscoveryConfig)). Which records count is said in
/// [whom to believe](crate::discovery#whom-to-believe); what is in them, at [`Announcement`](crate::p2p::Announcement).
///
/// ```no_run
/// use stream_router::discovery::{ChainDiscovery, DhtDiscovery, StaticDiscovery, TrustedOwners};
/// use stream_router::p2p::{NetworkHandle, PeerId};
/// use stream_router::router::{StreamRouter, StreamRouterConfig};
///
/// # fn start(network: NetworkHandle, [hub, one, other]: [PeerId; 3]) -> Result<(), ipnet::AddrParseError> {
/// // Either may have any address of the pool; what is not theirs is behind the hub.
/// let pool = "10.7.0.0/16".parse()?;
/// let trusted = TrustedOwners::new([(pool, one), (pool, other)]);
/// let discovery = ChainDiscovery::new()
///     .then(DhtDiscovery::new(network.clone(), trusted))
///     .then(StaticDiscovery::new([("0.0.0.0/0".parse()?, hub)]));
/// let router = StreamRouter::new(StreamRouterConfig::default(), network, discovery);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct DhtDiscovery {
    network: NetworkHandle,
    trusted: TrustedOwners,
}

impl DhtDiscovery {
    /// Asks this network about the peers of this list.
    pub fn new(network: NetworkHandle, trusted: TrustedOwners) -> Self {
        Self { network, trusted }
    }

    /// Returns whose `address` is, if it is one of these peers'.
    pub(super) async fn find_among(
        &self,
        address: IpAddr,
        candidates: Vec<PeerId>,
    ) -> Result<Option<PeerId>, DiscoveryError> {
        let questions = candidates
            .into_iter()
            .take(MAX_CANDIDATES)
            .map(|peer| self.network.find_announcement(peer));
        let answers: Vec<_> = stream::iter(questions).buffered(PARALLELISM).collect().await;
        let (mut announcements, mut failure) = (Vec::new(), None);
        for answer in answers {
            match answer {
                Ok(announcement) => announcements.extend(announcement),
                Err(error) => failure = Some(error),
            }
        }
        match (self.trusted.owner(address, &announcements), failure) {
            (Some(owner), _) => Ok(Some(owner)),
            (None, None) => Ok(None),
            (None, Some(error)) => Err(DiscoveryError::new(error)),
        }
    }
}

impl PeerDiscovery for DhtDiscovery {
    fn find_peer(&self, destination: IpAddr) -> BoxFuture<'_, Result<Answer, DiscoveryError>> {
        let candidates = self.trusted.candidates(destination);
        Box::pin(async move { Ok(self.find_among(destination, candidates).await?.into()) })
    }
}
