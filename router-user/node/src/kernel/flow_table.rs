//! Reads the connection table and removes the flows that are gone.

use std::io;
use std::os::fd::AsFd;
use std::time::Duration;

use aya::maps::MapData;
use nix::time::{ClockId, clock_gettime};

use super::bpf::TypedMap;
use super::error::KernelError;
use router_common::flow_entry::FlowEntry;
use router_common::flow_key::FlowKey;
use router_common::names;
use router_common::slots::MAX_WORKERS;

/// Entries that one step reads at most; it takes about 2 ms.
pub const STEP_ENTRIES: usize = 4096;

/// Live flows of each worker, as one reading of the whole table found them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reading {
    live: [u32; MAX_WORKERS as usize],
}

impl Reading {
    /// Returns the number of live flows of `worker`.
    pub fn n_live(&self, worker: u32) -> u32 {
        self.live.get(worker as usize).copied().unwrap_or(0)
    }
}

/// The connection table, read in steps.
///
/// A flow whose first packet after a long silence comes between the reading of a step and its removals loses its entry
/// again. Its next packet makes the same entry anew, with the same worker unless the slots changed in between: so
/// slots must not change during a step.
pub struct FlowTable {
    map: TypedMap<FlowKey, FlowEntry>,
    ttl: Duration,
    next: Option<u32>,
    keys: Vec<FlowKey>,
    values: Vec<FlowEntry>,
    gone: Vec<FlowKey>,
    reading: Reading,
}

impl FlowTable {
    /// Begins before the first entry of `map`.
    ///
    /// # Errors
    /// The map holds something else.
    pub(super) fn new(map: &MapData, ttl: Duration) -> io::Result<Self> {
        Ok(Self {
            map: TypedMap::new(map.fd().as_fd())?,
            ttl,
            next: None,
            keys: vec![FlowKey::default(); STEP_ENTRIES],
            values: vec![FlowEntry::default(); STEP_ENTRIES],
            gone: Vec::with_capacity(STEP_ENTRIES),
            reading: Reading {
                live: [0; MAX_WORKERS as usize],
            },
        })
    }

    /// Takes flows idle for longer than `ttl` as gone from now on.
    pub fn set_ttl(&mut self, ttl: Duration) {
        self.ttl = ttl;
    }

    /// Reads the next [`STEP_ENTRIES`] entries at most and removes those idle for longer than the time to live. Returns
    /// what the reading found once it has come to the end of the table.
    ///
    /// # Errors
    /// The kernel refuses; the next step begins a new reading.
    pub fn step(&mut self) -> Result<Option<Reading>, KernelError> {
        let outcome = self.try_step();
        let ended = match &outcome {
            Ok(next) => next.is_none(),
            Err(_) => true,
        };
        let reading = ended.then(|| {
            let live = std::mem::replace(&mut self.reading.live, [0; MAX_WORKERS as usize]);
            Reading { live }
        });
        self.next = outcome?;
        Ok(reading)
    }

    fn try_step(&mut self) -> Result<Option<u32>, KernelError> {
        let failed = |action| {
            move |source: io::Error| KernelError::Map {
                action,
                map: names::CONNECTIONS,
                source: source.into(),
            }
        };
        let batch = self.map.lookup_batch(self.next, &mut self.keys, &mut self.values);
        let batch = batch.map_err(failed("read"))?;
        let now_ns = coarse_now_ns().map_err(failed("read"))?;
        let ttl_ns = u64::try_from(self.ttl.as_nanos()).unwrap_or(u64::MAX);
        self.gone.clear();
        for (key, conn) in self.keys.iter().zip(&self.values).take(batch.len) {
            if conn.expired(now_ns, ttl_ns) {
                self.gone.push(*key);
            } else if let Some(live) = self.reading.live.get_mut(conn.worker as usize) {
                // Every flow comes here: a slot names no other workers than there can be.
                *live += 1;
            }
        }
        self.map.delete_batch(&self.gone).map_err(failed("clean"))?;
        Ok(batch.next)
    }
}

/// Reads the clock of the entries' times.
pub(super) fn coarse_now_ns() -> io::Result<u64> {
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC_COARSE)?;
    Ok(u64::try_from(Duration::from(now).as_nanos()).unwrap_or(u64::MAX))
}
