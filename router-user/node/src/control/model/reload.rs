//! `POST /v1/reload`

use serde::{Deserialize, Serialize};

/// What came of reading the configuration file again.
#[derive(Clone, Debug, Default, Serialize, Deserialize, PartialEq, Eq)]
pub struct Reload {
    /// The file.
    pub file: String,
    /// Ids of peers that are new.
    pub peers_added: Vec<String>,
    /// Ids of peers that are no more.
    pub peers_removed: Vec<String>,
    /// Ids of peers with other addresses or prefixes.
    pub peers_changed: Vec<String>,
    /// Other fields that have their new value now.
    pub applied: Vec<String>,
    /// Fields whose new value counts from the next start on.
    pub needs_restart: Vec<String>,
    /// What could not be done to the end or has no effect, and why.
    pub notes: Vec<String>,
}

impl Reload {
    /// The path.
    pub const PATH: &'static str = "/v1/reload";
}

/// Why the configuration file was not taken: nothing has changed.
#[derive(Clone, Debug, Default, Serialize, Deserialize, PartialEq, Eq)]
pub struct ReloadProblems {
    /// All of it, a line for each problem.
    pub error: String,
    /// What is wrong in the file; nothing if it cannot be read.
    pub problems: Vec<ConfigProblem>,
}

/// One thing wrong in a configuration file.
#[derive(Clone, Debug, Default, Serialize, Deserialize, PartialEq, Eq)]
pub struct ConfigProblem {
    /// The file.
    pub file: String,
    /// Its line, from 1.
    pub line: usize,
    /// The field.
    pub field: String,
    /// What is wrong with it.
    pub wrong: String,
    /// What is allowed in its place.
    pub allowed: String,
}
