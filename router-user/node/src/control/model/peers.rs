//! `GET /v1/peers`

use std::fmt;

use serde::{Deserialize, Serialize};

use super::Resource;

/// Every peer, in the order of the configuration.
#[derive(Clone, Debug, Default, Serialize, Deserialize, PartialEq)]
pub struct PeerList {
    /// The peers.
    pub peers: Vec<PeerStatus>,
    /// Those that are configured and not enabled. They are apart, so that whoever counts the others goes on to count right.
    #[serde(default)]
    pub disabled: Vec<DisabledPeer>,
}

/// A peer that is configured and not enabled: the node neither dials nor accepts it, and routes nothing to it.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq, Eq)]
pub struct DisabledPeer {
    /// Id of the peer.
    pub id: String,
    /// Name of the peer, if it has one.
    pub name: Option<String>,
    /// What the configuration says of it to people.
    pub comment: Option<String>,
    /// Prefixes behind the peer.
    pub allowed_ips: Vec<String>,
    /// Multiaddresses at which it would be dialled.
    pub addresses: Vec<String>,
}

/// One peer. Address, transport, direction and round trip are those of its oldest connection, which carries what this
/// node sends.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
pub struct PeerStatus {
    /// Id of the peer.
    pub id: String,
    /// Name of the peer, if it has one.
    #[serde(default)]
    pub name: Option<String>,
    /// What the configuration says of the peer to people.
    #[serde(default)]
    pub comment: Option<String>,
    /// Whether the peer can be reached.
    pub state: PeerState,
    /// Multiaddress of the peer.
    pub address: Option<String>,
    /// Transport of the connection.
    pub transport: Option<Transport>,
    /// How the connection came up.
    #[serde(default)]
    pub path: Option<PeerPath>,
    /// Side that dialled.
    pub direction: Option<Direction>,
    /// Last measured round trip in milliseconds.
    pub rtt_ms: Option<f64>,
    /// Seconds since the last handshake of an established connection.
    pub handshake_age_seconds: Option<f64>,
    /// Number of established connections.
    pub connections: u32,
    /// The connections, oldest first, and those that are to be left last.
    #[serde(default)]
    pub links: Vec<PeerLink>,
    /// Open streams in both directions.
    pub streams: u32,
    /// Prefixes behind the peer.
    pub allowed_ips: Vec<String>,
    /// Most bytes per second that are sent to the peer, if there is a limit.
    pub rate_bytes_per_second: Option<u32>,
    /// Frames written to the peer's streams; a super-packet is one.
    pub tx_frames: u64,
    /// Bytes of these frames, frame headers included.
    pub tx_bytes: u64,
    /// Frames from the peer that were injected.
    pub rx_frames: u64,
    /// Bytes of these frames, frame headers included.
    pub rx_bytes: u64,
    /// Mean of what was written to the peer's streams in the last minute, in bytes per second; none if it is not known yet.
    #[serde(default)]
    pub tx_bytes_per_second: Option<f64>,
    /// The same of what came from the peer.
    #[serde(default)]
    pub rx_bytes_per_second: Option<f64>,
    /// Addresses at which the peer may be dialled.
    #[serde(default)]
    pub addresses: Vec<PeerAddress>,
    /// Why the last attempt to dial the peer failed, if none has succeeded since.
    pub last_dial_error: Option<String>,
    /// Whether the peer refused this node, when it was last dialled, as one that it does not know.
    #[serde(default)]
    pub refuses: bool,
    /// Why there is no direct connection, if there is one through a relay.
    #[serde(default)]
    pub relayed_because: Option<String>,
    /// Addresses that the peer has named for a direct connection, and that were dialled in the last try, if that failed.
    #[serde(default)]
    pub direct_tries: Vec<DirectTry>,
    /// Seconds since that try failed.
    #[serde(default)]
    pub direct_tried_age_seconds: Option<f64>,
}

/// An address that was dialled for a direct connection, as both sides had agreed through a relay.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq, Eq)]
pub struct DirectTry {
    /// Multiaddress, without the id of the peer.
    pub address: String,
    /// Why it led nowhere.
    pub error: String,
}

/// A connection to a peer.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
pub struct PeerLink {
    /// Multiaddress of the peer.
    pub address: String,
    /// Transport of the connection.
    pub transport: Transport,
    /// Side that dialled.
    pub direction: Direction,
    /// Device or address of the `[[transport.uplink]]` by which it leaves, if it is one of them.
    pub uplink: Option<String>,
    /// Whether that is a metered one.
    pub metered: bool,
    /// Last measured round trip in milliseconds.
    pub rtt_ms: Option<f64>,
    /// Share of the packets sent in the last minute or two that were lost, 0 to 1; none if there were fewer than 50.
    #[serde(default)]
    pub loss: Option<f64>,
    /// Seconds since its handshake.
    pub age_seconds: f64,
    /// Whether the peer answers on it.
    pub answers: bool,
    /// Whether it is to be left.
    pub leaving: bool,
}

/// An address at which a peer may be dialled.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
pub struct PeerAddress {
    /// Multiaddress, without the id of the peer.
    pub address: String,
    /// Who says that the peer is there.
    pub origin: AddressOrigin,
    /// Why the last attempt to dial it failed, if the peer was not reached directly since.
    pub last_dial_error: Option<String>,
    /// Seconds since that attempt failed.
    #[serde(default)]
    pub last_dial_error_age_seconds: Option<f64>,
}

/// Who says that a peer has an address.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum AddressOrigin {
    /// The configuration.
    Configured,
    /// It was found on the local network.
    Mdns,
    /// The peer has announced it.
    Dht,
    /// It leads through a relay of `relay.via`.
    Relay,
}

/// Whether a peer can be reached.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, PartialEq, Eq, PartialOrd, Ord)]
#[serde(rename_all = "snake_case")]
pub enum PeerState {
    /// A connection is established, and packets go over it.
    Connected,
    /// No connection is established, and this node keeps dialling.
    Connecting,
    /// No connection is established, and the peer has to dial.
    Disconnected,
    /// No connection is established, and this node dials when there is something to send.
    Idle,
    /// It is not enabled: the state of a [`DisabledPeer`], and of no peer beside those.
    Disabled,
}

/// Transport of a connection.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum Transport {
    /// TCP with TLS or Noise.
    Tcp,
    /// QUIC.
    Quic,
    /// A circuit through a relay, with TLS or Noise inside.
    Relay,
}

/// How a connection came up.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum PeerPath {
    /// One side has dialled the other.
    Direct,
    /// Both have dialled at once, as they had agreed through a relay.
    Punched,
    /// It leads through a relay.
    Relayed,
}

/// Side that opened a connection.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum Direction {
    /// The peer opened it.
    Inbound,
    /// This node opened it.
    Outbound,
}

impl fmt::Display for PeerState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Connected => "connected",
            Self::Connecting => "connecting",
            Self::Disconnected => "disconnected",
            Self::Idle => "idle",
            Self::Disabled => "disabled",
        })
    }
}

impl fmt::Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Tcp => "tcp",
            Self::Quic => "quic",
            Self::Relay => "relay",
        })
    }
}

impl fmt::Display for Direction {
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
