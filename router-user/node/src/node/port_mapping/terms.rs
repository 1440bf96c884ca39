//! What all protocols have in common.

use std::net::Ipv4Addr;
use std::num::NonZeroU16;
use std::time::{Duration, Instant};

/// The time that a gateway is asked to forward for, which it may shorten. A port that a node has not given back, as it was
/// killed, stays open for no longer; and a gateway that has forgotten it without a word is asked again after half of it.
pub(super) const LIFETIME: Duration = Duration::from_secs(30 * 60);

/// What a gateway has said of a port that it forwards.
#[derive(Clone, Copy, Debug)]
pub(super) struct Outside {
    pub(super) ip: Ipv4Addr,
    pub(super) port: NonZeroU16,
    /// When it forgets it; `None` if it does not.
    pub(super) expires: Option<Instant>,
}

/// What one protocol has come to.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    /// The gateway does not speak it, or not now.
    #[error("{0}")]
    Silent(String),
    /// The gateway has understood, and does not do it.
    #[error("{0}")]
    Refused(String),
    /// The gateway's address outside, which nobody reaches from there.
    #[error("its own address outside is {0}")]
    DoubleNat(Ipv4Addr),
}
