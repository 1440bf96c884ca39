//! The router for programs that bring their own packets, streams and discovery.

pub use crate::config::{
    FieldProblem, StreamRouterConfig, StreamRouterConfigBuilder, StreamRouterConfigError,
};
