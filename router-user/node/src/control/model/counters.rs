//! `GET /v1/counters`

use std::fmt;

use serde::{Deserialize, Serialize};

use super::Resource;

/// Every counter, in the order in which a packet meets them.
#[derive(Clone, Debug, Default, Serialize, Deserialize, PartialEq, Eq)]
pub struct CounterList {
    /// The counters.
    pub counters: Vec<CounterStatus>,
}

/// One counter.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq, Eq)]
pub struct CounterStatus {
    /// Name of the counter, which no other has.
    pub name: String,
    /// The count from the start of the node.
    pub value: u64,
    /// Part of the node that counts.
    pub origin: CounterOrigin,
    /// Whether the packets that the counter counts are lost.
    pub kind: CounterKind,
    /// What the counter counts.
    pub meaning: String,
}

/// Part of the node that counts.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum CounterOrigin {
    /// The eBPF programs.
    Kernel,
    /// The AF_XDP sockets of gateways.
    Socket,
    /// The node's data path.
    User,
    /// The node's connections.
    Network,
}

/// Whether the packets that a counter counts are lost.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum CounterKind {
    /// The counter counts packets that go no further.
    Drop,
    /// The counter counts anything else.
    Event,
}

impl CounterList {
    /// Returns the value of the counter called `name`.
    pub fn value(&self, name: &str) -> Option<u64> {
        self.counters
            .iter()
            .find(|counter| counter.name == name)
            .map(|counter| counter.value)
    }
}

impl fmt::Display for CounterOrigin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Kernel => "kernel",
            Self::Socket => "socket",
            Self::User => "user",
            Self::Network => "network",
        })
    }
}

impl fmt::Display for CounterKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Drop => "drop",
            Self::Event => "event",
        })
    }
}

impl Resource for CounterList {
    const PATH: &'static str = "/v1/counters";
}
