//! Finds the maps of the object, and names them in errors.

use std::error::Error;
use std::os::fd::AsFd;
use std::sync::{Mutex, MutexGuard, PoisonError};

use aya::Ebpf;
use aya::maps::{Map, MapData, MapError};

use super::error::KernelError;
use super::mapped::Mapped;

/// Takes a map out of the object. Its owner has to live as long as the programs: the gateway program is loaded late,
/// and refers to its maps by their descriptors.
pub(super) fn take<M: TryFrom<Map, Error = MapError>>(
    ebpf: &mut Ebpf,
    name: &'static str,
) -> Result<M, KernelError> {
    let map = ebpf.take_map(name).ok_or(KernelError::Missing { name })?;
    M::try_from(map).map_err(map_failed("open", name))
}

/// Maps the first `len` bytes of an array into memory.
pub(super) fn map_memory(ebpf: &Ebpf, name: &'static str, len: usize) -> Result<Mapped, KernelError> {
    let Some(Map::Array(data)) = ebpf.map(name) else {
        return Err(KernelError::Missing { name });
    };
    Mapped::new(data.fd().as_fd(), 0, len, true).map_err(map_failed("map into memory", name))
}

/// Returns the same map behind a descriptor of its own.
pub(super) fn share(data: &MapData, name: &'static str) -> Result<MapData, KernelError> {
    let fd = data.fd().as_fd().try_clone_to_owned();
    let fd = fd.map_err(map_failed("open", name))?;
    MapData::from_fd(fd).map_err(map_failed("open", name))
}

/// Names the map that an error is about.
pub(super) fn map_failed<E: Error + Send + Sync + 'static>(
    action: &'static str,
    map: &'static str,
) -> impl Fn(E) -> KernelError {
    move |source| KernelError::Map {
        action,
        map,
        source: Box::new(source),
    }
}

/// Locks what is whole between any two calls, so that a panic elsewhere does not spoil it.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
