//! The pure core: decides, from bytes and the time it is given, and touches no socket, thread or clock.

pub mod addresses;
pub mod admission;
pub mod backoff;
pub mod batch;
pub mod capture_filter;
pub mod causes;
pub mod checksum;
pub mod coalesce;
mod codel;
mod ecn;
pub mod flow_cache;
pub mod flow_class;
pub mod framing;
pub mod host_networks;
pub mod log_rate_limit;
pub mod prefix_steps;
pub mod queue;
pub mod route_table;
pub mod scaler;
pub mod slots;
pub mod wakeup_suppression;
pub mod worker_set;
