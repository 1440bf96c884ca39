//! The kernel's prefix table: the peers' prefixes, and those of the host's own networks that lie inside them.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use ipnet::IpNet;
use tracing::error;

use super::peers::PeerTable;
use crate::kernel::{Kernel, KernelError};
use router_common::peer::NO_PEER;
use stream_router_engine::host_networks::inside_peers;
use stream_router_engine::prefix_steps::{self, Prefixes};

/// The kernel's prefix table, written from the prefixes of the peers and of the host.
pub(super) struct PrefixTable {
    kernel: Arc<Kernel>,
    contents: Mutex<TablePrefixes>,
}

#[derive(Default)]
struct TablePrefixes {
    /// All networks that the host has or routes elsewhere; none without a gateway.
    host: BTreeSet<IpNet>,
    peers: Prefixes,
    written: Prefixes,
}

impl PrefixTable {
    /// Makes a writer for an empty table.
    pub(super) fn new(kernel: Arc<Kernel>) -> Self {
        Self {
            kernel,
            contents: Mutex::default(),
        }
    }

    /// Writes the prefixes that the peers have from now on; their flows are looked up again.
    ///
    /// # Errors
    /// The table cannot be written. It is as it was before, unless the log says otherwise.
    pub(super) fn set_peers(&self, table: &PeerTable) -> Result<(), KernelError> {
        let prefixes = table.all().iter().flat_map(|configured| {
            let owner = configured.peer.index.0;
            configured.allowed_ips.iter().map(move |net| (*net, owner))
        });
        let peers = prefixes.collect();
        self.update(|contents| contents.peers = peers).map(drop)
    }

    /// Writes the networks that the host has from now on; returns whether that changed the table.
    ///
    /// # Errors
    /// Fails as [`PrefixTable::set_peers`] does.
    pub(super) fn set_host(&self, networks: BTreeSet<IpNet>) -> Result<bool, KernelError> {
        self.update(|contents| contents.host = networks)
    }

    fn update(&self, change: impl FnOnce(&mut TablePrefixes)) -> Result<bool, KernelError> {
        // It is whole whenever it is let go.
        let mut contents = self.contents.lock().unwrap_or_else(PoisonError::into_inner);
        let (host, peers) = (contents.host.clone(), contents.peers.clone());
        change(&mut contents);
        let wanted = wanted(&contents);
        let steps = prefix_steps::steps(&contents.written, &wanted);
        if steps.is_empty() {
            return Ok(false);
        }
        if let Err(refused) = self.kernel.prefixes.change(steps) {
            (contents.host, contents.peers) = (host, peers);
            let back = prefix_steps::steps(&wanted, &contents.written);
            if let Err(error) = self.kernel.prefixes.change(back) {
                error!(
                    error = &error as &dyn std::error::Error,
                    "the prefix table is neither as before nor as it was to be; restart the node"
                );
            }
            self.kernel.settings.renew_peers();
            return Err(refused);
        }
        self.kernel.settings.renew_peers();
        contents.written = wanted;
        Ok(true)
    }
}

fn wanted(contents: &TablePrefixes) -> Prefixes {
    let peers = contents.peers.keys().copied().collect();
    let mut wanted: Prefixes = inside_peers(&contents.host, &peers)
        .into_iter()
        .map(|net| (net, NO_PEER))
        .collect();
    wanted.extend(&contents.peers);
    wanted
}
