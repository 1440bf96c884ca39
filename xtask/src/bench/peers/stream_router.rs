//! Two nodes of this build.

use std::path::Path;
use std::time::Duration;

use anyhow::Result;

use crate::bench::underlay::HostPair;
use xtask::lab::{Node, PairPlan, mount_bpffs};

const CONNECT_LIMIT: Duration = Duration::from_secs(15);

/// Starts a node on each host with the defaults that users have, and waits until they are connected.
pub(super) fn start(binary: &Path, underlay: &HostPair, directory: &Path) -> Result<[Node; 2]> {
    mount_bpffs()?;
    let plan = PairPlan::unique();
    let [a, b] = &underlay.hosts;
    let mut nodes = [
        Node::new(binary, a, directory, "a")?,
        Node::new(binary, b, directory, "b")?,
    ];
    let peers = [nodes[1].peer_id().to_owned(), nodes[0].peer_id().to_owned()];
    for (side, (node, peer)) in nodes.iter_mut().zip(peers).enumerate() {
        node.configure(&plan.config(side, &peer))?;
        node.start()?;
    }
    let [a, b] = &nodes;
    a.wait_connected(b, CONNECT_LIMIT)?;
    b.wait_connected(a, CONNECT_LIMIT)?;
    Ok(nodes)
}
