//! From ring records to the peers' outboxes: one per worker, called once per batch of records.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;

use tracing::{Level, trace};

use super::capture::{CaptureTurn, PacketView};
use super::counters::PacketCounter;
use super::data_path::DataPath;
use super::held_packets::{HeldPacket, HeldPackets, PeerQueue};
use super::peers::PeerTable;
use crate::control::CaptureDirection;
use crate::device::{ReplyBuffer, TokenBucket, Unreachable, unreachable};
use router_common::frame::{FrameHeader, VnetHeader};
use router_common::record::{RecordHeader, Unfinished, Work};
use stream_router::egress::turn_batches::{Now, Outgoing, TurnBatches};
use stream_router_engine::addresses::addresses;
use stream_router_engine::flow_class::is_urgent;
use stream_router_engine::route_table::PeerIndex;
use stream_router_engine::software_offload::SoftwareOffload;

/// Answers per second and worker, and at once; like Linux, which sends one a second to each host after a burst of 6.
const UNREACHABLE_PER_SECOND: u32 = 20;
const UNREACHABLE_BURST: u32 = 20;

/// Sorts captured packets by peer, in order, and answers for those that nobody takes.
pub(super) struct Forwarder {
    data_path: DataPath,
    /// The peers of this turn.
    peers: Arc<PeerTable>,
    unreachable_limit: TokenBucket,
    reply: ReplyBuffer,
    software_offload: SoftwareOffload,
    now: Now,
    batches: TurnBatches,
    last_route: Option<(IpAddr, PeerIndex)>,
    /// Packets for peers that have not been absent for long.
    held: HeldPackets,
    /// Packets of this turn for captures, while there is one.
    captured: Option<CaptureTurn>,
    /// Whether the log follows single packets in this turn.
    traces: bool,
}

impl Forwarder {
    /// Makes a forwarder with empty batches.
    pub(super) fn new(data_path: &DataPath) -> Self {
        Self {
            batches: TurnBatches::default(),
            now: Now::new(Instant::now(), &data_path.flows),
            peers: data_path.peers.load_full(),
            data_path: data_path.clone(),
            unreachable_limit: TokenBucket::new(UNREACHABLE_PER_SECOND, UNREACHABLE_BURST, Instant::now()),
            reply: ReplyBuffer::default(),
            software_offload: SoftwareOffload::default(),
            last_route: None,
            held: HeldPackets::new(data_path.counters.clone()),
            captured: None,
            traces: false,
        }
    }

    /// Takes one record; it reaches its outbox with the next [`Forwarder::flush`] at the latest.
    pub(super) fn handle_record(&mut self, record: &[u8]) {
        let Some((header, frame)) = frame_of(record) else {
            return;
        };
        self.handle_frame(header.flow_hash, header.unfinished, frame);
    }

    /// Takes one packet as a frame of which something may be undone still, likewise.
    pub(super) fn handle_frame(&mut self, flow_hash: u32, unfinished: Unfinished, frame: &[u8]) {
        if unfinished.work() == Some(Work::Nothing) {
            return self.handle_finished(flow_hash, frame);
        }
        let mut software_offload = std::mem::take(&mut self.software_offload);
        let finished = software_offload.finish(unfinished, frame, |frame| {
            self.handle_finished(flow_hash, frame);
        });
        self.software_offload = software_offload;
        if finished.is_err() {
            self.data_path.counters.add(PacketCounter::TxUnfinishable, 1);
        }
    }

    fn handle_finished(&mut self, flow_hash: u32, frame: &[u8]) {
        let Some(packet) = frame.get(FrameHeader::LEN..) else {
            return;
        };
        let Some((_, destination)) = addresses(packet) else {
            return;
        };
        if let Some(captured) = &mut self.captured {
            let peer = self.peers.routes().lookup(destination);
            let peer = peer.and_then(|index| self.peers.get(index));
            captured.take(PacketView {
                direction: CaptureDirection::Out,
                peer: peer.map(|peer| &peer.id),
                vnet: frame_vnet(frame),
                packet,
            });
        }
        self.route(flow_hash, frame, packet, destination);
    }

