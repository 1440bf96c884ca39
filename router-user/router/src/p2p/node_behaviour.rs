//! The behaviours of the swarm joined in one.

use libp2p::{
    Multiaddr, PeerId,
    core::transport::PortUse,
    kad::{
        self, QueryId, Record,
        store::{MemoryStore, RecordStore},
    },
    relay,
    swarm::{
        NetworkBehaviour, SwarmEvent,
        behaviour::toggle::Toggle,
        dial_opts::{DialOpts, PeerCondition},
    },
};
use tracing::Span;

use super::{
    announcement::key_of,
    behaviour::StreamBehaviour,
    departure::DepartureBehaviour,
    duplicates::DuplicatesBehaviour,
    keepalive::{KeepaliveBehaviour, KeepaliveEvent},
    local_network::LocalNetwork,
    punch::{PunchBehaviour, Round},
    relay_server::RelayServer,
};

/// The behaviours of the swarm.
///
/// [`StreamBehaviour`] must be the last field: it knows then that no other behaviour refuses what it admits.
#[derive(NetworkBehaviour)]
pub(super) struct NodeBehaviour {
    pub(super) keepalive: KeepaliveBehaviour,
    pub(super) departure: DepartureBehaviour,
    pub(super) duplicates: DuplicatesBehaviour,
    pub(super) local_network: Toggle<LocalNetwork>,
    pub(super) kad: Toggle<kad::Behaviour<MemoryStore>>,
    pub(super) relay: Toggle<RelayServer>,
    pub(super) circuits: relay::client::Behaviour,
    pub(super) identify: Toggle<libp2p_identify::Behaviour>,
    pub(super) punch: Toggle<PunchBehaviour>,
    pub(super) streams: StreamBehaviour,
}

impl NodeBehaviour {
    /// Returns the addresses at which a peer was seen on the local network, with the peer.
    pub(super) fn seen_on_local_network(&self, peer: PeerId) -> Vec<(PeerId, Multiaddr)> {
        let local = self.local_network.as_ref();
        local.map(|local| local.known(peer)).unwrap_or_default()
    }

    /// Makes a peer that is connected at `address` a neighbour in the DHT.
    pub(super) fn add_dht_neighbour(&mut self, peer: PeerId, address: Multiaddr) {
        if let Some(kad) = self.kad.as_mut() {
            // The remote address of an inbound connection is none to dial, but nothing is dialled for the DHT.
            kad.add_address(&peer, address);
        }
    }

    /// Makes a peer that is not connected any more no neighbour in the DHT.
    pub(super) fn remove_dht_neighbour(&mut self, peer: PeerId) {
        if let Some(kad) = self.kad.as_mut() {
            kad.remove_peer(&peer);
        }
    }

    /// Publishes the record of this node in the DHT.
    pub(super) fn publish_record(&mut self, record: Record) {
        if let Some(kad) = self.kad.as_mut()
            && let Err(error) = kad.put_record(record, kad::Quorum::One)
        {
            tracing::warn!(%error, "cannot keep what this node says of itself");
        }
    }

    /// Begins to look up a peer's record in the DHT. Returns `None` if the DHT is off.
    pub(super) fn look_up_record(&mut self, peer: PeerId) -> Option<QueryId> {
        Some(self.kad.as_mut()?.get_record(key_of(peer)))
    }

    /// Keeps a record of another node for the DHT.
    pub(super) fn keep_record(&mut self, record: Record) -> Result<(), kad::store::Error> {
        let kad = self.kad.as_mut();
        kad.map_or(Ok(()), |kad| kad.store_mut().put(record))
    }

    /// Forgets the record of a peer.
    pub(super) fn forget_record(&mut self, peer: PeerId) {
        if let Some(kad) = self.kad.as_mut() {
            kad.store_mut().remove(&key_of(peer));
        }
    }
}

/// Returns how a peer is dialled at an address. From the listening port two peers that dial each other at once would share one
/// TCP connection, in which both think they are the dialler.
pub(super) fn dial_options(peer: PeerId, address: &Multiaddr, port: PortUse) -> DialOpts {
    let options = DialOpts::peer_id(peer)
        .condition(PeerCondition::Always)
        .addresses(vec![address.clone()]);
    match port {
        PortUse::New => options.allocate_new_port().build(),
        PortUse::Reuse => options.build(),
    }
}

/// Returns how a peer is dialled that dials this node at once.
pub(super) fn punch_options(peer: PeerId, round: &Round) -> DialOpts {
    let options = DialOpts::peer_id(peer)
        .condition(PeerCondition::Always)
        .addresses(round.addresses.clone());
    match round.accepts {
        true => options.override_role().build(),
        false => options.build(),
    }
}

/// Returns a span that says which peer and connection an event is about.
pub(super) fn event_span(event: &SwarmEvent<NodeBehaviourEvent>) -> Span {
    match event {
        SwarmEvent::Behaviour(NodeBehaviourEvent::Keepalive(KeepaliveEvent { peer, connection, .. }))
        | SwarmEvent::ConnectionEstablished {
            peer_id: peer,
            connection_id: connection,
            ..
        }
        | SwarmEvent::ConnectionClosed {
            peer_id: peer,
            connection_id: connection,
            ..
        }
        | SwarmEvent::OutgoingConnectionError {
            peer_id: Some(peer),
            connection_id: connection,
            ..
        } => tracing::debug_span!("connection_event", %peer, %connection),
        SwarmEvent::IncomingConnection {
            connection_id: connection,
            ..
        }
        | SwarmEvent::OutgoingConnectionError {
            connection_id: connection,
            ..
        }
        | SwarmEvent::IncomingConnectionError {
            connection_id: connection,
            ..
        } => tracing::debug_span!("connection_event", %connection),
        _ => Span::none(),
    }
}
