//! What the queue is made of; the model of it has others of the same names.

pub(super) use std::sync::atomic::{AtomicBool, AtomicU64, Ordering, fence};

/// Words of 0 that take no memory until they are used.
pub(super) fn zeroed(n: usize) -> Box<[AtomicU64]> {
    bytemuck::zeroed_slice_box(n)
}
