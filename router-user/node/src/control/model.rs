//! What the control socket answers: one type for each path.

mod counters;
mod events;
mod flow_query;
mod flows;
mod host;
mod invite;
mod peers;
mod port_mapping;
mod protocol;
mod reach;
mod reload;
mod routes;
mod status;
mod streams;
mod workers;

use serde::Serialize;
use serde::de::DeserializeOwned;

pub use counters::{CounterKind, CounterList, CounterOrigin, CounterStatus};
pub use events::{Event, EventKind, EventList};
pub use flow_query::{DEFAULT_FLOWS, FlowQuery, FlowSort, MAX_FLOWS};
pub(crate) use flow_query::{parse_limit, parse_prefix};
pub use flows::{Flow, FlowList};
pub use host::{HostState, HostStatus, HostThing};
pub use invite::{InviteStatus, QrCode};
pub use peers::{
    AddressOrigin, DirectTry, Direction, DisabledPeer, PeerAddress, PeerLink, PeerList, PeerPath, PeerState,
    PeerStatus, Transport,
};
pub use port_mapping::{MappedPort, PortMappingState, PortMappingStatus};
pub use protocol::{IpProtocol, UnknownProtocol};
pub use reach::{ReachStatus, RelayStatus, SeenAddress, ServedStatus};
pub use reload::{ConfigProblem, PeerName, Reload, ReloadProblems};
pub use routes::{RouteList, RouteSource, RouteStatus};
pub use status::{DeviceStatus, GatewayStatus, KernelFeature, KernelStatus, MemoryStatus, Status};
pub use streams::{StreamList, StreamState, StreamStatus};
pub use workers::{WorkerList, WorkerState, WorkerStatus};

/// The answer to `GET` on a path.
pub trait Resource: Serialize + DeserializeOwned {
    /// The path.
    const PATH: &'static str;
}
