//! A host that gets another address.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::Value;

use crate::support::packets::wait_for_packets;
use crate::support::{NODE, machine};
use xtask::lab::process::until;
use xtask::lab::{Node, Pair, PairPlan, ScratchDir, Transport};

const LIMIT: Duration = Duration::from_secs(40);

/// Makes two connected nodes of which only the first dials.
fn connected(transport: Transport) -> Result<Pair> {
    let plan = PairPlan {
        transport,
        ..PairPlan::unique()
    };
    let mut pair = Pair::prepare(Path::new(NODE), &plan, ScratchDir::unique("roaming")?)?;
    let peer = pair.b.config.peers.first_mut().context("the first is a peer")?;
    peer.addresses.clear();
    pair.b.node.configure(&pair.b.config)?;
    pair.start_nodes()?;
    wait_for_packets(&pair)?;
    Ok(pair)
}

/// Returns where the second node says that the first is.
fn address_of_first(pair: &Pair) -> Result<Option<String>> {
    let peers: Value = pair.b.node.ask(&["peers"])?;
    Ok(peers["peers"][0]["address"].as_str().map(str::to_owned))
}

/// Waits until a node has left its first connection because there is another.
fn wait_for_change(node: &Node) -> Result<()> {
    until("a connection takes the place of another", LIMIT, || {
        let log = node.log()?;
        Ok(log
            .contains("the peer answers on another connection")
            .then_some(()))
    })?;
    Ok(())
}

#[test]
fn a_node_whose_address_is_replaced_connects_anew_before_it_gives_the_old_connection_up() {
    let _machine = machine::shared();
    for transport in [Transport::Tcp, Transport::Quic] {
        let pair = connected(transport).unwrap();

        let host = &pair.a.host;
        host.ip(&["address", "delete", "192.0.2.1/24", "dev", "u0"])
            .unwrap();
        host.ip(&["address", "add", "192.0.2.11/24", "dev", "u0"])
            .unwrap();

        wait_for_packets(&pair).unwrap();
        until("the peer is seen at its new address", LIMIT, || {
            Ok(address_of_first(&pair)?.filter(|address| address.contains("192.0.2.11")))
        })
        .unwrap();
        wait_for_change(&pair.a.node).unwrap();
        wait_for_packets(&pair).unwrap();
    }
}
