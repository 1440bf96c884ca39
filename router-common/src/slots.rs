//! Slots: the table from flow hash to worker.

/// Slots of the table; enough that the shares of 32 workers differ by 3 % at most.
pub const SLOT_COUNT: u32 = 1024;

/// Workers a node can have.
pub const MAX_WORKERS: u32 = 32;
