//! Finds the peer that an inner address belongs to.
//!
//! | discovery | who says whose an address is |
//! |---|---|
//! | [`StaticDiscovery`] | a table that was given |
//! | [`DhtDiscovery`] | the peer itself, in a record that it has signed, found in the DHT |
//! | [`MdnsDiscovery`] | likewise, of the peers that are on the local network now |
//! | [`ChainDiscovery`] | the first of several that knows |
//!
//! # Whom to believe
//! A signature proves who claims an address, not that the address is his: anybody can sign anything. So a claim counts
//! only if the reader's own list, [`TrustedOwners`], lets that peer own the address. Whoever is not listed owns nothing,
//! whatever he signs. The list says who *may* have an address; the claim says who *has* it now, which matters where
//! several may: machines that take over from each other, or a pool of addresses among a company's nodes.
//!
//! If several peers that may own an address claim it, every reader with the same list and the same records chooses the
//! same one: the one that the list gives the longest prefix, then the one that claims the longest prefix, then the one
//! with the smallest id. The list comes first, so that nobody gains by claiming more precisely.
//!
//! # What a node uses
//! The node itself routes by its peers' `allowed_ips` alone, which is a [`StaticDiscovery`]: no claim changes where its
//! packets go. mDNS and the DHT tell it where its peers *are*, and whoever answers there proves with his key that he is
//! the peer. A program that embeds a network has both.

mod chain;
mod dht;
mod mdns;
mod static_prefixes;
mod trusted;

pub use chain::{ChainDiscovery, ChainError};
pub use dht::DhtDiscovery;
pub use mdns::MdnsDiscovery;
pub use static_prefixes::StaticDiscovery;
pub use trusted::TrustedOwners;

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
