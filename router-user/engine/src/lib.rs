//! The pure core: decides, from bytes and the time it is given, and touches no socket, thread or clock.

pub mod addresses;
pub mod admission;
pub mod backoff;
pub mod batch;
pub mod capture_filter;
pub mod causes;
pub mod checksum;
pub mod coalesce;
pub mod codel;
pub mod ecn;
pub mod flow_cache;
pub mod flow_class;
pub mod framing;
pub mod host_networks;
pub mod occasional;
pub mod pace;
pub mod prefix_steps;
pub mod queue;
pub mod route_table;
pub mod scaler;
pub mod slots;
pub mod worker_set;
