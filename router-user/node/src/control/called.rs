//! By what people call a peer: its name, an address inside the VPN, or an end of its id.

use std::borrow::Cow;
use std::net::IpAddr;

use ipnet::IpNet;

use super::model::PeerStatus;

/// Fewest characters of an id that stand for its peer: fewer are soon those of another one too.
pub(crate) const LEAST_END: usize = 4;

/// A peer that people may call.
pub(crate) trait Callable {
    /// Returns its name, if it has one.
    fn name(&self) -> Option<&str>;
    /// Returns the text of its id.
    fn id(&self) -> Cow<'_, str>;
    /// Returns the networks that are its own.
    fn networks(&self) -> impl Iterator<Item = IpNet>;
}

/// Why it is not known who is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NotFound {
    /// It is an address of no peer.
    Address,
    /// No name is so, and no id ends so.
    Nobody,
    /// No name is so, and it is shorter than [`LEAST_END`].
    Short,
    /// Several ids end so.
    Several,
}

/// Returns the one peer that is called so. A name goes before the end of an id, and of the peers that have an address the
/// one with the longest prefix is meant.
pub(crate) fn find<'a, P: Callable>(
    mut peers: impl Iterator<Item = &'a P> + Clone,
    called: &str,
) -> Result<&'a P, NotFound> {
    let is_named = |peer: &&P| peer.name().is_some_and(|name| name.eq_ignore_ascii_case(called));
    if let Some(named) = peers.clone().find(is_named) {
        return Ok(named);
    }
    if let Ok(address) = called.parse::<IpAddr>() {
        let longest = |peer: &P| {
            let nets = peer.networks().filter(|net| net.contains(&address));
            nets.map(|net| net.prefix_len()).max()
        };
        let owners = peers.filter_map(|peer| Some((longest(peer)?, peer)));
        let owner = owners.max_by_key(|(length, _)| *length);
        return owner.map(|(_, owner)| owner).ok_or(NotFound::Address);
    }
    if called.chars().count() < LEAST_END {
        return Err(NotFound::Short);
    }
    let mut ends = peers.by_ref().filter(|peer| peer.id().ends_with(called));
    match (ends.next(), ends.next()) {
        (Some(peer), None) => Ok(peer),
        (None, _) => Err(NotFound::Nobody),
        (Some(_), Some(_)) => Err(NotFound::Several),
    }
}

impl Callable for PeerStatus {
    fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }

    fn id(&self) -> Cow<'_, str> {
        Cow::Borrowed(&self.id)
    }

    fn networks(&self) -> impl Iterator<Item = IpNet> {
        self.allowed_ips.iter().filter_map(|net| net.parse().ok())
    }
}
