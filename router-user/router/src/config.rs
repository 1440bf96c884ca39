//! What a router can be told.

mod connections;
#[doc(hidden)]
pub mod problem;
#[doc(hidden)]
pub mod reader;
mod router;
mod scaling;
mod streams;
mod workers;

pub use connections::ConnectionsConfig;
pub use router::{FieldProblem, StreamRouterConfig, StreamRouterConfigBuilder, StreamRouterConfigError};
pub use scaling::ScalingConfig;
pub use streams::{MAX_STREAMS_PER_PEER, StreamsConfig};
pub use workers::WorkersConfig;
