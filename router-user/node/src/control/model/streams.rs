//! `GET /v1/streams`

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{Resource, Transport};

/// The streams on which this node sends, by peer and index: those that take new flows, and those that are open still.
/// The streams on which the peers send to this node are shown by the peers.
#[derive(Clone, Debug, Default, Serialize, Deserialize, PartialEq)]
pub struct StreamList {
    /// The streams.
    pub streams: Vec<StreamStatus>,
}

/// One stream.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq, Eq)]
pub struct StreamStatus {
    /// Id of the stream's peer.
    pub peer: String,
    /// Name of this peer, if it has one.
    #[serde(default)]
    pub peer_name: Option<String>,
    /// Index among the peer's streams.
    pub index: u32,
    /// Whether the stream takes new flows.
    pub state: StreamState,
    /// Whether the stream is open; it opens with its first frame.
    pub open: bool,
    /// Transport of the stream while it is open.
    pub transport: Option<Transport>,
    /// Frames offered to the stream since the start, refused ones included; a super-packet is one.
    pub frames: u64,
    /// Bytes that wait to be sent.
    pub queued_bytes: u64,
    /// Whether so much waits that senders are held back.
    pub pressed: bool,
    /// Frames refused because the stream's queue was full; `tx_queue_full` by stream.
    pub refused: u64,
    /// Frames dropped because they had waited too long; `tx_aged` by stream.
    pub dropped: u64,
    /// Frames marked with ECN instead of dropped; `tx_ecn_marked` by stream.
    pub marked: u64,
}

/// Whether a stream takes new flows.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum StreamState {
    /// The stream takes new flows.
    Active,
    /// The stream only keeps the flows it has.
    Retired,
}

impl fmt::Display for StreamState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Active => "active",
            Self::Retired => "retired",
        })
    }
}

impl Resource for StreamList {
    const PATH: &'static str = "/v1/streams";
}
