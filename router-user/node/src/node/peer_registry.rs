//! Gives peers their indices, by which kernel and user space know them, and keeps those of peers that are gone.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use thiserror::Error;

use super::peers::{ConfiguredPeer, NodePeer, PeerTable};
use crate::config::PeerSection;
use router_common::peer::MAX_PEERS;
use stream_router::egress::lanes::PeerLanes;
use stream_router::p2p::{ConnectMode, PeerId};
use stream_router_engine::route_table::PeerIndex;

/// There is no index for another peer.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[error(
    "no room for another peer beside those that are going: a node has {MAX_PEERS}; remove peers first, and add others \
     once they are gone"
)]
pub struct NoRoom;

/// Every peer that was ever configured, by index.
///
/// A peer that stays is the same object in the next table, and one that comes back is again what it was: counts,
/// streams, index. Only once all indices are given one is given again, and only that of a peer of which nothing is
/// under way any more: no receiver that would admit its packets as another peer's, no queue that would hold another
/// peer's back.
pub(super) struct PeerRegistry {
    peers: Vec<Arc<NodePeer>>,
    by_id: HashMap<PeerId, PeerIndex>,
    max_peers: u32,
    /// Where the search for an index that is free again begins: those before it were looked at last.
    next: usize,
    new_lanes: Box<dyn Fn(PeerIndex, u32) -> PeerLanes + Send>,
}

impl PeerRegistry {
    /// Makes a registry without peers. `new_lanes` makes the lanes of a new peer, of which the given number is
    /// active.
    pub(super) fn new(new_lanes: impl Fn(PeerIndex, u32) -> PeerLanes + Send + 'static) -> Self {
        Self {
            peers: Vec::new(),
            by_id: HashMap::new(),
            max_peers: MAX_PEERS,
            next: 0,
            new_lanes: Box::new(new_lanes),
        }
    }

    /// Returns the table of the peers of a configuration; a new one begins with `n_active` streams.
    ///
    /// # Errors
    /// Peers that are about to go have the indices that new ones need.
    pub(super) fn table(&mut self, peers: &[PeerSection], n_active: u32) -> Result<PeerTable, NoRoom> {
        let wanted: HashSet<_> = peers.iter().map(PeerSection::id).collect();
        let configured = peers.iter().map(|config| {
            Ok(ConfiguredPeer {
                peer: self.peer(config.id(), &wanted, n_active)?,
                name: config.name().map(str::to_owned),
                comment: config.comment().map(str::to_owned),
                allowed_ips: config.allowed_ips().to_vec(),
                addresses: config.addresses().to_vec(),
                on_demand: config.connect() == ConnectMode::OnDemand,
                rate: config.rate(),
            })
        });
        Ok(PeerTable::new(configured.collect::<Result<_, NoRoom>>()?))
    }

    fn peer(&mut self, id: PeerId, wanted: &HashSet<PeerId>, n_active: u32) -> Result<Arc<NodePeer>, NoRoom> {
        let known = self.by_id.get(&id);
        if let Some(known) = known.and_then(|index| self.peers.get(index.0 as usize)) {
            return Ok(known.clone());
        }
        let n_given = self.peers.len();
        let index = if n_given < self.max_peers as usize {
            n_given
        } else {
            let free = |peer: &Arc<NodePeer>| !wanted.contains(&peer.id) && Arc::strong_count(peer) == 1;
            let (before, after) = self.peers.split_at(self.next.min(n_given));
            let found = match after.iter().position(free) {
                Some(at) => Some(before.len() + at),
                None => before.iter().position(free),
            };
            let index = found.ok_or(NoRoom)?;
            self.next = index + 1;
            index
        };
        let index = PeerIndex(index as u32);
        let peer = Arc::new(NodePeer::new(index, id, (self.new_lanes)(index, n_active)));
        match self.peers.get_mut(index.0 as usize) {
            Some(gone) => {
                self.by_id.remove(&gone.id);
                *gone = peer.clone();
            }
            None => self.peers.push(peer.clone()),
        }
        self.by_id.insert(id, index);
        Ok(peer)
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::Config;
    use crate::config::tests::IDS;
    use crate::node::peers::QUEUE_LIMITS;

    fn registry(max_peers: u32) -> PeerRegistry {
        let mut registry =
            PeerRegistry::new(|_, n_active| PeerLanes::new(16, n_active, QUEUE_LIMITS, Box::new(|_| ())));
        registry.max_peers = max_peers;
        registry
    }

    /// Returns the peers of [`IDS`] in this order; the one at `n` has 10.0.n.0/24.
    fn peers(order: &[usize]) -> Vec<PeerSection> {
        let mut text = "[device]\naddresses = ['10.42.0.1/24']\n".to_owned();
        for n in order {
            text += &format!("[[peer]]\nid = '{}'\nallowed_ips = ['10.0.{n}.0/24']\n", IDS[*n]);
        }
        Config::parse(&text, Path::new("sr.toml"))
            .unwrap()
            .peers()
            .to_vec()
    }

    fn indices(table: &PeerTable) -> Vec<u32> {
        table
            .all()
            .iter()
            .map(|configured| configured.peer.index.0)
            .collect()
    }

    #[test]
    fn a_peer_keeps_its_index_and_itself_while_others_come_and_go() {
        let mut registry = registry(16);
        let before = registry.table(&peers(&[0, 1]), 1).unwrap();
        assert_eq!(indices(&before), [0, 1]);

        let after = registry.table(&peers(&[2, 1]), 1).unwrap();

        assert_eq!(indices(&after), [2, 1]);
        assert!(Arc::ptr_eq(&before.all()[1].peer, &after.all()[1].peer));
        assert!(after.get(PeerIndex(0)).is_none());
        assert_eq!(after.routes().lookup([10, 0, 2, 1].into()), Some(PeerIndex(2)));
        assert_eq!(after.routes().lookup([10, 0, 0, 1].into()), None);
    }

    #[test]
    fn a_peer_that_comes_back_has_its_old_index() {
        let mut registry = registry(16);
        registry.table(&peers(&[0, 1]), 1).unwrap();
        registry.table(&peers(&[2]), 1).unwrap();

        assert_eq!(
            indices(&registry.table(&peers(&[1, 0, 2]), 1).unwrap()),
            [1, 0, 2]
        );
    }

    #[test]
    fn an_index_is_given_again_only_once_nothing_of_its_peer_is_under_way() {
        let mut registry = registry(2);
        let before = registry.table(&peers(&[0, 1]), 1).unwrap();
        let receiver = before.all()[0].peer.clone();

        assert_eq!(registry.table(&peers(&[1, 2]), 1).err(), Some(NoRoom));
        drop(before);
        assert_eq!(registry.table(&peers(&[1, 2]), 1).err(), Some(NoRoom));
        drop(receiver);

        let after = registry.table(&peers(&[1, 2]), 1).unwrap();
        assert_eq!(indices(&after), [1, 0]);
        assert_eq!(registry.table(&peers(&[0, 1, 2]), 1).err(), Some(NoRoom));
        drop(after);

        // Those that went before the last that was given are found too.
        let again = registry.table(&peers(&[0, 2]), 1).unwrap();
        assert_eq!(indices(&again), [1, 0]);
    }
}
