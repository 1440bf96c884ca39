//! The rings of the workers: opened, and taken from the programs again.

use std::os::fd::AsFd;
use std::sync::{Arc, Mutex};

use aya::Ebpf;
use aya::maps::{ArrayOfMaps, Map, MapData};

use super::bpf::TypedMap;
use super::error::KernelError;
use super::mapped::Mapped;
use super::maps::{lock, map_failed, map_memory};
use super::ring::RingConsumer;
use router_common::names;
use router_common::slots::MAX_WORKERS;
use router_common::wake::WakeFlag;

/// The ring of each worker, as the programs find it.
pub struct KernelRings {
    opened: Mutex<ArrayOfMaps<MapData>>,
    /// The map again, whose values are descriptors to the kernel.
    closed: TypedMap<u32, u32>,
    wake: Arc<Mapped>,
    bytes: u32,
}

impl KernelRings {
    /// Takes the map of rings out of the object. Each ring is to have `bytes`: a power of two, a multiple of the page
    /// size.
    pub(super) fn take(ebpf: &mut Ebpf, bytes: u32) -> Result<Self, KernelError> {
        let wake = map_memory(ebpf, names::WAKE, MAX_WORKERS as usize * size_of::<WakeFlag>())?;
        let Some(Map::ArrayOfMaps(data)) = ebpf.take_map(names::RINGS) else {
            return Err(KernelError::Missing { name: names::RINGS });
        };
        let closed = TypedMap::new(data.fd().as_fd()).map_err(map_failed("open", names::RINGS))?;
        let opened =
            ArrayOfMaps::try_from(Map::ArrayOfMaps(data)).map_err(map_failed("open", names::RINGS))?;
        Ok(Self {
            opened: Mutex::new(opened),
            closed,
            wake: Arc::new(wake),
            bytes,
        })
    }

    /// Makes the ring of `worker`.
    ///
    /// # Errors
    /// The kernel has no memory for it.
    pub fn open(&self, worker: u32) -> Result<RingConsumer, KernelError> {
        let bytes = self.bytes;
        let ring =
            RingConsumer::new(worker, bytes, self.wake.clone()).map_err(|source| KernelError::Ring {
                worker,
                bytes,
                source,
            })?;
        lock(&self.opened)
            .set(worker, ring.map(), 0)
            .map_err(map_failed("write", names::RINGS))?;
        Ok(ring)
    }

    /// Takes the ring of `worker` from the programs: when this returns, none of them writes to it any more. Its
    /// consumer keeps what is in it.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn close(&self, worker: u32) -> Result<(), KernelError> {
        self.closed
            .delete(&worker)
            .map_err(map_failed("write", names::RINGS))
    }
}
