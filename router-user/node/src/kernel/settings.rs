//! What of the settings changes while the programs run.

use std::mem::offset_of;
use std::sync::atomic::Ordering::{Relaxed, Release};
use std::time::Duration;

use super::object::Kernel;
use router_common::settings::Settings;

impl Kernel {
    /// Flows idle for longer than `ttl` begin anew from now on.
    pub fn set_conn_ttl(&self, ttl: Duration) {
        if let Some(word) = self.settings.word(offset_of!(Settings, flow_ttl_ns)) {
            word.store(u64::try_from(ttl.as_nanos()).unwrap_or(u64::MAX), Relaxed);
        }
    }

    /// Idle time after which a flow counts as gone.
    pub fn flow_ttl(&self) -> Duration {
        let word = self.settings.word(offset_of!(Settings, flow_ttl_ns));
        Duration::from_nanos(word.map_or(0, |word| word.load(Relaxed)))
    }

    /// Makes the next packet of every flow look its peer up anew; the flow keeps its worker.
    pub fn renew_peers(&self) {
        if let Some(version) = self.settings.half_word(offset_of!(Settings, peers_version)) {
            // The table is written by now. Partner: `lane` in the programs' `connections.rs`.
            version.fetch_add(1, Release);
        }
    }

    /// Version of the prefix table: a flow whose entry has another one has not looked its peer up since.
    pub fn peers_version(&self) -> u32 {
        let version = self.settings.half_word(offset_of!(Settings, peers_version));
        version.map_or(0, |version| version.load(Relaxed))
    }
}
