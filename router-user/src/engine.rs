//! The pure core: decides, from bytes and the time it is given, and touches no socket, thread or clock.

pub mod addresses;
pub mod admission;
pub mod backoff;
pub(crate) mod checksum;
pub mod coalesce;
pub mod framing;
pub mod host_networks;
pub mod queue;
pub mod route_table;
pub mod slots;
pub mod worker_scaler;
pub mod worker_set;
