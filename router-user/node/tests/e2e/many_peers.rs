//! A node with nearly as many peers as it may have, one of which is there.

use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use anyhow::Result;
use serde_json::{Value, json};
use stream_router::p2p::PeerId;

use crate::metrics::get;
use crate::reload::ask::reload_with;
use crate::support::{NODE, machine};
use xtask::lab::probe::answers;
use xtask::lab::{Node, Pair, PairPlan, PeerConfig, ScratchDir};

const MOST: usize = 16_384;
/// One less: a peer that comes as another goes needs a number of its own for a moment.
const N_PEERS: usize = MOST - 1;
const LIMIT: Duration = Duration::from_secs(30);
const METRICS: &str = "127.0.0.1:9464";

/// A peer that is nowhere, with two networks.
fn absent(n: usize) -> PeerConfig {
    let (high, low) = (64 + n / 256, n % 256);
    PeerConfig {
        id: PeerId::random().to_string(),
        addresses: vec![format!("/ip4/198.51.100.{low}/tcp/4001")],
        allowed_ips: vec![format!("10.{high}.{low}.0/24"), format!("fd77:{n:x}::/64")],
    }
}

fn n_peers(node: &Node) -> Result<usize> {
    let list: Value = node.ask(&["peers"])?;
    Ok(list["peers"].as_array().map_or(0, Vec::len))
}

#[test]
fn a_node_with_as_many_peers_as_it_may_have_serves_the_one_that_is_there() {
    let _machine = machine::alone();
    let mut pair = Pair::prepare(
        Path::new(NODE),
        &PairPlan::unique(),
        ScratchDir::unique("many").unwrap(),
    )
    .unwrap();
    let a = &mut pair.a;
    let last = a.config.peers.remove(0);
    a.config.peers.extend((1..N_PEERS).map(absent));
    a.config.peers.push(last);
    a.config.sections = format!("[metrics]\nlisten = \"{METRICS}\"\n");
    a.node.configure(&a.config).unwrap();
    pair.start_nodes().unwrap();
    pair.a.node.wait_connected(&pair.b.node, LIMIT).unwrap();
    let (a, b) = (&pair.a, &pair.b);
    let hears = |second: &str| {
        let to: IpAddr = second.parse().unwrap();
        answers(&a.host, to, LIMIT).unwrap()
    };

    assert!(hears("10.42.0.2") && hears("fd42::2"));
    let status: Value = a.node.ask(&["status"]).unwrap();
    assert_eq!(
        (&status["configured_peers"], &status["connected_peers"]),
        (&json!(N_PEERS), &json!(1))
    );
    let (code, page) = get(&a.host, METRICS, "localhost", "/metrics").unwrap();
    let n_with = |name: &str| page.lines().filter(|line| line.starts_with(name)).count();
    assert_eq!(code, 200);
    assert_eq!(n_with("stream_router_peer_connected{"), N_PEERS);
    assert_eq!(n_with("stream_router_peer_connections{"), 1);
    let (code, health) = get(&a.host, METRICS, "localhost", "/health").unwrap();
    assert_eq!(code, 200, "{health}");

    // One goes, one comes, one moves, and there is no room for more.
    let mut other = a.config.clone();
    let gone = other.peers.remove(6);
    let come = absent(7);
    other.peers.insert(N_PEERS / 2, come.clone());
    other.peers[9].allowed_ips.pop();
    let moved = other.peers[9].id.clone();
    let answer = reload_with(&a.node, &other).unwrap();
    assert_eq!(
        (
            &answer["peers_added"],
            &answer["peers_removed"],
            &answer["peers_changed"]
        ),
        (&json!([come.id]), &json!([gone.id]), &json!([moved]))
    );
    assert_eq!(n_peers(&a.node).unwrap(), N_PEERS);
    let mut more = other.clone();
    more.peers.extend([absent(0), absent(MOST)]);
    let refused = reload_with(&a.node, &more).unwrap_err().to_string();
    assert!(refused.contains("at most 16384 peers"), "{refused}");

    // Back to one, beside the same connection.
    let mut few = other.clone();
    few.peers.drain(..N_PEERS - 1);
    let answer = reload_with(&a.node, &few).unwrap();
    assert_eq!(
        answer["peers_removed"].as_array().map(Vec::len),
        Some(N_PEERS - 1)
    );
    assert_eq!(n_peers(&a.node).unwrap(), 1);
    assert!(hears("10.42.0.2") && a.node.status().unwrap().is_connected(b.node.peer_id()));
}
