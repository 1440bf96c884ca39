//! The host's own networks in the prefix table, as nobody's, so that a peer's wider prefix does not take their packets.

use std::collections::BTreeSet;

use aya::maps::LpmTrie;
use ipnet::IpNet;
use router_common::names;
use router_common::peer::NO_PEER;

use super::error::KernelError;
use super::object::Kernel;
use super::tables::{map, map_failed, prefix_key};

impl Kernel {
    /// Turns the host's prefixes in the table from `before` into `now`; none of them may be a peer's.
    ///
    /// # Errors
    /// The prefix table cannot be written; it then holds some of the changes.
    pub fn replace_host_prefixes(
        &self,
        before: &BTreeSet<IpNet>,
        now: &BTreeSet<IpNet>,
    ) -> Result<(), KernelError> {
        self.add_prefixes(now.difference(before).map(|net| (*net, NO_PEER)))?;
        let mut ebpf = self.lock();
        let mut table: LpmTrie<_, [u8; 16], u32> =
            LpmTrie::try_from(map(&mut ebpf, names::PEERS)?).map_err(map_failed("open", names::PEERS))?;
        for net in before.difference(now) {
            table
                .remove(&prefix_key(*net))
                .map_err(map_failed("write", names::PEERS))?;
        }
        Ok(())
    }
}
