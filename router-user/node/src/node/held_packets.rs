//! Packets that wait for the connection of their peer, in one worker.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use super::counters::{PacketCounter, PacketCounters};
use super::peers::NodePeer;
use stream_router_engine::route_table::PeerIndex;

/// Packets that wait, by peer, each peer's in order. A flow has one worker, so its order is whole.
pub(super) struct HeldPackets {
    by_peer: HashMap<PeerIndex, PeerQueue>,
    counters: Arc<PacketCounters>,
}

/// The packets that wait for one peer. Dropping it gives their room back, and counts those that are left as dropped.
pub(super) struct PeerQueue {
    peer: Arc<NodePeer>,
    packets: VecDeque<HeldPacket>,
    counters: Arc<PacketCounters>,
}

/// A packet that waits.
pub(super) struct HeldPacket {
    pub(super) flow_hash: u32,
    frame: Box<[u8]>,
    packet_at: usize,
}

impl HeldPacket {
    /// A copy of a frame, at whose end the packet stands.
    pub(super) fn new(flow_hash: u32, frame: &[u8], packet: &[u8]) -> Self {
        Self {
            flow_hash,
            packet_at: frame.len().saturating_sub(packet.len()),
            frame: frame.into(),
        }
    }

    /// The frame, and the packet in it.
    pub(super) fn parts(&self) -> (&[u8], &[u8]) {
        (&self.frame, self.frame.get(self.packet_at..).unwrap_or_default())
    }
}

impl HeldPackets {
    pub(super) fn new(counters: Arc<PacketCounters>) -> Self {
        Self {
            by_peer: HashMap::new(),
            counters,
        }
    }

    /// Says whether no packet waits.
    pub(super) fn is_empty(&self) -> bool {
        self.by_peer.is_empty()
    }

    /// Lets a packet wait for `peer` behind those that do already. Returns whether there was room.
    pub(super) fn hold(&mut self, peer: &Arc<NodePeer>, packet: HeldPacket) -> bool {
        if !peer.absence.reserve(packet.frame.len()) {
            return false;
        }
        let queue = self.by_peer.entry(peer.index).or_insert_with(|| PeerQueue {
            peer: peer.clone(),
            packets: VecDeque::new(),
            counters: self.counters.clone(),
        });
        queue.packets.push_back(packet);
        true
    }

    /// Takes the packets that wait for a peer.
    pub(super) fn take(&mut self, index: PeerIndex) -> Option<PeerQueue> {
        self.by_peer.remove(&index)
    }

    /// Takes the queues for whose peer `is_over` says that waiting is over.
    pub(super) fn take_over(&mut self, mut is_over: impl FnMut(&NodePeer) -> bool) -> Vec<PeerQueue> {
        let over = self.by_peer.extract_if(|_, queue| is_over(&queue.peer));
        over.map(|(_, queue)| queue).collect()
    }
}

impl PeerQueue {
    /// Takes the packet that has waited longest.
    pub(super) fn pop(&mut self) -> Option<HeldPacket> {
        let packet = self.packets.pop_front()?;
        self.peer.absence.release(packet.frame.len());
        Some(packet)
    }
}

impl Drop for PeerQueue {
    fn drop(&mut self) {
        while self.pop().is_some() {
            self.counters.add(PacketCounter::TxPeerDown, 1);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;
    use crate::node::peers::QUEUE_LIMITS;
    use stream_router::egress::lanes::PeerLanes;
    use stream_router::p2p::PeerId;

    fn peer(index: u32) -> Arc<NodePeer> {
        let lanes = PeerLanes::new(1, 1, QUEUE_LIMITS, Box::new(|_| ()));
        Arc::new(NodePeer::new(PeerIndex(index), PeerId::random(), lanes))
    }

    fn packet(flow_hash: u32) -> HeldPacket {
        HeldPacket::new(flow_hash, b"header packet", b"packet")
    }

    #[test]
    fn packets_leave_as_they_came_and_those_of_one_peer_alone() {
        let (one, two) = (peer(1), peer(2));
        let mut held = HeldPackets::new(Arc::default());
        for (peer, hash) in [(&one, 1), (&two, 2), (&one, 3)] {
            assert!(held.hold(peer, packet(hash)));
        }

        let mut queue = held.take(PeerIndex(1)).unwrap();

        let first = queue.pop().unwrap();
        assert_eq!(first.parts(), (&b"header packet"[..], &b"packet"[..]));
        assert_eq!((first.flow_hash, queue.pop().unwrap().flow_hash), (1, 3));
        assert!(queue.pop().is_none() && !held.is_empty());
        assert!(held.take(PeerIndex(1)).is_none());
    }

    #[test]
    fn what_is_never_taken_is_counted_and_gives_its_room_back() {
        let (peer, counters) = (peer(1), Arc::new(PacketCounters::default()));
        let mut held = HeldPackets::new(counters.clone());
        let n_held = (0..1000).filter(|hash| held.hold(&peer, packet(*hash))).count();
        assert!(n_held < 1000 && !held.hold(&peer, packet(0)));

        drop(held);

        let mut shown = counters.snapshot();
        let dropped = shown.find(|(counter, _)| *counter as usize == PacketCounter::TxPeerDown as usize);
        assert_eq!(dropped.map(|(_, n)| n), Some(n_held as u64));
        assert!(peer.absence.reserve(1));
        assert!(
            peer.absence
                .is_shorter_than(std::time::Duration::from_secs(60), Instant::now())
        );
    }
}
