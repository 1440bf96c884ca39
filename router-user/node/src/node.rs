//! A node: joins kernel, device and network into the path of a packet.

mod assembly;
mod capture;
mod connections;
pub mod counters;
mod data_path;
mod data_thread;
mod deferred_wakeups;
mod discovery;
mod error;
mod forwarder;
mod gateway_sink;
mod gateways;
mod heartbeat;
mod lifecycle;
mod nap_timer;
mod observability;
mod peer_registry;
mod peers;
mod prefixes;
pub(crate) mod privileges;
mod receiver;
mod reload;
mod reloadable;
mod run;
mod sender;
mod service;
mod status;
mod stream_scaler;
mod uncaptured;
mod worker;
mod worker_pool;

pub use error::NodeError;
pub use lifecycle::Node;
pub use peer_registry::NoRoom;
pub use reloadable::{ReloadError, Reloaded};
pub(crate) use run::run;
