//! The control socket: HTTP and JSON over a Unix socket.
#![doc = include_str!("control/API.md")]

mod called;
mod capture;
mod client;
mod kernel_reads;
mod model;
mod peer_change;
mod reload;
mod reload_request;
mod reply;
mod resource_routes;
mod server;
mod source;
#[cfg(test)]
pub(crate) mod tests;

use std::io;
use std::path::PathBuf;

pub(crate) use called::{Callable, LEAST_END, NotFound, find};
pub use capture::{
    CAPTURE_CONTENT_TYPE, CAPTURE_PATH, CaptureBlock, CaptureBlocks, CaptureDirection, CaptureDirections,
    CaptureQuery, CaptureReader, CaptureRecord, CaptureStream, CapturedPacket, MAX_CAPTURE_BLOCK_LEN,
    MAX_SNAPLEN,
};
pub(crate) use capture::{CaptureEncoder, parse_snaplen};
pub use client::{fetch, fetch_text, reload, set_streams, set_workers};
pub(crate) use kernel_reads::KernelReads;
pub use model::{
    AddressOrigin, ConfigProblem, CounterKind, CounterList, CounterOrigin, CounterStatus, DEFAULT_FLOWS,
    DeviceStatus, DirectTry, Direction, DisabledPeer, Event, EventKind, EventList, Flow, FlowList, FlowQuery,
    FlowSort, GatewayStatus, HostState, HostStatus, HostThing, InviteStatus, IpProtocol, KernelFeature,
    KernelStatus, MAX_FLOWS, MappedPort, MemoryStatus, PeerAddress, PeerLink, PeerList, PeerName, PeerPath,
    PeerState, PeerStatus, PortMappingState, PortMappingStatus, QrCode, ReachStatus, RelayStatus, Reload,
    ReloadProblems, Resource, RouteList, RouteSource, RouteStatus, SeenAddress, ServedStatus, Status,
    StreamList, StreamState, StreamStatus, Transport, UnknownProtocol, WorkerList, WorkerState, WorkerStatus,
};
pub(crate) use model::{parse_limit, parse_prefix};
pub use peer_change::{NewPeer, PeerChange};
pub(crate) use reload::change_routes;
pub use reload_request::{ReloadRefusal, ReloadRequest};
pub(crate) use reply::{HttpRefusal, NoQuery, PrettyJson};
pub(crate) use resource_routes::resource_routes;
pub use server::ControlServer;
pub(crate) use server::MAX_BODY_BYTES;
pub use source::{ControlRequests, ScaleRequest, Source, SourceError, TrafficTotals};

/// The body that a client sends with `PUT`.
#[derive(Clone, Copy, Debug, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct NumberBody {
    active: u32,
}

/// The body of a refusal.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
struct ErrorBody {
    error: String,
}

/// Why the control socket cannot be served or asked.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// Another node serves the socket.
    #[error("{} is served by a running node; give this node another node.control", path.display())]
    InUse {
        /// The socket.
        path: PathBuf,
    },
    /// Something other than a socket is at the path.
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
    /// No node answers.
    #[error("no node answers at {}; is it running, and is this its node.control? (--socket names another, --name one of several nodes)", path.display())]
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
        /// What is wrong with the answer.
        reason: String,
    },
    /// The node refused a request.
    #[error("the node at {} refused: {reason}", path.display())]
    Refused {
        /// The socket.
        path: PathBuf,
        /// Reason that the node gave.
        reason: String,
    },
    /// The node was asked to read its configuration file again, and the file is wrong.
    #[error("{}", problems.error)]
    BadConfiguration {
        /// Everything that is wrong with the file.
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
