//! Dataplane.
