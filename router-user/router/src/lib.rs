//! IP packets to peers over libp2p streams, in order for each flow.

pub mod config;
pub mod discovery;
#[doc(hidden)]
pub mod egress;
pub mod p2p;
pub mod router;

pub use config::{FieldProblem, StreamRouterConfig, StreamRouterConfigBuilder, StreamRouterConfigError};
