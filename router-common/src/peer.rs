//! Peers as the kernel knows them: an index per peer, found by destination prefix, and its pressure flag.

/// The destination is in nobody's prefix.
pub const NO_PEER: u32 = u32::MAX;

/// Peers a node can have; indices are below it.
pub const MAX_PEERS: u32 = 1024;

/// Destination prefixes of all peers together.
pub const MAX_PREFIXES: u32 = 16_384;

/// Prefixes of the host's own networks inside those of its peers; the table has room for both.
pub const MAX_HOST_PREFIXES: u32 = 49_152;

/// TCP packets longer than this are refused while their peer's queue is full; shorter ones (handshakes, pure
/// acknowledgements, pings) still pass, so that a full queue does not stop what would empty it.
pub const PRESSURE_MIN_LEN: u32 = 256;
