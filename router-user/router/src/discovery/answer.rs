//! What a discovery answers.

use ipnet::IpNet;
use libp2p_identity::PeerId;

/// Whom an address belongs to, and which others beside it.
///
/// A [`PeerId`], or an `Option` of one, turns [into](Into) an answer for the one address that was asked for. What a
/// [network](Answer::network) says is told in [an answer for many
/// addresses](crate::discovery#an-answer-for-many-addresses).
///
/// ```
/// use stream_router::PeerId;
/// use stream_router::discovery::Answer;
///
/// let peer: PeerId = "12D3KooWDpJ7As7BWAwRMfu1VU2WCqNjvq387JEYKDBj4kx6nXTN".parse()?;
/// let site = Answer::network("10.1.0.0/16".parse()?, peer);
///
/// assert_eq!(Answer::from(peer), Answer::host(peer));
/// assert_eq!((site.peer, site.prefix), (Some(peer), Some("10.1.0.0/16".parse()?)));
/// assert_eq!(Answer::from(None), Answer::nobody());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Answer {
    /// The owner; `None` if nobody is known to be.
    pub peer: Option<PeerId>,
    /// The network that this is about, which must hold the address that was asked for; `None` for that address alone.
    pub prefix: Option<IpNet>,
}

impl Answer {
    /// Says that the address that was asked for belongs to `peer`.
    pub fn host(peer: PeerId) -> Self {
        Self {
            peer: Some(peer),
            prefix: None,
        }
    }

    /// Says that every address of `prefix` belongs to `peer`.
    pub fn network(prefix: IpNet, peer: PeerId) -> Self {
        Self {
            peer: Some(peer),
            prefix: Some(prefix.trunc()),
        }
    }

    /// Says that nobody is known to own the address that was asked for.
    pub fn nobody() -> Self {
        Self {
            peer: None,
            prefix: None,
        }
    }

    /// Says that nobody is known to own any address of `prefix`.
    pub fn nobody_in(prefix: IpNet) -> Self {
        Self {
            peer: None,
            prefix: Some(prefix.trunc()),
        }
    }

    /// Returns this owner for no more than what both this answer and `other` are about.
    #[must_use]
    pub(super) fn within(self, other: Self) -> Self {
        let prefix = match (self.prefix, other.prefix) {
            (Some(prefix), Some(other)) => Some(if prefix.prefix_len() >= other.prefix_len() {
                prefix
            } else {
                other
            }),
            _ => None,
        };
        Self { prefix, ..self }
    }
}

impl From<PeerId> for Answer {
    fn from(peer: PeerId) -> Self {
        Self::host(peer)
    }
}

impl From<Option<PeerId>> for Answer {
    fn from(peer: Option<PeerId>) -> Self {
        Self { peer, prefix: None }
    }
}
