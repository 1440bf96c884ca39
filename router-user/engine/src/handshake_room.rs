//! The inbound connections of one transport in their handshake: how many there may be, and which one gives way to a new
//! one.
//!
//! Nobody is known before a handshake ends, so nobody can be told apart from a stranger by anything but the address. A
//! connection that is new always gets a place. Where there is none, one of the network with the most places gives way,
//! so that a host or a network that holds many displaces its own. Of those it is one of the older half, so that each has
//! time for its first bytes, and among these one that has said nothing.

use std::collections::BTreeMap;
use std::net::IpAddr;

/// Places for strangers.
pub const STRANGER_PLACES: usize = 128;

/// Places for networks from which a configured peer has come, which strangers cannot take.
pub const KNOWN_PLACES: usize = 64;

/// Places that one network may have, so that one host cannot take them all. This host itself may: on it runs a proxy that many
/// peers come through, and before them its connections give way.
pub const PLACES_PER_NETWORK: usize = 16;

/// The part of its places that may be taken by connections whose address is not validated: one of so many.
const UNVALIDATED_PART: usize = 4;

/// The network that an address counts for: the address itself over IPv4, and its /64 over IPv6, of which one host has
/// every address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct HostNetwork(IpAddr);

/// A place, as long as the connection is in its handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PlaceId(u64);

/// How far a handshake is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Progress {
    /// Nothing has come that a peer would send; or the peer has proved that it is not a configured one.
    Nothing,
    /// The peer has begun to speak the protocol.
    Spoke,
    /// The peer has proved that it is a configured one.
    Proved,
}

/// A connection that has got a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entered {
    /// Its place.
    pub place: PlaceId,
    /// The place of the connection that gives way to it.
    pub displaced: Option<PlaceId>,
}

/// The places of one transport.
#[derive(Debug, Default)]
pub struct HandshakeRoom {
    next: u64,
    strangers: Places,
    known: Places,
}

/// Places in the order in which they were taken.
#[derive(Debug, Default)]
struct Places(BTreeMap<PlaceId, Taken>);

#[derive(Debug)]
struct Taken {
    network: HostNetwork,
    progress: Progress,
}

impl HostNetwork {
    /// Returns the network that an address counts for.
    pub fn of(address: IpAddr) -> Self {
        Self(match address.to_canonical() {
            IpAddr::V6(v6) => IpAddr::V6((v6.to_bits() & (u128::MAX << 64)).into()),
            v4 @ IpAddr::V4(_) => v4,
        })
    }

    /// Says whether it is the host's own.
    fn is_this_host(self) -> bool {
        // The /64 of ::1 has no other address that a packet can have.
        matches!(self.0, IpAddr::V4(v4) if v4.is_loopback()) || self.0 == IpAddr::from([0; 16])
    }

    /// Returns what is given out as a whole to one customer: a /24 or a /48.
    fn surroundings(self) -> IpAddr {
        match self.0 {
            IpAddr::V4(v4) => IpAddr::V4((v4.to_bits() & (u32::MAX << 8)).into()),
            IpAddr::V6(v6) => IpAddr::V6((v6.to_bits() & (u128::MAX << 80)).into()),
        }
    }
}

impl HandshakeRoom {
    /// Says whether a connection of `network` has to show that it receives what is sent to its address before it gets a
    /// place. Without that a sender of forged addresses would take all of them. `is_known` says whether a configured peer has
    /// come from the network.
    pub fn wants_validation(&self, network: HostNetwork, is_known: bool) -> bool {
        let (places, most) = self.places(is_known);
        places.0.len() >= most / UNVALIDATED_PART
            || places.n_of(network) >= PLACES_PER_NETWORK / UNVALIDATED_PART
    }

    /// Gives a place to a connection of `network`, which another one may have to leave for it.
    pub fn enter(&mut self, network: HostNetwork, is_known: bool, progress: Progress) -> Entered {
        let (places, most) = match is_known {
            true => (&mut self.known, KNOWN_PLACES),
            false => (&mut self.strangers, STRANGER_PLACES),
        };
        let displaced = if !network.is_this_host() && places.n_of(network) >= PLACES_PER_NETWORK {
            places.displaced_of(|other| other == network)
        } else if places.0.len() >= most {
            places.displaced_of_largest()
        } else {
            None
        };
        if let Some(displaced) = displaced {
            places.0.remove(&displaced);
        }
        let place = PlaceId(self.next);
        self.next += 1;
        places.0.insert(place, Taken { network, progress });
        Entered { place, displaced }
    }

    /// Records how far a handshake is.
    pub fn handle_progress(&mut self, place: PlaceId, progress: Progress) {
        for places in [&mut self.strangers, &mut self.known] {
            if let Some(taken) = places.0.get_mut(&place) {
                taken.progress = progress;
            }
        }
    }

    /// Ends a handshake, in success or failure.
    pub fn leave(&mut self, place: PlaceId) {
        self.strangers.0.remove(&place);
        self.known.0.remove(&place);
    }

    /// Returns how many places are taken.
    pub fn n_taken(&self) -> usize {
        self.strangers.0.len() + self.known.0.len()
    }

    fn places(&self, is_known: bool) -> (&Places, usize) {
        match is_known {
            true => (&self.known, KNOWN_PLACES),
            false => (&self.strangers, STRANGER_PLACES),
        }
    }
}

impl Places {
    fn n_of(&self, network: HostNetwork) -> usize {
        self.0.values().filter(|taken| taken.network == network).count()
    }

    /// Returns which place of the largest network has to be left: the largest in the surroundings that have the most.
    fn displaced_of_largest(&self) -> Option<PlaceId> {
        let mut of_surroundings: BTreeMap<_, usize> = BTreeMap::new();
        let mut of_network: BTreeMap<_, usize> = BTreeMap::new();
        for taken in self.0.values() {
            *of_surroundings.entry(taken.network.surroundings()).or_default() += 1;
            *of_network.entry(taken.network).or_default() += 1;
        }
        let size = |network: HostNetwork| {
            let around = of_surroundings.get(&network.surroundings());
            (around.copied(), of_network.get(&network).copied())
        };
        let largest = of_network.keys().map(|network| size(*network)).max()?;
        self.displaced_of(|network| size(network) == largest)
    }

    /// Returns which place of these networks has to be left.
    fn displaced_of(&self, is_meant: impl Fn(HostNetwork) -> bool) -> Option<PlaceId> {
        let meant = || self.0.iter().filter(|(_, taken)| is_meant(taken.network));
        let older_half = meant().take(meant().count().div_ceil(2));
        // Of equals the first is the oldest.
        older_half
            .min_by_key(|(_, taken)| taken.progress)
            .map(|(place, _)| *place)
    }
}

#[cfg(test)]
mod tests;
