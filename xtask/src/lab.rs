//! Networks of real nodes in network namespaces, made and removed by one process.
//!
//! 1. A [`Namespace`] is a host, and [`link`] is a cable between two of them.
//! 2. A [`Node`] is a `stream-router` process in a namespace, with its key, configuration, log and control socket.
//! 3. A [`Pair`] is the smallest network: two hosts, a cable, a node on each.
//! 4. [`probe`] sends traffic and reports what came of it.
//!
//! Everything is removed on drop and when a signal ends the process. What a killed process left behind carries its
//! process id in its name, and [`clear_leftovers`] removes it.

mod clean_root;
mod cleanup;
pub mod delay_line;
mod enter;
mod identity;
pub mod mmsg;
mod namespace;
mod nat;
mod node;
mod pair;
pub mod probe;
pub mod process;
mod scratch;
mod status;
mod terminal;
mod traces;

pub use clean_root::CleanRoot;
pub use cleanup::{TIME_LIMIT_SECS, clear_leftovers, remove_network};
pub use identity::{unique_device, unique_name};
pub use namespace::{End, Namespace, link, mount_bpffs};
pub use nat::{NatKind, NatLab, NatNetwork, NatPlan};
pub use node::{Node, NodeConfig, PeerConfig};
pub use pair::{Pair, PairPlan, Side, Transport, Underlay};
pub use scratch::ScratchDir;
pub use status::{DeviceStatus, GatewayStatus, PeerStatus, Status};
pub use terminal::Terminal;
pub use traces::Traces;

/// Where nodes pin their programs and maps, one directory per device.
pub const PIN_ROOT: &str = "/sys/fs/bpf/stream-router";
/// Where user-space WireGuard listens for its configuration, one socket per device.
pub const WIREGUARD_SOCKETS: &str = "/var/run/wireguard";
