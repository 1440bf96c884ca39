//! Follows the peers' connections: which stand, and which of them carries the peer's senders.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::counters::{Counter, Counters};
use super::peers::{Peer, PeerTable};
use super::sender;
use crate::engine::flow_cache::StreamIndex;
use crate::p2p::{ConnectionId, NetworkEvent, NetworkHandle, PeerId};

/// Connections of one peer, oldest first, and the senders that run on one of them.
#[derive(Default)]
struct Link {
    connections: Vec<(ConnectionId, Handle)>,
    senders: Option<(ConnectionId, JoinSet<()>)>,
}

/// Keeps exactly one sender for each lane of each connected peer, on the peer's oldest connection.
pub(super) struct Connections {
    peers: Arc<PeerTable>,
    counters: Arc<Counters>,
    network: NetworkHandle,
    finish: CancellationToken,
    links: HashMap<PeerId, Link>,
}

impl Connections {
    /// Senders stop, with their outboxes empty, once `finish` is cancelled.
    pub(super) fn new(
        peers: Arc<PeerTable>,
        counters: Arc<Counters>,
        network: NetworkHandle,
        finish: CancellationToken,
    ) -> Self {
        Self {
            peers,
            counters,
            network,
            finish,
            links: HashMap::new(),
        }
    }

    /// Follows `events` until `finish` is cancelled, then waits for every sender to finish.
    pub(super) async fn run(mut self, mut events: mpsc::Receiver<NetworkEvent>) {
        while let Some(Some(event)) = self.finish.clone().run_until_cancelled(events.recv()).await {
            match event {
                NetworkEvent::Connected {
                    peer,
                    connection,
                    runtime,
                    ..
                } => {
                    self.handle_connected(peer, connection, runtime);
                }
                NetworkEvent::Disconnected { peer, connection, .. } => {
                    self.handle_disconnected(peer, connection).await;
                }
                NetworkEvent::Rtt { .. } | NetworkEvent::Listening { .. } => {}
            }
        }
        for (_, mut senders) in self.links.into_values().filter_map(|link| link.senders) {
            // A sender that panicked has said so itself; there is nothing left to wait for.
            while senders.join_next().await.is_some() {}
        }
    }

    fn handle_connected(&mut self, id: PeerId, connection: ConnectionId, runtime: Handle) {
        let Some(peer) = self.peers.by_id(&id).cloned() else {
            return;
        };
        let link = self.links.entry(id).or_default();
        link.connections.push((connection, runtime));
        if link.senders.is_none() {
            self.start_senders(&peer);
        }
    }

    async fn handle_disconnected(&mut self, id: PeerId, connection: ConnectionId) {
        let Some(peer) = self.peers.by_id(&id).cloned() else {
            return;
        };
        let Some(link) = self.links.get_mut(&id) else {
            return;
        };
        link.connections.retain(|(other, _)| *other != connection);
        if let Some((_, mut senders)) = link.senders.take_if(|(on, _)| *on == connection) {
            // Gone before the next ones start, or two could write the same flow.
            senders.shutdown().await;
            self.start_senders(&peer);
        }
    }

    fn start_senders(&mut self, peer: &Arc<Peer>) {
        let link = self.links.entry(peer.id).or_default();
        if link.connections.is_empty() {
            peer.connected.store(false, Relaxed);
        }
        if !peer.connected.load(Relaxed) {
            // Without a connection nothing waits, but for what a worker queued just as the last one went away.
            for lane in peer.streams.lanes() {
                self.counters.add(Counter::TxStreamLost, lane.outbox.clear());
            }
        }
        let Some((connection, runtime)) = link.connections.first() else {
            return;
        };
        let mut senders = JoinSet::new();
        for index in 0..peer.streams.lanes().len() {
            let task = sender::run(
                peer.clone(),
                StreamIndex(index as u8),
                *connection,
                self.network.clone(),
                self.counters.clone(),
                self.finish.clone(),
            );
            senders.spawn_on(task, runtime);
        }
        link.senders = Some((*connection, senders));
        peer.connected.store(true, Relaxed);
    }
}
