//! The programs in the kernel, packet by packet: verdicts, counters, records, flows. Loads eBPF programs, so it
//! needs root.
#![expect(clippy::unwrap_used, reason = "helpers fail as tests do")]

mod bench;
mod captures;
mod device;
mod flows;
mod gateway;
mod gateway_bench;
mod gateway_received;
mod offload;
mod packet_socket;
mod packets;
mod refusals;
mod rings;
mod sockets;
