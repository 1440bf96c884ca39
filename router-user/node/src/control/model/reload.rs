//! `POST /v1/reload`

use serde::{Deserialize, Serialize};

/// Outcome of reading the configuration file again.
#[derive(Clone, Debug, Default, Serialize, Deserialize, PartialEq, Eq)]
pub struct Reload {
    /// Path of the configuration file.
    pub file: String,
    /// Ids of peers that are new.
    pub peers_added: Vec<String>,
    /// Ids of peers that are not configured any more.
    pub peers_removed: Vec<String>,
    /// Ids of peers with other addresses or prefixes.
    pub peers_changed: Vec<String>,
    /// Names of those of these peers that have one.
    #[serde(default)]
    pub peer_names: Vec<PeerName>,
    /// Other fields that have their new value now.
    pub applied: Vec<String>,
    /// Fields whose new value takes effect at the next start.
    pub needs_restart: Vec<String>,
    /// What could not be finished or has no effect, and why.
    pub notes: Vec<String>,
}

/// The name of a peer.
#[derive(Clone, Debug, Default, Serialize, Deserialize, PartialEq, Eq)]
pub struct PeerName {
    /// Id of the peer.
    pub id: String,
    /// Name of the peer.
    pub name: String,
}

impl Reload {
    /// Path of the request.
    pub const PATH: &'static str = "/v1/reload";
}

/// Why the configuration file was not taken. Nothing has changed then.
#[derive(Clone, Debug, Default, Serialize, Deserialize, PartialEq, Eq)]
pub struct ReloadProblems {
    /// Text of the error, with a line for each problem.
    pub error: String,
    /// Problems in the file; empty if the file cannot be read.
    pub problems: Vec<ConfigProblem>,
}

/// One thing wrong in a configuration file.
#[derive(Clone, Debug, Default, Serialize, Deserialize, PartialEq, Eq)]
pub struct ConfigProblem {
    /// Path of the configuration file.
    pub file: String,
    /// Line of the problem, from 1.
    pub line: usize,
    /// Name of the field.
    pub field: String,
    /// What is wrong with the field.
    pub wrong: String,
    /// What is allowed instead.
    pub allowed: String,
}
