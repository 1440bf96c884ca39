//! Dataplane.

pub mod p2p;
