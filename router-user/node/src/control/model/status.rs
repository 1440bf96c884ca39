//! `GET /v1/status`

use serde::{Deserialize, Serialize};

use super::{HostStatus, PortMappingStatus, ReachStatus, Resource};

/// The node as a whole.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
pub struct Status {
    /// Version of the program.
    pub version: String,
    /// Seconds since the node started.
    pub uptime_seconds: f64,
    /// Peer id of the node.
    pub peer_id: String,
    /// Name of the node, if it has one.
    #[serde(default)]
    pub name: Option<String>,
    /// TUN device of the node.
    pub device: DeviceStatus,
    /// Multiaddresses at which the node can be reached.
    pub listen: Vec<String>,
    /// Whether a router forwards ports to the node.
    #[serde(default)]
    pub port_mapping: PortMappingStatus,
    /// How it is reached beside that.
    #[serde(default)]
    pub reach: ReachStatus,
    /// Where packets are captured.
    pub hook: String,
    /// Why packets are captured there.
    pub hook_reason: String,
    /// How captured packets reach the workers.
    pub sink: String,
    /// Why captured packets take this way.
    pub sink_reason: String,
    /// Directory of the pinned programs and maps, if there is one.
    pub pins: Option<String>,
    /// Workers that take new flows.
    pub workers: u32,
    /// Workers that only keep the flows they have.
    pub retired_workers: u32,
    /// Threads that workers and peers' connections are spread over.
    pub data_threads: Vec<String>,
    /// Configured peers.
    pub configured_peers: u32,
    /// Configured peers with a connection.
    pub connected_peers: u32,
    /// Peers that are configured and not enabled, which are not among the configured ones.
    #[serde(default)]
    pub disabled_peers: u32,
    /// Interfaces at which packets are captured before the host forwards them.
    pub gateways: Vec<GatewayStatus>,
    /// What the node wants of the host, as last compared with the kernel's state.
    #[serde(default)]
    pub host: HostStatus,
    /// What the node may have of memory, and what of it its tables and rings take.
    #[serde(default)]
    pub memory: MemoryStatus,
    /// Release and features of the kernel.
    pub kernel: KernelStatus,
}

/// The TUN device of a node.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq, Eq)]
pub struct DeviceStatus {
    /// Name of the interface or feature.
    pub name: String,
    /// Interface index.
    pub index: u32,
    /// MTU in bytes.
    pub mtu: u32,
    /// Addresses with prefix lengths.
    pub addresses: Vec<String>,
}

/// A gateway interface.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq, Eq)]
pub struct GatewayStatus {
    /// Name of the interface or feature.
    pub interface: String,
    /// Where the program runs: `tc`, once the kernel has merged frames of a flow, `native`, in the driver, or `generic`, in the
    /// kernel's receive path.
    pub mode: String,
    /// Why the program does not run in a faster way.
    pub reason: Option<String>,
    /// How captured packets reach the workers: `ring buffer`, `AF_XDP, zero-copy` or `AF_XDP, copy mode`.
    pub sink: String,
    /// Why packets do not take a faster way.
    pub sink_reason: Option<String>,
}

/// Memory that a node may have, and the sizes of what it has reserved at its start.
#[derive(Clone, Debug, Default, Serialize, Deserialize, PartialEq, Eq)]
pub struct MemoryStatus {
    /// The most that the node may have, in bytes; `None` if the kernel does not say it.
    pub limit_bytes: Option<u64>,
    /// The control group that sets the limit; `None` if the host has no more.
    pub limited_by: Option<String>,
    /// Flows that the connection table has room for.
    pub max_flows: u32,
    /// Bytes that the connection table takes in the kernel.
    pub table_bytes: u64,
    /// Bytes that the table of what comes of each flow from peers takes once so many flows have come.
    #[serde(default)]
    pub received_table_bytes: u64,
    /// Bytes of each worker's ring.
    pub ring_bytes: u32,
    /// Bytes that the peers take about, of the process and of the kernel's prefix table.
    #[serde(default)]
    pub peers_bytes: u64,
}

/// The running kernel.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq, Eq)]
pub struct KernelStatus {
    /// Release of the kernel, as `uname -r` prints it.
    pub release: String,
    /// Features that were tried. A feature that the configuration does not ask for is not listed.
    pub features: Vec<KernelFeature>,
}

/// A feature of the kernel, or of a gateway's driver.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq, Eq)]
pub struct KernelFeature {
    /// Name of the interface or feature.
    pub name: String,
    /// Whether the feature is available.
    pub available: bool,
    /// Where the feature was tried and with what result, or what it is good for.
    pub detail: String,
}

impl Resource for Status {
    const PATH: &'static str = "/v1/status";
}
