//! A node: joins kernel, device and network into the path of a packet.

mod connections;
mod counter_meanings;
pub mod counters;
mod data_thread;
mod error;
mod forwarder;
mod gateway_sink;
mod gateways;
mod heartbeat;
pub(crate) mod in_hand;
mod lifecycle;
mod observed;
pub(crate) mod outbox;
mod peers;
mod receiver;
mod sender;
mod status;
mod stream_scaler;
pub(crate) mod streams;
mod uncaptured;
mod worker;
mod worker_pool;

pub use error::NodeError;
pub use lifecycle::{Node, run};
