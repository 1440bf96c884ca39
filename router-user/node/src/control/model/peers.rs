//! `GET /v1/peers`

use std::fmt;

use serde::{Deserialize, Serialize};

use super::Resource;

/// Every peer, in the order of the configuration.
#[derive(Clone, Debug, Default, Serialize, Deserialize, PartialEq)]
pub struct PeerList {
    /// The peers.
    pub peers: Vec<PeerStatus>,
}

/// One peer. Address, transport, direction and round trip are those of its oldest connection, which carries what this
/// node sends.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
pub struct PeerStatus {
    /// Its id.
    pub id: String,
    /// Whether it can be reached.
    pub state: PeerState,
    /// Its multiaddress.
    pub address: Option<String>,
    /// What carries the connection.
    pub transport: Option<Transport>,
    /// Who dialled.
    pub direction: Option<ConnectionDirection>,
    /// Last measured round trip in milliseconds.
    pub rtt_ms: Option<f64>,
    /// Seconds since the last handshake of a connection that stands.
    pub handshake_age_seconds: Option<f64>,
    /// Connections that stand.
    pub connections: u32,
    /// Open streams in both directions.
    pub streams: u32,
    /// Its inner prefixes.
    pub allowed_ips: Vec<String>,
    /// Frames written to its streams; a super-packet is one.
    pub tx_frames: u64,
    /// Their bytes, frame headers included.
    pub tx_bytes: u64,
    /// Frames from it that were injected.
    pub rx_frames: u64,
    /// Their bytes, frame headers included.
    pub rx_bytes: u64,
    /// Why the last attempt to dial it failed, if none succeeded since.
    pub last_dial_error: Option<String>,
}

/// Whether a peer can be reached.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, PartialEq, Eq, PartialOrd, Ord)]
#[serde(rename_all = "snake_case")]
pub enum PeerState {
    /// A connection stands.
    Connected,
    /// None does, and this node keeps dialling.
    Connecting,
    /// None does, and the peer has to dial.
    Disconnected,
}

/// What carries a connection.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum Transport {
    /// TCP with TLS or Noise, and yamux.
    Tcp,
    /// QUIC.
    Quic,
}

/// Who opened a connection.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum ConnectionDirection {
    /// The peer.
    Inbound,
    /// This node.
    Outbound,
}

impl fmt::Display for PeerState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Connected => "connected",
            Self::Connecting => "connecting",
            Self::Disconnected => "disconnected",
        })
    }
}

impl fmt::Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Tcp => "tcp",
            Self::Quic => "quic",
        })
    }
}

impl fmt::Display for ConnectionDirection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Inbound => "inbound",
            Self::Outbound => "outbound",
        })
    }
}

impl Resource for PeerList {
    const PATH: &'static str = "/v1/peers";
}
