//! Two nodes of this build.

use std::path::Path;
use std::time::Duration;

use anyhow::Result;

use crate::bench::underlay::HostPair;
use xtask::lab::{Node, PairPlan, Transport, mount_bpffs};

const CONNECT_LIMIT: Duration = Duration::from_secs(15);

/// How two nodes are connected. The default is that of most users.
#[derive(Debug)]
pub(in crate::bench) struct NodeWay {
    pub(in crate::bench) transport: Transport,
    /// Congestion control of their TCP; the host's unless it is said.
    pub(in crate::bench) congestion: Option<&'static str>,
}

impl Default for NodeWay {
    fn default() -> Self {
        Self {
            transport: Transport::Tcp,
            congestion: None,
        }
    }
}

/// Starts a node on each host with the defaults that users have but for `way`, and waits until they are connected.
pub(super) fn start(
    binary: &Path,
    underlay: &HostPair,
    directory: &Path,
    way: &NodeWay,
) -> Result<[Node; 2]> {
    mount_bpffs()?;
    let plan = PairPlan {
        transport: way.transport,
        ..PairPlan::unique()
    };
    let [a, b] = &underlay.hosts;
    let mut nodes = [
        Node::new(binary, a, directory, "a")?,
        Node::new(binary, b, directory, "b")?,
    ];
    let peers = [nodes[1].peer_id().to_owned(), nodes[0].peer_id().to_owned()];
    for (side, (node, peer)) in nodes.iter_mut().zip(peers).enumerate() {
        let mut config = plan.config(side, &peer);
        if let Some(congestion) = way.congestion {
            config.sections = format!("\n[transport]\ncongestion = {congestion:?}\n");
        }
        node.configure(&config)?;
        node.start()?;
    }
    let [a, b] = &nodes;
    a.wait_connected(b, CONNECT_LIMIT)?;
    b.wait_connected(a, CONNECT_LIMIT)?;
    Ok(nodes)
}
