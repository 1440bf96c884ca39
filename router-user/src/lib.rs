//! Dataplane.

pub mod engine;
pub mod kernel;
pub mod p2p;
