//! The programs in the kernel, packet by packet: verdicts, counters, records, flows. Loads eBPF programs, so it
//! needs root.
#![expect(clippy::unwrap_used, reason = "helpers fail as tests do")]

#[path = "program_run/bench.rs"]
mod bench;
#[path = "program_run/captures.rs"]
mod captures;
#[path = "program_run/connections.rs"]
mod connections;
#[path = "program_run/device.rs"]
mod device;
#[path = "program_run/gateway.rs"]
mod gateway;
#[path = "program_run/gateway_bench.rs"]
mod gateway_bench;
#[path = "program_run/offload.rs"]
mod offload;
#[path = "program_run/packet_socket.rs"]
mod packet_socket;
#[path = "program_run/packets.rs"]
mod packets;
#[path = "program_run/refusals.rs"]
mod refusals;
#[path = "program_run/rings.rs"]
mod rings;
#[path = "program_run/sockets.rs"]
mod sockets;
