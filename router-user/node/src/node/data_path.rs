//! What the tasks that carry packets share.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;

use super::capture::CaptureTaps;
use super::counters::PacketCounters;
use super::peers::LivePeers;
use crate::device::Injector;
use stream_router_engine::flow_cache::FlowCache;
use stream_router_engine::fragments::FragmentTable;
use stream_router_engine::received_flows::ReceivedFlows;

/// The parts that workers, senders and receivers work with. Cheap to clone.
#[derive(Clone)]
pub(super) struct DataPath {
    /// Which peers there are, and what belongs to them.
    pub(super) peers: Arc<LivePeers>,
    /// Which stream a flow has.
    pub(super) flows: Arc<FlowCache>,
    /// What came of each flow from peers.
    pub(super) received: Arc<ReceivedFlows>,
    /// Which flow a fragment from a peer is of.
    pub(super) received_fragments: Arc<FragmentTable>,
    /// What happened to packets that did not go on.
    pub(super) counters: Arc<PacketCounters>,
    /// The way into the device.
    pub(super) injector: Injector,
    /// MTU to which the segment sizes that TCP connections offer are lowered; 0 leaves them.
    pub(super) clamp_mtu: u32,
    /// Who captures packets.
    pub(super) taps: Arc<CaptureTaps>,
    /// How long packets wait for a peer from the beginning of its absence.
    pub(super) hold_time: Duration,
    /// How long a worker looks for the next packet before it sleeps.
    pub(super) busy_poll: Duration,
    /// Wakes who tells the network of peers that are wanted.
    pub(super) demand: Arc<Notify>,
}