    /// Puts a packet into the batch of its stream, lets it wait for its peer, or refuses it.
    fn route(&mut self, flow_hash: u32, frame: &[u8], packet: &[u8], destination: IpAddr) {
        let index = match self.last_route {
            Some((last, index)) if last == destination => index,
            _ => {
                let Some(index) = self.peers.routes().lookup(destination) else {
                    self.refuse(packet, PacketCounter::TxNoRoute, Unreachable::NoRoute);
                    return;
                };
                self.last_route = Some((destination, index));
                index
            }
        };
        let Some(peer) = self.peers.get(index) else { return };
        if !peer.connected.load(Relaxed) {
            let (hold_time, now) = (self.data_path.hold_time, self.now.instant);
            if peer.on_demand.load(Relaxed) && !peer.absence.is_in_demand(now) {
                // Nobody has looked for it until now.
                peer.absence.begin(now);
            }
            if peer.absence.want(now) {
                self.data_path.demand.notify_one();
            }
            if !peer.absence.is_shorter_than(hold_time, now) {
                self.refuse(packet, PacketCounter::TxPeerDown, Unreachable::Host);
            } else if self.held.hold(peer, HeldPacket::new(flow_hash, frame, packet)) {
                self.data_path.counters.add(PacketCounter::TxHeld, 1);
            } else {
                self.data_path.counters.add(PacketCounter::TxQueueFull, 1);
            }
            return;
        }
        if !self.held.is_empty()
            && let Some(earlier) = self.held.take(index)
        {
            self.handle_returned(earlier);
            // The table is the same, but nothing of it is borrowed any more.
            return self.route(flow_hash, frame, packet, destination);
        }
        let choose = || peer.lanes.choose(flow_hash);
        let stream = self.data_path.flows.stream(flow_hash, self.now.tick, choose);
        let Some(lane) = peer.lanes.get(stream) else {
            return;
        };
        if self.traces {
            let (stream, len) = (stream.0, packet.len());
            trace!(peer = %peer.id, stream, flow_hash, len, "packet to a peer");
        }
        let outgoing = Outgoing {
            peer: index.0,
            stream,
            lane,
            flow_hash,
            frame,
            urgent: is_urgent(packet),
        };
        let n_refused = self.batches.push(&outgoing, self.now);
        if n_refused > 0 {
            self.data_path
                .counters
                .add(PacketCounter::TxQueueFull, u64::from(n_refused));
        }
    }

    /// Returns whether packets wait for their peer, so that the next turn must not be long in coming.
    pub(super) fn holds_packets(&self) -> bool {
        !self.held.is_empty()
    }

    /// Begins a turn: flows have their next packets at `now`, and go to the peers that are configured then.
    pub(super) fn handle_turn(&mut self, now: Instant) {
        let peers = self.data_path.peers.load();
        if !Arc::ptr_eq(&peers, &self.peers) {
            self.peers = Arc::clone(&peers);
            self.last_route = None;
        }
        self.now = Now::new(now, &self.data_path.flows);
        self.captured = self.data_path.taps.begin_turn();
        self.traces = tracing::enabled!(Level::TRACE);
        if !self.held.is_empty() {
            self.end_waits();
        }
    }

    /// Sends what waits for peers that have come, and refuses what waits for those that will not come in time.
    fn end_waits(&mut self) {
        let (hold_time, now) = (self.data_path.hold_time, self.now.instant);
        let over = self
            .held
            .take_over(|peer| peer.connected.load(Relaxed) || !peer.absence.is_shorter_than(hold_time, now));
        for queue in over {
            self.handle_returned(queue);
        }
    }

    /// Routes packets that waited, in order. Which peer they belong to may have changed meanwhile.
    fn handle_returned(&mut self, mut queue: PeerQueue) {
        while let Some(held) = queue.pop() {
            let (frame, packet) = held.parts();
            if let Some((_, destination)) = addresses(packet) {
                self.route(held.flow_hash, frame, packet, destination);
            }
        }
    }

    /// Hands every begun batch to its stream.
    pub(super) fn flush(&mut self) {
        self.captured = None;
        let lane = |peer, stream| self.peers.get(PeerIndex(peer))?.lanes.get(stream);
        self.batches.flush(self.now, lane, |_, n_refused| {
            self.data_path
                .counters
                .add(PacketCounter::TxQueueFull, u64::from(n_refused));
        });
    }

    /// Counts a packet that goes nowhere and tells its sender, as often as the limit allows.
    fn refuse(&mut self, packet: &[u8], counter: PacketCounter, kind: Unreachable) {
        self.data_path.counters.add(counter, 1);
        if !self.unreachable_limit.take(Instant::now()) {
            return;
        }
        if let Ok(reply) = unreachable(packet, kind, &mut self.reply)
            && self.data_path.injector.inject(reply).is_ok()
        {
            self.data_path.counters.add(PacketCounter::IcmpUnreachableSent, 1);
        }
    }
}

/// The header of a ring record, and the frame in it as it goes on a stream. Behind a short packet the record is padded.
fn frame_of(record: &[u8]) -> Option<(RecordHeader, &[u8])> {
    // A driver puts a frame at any address.
    let header: RecordHeader = bytemuck::pod_read_unaligned(record.get(..RecordHeader::LEN)?);
    let end = RecordHeader::LEN + header.frame.len as usize;
    Some((header, record.get(RecordHeader::FRAME_OFFSET..end)?))
}

/// The offload header of a frame that [`frame_of`] gave.
fn frame_vnet(frame: &[u8]) -> VnetHeader {
    bytemuck::pod_read_unaligned(&frame[size_of::<u32>()..FrameHeader::LEN])
}
