//! Dataplane.
pub mod kernel;
