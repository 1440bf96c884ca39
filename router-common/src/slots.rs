//! Slots: the table from flow hash to worker.

/// Slots of the table; enough that the shares of 32 workers differ by 3 % at most.
pub const SLOT_COUNT: u32 = 1024;

/// Workers a node can have.
pub const MAX_WORKERS: u32 = 32;

/// Returns the slot of a flow.
#[inline(always)]
pub const fn slot(flow_hash: u32) -> u32 {
    flow_hash % SLOT_COUNT
}

/// Returns the worker of a slot, below `n_workers`.
///
/// # Panics
/// Without workers.
pub const fn worker(slot: u32, n_workers: u32) -> u32 {
    slot % n_workers
}
