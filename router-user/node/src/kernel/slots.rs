//! The slot table, by which new flows get their workers.

use std::sync::Mutex;

use aya::Ebpf;
use aya::maps::{Array, MapData};

use super::error::KernelError;
use super::maps::{lock, map_failed, take};
use router_common::names;
use stream_router_engine::slots::SlotChange;

/// The worker of each slot.
pub struct KernelSlots(Mutex<Array<MapData, u32>>);

impl KernelSlots {
    /// Takes the table out of the object.
    pub(super) fn take(ebpf: &mut Ebpf) -> Result<Self, KernelError> {
        take(ebpf, names::SLOTS).map(Mutex::new).map(Self)
    }

    /// Gives slots to workers; each of them needs a ring first.
    ///
    /// # Errors
    /// The table cannot be written.
    pub fn write(&self, changes: impl IntoIterator<Item = SlotChange>) -> Result<(), KernelError> {
        let mut table = lock(&self.0);
        for SlotChange { slot, worker } in changes {
            table
                .set(slot, worker, 0)
                .map_err(map_failed("write", names::SLOTS))?;
        }
        Ok(())
    }
}
