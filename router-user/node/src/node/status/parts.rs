//! The parts of the node that the status is gathered from.

use std::sync::Arc;

use crate::control::SourceError;
use crate::kernel::{Kernel, KernelError};
use crate::node::data_path::DataPath;
use crate::node::data_thread::Runtimes;
use crate::node::gateways::Gateways;
use crate::node::host::Host;
use crate::node::peers::{NodePeer, PeerTable};
use crate::node::worker_pool::WorkerBoard;
use stream_router::p2p::NetworkHandle;
use stream_router_engine::route_table::PeerIndex;

/// The parts of the node that know what an operator asks for.
pub(in crate::node) struct StatusParts {
    pub(in crate::node) device_index: u32,
    pub(in crate::node) host: Arc<Host>,
    pub(in crate::node) kernel: Arc<Kernel>,
    pub(in crate::node) data_path: DataPath,
    pub(in crate::node) network: NetworkHandle,
    pub(in crate::node) workers: Arc<WorkerBoard>,
    pub(in crate::node) runtimes: Runtimes,
    pub(in crate::node) gateways: Arc<Gateways>,
}

impl StatusParts {
    /// Returns the id of the peer with this index.
    pub(super) fn peer_id(&self, index: u32) -> Option<String> {
        let peers = self.data_path.peers.load();
        peers.get(PeerIndex(index)).map(|peer| peer.id.to_string())
    }

    /// Returns the one peer whose id ends with `end`.
    ///
    /// # Errors
    /// No id ends with it, or several do.
    pub(super) fn find_peer(&self, end: &str) -> Result<Arc<NodePeer>, SourceError> {
        find_peer(&self.data_path.peers.load(), end)
    }
}

fn find_peer(peers: &PeerTable, end: &str) -> Result<Arc<NodePeer>, SourceError> {
    let peers = peers.all().iter().map(|configured| &configured.peer);
    match peers
        .filter(|peer| peer.id.to_string().ends_with(end))
        .collect::<Vec<_>>()[..]
    {
        [] => Err(SourceError::Query(format!(
            "no peer's id ends with {end}; the command peers lists them"
        ))),
        [peer] => Ok(Arc::clone(peer)),
        [_, _, ..] => Err(SourceError::Query(format!(
            "the ids of several peers end with {end}; give more of it"
        ))),
    }
}

/// Returns the answer to a request for which the kernel could not be read.
pub(super) fn failed(error: KernelError) -> SourceError {
    SourceError::Failed(Box::new(error))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::status::tests::configured;

    #[test]
    fn a_peer_is_found_by_an_end_of_its_id_that_no_other_has() {
        let table = PeerTable::new(vec![configured(0), configured(1)]);
        let [first, second] = [0, 1].map(|at| table.all()[at].peer.id.to_string());
        let found = |end: &str| find_peer(&table, end).map(|peer| peer.id.to_string());
        let refused = |end: &str| found(end).unwrap_err().to_string();

        assert_eq!(found(&first).unwrap(), first);
        assert_eq!(found(&second[second.len() - 20..]).unwrap(), second);
        assert!(refused("nobody").starts_with("no peer's id ends with nobody"));
        assert!(refused("").starts_with("the ids of several peers"));
    }
}
