//! How a node is reached, in `GET /v1/status`.

use serde::{Deserialize, Serialize};

/// How a node is reached beside where it listens.
#[derive(Clone, Debug, Default, Serialize, Deserialize, PartialEq, Eq)]
pub struct ReachStatus {
    /// Relays through which it is to be reached.
    pub relays: Vec<RelayStatus>,
    /// Where relays see it.
    pub seen: Vec<SeenAddress>,
    /// Multiaddresses that peers are told, through a relay, for a direct connection.
    pub told: Vec<String>,
    /// Multiaddresses that it announces in the DHT.
    pub announced: Vec<String>,
    /// What the node relays for its peers, if it does.
    pub serves: Option<ServedStatus>,
}

/// What a relay does for its peers.
#[derive(Clone, Debug, Default, Serialize, Deserialize, PartialEq, Eq)]
pub struct ServedStatus {
    /// Places that peers have at it, one for each connection.
    pub reservations: u64,
    /// Connections between peers that it relays.
    pub circuits: u64,
    /// Bytes that it has relayed since its start.
    pub bytes: u64,
}

/// A relay of `relay.via`.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq, Eq)]
pub struct RelayStatus {
    /// Its id.
    pub peer: String,
    /// Its name, if it has one.
    pub peer_name: Option<String>,
    /// Whether peers reach this node through it.
    pub held: bool,
    /// Why they do not, if it has said so or was lost.
    pub last_error: Option<String>,
}

/// An address at which a node is seen from outside.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq, Eq)]
pub struct SeenAddress {
    /// Multiaddress.
    pub address: String,
    /// Id of the relay that says so.
    pub peer: String,
    /// Its name, if it has one.
    pub peer_name: Option<String>,
}
