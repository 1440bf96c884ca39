//! Which peer a destination belongs to, as the packet path sees it.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use dashmap::DashMap;
use foldhash::fast::RandomState;
use libp2p_identity::PeerId;

use super::DispatchError;
use super::peer::RouterPeer;
use crate::discovery::DiscoveryError;

/// What is known of a destination.
#[derive(Clone)]
pub(super) enum Known {
    /// Whose it is, and the index of that peer.
    Owner(u32, Arc<RouterPeer>),
    /// It is nobody's.
    Nobody,
    /// That could not be found out a moment ago.
    Failed(DiscoveryError),
}

impl Known {
    /// Returns the index of the peer that a packet to `destination`, of which this is known, goes to.
    pub(super) fn route(&self, destination: IpAddr) -> Result<u32, DispatchError> {
        match self {
            Self::Owner(_, peer) if peer.busy.load(Relaxed) => Err(DispatchError::PeerBusy { peer: peer.id }),
            Self::Owner(index, _) => Ok(*index),
            Self::Nobody | Self::Failed(_) => Err(self.refusal(destination)),
        }
    }

    /// Returns whose `destination` is, of which this is known.
    pub(super) fn owner(&self, destination: IpAddr) -> Result<PeerId, DispatchError> {
        match self {
            Self::Owner(_, peer) => Ok(peer.id),
            Self::Nobody | Self::Failed(_) => Err(self.refusal(destination)),
        }
    }

    #[cold]
    fn refusal(&self, destination: IpAddr) -> DispatchError {
        match self {
            Self::Failed(cause) => DispatchError::DiscoveryFailed {
                destination,
                cause: cause.clone(),
            },
            Self::Owner(..) | Self::Nobody => DispatchError::UnknownPeer { destination },
        }
    }
}

struct Destination {
    known: Known,
    /// A packet has asked since this became known.
    used: AtomicBool,
}

/// Read by every packet, written by one task.
pub(super) struct Destinations(DashMap<IpAddr, Destination, RandomState>);

impl Destinations {
    /// Makes an empty table in `n_shards` parts, rounded up to a power of two of at least 2, which is what the map
    /// can have.
    pub(super) fn new(n_shards: u32) -> Self {
        let n_shards = (n_shards as usize).next_power_of_two().max(2);
        Self(DashMap::with_hasher_and_shard_amount(
            RandomState::default(),
            n_shards,
        ))
    }

    /// Calls `act` with what is known of `address`, while nobody changes it.
    pub(super) fn look_up<T>(&self, address: IpAddr, act: impl FnOnce(Option<&Known>) -> T) -> T {
        let Some(found) = self.0.get(&address) else {
            return act(None);
        };
        // Written once, so that packets do not fight for the cache line.
        if !found.used.load(Relaxed) {
            found.used.store(true, Relaxed);
        }
        act(Some(&found.known))
    }

    /// Says what is known of `address` from now on.
    pub(super) fn set(&self, address: IpAddr, known: Known) {
        let used = AtomicBool::new(false);
        self.0.insert(address, Destination { known, used });
    }

    /// Forgets what is known of `address`.
    pub(super) fn remove(&self, address: IpAddr) {
        self.0.remove(&address);
    }

    /// Says whether a packet has asked for `address` since it was last set.
    pub(super) fn is_used(&self, address: IpAddr) -> bool {
        self.0.get(&address).is_some_and(|found| found.used.load(Relaxed))
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }
}
