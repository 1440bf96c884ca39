//! Finds the peer that an inner address belongs to.

use std::error::Error;
use std::fmt;
use std::net::IpAddr;

use futures::future::BoxFuture;
use libp2p::PeerId;

/// Says which peer a destination belongs to.
///
/// It is asked beside the path of packets, and what it answers is remembered; so it may take its time. Whoever asks
/// sets a deadline by dropping the future.
pub trait PeerDiscovery: Send + Sync + 'static {
    /// The peer that `destination` belongs to, `None` if nobody is known to own it.
    ///
    /// # Errors
    /// Nothing could be learned. Not the same as `None`: the question may be asked again soon.
    fn find_peer(&self, destination: IpAddr) -> BoxFuture<'_, Result<Option<PeerId>, DiscoveryError>>;
}

/// Why a [`PeerDiscovery`] could not answer.
#[derive(Debug)]
pub struct DiscoveryError(Box<dyn Error + Send + Sync>);

impl DiscoveryError {
    /// An error with this cause.
    pub fn new(cause: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self(cause.into())
    }
}

impl fmt::Display for DiscoveryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("cannot find out whose address it is")
    }
}

impl Error for DiscoveryError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(self.0.as_ref())
    }
}
