//! What `GET /v1/status` answers.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// State of a node.
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
    /// How captured packets reach the workers.
    pub sink: String,
    /// Directory of the pinned programs and maps, if there is one.
    pub pins: Option<String>,
    /// Workers that take new flows.
    pub workers: u32,
    /// Workers that only keep the flows they have.
    pub retired_workers: u32,
    /// Interfaces at which packets are captured before the host forwards them.
    pub gateways: Vec<GatewayStatus>,
    /// Every configured peer, in the order of the configuration.
    pub peers: Vec<PeerStatus>,
    /// Packets by reason, from the start: the egress program's, then those of user space.
    pub counters: BTreeMap<String, u64>,
}

/// The TUN device of a node.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
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

/// Whether a peer can be reached.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum PeerState {
    /// A connection stands.
    Connected,
    /// None does, and this node keeps dialling.
    Connecting,
    /// None does, and the peer has to dial.
    Disconnected,
}

/// One peer.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
pub struct PeerStatus {
    /// Its id.
    pub id: String,
    /// Whether it can be reached.
    pub state: PeerState,
    /// Its address on the oldest connection.
    pub address: Option<String>,
    /// Last measured round trip in milliseconds.
    pub rtt_ms: Option<f64>,
    /// Open streams in both directions.
    pub streams: u32,
    /// Its inner prefixes.
    pub allowed_ips: Vec<String>,
    /// Frames written to its stream; a super-packet is one.
    pub tx_packets: u64,
    /// Their bytes, frame headers included.
    pub tx_bytes: u64,
    /// Frames from it that were injected.
    pub rx_packets: u64,
    /// Their bytes, frame headers included.
    pub rx_bytes: u64,
}
