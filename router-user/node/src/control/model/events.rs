//! `GET /v1/events`

use std::fmt;

use serde::{Deserialize, Serialize};

use super::Resource;

/// The last things that happened to the node, the oldest first.
#[derive(Clone, Debug, Default, Serialize, Deserialize, PartialEq)]
pub struct EventList {
    /// The events.
    pub events: Vec<Event>,
}

/// One thing that happened.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
pub struct Event {
    /// Number of the event, from 1 at the start of the node.
    pub number: u64,
    /// When it happened, in seconds since 1970.
    pub unix_seconds: f64,
    /// What happened.
    pub kind: EventKind,
    /// Id of the peer that it is about.
    pub peer: Option<String>,
    /// Name that the peer had.
    pub peer_name: Option<String>,
    /// How or why, in words.
    pub detail: Option<String>,
}

/// What happened.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum EventKind {
    /// The node was started.
    Up,
    /// A peer has a connection.
    PeerUp,
    /// A peer has no connection any more.
    PeerDown,
    /// The configuration file was read again.
    Reload,
    /// The configuration file was read again, and not taken.
    ReloadRefused,
    /// Somebody else had changed the host, and the node has put it back.
    PutBack,
}

impl fmt::Display for EventKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Up => "node is up",
            Self::PeerUp => "connected",
            Self::PeerDown => "lost",
            Self::Reload => "reloaded",
            Self::ReloadRefused => "reload refused",
            Self::PutBack => "put back",
        })
    }
}

impl Resource for EventList {
    const PATH: &'static str = "/v1/events";
}
