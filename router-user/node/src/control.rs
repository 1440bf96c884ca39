//! The control socket: HTTP and JSON over a Unix socket.
#![doc = include_str!("control/API.md")]

mod capture;
mod client;
mod model;
mod reload;
mod reply;
mod server;
mod source;
#[cfg(test)]
pub(crate) mod tests;

use std::io;
use std::path::PathBuf;

pub use capture::{
    CAPTURE_CONTENT_TYPE, CAPTURE_PATH, CaptureBlock, CaptureBlocks, CaptureDirection, CaptureDirections,
    CaptureQuery, CaptureReader, CaptureRecord, CaptureStream, CapturedPacket, MAX_CAPTURE_BLOCK_LEN,
    MAX_SNAPLEN,
};
pub(crate) use capture::{CaptureEncoder, parse_snaplen};
pub use client::{fetch, fetch_text, reload, set_streams, set_workers};
pub use model::{
    ConfigProblem, CounterKind, CounterOrigin, CounterStatus, Counters, DEFAULT_FLOWS, DeviceStatus,
    Direction, Feature, Flow, FlowQuery, FlowSort, Flows, GatewayStatus, IpProtocol, KernelStatus, MAX_FLOWS,
    PeerState, PeerStatus, Peers, Reload, ReloadProblems, Resource, RouteSource, RouteStatus, Routes, Status,
    StreamState, StreamStatus, Streams, Transport, UnknownProtocol, WorkerState, WorkerStatus, Workers,
};
pub(crate) use model::{parse_limit, parse_prefix};
pub use reload::{ReloadRefusal, ReloadWish};
pub(crate) use reply::{NoQuery, Pretty, Refusal};
pub use server::ControlServer;
pub use source::{Source, SourceError, Wish, Wishes};

/// What a client sends with `PUT`.
#[derive(Clone, Copy, Debug, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct NumberBody {
    active: u32,
}

/// What a node answers when it refuses.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
struct ErrorBody {
    error: String,
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
    /// The socket may not be opened.
    #[error("no permission for {}; ask as root, such as with sudo", path.display())]
    NoPermission {
        /// The socket.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Nobody answers.
    #[error("no node answers at {}; is it running, and is this its node.control? (--socket names another)", path.display())]
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
    /// The node was to read its configuration file again, and the file is wrong.
    #[error("{}", problems.error)]
    BadConfiguration {
        /// Everything that is wrong with it.
        problems: ReloadProblems,
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
