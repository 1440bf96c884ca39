//! The settings of the programs, of which some change while they run.

use std::mem::offset_of;
use std::sync::atomic::Ordering::{Relaxed, Release};
use std::sync::atomic::{AtomicU32, AtomicU64};
use std::time::Duration;

use aya::Ebpf;
use aya::maps::Array;

use super::error::KernelError;
use super::mapped::Mapped;
use super::maps::{map_failed, map_memory};
use router_common::flow_hash::HashKey;
use router_common::names;
use router_common::settings::Settings;

/// What the programs are told, in memory that they read.
pub struct KernelSettings {
    memory: Mapped,
    hash_key: HashKey,
}

impl KernelSettings {
    /// Writes the settings that the programs begin with.
    pub(super) fn write(ebpf: &mut Ebpf, settings: Settings) -> Result<Self, KernelError> {
        let name = names::SETTINGS;
        let map = ebpf.map_mut(name).ok_or(KernelError::Missing { name })?;
        Array::try_from(map)
            .and_then(|mut map| map.set(0, settings, 0))
            .map_err(map_failed("write", name))?;
        Ok(Self {
            memory: map_memory(ebpf, name, size_of::<Settings>())?,
            hash_key: settings.hash_key,
        })
    }

    /// Returns the key by which flows are hashed, which is random for each load.
    pub fn hash_key(&self) -> HashKey {
        self.hash_key
    }

    /// Lets flows that are idle for longer than `ttl` begin anew from now on.
    pub fn set_flow_ttl(&self, ttl: Duration) {
        let ttl_ns = u64::try_from(ttl.as_nanos()).unwrap_or(u64::MAX);
        self.flow_ttl_ns().store(ttl_ns, Relaxed);
    }

    /// Returns the idle time after which a flow counts as gone.
    pub fn flow_ttl(&self) -> Duration {
        Duration::from_nanos(self.flow_ttl_ns().load(Relaxed))
    }

    /// Makes the next packet of every flow look its peer up anew; the flow keeps its worker.
    pub fn renew_peers(&self) {
        // The prefix table is written by now. Partner: the programs read it before they look a peer up (`entry` in their `flows.rs`).
        self.version().fetch_add(1, Release);
    }

    /// Returns the version of the prefix table: a flow whose entry has another one has not looked its peer up since.
    pub fn peers_version(&self) -> u32 {
        self.version().load(Relaxed)
    }

    fn flow_ttl_ns(&self) -> &AtomicU64 {
        let word = self.memory.word(offset_of!(Settings, flow_ttl_ns));
        word.expect("the mapping holds all settings, each where it is aligned")
    }

    fn version(&self) -> &AtomicU32 {
        let word = self.memory.half_word(offset_of!(Settings, peers_version));
        word.expect("the mapping holds all settings, each where it is aligned")
    }
}
