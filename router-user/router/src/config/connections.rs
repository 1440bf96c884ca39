//! The `[connections]` section.

use std::time::Duration;

use super::fields::Fields;
use super::problem::Problems;
use super::value::Value;

const DEFAULT_TTL: Duration = Duration::from_secs(5);
const DEFAULT_CLEANUP_INTERVAL: Duration = Duration::from_secs(5);
const DEFAULT_MAX_ENTRIES: u32 = 262_144;
const DEFAULT_SHARDS: u32 = 16;

/// The kernel keeps lists of free entries per CPU; below this a few CPUs would hold them all. Above, an entry costs
/// about 150 bytes of kernel memory.
const MAX_ENTRIES: std::ops::RangeInclusive<u32> = 4096..=4_194_304;

const SHARDS: std::ops::RangeInclusive<u32> = 1..=1024;

/// The connection table, and the cache of streams beside it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConnectionsConfig {
    ttl: Duration,
    cleanup_interval: Duration,
    max_entries: u32,
    shards: u32,
}

impl ConnectionsConfig {
    /// Returns the idle time after which a flow counts as gone, and its next packet as the first of a new one.
    pub fn ttl(&self) -> Duration {
        self.ttl
    }

    /// Returns the time in which the whole table is read once, and what is gone removed.
    pub fn cleanup_interval(&self) -> Duration {
        self.cleanup_interval
    }

    /// Returns how many flows the table has room for; the one that was idle for longest makes room for a new one.
    pub fn max_entries(&self) -> u32 {
        self.max_entries
    }

    /// Parts of the cache that says which stream a flow has, each with its share of `max_entries`; and, rounded up to a
    /// power of two of at least 2, of the table of destinations.
    pub fn shards(&self) -> u32 {
        self.shards
    }

    /// Returns `self` with the times of `new`.
    pub(super) fn with_times_of(&self, new: &Self) -> Self {
        Self {
            ttl: new.ttl,
            cleanup_interval: new.cleanup_interval,
            ..*self
        }
    }

    /// Returns the values of the section.
    pub(super) fn values(&self) -> Vec<(&'static str, Value)> {
        vec![
            ("ttl", self.ttl.into()),
            ("cleanup_interval", self.cleanup_interval.into()),
            ("max_entries", self.max_entries.into()),
            ("shards", self.shards.into()),
        ]
    }

    pub(super) fn read(mut fields: Fields<'_>, problems: &mut Problems) -> Self {
        let ttl = fields.duration("ttl", problems);
        let cleanup_interval = fields.duration("cleanup_interval", problems);
        let max_entries = fields.integer("max_entries", MAX_ENTRIES, problems);
        let shards = fields.integer("shards", SHARDS, problems);
        fields.finish(problems);
        Self {
            ttl: ttl.unwrap_or(DEFAULT_TTL),
            cleanup_interval: cleanup_interval.unwrap_or(DEFAULT_CLEANUP_INTERVAL),
            max_entries: max_entries.unwrap_or(DEFAULT_MAX_ENTRIES),
            shards: shards.unwrap_or(DEFAULT_SHARDS),
        }
    }
}
