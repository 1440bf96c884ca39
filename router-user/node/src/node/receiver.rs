//! The receiver: one task per inbound stream that checks its frames and injects them, each flow's in order.

use std::io::{self, IoSlice};
use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;

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
use router_common::frame::{FrameHeader, VnetHeader};
use router_common::packet::{Parsed, mss};
use stream_router::p2p::{ConnectionId, DataStream, InboundStreams, PeerId};
use stream_router_engine::admission;
use stream_router_engine::causes::with_sources;
use stream_router_engine::coalesce::{CoalescedPacket, Coalescer};
use stream_router_engine::framing::{Decoder, Frame, FrameError};
use stream_router_engine::received_flows::ReceivedTick;
use stream_router_engine::software_offload::{SoftwareOffload, Unfinishable};

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
        let mut software = SoftwareOffload::default();
        let mut clamped = Vec::new();
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
            self.inject_frames(peer, &mut decoder, &mut software, &mut clamped)
                .inspect_err(|_| self.data_path.counters.add(PacketCounter::RxProtocolError, 1))?;
        }
    }

    fn inject_frames(
        &self,
        peer: &NodePeer,
        decoder: &mut Decoder,
        software: &mut SoftwareOffload,
        clamped: &mut Vec<u8>,
    ) -> Result<(), FrameError> {
        let (mut n_frames, mut n_bytes) = (0, 0);
        let now = self.data_path.received.tick(Instant::now());
        let mut inject =
            |packet: CoalescedPacket<'_>| match self.data_path.injector.inject_parts(packet.parts) {
                Ok(()) => {
                    n_frames += packet.n_frames;
                    n_bytes += packet.wire_len;
                    self.count(&packet, now);
                }
                Err(_) => self
                    .data_path
                    .counters
                    .add(PacketCounter::RxDeviceRefused, packet.n_frames),
            };
        let _deferred = DeferredWakeups::new();
        // A peer that is configured no more owns no address in it.
        let peers = self.data_path.peers.load();
        let takes_udp = self.data_path.injector.udp_offload();
        let mut coalescer = Coalescer::new(takes_udp);
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
                Ok(mut parsed) => {
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
                    if parsed.fragment
                        && let Some(key) = self.data_path.received_fragments.flow_key(&parsed)
                    {
                        parsed.key = key;
                    }
                    if self.clamp(frame.vnet_and_packet(), &parsed, clamped) {
                        // It is in order behind what came before it, as it is injected at once.
                        coalescer.flush(&mut inject);
                        inject(CoalescedPacket {
                            parts: &[IoSlice::new(clamped)],
                            flow: &parsed.key,
                            n_frames: 1,
                            wire_len: frame.wire_len() as u64,
                        });
                    } else if !takes_udp && frame.vnet().gso_type == VnetHeader::GSO_UDP_L4 {
                        // Nothing of its flow waits in the coalescer, which then holds back no UDP.
                        self.inject_segments(software, &frame, &parsed.key, &mut inject);
                    } else {
                        coalescer.push(frame, &parsed, &mut inject);
                    }
                }
                Err(refusal) => self.data_path.counters.add(refusal.into(), 1),
            }
        }
        coalescer.flush(&mut inject);
        peer.traffic.rx_packets.fetch_add(n_frames, Relaxed);
        peer.traffic.rx_bytes.fetch_add(n_bytes, Relaxed);
        outcome
    }

    /// Counts what the device took for its flow, as the kernel counts what it captures: without frame headers.
    fn count(&self, packet: &CoalescedPacket<'_>, now: ReceivedTick) {
        let n_bytes = packet.wire_len - packet.n_frames * FrameHeader::LEN as u64;
        let received = &self.data_path.received;
        if received.count(packet.flow, packet.n_frames, n_bytes, now) {
            self.data_path.counters.add(PacketCounter::RxFlowCountsLost, 1);
        }
    }

    /// Lowers the segment size that a TCP packet offers to what the device carries: puts a packet that offers more into
    /// `clamped`, with its offload header, and says so.
    fn clamp(&self, vnet_and_packet: &[u8], parsed: &Parsed, clamped: &mut Vec<u8>) -> bool {
        const NEEDS_CSUM: u8 = VnetHeader::NEEDS_CSUM;
        if self.data_path.clamp_mtu == 0 {
            return false;
        }
        let (vnet, packet) = vnet_and_packet.split_at(VnetHeader::LEN);
        let is_open = vnet[0] & NEEDS_CSUM != 0;
        let Some(clamp) = mss::clamp(packet, parsed, self.data_path.clamp_mtu, is_open) else {
            return false;
        };
        clamped.clear();
        clamped.extend_from_slice(vnet_and_packet);
        for (offset, bytes) in [
            (clamp.size_offset, clamp.size),
            (clamp.checksum_offset, clamp.checksum),
        ] {
            clamped[VnetHeader::LEN + offset as usize..][..bytes.len()].copy_from_slice(&bytes);
        }
        self.data_path.counters.add(PacketCounter::RxMssClamped, 1);
        true
    }

    /// Injects the packets of a UDP super-packet one by one.
    #[cold]
    fn inject_segments(
        &self,
        software: &mut SoftwareOffload,
        frame: &Frame<'_>,
        flow: &FlowKey,
        inject: &mut impl FnMut(CoalescedPacket<'_>),
    ) {
        let segmented = software.segment(&frame.vnet(), frame.packet(), 0, |segment| {
            inject(CoalescedPacket {
                parts: &[IoSlice::new(&segment[FrameHeader::LEN - VnetHeader::LEN..])],
                flow,
                n_frames: 1,
                wire_len: segment.len() as u64,
            });
        });
        let counter = match segmented {
            Ok(()) => PacketCounter::RxSegmented,
            Err(Unfinishable) => PacketCounter::RxBadOffloadHeader,
        };
        self.data_path.counters.add(counter, 1);
    }
}

#[cold]
fn trace_packet(flow: &FlowKey, len: usize) {
    let (protocol, from, to) = (flow.protocol, flow.source_addr(), flow.destination_addr());
    let [from_port, to_port] = [flow.source_port_be, flow.destination_port_be].map(u16::from_be_bytes);
    trace!(protocol, %from, from_port, %to, to_port, len, "packet from the peer");
}
