//! What the control socket answers: one type for each path.

mod counters;
mod flow_query;
mod flows;
mod peers;
mod protocol;
mod reload;
mod routes;
mod status;
mod streams;
mod workers;

use serde::Serialize;
use serde::de::DeserializeOwned;

pub use counters::{CounterKind, CounterOrigin, CounterStatus, Counters};
pub use flow_query::{DEFAULT_FLOWS, FlowQuery, FlowSort, MAX_FLOWS};
pub(crate) use flow_query::{parse_limit, parse_prefix};
pub use flows::{Flow, Flows};
pub use peers::{Direction, PeerState, PeerStatus, Peers, Transport};
pub use protocol::{IpProtocol, UnknownProtocol};
pub use reload::{ConfigProblem, Reload, ReloadProblems};
pub use routes::{RouteSource, RouteStatus, Routes};
pub use status::{DeviceStatus, Feature, GatewayStatus, KernelStatus, Status};
pub use streams::{StreamState, StreamStatus, Streams};
pub use workers::{WorkerState, WorkerStatus, Workers};

/// What `GET` on a path answers.
pub trait Resource: Serialize + DeserializeOwned {
    /// The path.
    const PATH: &'static str;
}
