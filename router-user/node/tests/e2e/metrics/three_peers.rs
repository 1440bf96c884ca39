//! The page of a node with three peers, each a node on a host of its own, in a browser.

use std::path::Path;

use anyhow::Result;
use nix::sys::signal::Signal;
use serde_json::{Value, json};

use super::{INSIDE, LIMIT};
use crate::support::browser::Browser;
use crate::support::{NODE, machine};
use xtask::lab::{Namespace, Node, NodeConfig, Pair, PairPlan, PeerConfig, ScratchDir, link, unique_device};

/// A further peer of the first node, at the end of a cable of its own. The node goes first.
struct Spoke {
    node: Node,
    _host: Namespace,
}

impl Spoke {
    /// Makes the one with this last part of its addresses, and tells the first node of it.
    fn add(pair: &mut Pair, number: u8) -> Result<Self> {
        let host = Namespace::unique("spoke")?;
        let [hub, own] = [1, 2].map(|end| format!("192.0.{number}.{end}"));
        let cable = format!("u{number}");
        link(
            (&pair.a.host, cable.as_str(), &[&format!("{hub}/24")]),
            (&host, "u0", &[&format!("{own}/24")]),
        )?;
        let at = |address: &str| vec![format!("/ip4/{address}/tcp/4001")];
        let node = Node::new(
            Path::new(NODE),
            &host,
            pair.directory(),
            &format!("spoke-{number}"),
        )?;
        node.configure(&NodeConfig {
            device: unique_device(),
            addresses: vec![format!("10.42.0.{number}/24")],
            mtu: pair.a.config.mtu,
            listen: at("0.0.0.0"),
            sections: String::new(),
            peers: vec![PeerConfig {
                id: pair.a.node.peer_id().to_owned(),
                addresses: at(&hub),
                allowed_ips: vec!["10.42.0.1/32".to_owned()],
            }],
        })?;
        pair.a.config.peers.push(PeerConfig {
            id: node.peer_id().to_owned(),
            addresses: at(&own),
            allowed_ips: vec![format!("10.42.0.{number}/32")],
        });
        Ok(Self { node, _host: host })
    }
}

#[test]
fn a_page_shows_three_peers_finds_and_sorts_them_and_tells_of_one_that_goes() {
    let _machine = machine::shared();
    let directory = ScratchDir::unique("three-peers").unwrap();
    let mut pair = Pair::prepare(Path::new(NODE), &PairPlan::unique(), directory).unwrap();
    let mut spokes = [3, 4].map(|number| Spoke::add(&mut pair, number).unwrap());
    pair.a.config.sections = format!("\n[metrics]\nlisten = \"{INSIDE}\"\n");
    pair.a.node.configure(&pair.a.config).unwrap();
    pair.start_nodes().unwrap();
    for spoke in &mut spokes {
        spoke.node.start().unwrap();
        pair.a.node.wait_connected(&spoke.node, LIMIT).unwrap();
    }
    let directory = ScratchDir::unique("browser").unwrap();
    let url = format!("http://{INSIDE}/");
    let mut browser = Browser::open(&pair.a.host, directory.path(), &url).unwrap();
    browser.show_as(1280, "light").unwrap();
    let counts = |shown: &str| format!("document.getElementById('tile-peers').textContent === '{shown}'");
    let press = |what: &str| format!("document.querySelector('{what}').click(); 0");
    let find = |text: &str| {
        format!(
            "(() => {{ const box = document.getElementById('search'); box.value = '{text}'; box.dispatchEvent(new Event('input')); }})()"
        )
    };
    let rows = "[...document.querySelectorAll('#peers tbody tr')].map((row) => row.cells[1].innerText.split('\\n')[0])";
    let shows = |addresses: &[&str]| format!("JSON.stringify({rows}) === '{}'", json!(addresses));
    let [second, third, fourth] = ["10.42.0.2", "10.42.0.3", "10.42.0.4"];

    browser.wait_for(&counts("3 of 3")).unwrap();
    browser.wait_for(&shows(&[second, third, fourth])).unwrap();
    browser.evaluate(&find(third)).unwrap();
    browser.wait_for(&shows(&[third])).unwrap();
    browser
        .wait_for("document.getElementById('n-peers').textContent === '1 of 3'")
        .unwrap();
    browser.evaluate(&find("")).unwrap();
    for expected in [[second, third, fourth], [fourth, third, second]] {
        browser.evaluate(&press("th[data-sort=address] button")).unwrap();
        browser.wait_for(&shows(&expected)).unwrap();
    }

    spokes[1].node.stop(Signal::SIGTERM).unwrap();
    browser.wait_for(&counts("2 of 3")).unwrap();
    browser
        .wait_for("document.querySelector('#peers tbody tr').innerText.includes('connecting')")
        .unwrap();
    browser
        .wait_for("document.getElementById('log').innerText.includes('lost')")
        .unwrap();
    spokes[1].node.start().unwrap();
    browser.wait_for(&counts("3 of 3")).unwrap();
    assert_eq!(browser.problems(), [] as [Value; 0]);
}
