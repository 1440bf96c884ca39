//! The control socket: HTTP and JSON over a Unix socket.
//!
//! | request | answer |
//! |---|---|
//! | `GET /v1/status` | 200 and a [`Status`] |
//! | `PUT /v1/workers` with `{"active": 8}` | 204 once that many workers are active; 422 and a text outside the configured bounds. The next decision of the scaler may change it again. |
//! | `PUT /v1/streams` with `{"active": 3}` | the same for the streams to each peer |

mod client;
mod server;
mod status;
#[cfg(test)]
mod tests;

use std::io;
use std::path::PathBuf;

pub use client::{fetch_status, set_streams, set_workers};
pub use server::{ControlServer, StatusSource, Wish, Wishes};
pub use status::{DeviceStatus, GatewayStatus, PeerState, PeerStatus, Status};

/// Path of the status resource.
const STATUS_PATH: &str = "/v1/status";

/// Path of the workers resource.
const WORKERS_PATH: &str = "/v1/workers";

/// Path of the streams resource.
const STREAMS_PATH: &str = "/v1/streams";

/// What a client sends to [`WORKERS_PATH`] and [`STREAMS_PATH`].
#[derive(Clone, Copy, Debug, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct NumberBody {
    active: u32,
}

/// Why the control socket cannot be served or asked.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// Another node serves it.
    #[error("{} is served by a running node; give this node another node.control", path.display())]
    InUse {
        /// The socket.
        path: PathBuf,
    },
    /// Something else stands in its place.
    #[error("{} is there and is no socket; remove it, or choose another node.control", path.display())]
    NotASocket {
        /// The path.
        path: PathBuf,
    },
    /// Nobody answers.
    #[error("no node answers at {}; is it running, and is this its node.control?", path.display())]
    NoNode {
        /// The socket.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The answer is not one of a node of this version.
    #[error("the answer from {} makes no sense: {reason}", path.display())]
    BadAnswer {
        /// The socket.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The node refused a request.
    #[error("the node at {} refused: {reason}", path.display())]
    Refused {
        /// The socket.
        path: PathBuf,
        /// What it said.
        reason: String,
    },
    /// The system refused an operation.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}
