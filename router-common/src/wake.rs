//! The sleep flag of a worker, shared with the kernel through an mmapped map.
//!
//! The worker sets it, looks at its ring once more, and sleeps; the program clears it with its next record and, if it
//! was set, submits that record with a wake-up. All others go without.

/// One cache line, so that workers on different CPUs do not share one.
#[repr(C, align(64))]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WakeFlag {
    /// 1 while the worker sleeps or is about to.
    pub sleeping: u64,
    /// Always 0.
    pub padding: [u64; 7],
}

const _: () = assert!(size_of::<WakeFlag>() == 64);
