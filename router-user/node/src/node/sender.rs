//! The node's part of a sender: streams on one connection, and the node's counters.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use futures::AsyncWriteExt;
use thiserror::Error;
use tracing::{Instrument, debug_span};

use super::counters::{PacketCounter, PacketCounters};
use super::peers::NodePeer;
use stream_router::egress::lane_stream::LaneStream;
use stream_router::egress::sender::{self, SenderControl, StreamSource};
use stream_router::p2p::{ConnectionId, DataStream, NetworkHandle, OpenError};
use stream_router_engine::flow_cache::StreamIndex;
use stream_router_engine::queue::AqmActions;

/// Runs the sender of `peer`'s lane `stream` on `connection`, until `control` ends it or the task is dropped.
pub(super) async fn run(
    peer: Arc<NodePeer>,
    stream: StreamIndex,
    connection: ConnectionId,
    network: NetworkHandle,
    counters: Arc<PacketCounters>,
    control: SenderControl,
) {
    let Some(lane) = peer.lanes.get(stream) else {
        return;
    };
    let span = debug_span!("stream", peer = %peer.id, %connection, stream = stream.0);
    let source = ConnectionStreams {
        peer: &peer,
        connection,
        network,
        counters,
    };
    sender::run(lane, &source, &control).instrument(span).await;
}

/// Streams on one connection to a peer.
struct ConnectionStreams<'a> {
    peer: &'a NodePeer,
    connection: ConnectionId,
    network: NetworkHandle,
    counters: Arc<PacketCounters>,
}

#[derive(Debug, Error)]
enum SendError {
    #[error("cannot open a stream")]
    Open(#[from] OpenError),
    #[error("cannot write to the stream")]
    Write(#[from] io::Error),
}

impl StreamSource for ConnectionStreams<'_> {
    type Stream = DataStream;
    type Error = SendError;

    async fn open(&self, place: LaneStream) -> Result<DataStream, SendError> {
        let opened = self.network.open_stream_in_lane(self.connection, place);
        Ok(opened.await?)
    }

    fn keeps_order(&self, stream: &DataStream) -> bool {
        stream.keeps_order()
    }

    async fn close(&self, mut stream: DataStream) -> Result<(), SendError> {
        Ok(stream.close().await?)
    }

    fn handle_written(&self, n_frames: u64, n_bytes: u64) {
        self.peer.traffic.tx_packets.fetch_add(n_frames, Relaxed);
        self.peer.traffic.tx_bytes.fetch_add(n_bytes, Relaxed);
    }

    fn handle_lost(&self, n_frames: u64) {
        self.counters.add(PacketCounter::TxStreamLost, n_frames);
    }

    fn handle_aqm(&self, actions: AqmActions) {
        self.counters
            .add(PacketCounter::TxAged, u64::from(actions.n_dropped));
        self.counters
            .add(PacketCounter::TxEcnMarked, u64::from(actions.n_marked));
    }

    fn handle_failed(&self, _finishing: bool) {}
}
