//! `GET /v1/workers`

use std::fmt;

use serde::{Deserialize, Serialize};

use super::Resource;

/// Every worker that has a ring, by number.
#[derive(Clone, Debug, Default, Serialize, Deserialize, PartialEq)]
pub struct WorkerList {
    /// The workers.
    pub workers: Vec<WorkerStatus>,
}

/// One worker. Its numbers begin with its ring; one that is gone and comes back begins anew.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
pub struct WorkerStatus {
    /// Its number.
    pub id: u32,
    /// Whether it takes new flows.
    pub state: WorkerState,
    /// The data thread it runs on.
    pub thread: String,
    /// Size of its ring in bytes.
    pub ring_bytes: u64,
    /// Share of the ring that is full now, 0 to 1.
    pub fill: f64,
    /// AF_XDP sockets it drains.
    pub sockets: u32,
    /// Live flows of it when the connection table was last read.
    pub flows: u32,
    /// Packets drained; a super-packet is one.
    pub packets: u64,
    /// Their bytes, with 24 bytes of header each.
    pub bytes: u64,
    /// Times it was woken because something had come in.
    pub wakeups: u64,
}

/// Whether a worker takes new flows.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum WorkerState {
    /// It does.
    Active,
    /// It only keeps the flows it has.
    Retired,
}

impl fmt::Display for WorkerState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Active => "active",
            Self::Retired => "retired",
        })
    }
}

impl Resource for WorkerList {
    const PATH: &'static str = "/v1/workers";
}
