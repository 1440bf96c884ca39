//! The flags by which the programs hold packets back.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use aya::Ebpf;

use super::error::KernelError;
use super::mapped::Mapped;
use super::maps::map_memory;
use router_common::names;
use router_common::peer::{PRESSURE_BITS, PRESSURE_WORDS};

/// Bytes from one word of flags to the next: the kernel rounds the entries of an array up to 8 bytes.
const STRIDE: usize = 8;

/// A bit for each peer, in memory that the programs read.
pub struct KernelPressure(Arc<Mapped>);

impl KernelPressure {
    /// Maps the flags into memory.
    pub(super) fn map(ebpf: &Ebpf) -> Result<Self, KernelError> {
        let flags = map_memory(ebpf, names::PRESSURE, PRESSURE_WORDS as usize * STRIDE)?;
        Ok(Self(Arc::new(flags)))
    }

    /// Returns a switch that tells the programs whether to hold back packets for `peer`. A peer that is not below
    /// [`MAX_PEERS`](router_common::peer::MAX_PEERS) has no flag, and its switch does nothing.
    pub fn switch(&self, peer: u32) -> impl Fn(bool) + Send + Sync + use<> {
        let flags = self.0.clone();
        move |pressed| {
            if let Some(word) = flags.half_word((peer / PRESSURE_BITS) as usize * STRIDE) {
                let flag = 1 << (peer % PRESSURE_BITS);
                match pressed {
                    true => word.fetch_or(flag, Relaxed),
                    false => word.fetch_and(!flag, Relaxed),
                };
            }
        }
    }
}
