//! The streams of the network that the library brings.

use futures::future::BoxFuture;
use libp2p_identity::PeerId;

use super::pool::{PoolError, StreamPool};
use crate::config::MAX_STREAMS_PER_PEER;
use crate::p2p::{DataStream, MAX_STREAMS_PER_SIDE, NetworkHandle, OpenError};

// So that on the one connection all of them fit while as many others still close.
const _: () = assert!(2 * MAX_STREAMS_PER_PEER as usize <= MAX_STREAMS_PER_SIDE);

/// Streams on each peer's oldest connection.
impl StreamPool for NetworkHandle {
    type Stream = DataStream;

    fn open(&self, peer: PeerId) -> BoxFuture<'_, Result<DataStream, PoolError>> {
        Box::pin(async move {
            let peers = self.snapshot().peers;
            let oldest = peers
                .iter()
                .find(|known| known.peer == peer)
                .and_then(|known| known.connections.first())
                .ok_or_else(|| PoolError::new(OpenError::NotConnected))?;
            self.open_stream(oldest.connection).await.map_err(PoolError::new)
        })
    }

    fn list(&self, peer: PeerId) -> Vec<String> {
        let peers = self.snapshot().peers;
        let of_peer = peers.iter().filter(|known| known.peer == peer);
        of_peer
            .flat_map(|known| &known.connections)
            .flat_map(|connection| {
                (0..connection.n_outbound_streams)
                    .map(|n| format!("stream {n} on connection {}", connection.connection))
            })
            .collect()
    }
}
