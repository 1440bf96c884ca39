//! The streams of the network that the library brings.

use futures::future::BoxFuture;
use libp2p_identity::PeerId;

use super::pool::{PoolError, StreamPool};
use crate::config::MAX_STREAMS_PER_PEER;
use crate::egress::lane_stream::LaneStream;
use crate::p2p::{ConnectionId, DataStream, MAX_STREAMS_PER_SIDE, NetworkHandle, OpenError};

// So that on the one connection all of them fit while as many others still close.
const _: () = assert!(2 * MAX_STREAMS_PER_PEER as usize <= MAX_STREAMS_PER_SIDE);

/// Streams on each peer's oldest connection.
impl StreamPool for NetworkHandle {
    type Stream = DataStream;

    fn open(&self, peer: PeerId) -> BoxFuture<'_, Result<DataStream, PoolError>> {
        Box::pin(async move {
            let opened = self.open_stream(oldest_connection(self, peer)?).await;
            opened.map_err(PoolError::new)
        })
    }

    fn open_in_lane(&self, peer: PeerId, place: LaneStream) -> BoxFuture<'_, Result<DataStream, PoolError>> {
        Box::pin(async move {
            let opened = self.open_stream_in_lane(oldest_connection(self, peer)?, place);
            opened.await.map_err(PoolError::new)
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

fn oldest_connection(network: &NetworkHandle, peer: PeerId) -> Result<ConnectionId, PoolError> {
    let peers = network.snapshot().peers;
    let known = peers.iter().find(|known| known.peer == peer);
    let oldest = known.and_then(|known| known.connections.first());
    let oldest = oldest.ok_or_else(|| PoolError::new(OpenError::NotConnected))?;
    Ok(oldest.connection)
}
