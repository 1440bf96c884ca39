//! The VPN node: IP packets over libp2p streams, steered by eBPF.
//!
//! The path of a packet, out and in:
//!
//! 1. An application's packet is routed to the TUN device ([`device`]).
//! 2. At the device's egress an eBPF program steers its flow to a worker and copies it into the worker's ring
//!    ([`kernel`]). At a gateway interface another program does so before the host forwards.
//! 3. The worker takes packets from its ring in order and appends them, as frames, to the batch of the peer that owns
//!    the destination ([`stream_router_engine::route_table`], [`stream_router_engine::queue`]).
//! 4. The peer's sender writes batches to one libp2p stream ([`stream_router::p2p`]).
//! 5. The peer's receiver cuts the stream into frames ([`stream_router_engine::framing`]), admits those that come from
//!    the sender's own addresses ([`stream_router_engine::admission`]), makes super-packets of them
//!    ([`stream_router_engine::coalesce`]) and injects those into its device.
//!
//! The steps of one flow are sequential; different workers' rings fill in parallel. [`node`] joins the parts,
//! [`config`], [`control`], [`metrics`] and [`cli`] are what an operator sees of it.

pub mod cli;
pub mod config;
pub mod control;
pub mod device;
pub mod kernel;
mod logs;
pub mod metrics;
pub mod node;
#[cfg(feature = "otlp")]
mod otlp;
pub mod private_file;
mod spans;
