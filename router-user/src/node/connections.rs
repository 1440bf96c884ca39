//! Follows the peers' connections: which stand, and which of them carries the peer's sender.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::counters::{Counter, Counters};
use super::peers::{Peer, PeerTable};
use super::sender;
use crate::p2p::{ConnectionId, NetworkEvent, NetworkHandle, PeerId};

/// Connections of one peer, oldest first, and the sender that runs on one of them.
#[derive(Default)]
struct Lane {
    connections: Vec<(ConnectionId, Handle)>,
    sender: Option<(ConnectionId, JoinHandle<()>)>,
}

/// Keeps exactly one sender per connected peer, on its oldest connection.
pub(super) struct Connections {
    peers: Arc<PeerTable>,
    counters: Arc<Counters>,
    network: NetworkHandle,
    finish: CancellationToken,
    lanes: HashMap<PeerId, Lane>,
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
            lanes: HashMap::new(),
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
        for (_, sender) in self.lanes.into_values().filter_map(|lane| lane.sender) {
            // A sender that panicked has said so itself; there is nothing left to wait for.
            let _ = sender.await;
        }
    }

    fn handle_connected(&mut self, id: PeerId, connection: ConnectionId, runtime: Handle) {
        let Some(peer) = self.peers.by_id(&id).cloned() else {
            return;
        };
        let lane = self.lanes.entry(id).or_default();
        lane.connections.push((connection, runtime));
        if lane.sender.is_none() {
            self.start_sender(&peer);
        }
    }

    async fn handle_disconnected(&mut self, id: PeerId, connection: ConnectionId) {
        let Some(peer) = self.peers.by_id(&id).cloned() else {
            return;
        };
        let Some(lane) = self.lanes.get_mut(&id) else {
            return;
        };
        lane.connections.retain(|(other, _)| *other != connection);
        if let Some((_, sender)) = lane.sender.take_if(|(on, _)| *on == connection) {
            // Gone before the next one starts, or two could write the same flow.
            sender.abort();
            let _ = sender.await;
            self.start_sender(&peer);
        }
    }

    fn start_sender(&mut self, peer: &Arc<Peer>) {
        let lane = self.lanes.entry(peer.id).or_default();
        let Some((connection, runtime)) = lane.connections.first() else {
            peer.connected.store(false, Relaxed);
            self.counters.add(Counter::TxStreamLost, peer.outbox.clear());
            return;
        };
        if !peer.connected.load(Relaxed) {
            // A worker may have queued a batch just as the last connection went away.
            self.counters.add(Counter::TxStreamLost, peer.outbox.clear());
        }
        let task = sender::run(
            peer.clone(),
            *connection,
            self.network.clone(),
            self.counters.clone(),
            self.finish.clone(),
        );
        lane.sender = Some((*connection, runtime.spawn(task)));
        peer.connected.store(true, Relaxed);
    }
}
