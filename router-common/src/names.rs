//! Names of maps and programs, as bpftool shows them.

/// Egress classifier of the TUN device.
pub const PROGRAM_EGRESS: &str = "sr_egress";
/// Ingress program of gateway interfaces, behind the kernel's merging of frames (GRO).
pub const PROGRAM_GATEWAY_TC: &str = "sr_gateway_tc";
/// Ingress program of gateway interfaces, in the driver.
pub const PROGRAM_GATEWAY: &str = "sr_gateway";
/// Flow to worker and peer.
pub const CONNECTIONS: &str = "CONNECTIONS";
/// Fragmented packet to its ports.
pub const FRAGMENTS: &str = "FRAGMENTS";
/// Where the kernel keeps what it knows of a packet's offloads: read-only data of the programs.
pub const SKB_LAYOUT: &str = "SKB_LAYOUT";
/// Flow hash to worker.
pub const SLOTS: &str = "SLOTS";
/// Destination prefix to peer.
pub const PEERS: &str = "PEERS";
/// Peer to pressure flag.
pub const PRESSURE: &str = "PRESSURE";
/// Worker to ring.
pub const RINGS: &str = "RINGS";
/// Worker to sleep flag.
pub const WAKE: &str = "WAKE";
/// Reason to packets.
pub const COUNTERS: &str = "COUNTERS";
/// The settings.
pub const SETTINGS: &str = "SETTINGS";
/// Interface index to gateway.
pub const GATEWAYS: &str = "GATEWAYS";
/// Queue and worker to AF_XDP socket.
pub const SOCKETS: &str = "SOCKETS";
