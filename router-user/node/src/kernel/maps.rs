//! Finds the maps of the object, and names them in errors.

use std::error::Error;
use std::os::fd::AsFd;

use aya::Ebpf;
use aya::maps::{Map, MapData};

use super::error::KernelError;

/// Bytes from one peer's flag to the next: the kernel rounds the entries of an array up to 8 bytes.
pub(super) const PRESSURE_STRIDE: usize = 8;

/// Returns the same map behind a descriptor of its own.
pub(super) fn share(data: &MapData, name: &'static str) -> Result<MapData, KernelError> {
    let failed = |source| KernelError::Map {
        action: "open",
        map: name,
        source,
    };
    let fd = data.fd().as_fd().try_clone_to_owned();
    let fd = fd.map_err(|error| failed(error.into()))?;
    MapData::from_fd(fd).map_err(|error| failed(error.into()))
}

/// Returns a map of the object.
pub(super) fn map<'a>(ebpf: &'a mut Ebpf, name: &'static str) -> Result<&'a mut Map, KernelError> {
    ebpf.map_mut(name).ok_or(KernelError::Missing { name })
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
