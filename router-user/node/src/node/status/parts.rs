//! The parts of the node that the status is gathered from.

use std::borrow::Cow;
use std::sync::Arc;

use ipnet::IpNet;

use crate::control::{Callable, LEAST_END, NotFound, SourceError, find};
use crate::kernel::{Kernel, KernelError};
use crate::node::data_path::DataPath;
use crate::node::data_thread::Runtimes;
use crate::node::event_log::EventLog;
use crate::node::gateways::Gateways;
use crate::node::host::Host;
use crate::node::peers::{ConfiguredPeer, NodePeer, PeerTable};
use crate::node::port_mapping::MappingBoard;
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
    pub(in crate::node) events: Arc<EventLog>,
    pub(in crate::node) port_mapping: Arc<MappingBoard>,
}

impl StatusParts {
    /// Returns the id of the peer with this index, and its name if it has one.
    pub(super) fn peer(&self, index: u32) -> Option<(String, Option<String>)> {
        let peers = self.data_path.peers.load();
        let id = peers.get(PeerIndex(index))?.id;
        Some((id.to_string(), peers.configured(&id)?.name.clone()))
    }

    /// Returns the one peer that is called so: by its name, an inner address, or an end of its id.
    ///
    /// # Errors
    /// Nobody is called so, or several are.
    pub(super) fn find_peer(&self, called: &str) -> Result<Arc<NodePeer>, SourceError> {
        find_peer(&self.data_path.peers.load(), called)
    }
}

fn find_peer(peers: &PeerTable, called: &str) -> Result<Arc<NodePeer>, SourceError> {
    let found = find(peers.all().iter(), called);
    found.map(|found| Arc::clone(&found.peer)).map_err(|error| {
        SourceError::Query(match error {
            NotFound::Address => format!("{called} is the address of no peer; the command peers lists them"),
            NotFound::Nobody => format!(
                "no peer is called {called}, and no peer's id ends with {called}; the command peers lists them"
            ),
            NotFound::Short => format!(
                "no peer has the name {called}, and an end of an id takes {LEAST_END} characters or more; the command peers \
                 lists them"
            ),
            NotFound::Several => format!("the ids of several peers end with {called}; give more of it"),
        })
    })
}

impl Callable for ConfiguredPeer {
    fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }

    fn id(&self) -> Cow<'_, str> {
        Cow::Owned(self.peer.id.to_string())
    }

    fn networks(&self) -> impl Iterator<Item = IpNet> {
        self.allowed_ips.iter().copied()
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
        assert!(refused("nobody").contains("no peer's id ends with nobody"));
        assert_eq!(found(&second[second.len() - LEAST_END..]).unwrap(), second);
        let short = refused(&second[second.len() + 1 - LEAST_END..]);
        assert!(short.contains("takes 4 characters or more"), "{short}");
        assert!(refused("").contains("4 characters or more"));
    }

    #[test]
    fn a_peer_is_found_by_its_name_and_by_an_inner_address() {
        let (mut named, mut other) = (configured(0), configured(1));
        let end = other.peer.id.to_string();
        named.name = Some("Berlin-1".to_owned());
        other.allowed_ips = vec!["10.42.7.0/24".parse().unwrap(), "fd42:7::/64".parse().unwrap()];
        // Its name goes before the end of somebody's id.
        let third = ConfiguredPeer {
            name: Some(end[end.len() - 4..].to_owned()),
            allowed_ips: vec!["10.42.8.1/32".parse().unwrap()],
            ..configured(2)
        };
        let table = PeerTable::new(vec![named, other, third]);
        let index = |called: &str| find_peer(&table, called).map(|peer| peer.index.0).ok();

        assert_eq!((index("Berlin-1"), index("berlin-1")), (Some(0), Some(0)));
        assert_eq!(
            (index("10.42.0.2"), index("10.42.7.9"), index("fd42:7::3")),
            (Some(0), Some(1), Some(1))
        );
        assert_eq!((index("10.42.9.1"), index("berlin")), (None, None));
        assert_eq!((index(&end), index(&end[end.len() - 4..])), (Some(1), Some(2)));
    }
}
