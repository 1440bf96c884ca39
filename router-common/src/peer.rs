//! Peers as the kernel knows them: an index per peer, found by destination prefix, and its pressure flag.

/// The destination is in nobody's prefix.
pub const NO_PEER: u32 = u32::MAX;

/// Peers a node can have; indices are below it.
pub const MAX_PEERS: u32 = 16_384;

/// Pressure flags in a word of their table, the first peer's in the lowest bit.
pub const PRESSURE_BITS: u32 = u32::BITS;

/// Words of the table of pressure flags: one page of memory, however many peers there are.
pub const PRESSURE_WORDS: u32 = MAX_PEERS / PRESSURE_BITS;

/// Destination prefixes of all peers together.
pub const MAX_PREFIXES: u32 = 65_536;

/// Prefixes of the host's own networks inside those of its peers; the table has room for both.
pub const MAX_HOST_PREFIXES: u32 = 49_152;

/// TCP packets longer than this are refused while their peer's queue is full; shorter ones (handshakes, pure
/// acknowledgements, pings) still pass, so that a full queue does not stop what would empty it.
pub const PRESSURE_MIN_LEN: u32 = 256;
