//! The pure core of Stream Router: makes its decisions from bytes and the time that the caller passes in.
//!
//! It opens no socket or file, starts no thread, reads no clock and depends on no runtime. The crate's `clippy.toml`
//! lists the functions and types of the standard library that would, and the build of everything but the tests denies
//! them.

#![cfg_attr(
    not(test),
    deny(
        clippy::disallowed_macros,
        clippy::disallowed_methods,
        clippy::disallowed_types
    )
)]
#![cfg_attr(
    test,
    allow(
        clippy::disallowed_methods,
        reason = "a test may start threads, and begin its own time at the clock's"
    )
)]

pub mod addresses;
pub mod admission;
pub mod backoff;
pub mod batch;
pub mod capture_filter;
pub mod causes;
pub mod checksum;
pub mod coalesce;
mod codel;
pub mod delay_window;
mod ecn;
pub mod flow_cache;
pub mod flow_class;
pub mod fragments;
pub mod framing;
pub mod handshake_room;
pub mod host_networks;
pub mod log_rate_limit;
pub mod loss_tolerance;
mod portion;
pub mod prefix_steps;
pub mod queue;
pub mod received_flows;
pub mod route_plan;
pub mod route_table;
pub mod scaler;
pub mod slots;
pub mod software_offload;
pub mod token_bucket;
pub mod unsent_limit;
pub mod wakeup_suppression;
pub mod worker_set;
