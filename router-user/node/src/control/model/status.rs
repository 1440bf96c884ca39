//! `GET /v1/status`

use serde::{Deserialize, Serialize};

use super::Resource;

/// The node as a whole.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
pub struct Status {
    /// Version of the program.
    pub version: String,
    /// Seconds since the node started.
    pub uptime_seconds: f64,
    /// The node's own id.
    pub peer_id: String,
    /// Its TUN device.
    pub device: DeviceStatus,
    /// Multiaddresses at which it can be reached.
    pub listen: Vec<String>,
    /// Where packets are captured.
    pub hook: String,
    /// Why there.
    pub hook_reason: String,
    /// How captured packets reach the workers.
    pub sink: String,
    /// Why so.
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
    /// Those with a connection.
    pub connected_peers: u32,
    /// Interfaces at which packets are captured before the host forwards them.
    pub gateways: Vec<GatewayStatus>,
    /// What the kernel is and can do.
    pub kernel: KernelStatus,
}

/// The TUN device of a node.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq, Eq)]
pub struct DeviceStatus {
    /// Name.
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
    /// Name.
    pub interface: String,
    /// Where the program runs: `native`, in the driver, or `generic`, in the kernel's receive path.
    pub mode: String,
    /// Why it does not run in the driver.
    pub reason: Option<String>,
    /// How captured packets reach the workers: `ring buffer`, `AF_XDP, zero-copy` or `AF_XDP, copy mode`.
    pub sink: String,
    /// Why not better.
    pub sink_reason: Option<String>,
}

/// The running kernel.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq, Eq)]
pub struct KernelStatus {
    /// Its release, as `uname -r` says.
    pub release: String,
    /// What was found by trying; what nothing asked for is not in it.
    pub features: Vec<KernelFeature>,
}

/// A feature of the kernel, or of a gateway's driver.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq, Eq)]
pub struct KernelFeature {
    /// Name.
    pub name: String,
    /// Whether it is there.
    pub available: bool,
    /// Where it was tried and what was said, or what it is good for.
    pub detail: String,
}

impl Resource for Status {
    const PATH: &'static str = "/v1/status";
}
