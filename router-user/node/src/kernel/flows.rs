//! The connection table: whole for observers, in steps for cleaning.

use std::time::Duration;

use aya::Ebpf;
use aya::maps::{Map, MapData};

use super::error::KernelError;
use super::flow_reader::FlowReader;
use super::flow_table::FlowTable;
use super::maps::map_failed;
use router_common::names;

/// The flows that the programs know.
pub struct KernelFlows(MapData);

impl KernelFlows {
    /// Takes the table out of the object.
    pub(super) fn take(ebpf: &mut Ebpf) -> Result<Self, KernelError> {
        match ebpf.take_map(names::CONNECTIONS) {
            Some(Map::LruHashMap(data)) => Ok(Self(data)),
            _ => Err(KernelError::Missing {
                name: names::CONNECTIONS,
            }),
        }
    }

    /// Returns the table to be read in steps; flows idle for longer than `ttl` are gone.
    ///
    /// # Errors
    /// Its descriptor cannot be duplicated.
    pub fn table(&self, ttl: Duration) -> Result<FlowTable, KernelError> {
        FlowTable::new(&self.0, ttl).map_err(map_failed("open", names::CONNECTIONS))
    }

    /// Returns a reader of the flows that are live now.
    ///
    /// # Errors
    /// The table's descriptor cannot be duplicated.
    pub fn reader(&self, ttl: Duration) -> Result<FlowReader, KernelError> {
        FlowReader::new(&self.0, ttl).map_err(map_failed("open", names::CONNECTIONS))
    }
}
