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

/// Waits until a node has logged something.
fn wait_for_log(node: &Node, words: &str) -> Result<()> {
    until(words, LIMIT, || Ok(node.log()?.contains(words).then_some(())))?;
    Ok(())
}

/// Replaces the underlay's address of the first host, and waits until packets cross and the peer is seen at the new one.
fn replace_address(pair: &Pair) -> Result<()> {
    let host = &pair.a.host;
    host.ip(&["address", "delete", "192.0.2.1/24", "dev", "u0"])?;
    host.ip(&["address", "add", "192.0.2.11/24", "dev", "u0"])?;
    wait_for_packets(pair)?;
    until("the peer is seen at its new address", LIMIT, || {
        Ok(address_of_first(pair)?.filter(|address| address.contains("192.0.2.11")))
    })?;
    Ok(())
}

#[test]
fn a_node_whose_address_is_replaced_connects_anew_before_it_gives_the_old_connection_up() {
    let _machine = machine::shared();
    let pair = connected(Transport::Tcp).unwrap();

    replace_address(&pair).unwrap();

    wait_for_log(&pair.a.node, "the peer answers on another connection").unwrap();
    wait_for_packets(&pair).unwrap();
}

#[test]
fn a_connection_over_quic_goes_on_at_another_address() {
    let _machine = machine::shared();
    let pair = connected(Transport::Quic).unwrap();

    replace_address(&pair).unwrap();

    wait_for_log(&pair.b.node, "a connection moved").unwrap();
    wait_for_packets(&pair).unwrap();
}
