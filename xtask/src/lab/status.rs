//! What `status`, `peers` and `counters` of `stream-router` print with `--json`, in one.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use serde::Deserialize;

/// A node's status.
#[derive(Clone, Debug, Deserialize)]
pub struct Status {
    /// The node's version.
    pub version: String,
    /// Seconds since the node started.
    pub uptime_seconds: f64,
    /// The node's own peer id.
    pub peer_id: String,
    /// The TUN device.
    pub device: DeviceStatus,
    /// Addresses it listens on.
    pub listen: Vec<String>,
    /// Where packets are captured.
    pub hook: String,
    /// How packets reach user space.
    pub sink: String,
    /// The pin directory, if bpffs is mounted.
    pub pins: Option<String>,
    /// Workers that take new flows.
    pub workers: u32,
    /// Workers that only keep the flows they have.
    pub retired_workers: u32,
    /// Gateway interfaces.
    pub gateways: Vec<GatewayStatus>,
    /// The configured peers; from `peers`.
    #[serde(default)]
    pub peers: Vec<PeerStatus>,
    /// Every counter by name, of kernel and user space; from `counters`.
    #[serde(default)]
    pub counters: BTreeMap<String, u64>,
}

/// The TUN device of a node.
#[derive(Clone, Debug, Deserialize)]
pub struct DeviceStatus {
    /// Its name.
    pub name: String,
    /// Its interface index.
    pub index: u32,
    /// Its MTU in bytes.
    pub mtu: u32,
    /// Its addresses with prefix lengths.
    pub addresses: Vec<String>,
}

/// A gateway interface of a node.
#[derive(Clone, Debug, Deserialize)]
pub struct GatewayStatus {
    /// Its name.
    pub interface: String,
    /// `tc`, `native` or `generic`.
    pub mode: String,
    /// Why not faster.
    pub reason: Option<String>,
    /// `ring buffer`, `AF_XDP, zero-copy` or `AF_XDP, copy mode`.
    pub sink: String,
    /// Why not better.
    pub sink_reason: Option<String>,
}

/// A configured peer of a node.
#[derive(Clone, Debug, Deserialize)]
pub struct PeerStatus {
    /// Its peer id.
    pub id: String,
    /// `connected`, `connecting` or `disconnected`.
    pub state: String,
    /// The address of the connection.
    pub address: Option<String>,
    /// Round trip of the last libp2p ping in milliseconds.
    pub rtt_ms: Option<f64>,
    /// Open streams.
    pub streams: u32,
    /// Prefixes that belong to the peer.
    pub allowed_ips: Vec<String>,
    /// Frames sent to the peer; a super-packet is one.
    pub tx_frames: u64,
    /// Their bytes, frame headers included.
    pub tx_bytes: u64,
    /// Frames received from the peer.
    pub rx_frames: u64,
    /// Their bytes, frame headers included.
    pub rx_bytes: u64,
}

/// What `peers` prints.
#[derive(Debug, Deserialize)]
pub(super) struct Peers {
    pub(super) peers: Vec<PeerStatus>,
}

/// What `counters` prints.
#[derive(Debug, Deserialize)]
pub(super) struct Counters {
    pub(super) counters: Vec<Counter>,
}

/// One counter.
#[derive(Debug, Deserialize)]
pub(super) struct Counter {
    pub(super) name: String,
    pub(super) value: u64,
}

impl Status {
    /// Returns a counter's value.
    ///
    /// # Errors
    /// When there is no counter of this name.
    pub fn counter(&self, name: &str) -> Result<u64> {
        self.counters.get(name).copied().with_context(|| {
            let names: Vec<&str> = self.counters.keys().map(String::as_str).collect();
            format!("no counter {name} among {}", names.join(", "))
        })
    }

    /// Returns a configured peer.
    ///
    /// # Errors
    /// When the node knows no peer of this id.
    pub fn peer(&self, id: &str) -> Result<&PeerStatus> {
        self.peers
            .iter()
            .find(|peer| peer.id == id)
            .with_context(|| format!("no peer {id}"))
    }

    /// Returns whether this peer is connected.
    pub fn is_connected(&self, id: &str) -> bool {
        self.peers
            .iter()
            .any(|peer| peer.id == id && peer.state == "connected")
    }
}
