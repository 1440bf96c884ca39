//! Dataplane.
pub mod engine;
