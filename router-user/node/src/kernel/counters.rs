//! The counters of the programs.

use aya::Ebpf;
use aya::maps::{MapData, PerCpuArray};

use super::error::KernelError;
use super::maps::{map_failed, take};
use router_common::names;
use router_common::reason::Reason;

/// Packets by reason, counted by the programs on each CPU.
pub struct KernelCounters(PerCpuArray<MapData, u64>);

impl KernelCounters {
    /// Takes the counters out of the object.
    pub(super) fn take(ebpf: &mut Ebpf) -> Result<Self, KernelError> {
        take(ebpf, names::COUNTERS).map(Self)
    }

    /// Returns the packets of each reason, from the start.
    ///
    /// # Errors
    /// The counters cannot be read.
    pub fn read(&self) -> Result<Vec<(Reason, u64)>, KernelError> {
        let read = |reason: Reason| {
            let per_cpu = self
                .0
                .get(&(reason as u32), 0)
                .map_err(map_failed("read", names::COUNTERS))?;
            Ok((reason, per_cpu.iter().sum()))
        };
        Reason::ALL.into_iter().map(read).collect()
    }
}
