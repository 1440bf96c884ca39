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

/// One worker. Its counts begin when its ring is made; a worker that is gone and comes back begins at 0.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
pub struct WorkerStatus {
    /// Number of the worker.
    pub id: u32,
    /// Whether the worker takes new flows.
    pub state: WorkerState,
    /// Name of the data thread that the worker runs on.
    pub thread: String,
    /// Size of the worker's ring in bytes.
    pub ring_bytes: u64,
    /// Share of the ring that is full now, 0 to 1.
    pub fill: f64,
    /// AF_XDP sockets that the worker drains.
    pub sockets: u32,
    /// Live flows of the worker when the connection table was last read.
    pub flows: u32,
    /// Packets drained; a super-packet is one.
    pub packets: u64,
    /// Bytes of these packets, with 24 bytes of header each.
    pub bytes: u64,
    /// Times the worker was woken because packets had arrived.
    pub wakeups: u64,
}

/// Whether a worker takes new flows.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum WorkerState {
    /// The worker takes new flows.
    Active,
    /// The worker only keeps the flows it has.
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
