//! What a router can be told.

mod builder;
mod connections;
mod fields;
mod problem;
mod router;
mod scaling;
mod streams;
#[doc(hidden)]
pub mod value;
mod workers;

pub use builder::StreamRouterConfigBuilder;
pub use connections::ConnectionsConfig;
pub use problem::{FieldProblem, StreamRouterConfigError};
pub use router::StreamRouterConfig;
pub use scaling::ScalingConfig;
pub use stream_router_engine::scaler::ScalerConfig;
#[doc(hidden)]
pub use streams::MAX_STREAMS_PER_PEER;
pub use streams::StreamsConfig;
pub use workers::WorkersConfig;
