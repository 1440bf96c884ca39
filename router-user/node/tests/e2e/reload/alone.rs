//! A node by itself.

use std::path::Path;

use anyhow::{Context, Result};
use serde_json::Value;

use super::LIMIT;
use super::ask::{prefix_table, reload_with};
use crate::support::NODE;
use xtask::lab::{Namespace, Node, NodeConfig, PairPlan, ScratchDir};

/// A node by itself, whose peer is never there.
pub(crate) struct Alone {
    pub(crate) node: Node,
    pub(crate) config: NodeConfig,
    pub(crate) host: Namespace,
    _directory: ScratchDir,
}

impl Alone {
    pub(crate) fn start(sections: &str) -> Result<Self> {
        let (host, directory) = (Namespace::unique("alone")?, ScratchDir::unique("reload")?);
        let mut node = Node::new(Path::new(NODE), &host, directory.path(), "alone")?;
        let somebody = Node::new(Path::new(NODE), &host, directory.path(), "somebody")?;
        let mut config = PairPlan::unique().config(0, somebody.peer_id());
        config.peers[0].addresses.clear();
        config.sections = sections.to_owned();
        node.configure(&config)?;
        node.start()?;
        Ok(Self {
            node,
            config,
            host,
            _directory: directory,
        })
    }

    /// Reloads with these further sections.
    pub(crate) fn reload_with(&self, sections: &str) -> Result<Value> {
        let mut config = self.config.clone();
        config.sections = sections.to_owned();
        reload_with(&self.node, &config)
    }

    /// Waits until so many workers take new flows.
    pub(crate) fn wait_workers(&self, n: u32) -> Result<()> {
        let what = format!("{n} workers");
        self.node.wait_for(&what, LIMIT, |status| status.workers == n)?;
        Ok(())
    }

    /// Streams to the peer that take new flows.
    pub(crate) fn n_streams(&self) -> Result<usize> {
        let streams: Value = self.node.ask(&["streams"])?;
        let streams = streams["streams"].as_array().context("a list")?.iter();
        Ok(streams.filter(|stream| stream["state"] == "active").count())
    }
}

/// What a reload may change: peers with their prefixes, routes, the kernel's table, workers.
pub(crate) fn state(alone: &Alone) -> Result<String> {
    let status = alone.node.status()?;
    let peers: Vec<_> = status
        .peers
        .iter()
        .map(|peer| (&peer.id, &peer.allowed_ips))
        .collect();
    let device = alone.config.device.as_str();
    let routes = [["-4", "route"], ["-6", "route"]]
        .map(|family| alone.host.ip(&[&family[..], &["show", "dev", device]].concat()));
    let [v4, v6] = routes;
    let table = prefix_table(&alone.node)?;
    Ok(format!("{peers:?} {} {} {} {table}", status.workers, v4?, v6?))
}
