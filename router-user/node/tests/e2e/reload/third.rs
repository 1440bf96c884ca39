//! A third node.

use std::path::Path;

use anyhow::Result;

use crate::support::NODE;
use xtask::lab::{Namespace, Node, NodeConfig, Pair, PeerConfig, link, unique_device};

/// A third host with a node, which the first of a pair can dial.
pub(crate) struct Third {
    pub(crate) node: Node,
    pub(crate) host: Namespace,
    pub(crate) as_peer: PeerConfig,
}

impl Third {
    pub(crate) fn start(pair: &Pair) -> Result<Self> {
        let host = Namespace::unique("c")?;
        link(
            (&pair.a.host, "u1", &["2001:db8:c::1/64"]),
            (&host, "u0", &["2001:db8:c::2/64"]),
        )?;
        let mut node = Node::new(Path::new(NODE), &host, pair.directory(), "c")?;
        node.configure(&NodeConfig {
            device: unique_device(),
            addresses: vec!["10.42.0.3/24".to_owned(), "fd42::3/64".to_owned()],
            mtu: 1420,
            listen: vec!["/ip6/::/tcp/4001".to_owned()],
            sections: "[log]\nformat = \"json\"\n".to_owned(),
            peers: vec![PeerConfig {
                id: pair.a.node.peer_id().to_owned(),
                addresses: Vec::new(),
                allowed_ips: vec!["10.42.0.1/32".to_owned(), "fd42::1/128".to_owned()],
            }],
        })?;
        node.start()?;
        let as_peer = PeerConfig {
            id: node.peer_id().to_owned(),
            addresses: vec!["/ip6/2001:db8:c::2/tcp/4001".to_owned()],
            allowed_ips: vec!["10.42.0.3/32".to_owned(), "fd42::3/128".to_owned()],
        };
        Ok(Self { node, host, as_peer })
    }
}
