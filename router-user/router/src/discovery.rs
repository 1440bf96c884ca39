//! Finds the peer that an inner address belongs to.
//!
//! | discovery | who says whose an address is |
//! |---|---|
//! | [`StaticDiscovery`] | a table that was given |
//! | `DhtDiscovery` | the peer itself, in a record that it has signed, found in the DHT |
//! | `MdnsDiscovery` | likewise, of the peers that are on the local network now |
//! | [`ChainDiscovery`] | the first of several that knows |
//!
//! Those of the DHT and of mDNS come with the feature `libp2p`, as they ask the network that it brings.
//!
//! # An answer for many addresses
//! An [`Answer`] may be about a whole network: then it is remembered for all of it, and two hundred hosts behind one peer
//! cost one question. It says that every address in the network belongs to that peer, so a discovery that knows of a
//! longer prefix of another peer inside answers with a network that leaves it out, as [`StaticDiscovery`] does. Of the
//! answers that are remembered the one with the longest prefix counts, whichever came first.
//!
//! # Whom to believe
//! A signature proves who claims an address, not that the claim is right: anybody can sign anything. So a claim counts
//! only if the reader's own list, `TrustedOwners`, lets that peer own the address. A peer that is not listed owns
//! nothing, whatever it signs. The list says who *may* have an address; the claim says who *has* it now, which matters where
//! several may: machines that take over from each other, or a pool of addresses among a company's nodes.
//!
//! If several peers that may own an address claim it, every reader with the same list and the same records chooses the
//! same one: the one that the list gives the longest prefix, then the one that claims the longest prefix, then the one
//! with the smallest id. The list comes first, so that nobody gains by claiming more precisely.
//!
//! # What a node uses
//! The node itself routes by its peers' `allowed_ips` alone, which is a [`StaticDiscovery`]: no claim changes where its
//! packets go. mDNS and the DHT tell it where its peers *are*, and the one that answers there proves with its key that
//! it is the peer. A program that embeds a network has both.

mod answer;
mod chain;
#[cfg(feature = "libp2p")]
mod dht;
#[cfg(feature = "libp2p")]
mod mdns;
mod static_prefixes;
#[cfg(feature = "libp2p")]
mod trusted;

use std::error::Error;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use futures::future::BoxFuture;
pub use ipnet::IpNet;

pub use answer::Answer;
pub use chain::{ChainDiscovery, ChainError};
#[cfg(feature = "libp2p")]
pub use dht::DhtDiscovery;
#[cfg(feature = "libp2p")]
pub use mdns::MdnsDiscovery;
pub use static_prefixes::StaticDiscovery;
#[cfg(feature = "libp2p")]
pub use trusted::TrustedOwners;

/// Says which peer a destination belongs to.
///
/// It is asked beside the path of packets, and what it answers is remembered; so it may take its time. The router
/// sets a deadline of 5 s by dropping the future.
///
/// ```
/// use std::net::IpAddr;
///
/// use futures::future::BoxFuture;
/// use stream_router::PeerId;
/// use stream_router::discovery::{Answer, DiscoveryError, PeerDiscovery};
///
/// /// Knows one peer, which has every IPv4 address.
/// struct OnePeer(PeerId);
///
/// impl PeerDiscovery for OnePeer {
///     fn find_peer(&self, destination: IpAddr) -> BoxFuture<'_, Result<Answer, DiscoveryError>> {
///         // `None.into()` is an answer too: nobody owns this address.
///         let owner = destination.is_ipv4().then_some(self.0);
///         Box::pin(async move { Ok(owner.into()) })
///     }
/// }
/// ```
pub trait PeerDiscovery: Send + Sync + 'static {
    /// Finds the peer that `destination` belongs to, or that nobody is known to own it.
    ///
    /// # Errors
    /// Nothing could be learned. Not the same as an answer of nobody: the question may be asked again soon.
    fn find_peer(&self, destination: IpAddr) -> BoxFuture<'_, Result<Answer, DiscoveryError>>;
}

/// Why a [`PeerDiscovery`] could not answer. Its clones are the same failure, and equal to no other.
#[derive(Clone, Debug)]
pub struct DiscoveryError(Arc<dyn Error + Send + Sync>);

impl DiscoveryError {
    /// Makes an error with this cause.
    pub fn new(cause: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self(cause.into().into())
    }
}

impl PartialEq for DiscoveryError {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for DiscoveryError {}

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
