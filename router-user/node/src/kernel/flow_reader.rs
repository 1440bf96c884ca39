//! Reads the live flows once, and changes nothing.

use std::io;
use std::os::fd::AsFd;
use std::time::Duration;

use aya::maps::MapData;

use super::bpf::TypedMap;
use super::error::KernelError;
use super::flow_table::{STEP_ENTRIES, coarse_now_ns};
use router_common::flow_entry::FlowEntry;
use router_common::flow_key::FlowKey;
use router_common::names;

/// Entries that may come in while the table is read; a reading that meets more of them ends.
const SLACK_ENTRIES: usize = 16 * STEP_ENTRIES;

/// One reading of the connection table.
pub struct FlowReader {
    map: TypedMap<FlowKey, FlowEntry>,
    ttl: Duration,
}

impl FlowReader {
    /// Makes a reader of `map`.
    ///
    /// # Errors
    /// The map holds something else.
    pub(super) fn new(map: &MapData, ttl: Duration) -> io::Result<Self> {
        Ok(Self {
            map: TypedMap::new(map.fd().as_fd())?,
            ttl,
        })
    }

    /// Hands every live flow to `handle`, with its age and the time since its last packet; about 1 ms for 4,096 of them.
    /// `max_entries` is what the table has room for.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn read(
        &self,
        max_entries: u32,
        mut handle: impl FnMut(&FlowKey, &FlowEntry, Duration, Duration),
    ) -> Result<(), KernelError> {
        let failed = |source: io::Error| KernelError::Map {
            action: "read",
            map: names::CONNECTIONS,
            source: source.into(),
        };
        let mut keys = vec![FlowKey::default(); STEP_ENTRIES];
        let mut values = vec![FlowEntry::default(); STEP_ENTRIES];
        let ttl_ns = u64::try_from(self.ttl.as_nanos()).unwrap_or(u64::MAX);
        let (mut next, mut n_read) = (None, 0);
        while n_read < max_entries as usize + SLACK_ENTRIES {
            let batch = self
                .map
                .lookup_batch(next, &mut keys, &mut values)
                .map_err(failed)?;
            let now_ns = coarse_now_ns().map_err(failed)?;
            for (key, conn) in keys.iter().zip(&values).take(batch.len) {
                if !conn.expired(now_ns, ttl_ns) {
                    let since = |then_ns: u64| Duration::from_nanos(now_ns.saturating_sub(then_ns));
                    handle(key, conn, since(conn.first_seen_ns), since(conn.last_seen_ns));
                }
            }
            n_read += batch.len;
            next = batch.next;
            if next.is_none() {
                break;
            }
        }
        Ok(())
    }
}
