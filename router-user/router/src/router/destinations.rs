//! Which peer a destination belongs to, as the packet path sees it.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use arc_swap::ArcSwap;
use foldhash::fast::RandomState;

use super::peer::Peer;

/// A change copies one shard.
const N_SHARDS: usize = 64;

/// What is known of a destination.
pub(super) struct Destination {
    /// Whose it is, and the index of that peer; nobody's if `None`.
    pub(super) owner: Option<(u32, Arc<Peer>)>,
    /// A packet has asked since this was last cleared.
    pub(super) used: AtomicBool,
}

impl Destination {
    pub(super) fn new(owner: Option<(u32, Arc<Peer>)>) -> Arc<Self> {
        Arc::new(Self {
            owner,
            used: AtomicBool::new(false),
        })
    }

    fn touch(&self) {
        // Written once, so that packets do not fight for the cache line.
        if !self.used.load(Relaxed) {
            self.used.store(true, Relaxed);
        }
    }
}

/// Looked up for each packet. The hash is keyed, and how many addresses there are is bounded.
type Shard = HashMap<IpAddr, Arc<Destination>, RandomState>;

/// Read without a lock; one task writes.
pub(super) struct Destinations(Vec<ArcSwap<Shard>>);

impl Destinations {
    pub(super) fn new() -> Self {
        Self((0..N_SHARDS).map(|_| ArcSwap::default()).collect())
    }

    /// Calls `act` with what is known of `address`.
    pub(super) fn look_up<T>(&self, address: IpAddr, act: impl FnOnce(Option<&Destination>) -> T) -> T {
        let Some(shard) = self.shard(address) else {
            return act(None);
        };
        let shard = shard.load();
        let found = shard.get(&address);
        if let Some(destination) = found {
            destination.touch();
        }
        act(found.map(AsRef::as_ref))
    }

    /// Says what is known of `address` from now on.
    pub(super) fn set(&self, address: IpAddr, destination: Option<Arc<Destination>>) {
        let Some(shard) = self.shard(address) else {
            return;
        };
        let mut changed = Shard::clone(&shard.load());
        match destination {
            Some(destination) => changed.insert(address, destination),
            None => changed.remove(&address),
        };
        shard.store(Arc::new(changed));
    }

    pub(super) fn len(&self) -> usize {
        self.0.iter().map(|shard| shard.load().len()).sum()
    }

    fn shard(&self, address: IpAddr) -> Option<&ArcSwap<Shard>> {
        let bits = match address {
            IpAddr::V4(address) => u64::from(address.to_bits()),
            IpAddr::V6(address) => {
                let bits = address.to_bits();
                (bits >> 64) as u64 ^ bits as u64
            }
        };
        // The upper bits of a product depend on all below them.
        self.0
            .get((bits.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 58) as usize % N_SHARDS)
    }
}
