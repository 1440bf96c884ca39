//! Bounds of connections, streams and lookups.

use std::time::Duration;

/// Most connections that one peer may have at a time, in both directions together.
pub const MAX_CONNECTIONS_PER_PEER: usize = 8;

/// Most uplinks: half of what a peer may have of connections, as both sides may dial at once.
pub const MAX_UPLINKS: usize = MAX_CONNECTIONS_PER_PEER / 2;

/// Most streams of [`IP_PROTOCOL`](super::IP_PROTOCOL) that one side may have open on one connection.
pub const MAX_STREAMS_PER_SIDE: usize = 32;

/// How long opening a stream may take.
pub(super) const OPEN_TIMEOUT: Duration = Duration::from_secs(5);

/// The time without any answer after which a connection counts as dead; never less than some round trips.
pub(super) const DEAD_AFTER: Duration = Duration::from_secs(5);

/// The longest such time, where round trips are so long that what is lost comes again later.
pub(super) const LONGEST_SILENCE: Duration = Duration::from_secs(20);

/// How long a lookup in the DHT may take.
pub(super) const LOOKUP_TIMEOUT: Duration = Duration::from_millis(1500);

/// Most lookups in the DHT that may be open at a time.
pub(super) const MAX_LOOKUPS: usize = 64;
