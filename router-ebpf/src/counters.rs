//! One counter per reason and CPU.
#![expect(unsafe_code, reason = "writes a map entry in place")]

use router_common::reason::Reason;

use crate::maps::COUNTERS;

/// Counts a packet's way out.
#[inline(always)]
pub(crate) fn count(reason: Reason) {
    if let Some(counter) = COUNTERS.get_ptr_mut(reason as u32) {
        // SAFETY: the entry is this CPU's own, and programs are not preempted by another packet on it.
        unsafe { *counter += 1 };
    }
}
