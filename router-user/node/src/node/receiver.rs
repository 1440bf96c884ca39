//! The receiver: one task per inbound stream that checks its frames and injects them, each flow's in order.

use std::io;
use std::sync::atomic::Ordering::Relaxed;

use futures::AsyncReadExt;
use thiserror::Error;
use tracing::{Instrument, Level, debug, debug_span, trace};

use super::capture::PacketView;
use super::counters::PacketCounter;
use super::data_path::DataPath;
use super::deferred_wakeups::DeferredWakeups;
use super::peers::{InboundStream, NodePeer};
use crate::control::CaptureDirection;
use router_common::flow_key::FlowKey;
use stream_router::p2p::{ConnectionId, DataStream, InboundStreams, PeerId};
use stream_router_engine::admission;
use stream_router_engine::causes::with_sources;
use stream_router_engine::coalesce::{CoalescedPacket, Coalescer};
use stream_router_engine::framing::{Decoder, FrameError};

/// Makes a receiver of each stream that a peer opens.
#[derive(Clone)]
pub(super) struct Receivers {
    /// Who may send what, and where it goes.
    pub(super) data_path: DataPath,
}

impl InboundStreams for Receivers {
    fn accept(&self, peer: PeerId, connection: ConnectionId, stream: DataStream) {
        let Some(peer) = self.data_path.peers.load().by_id(&peer).cloned() else {
            return;
        };
        let receiver = self.clone();
        let number = peer.traffic.number_inbound_stream();
        let span = debug_span!("inbound stream", peer = %peer.id, %connection, stream = number);
        let receive = async move {
            match receiver.receive(&peer, stream).await {
                Ok(()) => debug!("peer closed its stream"),
                Err(error) => debug!(error = with_sources(&error), "stream reset"),
            }
        };
        // Called on the connection's own task: the receiver stays on its thread.
        tokio::spawn(receive.instrument(span));
    }
}

#[derive(Debug, Error)]
enum ReceiveError {
    #[error("stream failed")]
    Io(#[from] io::Error),
    #[error("peer sent bytes that are no frame")]
    Frame(#[from] FrameError),
    #[error("stream ended inside a frame, {pending} bytes into it")]
    Truncated { pending: usize },
}

impl Receivers {
    /// Injects what `stream` brings until it ends; dropping the stream on an error resets it.
    async fn receive(&self, peer: &NodePeer, mut stream: DataStream) -> Result<(), ReceiveError> {
        let _open = InboundStream::new(&peer.traffic);
        let mut decoder = Decoder::default();
        loop {
            let n = stream.read(decoder.space()).await?;
            if n == 0 {
                return match decoder.pending() {
                    0 => Ok(()),
                    pending => {
                        self.data_path.counters.add(PacketCounter::RxProtocolError, 1);
                        Err(ReceiveError::Truncated { pending })
                    }
                };
            }
            decoder.handle_read(n);
            self.inject_frames(peer, &mut decoder)
                .inspect_err(|_| self.data_path.counters.add(PacketCounter::RxProtocolError, 1))?;
        }
    }

    fn inject_frames(&self, peer: &NodePeer, decoder: &mut Decoder) -> Result<(), FrameError> {
        let (mut n_frames, mut n_bytes) = (0, 0);
        let mut inject =
            |packet: CoalescedPacket<'_>| match self.data_path.injector.inject_parts(packet.parts) {
                Ok(()) => {
                    n_frames += packet.n_frames;
                    n_bytes += packet.wire_len;
                }
                Err(_) => self
                    .data_path
                    .counters
                    .add(PacketCounter::RxDeviceRefused, packet.n_frames),
            };
        let _deferred = DeferredWakeups::new();
        // A peer that is configured no more owns no address in it.
        let peers = self.data_path.peers.load();
        let mut coalescer = Coalescer::new(self.data_path.injector.udp_offload());
        let mut captured = self.data_path.taps.begin_turn();
        let traces = tracing::enabled!(Level::TRACE);
        let mut outcome = Ok(());
        for frame in decoder.frames() {
            let frame = match frame {
                Ok(frame) => frame,
                Err(error) => {
                    outcome = Err(error);
                    break;
                }
            };
            match admission::admit(peers.routes(), peer.index, &frame.vnet(), frame.packet()) {
                Ok(parsed) => {
                    if traces {
                        trace_packet(&parsed.key, frame.packet().len());
                    }
                    if let Some(captured) = &mut captured {
                        let view = PacketView {
                            direction: CaptureDirection::In,
                            peer: Some(&peer.id),
                            vnet: frame.vnet(),
                            packet: frame.packet(),
                        };
                        captured.take_parsed(view, Some(&parsed));
                    }
                    coalescer.push(frame, &parsed, &mut inject);
                }
                Err(refusal) => self.data_path.counters.add(refusal.into(), 1),
            }
        }
        coalescer.flush(&mut inject);
        peer.traffic.rx_packets.fetch_add(n_frames, Relaxed);
        peer.traffic.rx_bytes.fetch_add(n_bytes, Relaxed);
        outcome
    }
}

#[cold]
fn trace_packet(flow: &FlowKey, len: usize) {
    let (protocol, from, to) = (flow.protocol, flow.source_addr(), flow.destination_addr());
    let [from_port, to_port] = [flow.source_port_be, flow.destination_port_be].map(u16::from_be_bytes);
    trace!(protocol, %from, from_port, %to, to_port, len, "packet from the peer");
}
