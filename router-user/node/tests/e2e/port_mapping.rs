//! Nodes behind a router that forwards ports on demand.

use std::net::UdpSocket;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::support::browser::Browser;
use crate::support::home_router::{Daemon, GATEWAY, HOST, Home, OUTSIDE, OldGateway, PEER};
use crate::support::{NODE, machine};
use xtask::lab::probe::answers;
use xtask::lab::process::{text, until};
use xtask::lab::{Node, NodeConfig, PeerConfig, mount_bpffs, unique_device};

const LIMIT: Duration = Duration::from_secs(60);
const PATIENCE: Duration = Duration::from_millis(500);

/// Where the node in the home serves its page.
const PAGE: &str = "127.0.0.1:9464";

const BOTH: [&str; 2] = ["/ip4/0.0.0.0/tcp/4001", "/ip4/0.0.0.0/udp/4001/quic-v1"];

/// A node in the home, which dials nobody, and one outside.
struct Nodes {
    inside: Node,
    outside: Node,
    home: Home,
}

impl Nodes {
    fn prepare(home: Home) -> Result<Self> {
        mount_bpffs()?;
        let inside = Node::new(Path::new(NODE), &home.host, home.directory().path(), "inside")?;
        let outside = Node::new(Path::new(NODE), &home.peer, home.directory().path(), "outside")?;
        let nodes = Self {
            inside,
            outside,
            home,
        };
        let sections = "\n[transport]\nport_mapping = true\n";
        nodes
            .inside
            .configure(&config(1, &BOTH, sections, nodes.peer(2, Vec::new())))?;
        Ok(nodes)
    }

    /// Starts a home with a daemon, and the node in it.
    fn start(daemon: Daemon) -> Result<Self> {
        let mut home = Home::new()?;
        home.start(daemon)?;
        let mut nodes = Self::prepare(home)?;
        nodes.inside.start()?;
        Ok(nodes)
    }

    fn peer(&self, number: u8, addresses: Vec<String>) -> PeerConfig {
        let node = if number == 1 { &self.inside } else { &self.outside };
        PeerConfig {
            id: node.peer_id().to_owned(),
            addresses,
            allowed_ips: vec![format!("10.42.0.{number}/32")],
        }
    }

    fn status(&self) -> Result<Value> {
        let status: Value = self.inside.ask(&["status"])?;
        Ok(status["port_mapping"].clone())
    }

    fn wait_for(&self, state: &str) -> Result<Value> {
        let (status, _) = until(&format!("the state {state}"), LIMIT, || {
            let status = self.status()?;
            Ok((status["state"] == state).then_some(status))
        })
        .with_context(|| format!("the state is {:?}", self.status()))?;
        Ok(status)
    }

    /// Has the node outside dial the other at one address alone, and waits until packets cross.
    fn connect_at(&mut self, address: &str) -> Result<()> {
        let peer = self.peer(1, vec![address.to_owned()]);
        self.outside.configure(&config(2, &[], "", peer))?;
        self.outside.start()?;
        self.outside.wait_connected(&self.inside, LIMIT)?;
        until("packets cross", LIMIT, || {
            Ok(answers(&self.home.peer, [10, 42, 0, 1].into(), PATIENCE)?.then_some(()))
        })?;
        self.outside.stop(Signal::SIGTERM)?;
        Ok(())
    }
}

fn config(number: u8, listen: &[&str], sections: &str, peer: PeerConfig) -> NodeConfig {
    NodeConfig {
        device: unique_device(),
        addresses: vec![format!("10.42.0.{number}/24")],
        mtu: 1420,
        listen: listen.iter().map(|&address| address.to_owned()).collect(),
        sections: sections.to_owned(),
        peers: vec![peer],
    }
}

fn shown(command: &str, node: &Node) -> Result<String> {
    let mut asked = Command::new(NODE);
    let asked = match command {
        "invite" => asked.arg(command).arg("--config").arg(node.config()),
        _ => asked.arg(command).arg("--socket").arg(node.socket()),
    };
    text(asked, LIMIT)
}

fn addresses(status: &Value) -> Vec<&str> {
    let mapped = status["mapped"].as_array().map_or(&[][..], Vec::as_slice);
    let addresses = mapped.iter().filter_map(|mapped| mapped["address"].as_str());
    addresses.collect()
}

#[test]
fn a_peer_outside_dials_by_both_transports_where_the_router_forwards_and_a_stop_gives_the_ports_back() {
    let _machine = machine::shared();
    let mut nodes = Nodes::start(Daemon::All).unwrap();

    let status = nodes.wait_for("mapped").unwrap();

    let (tcp, quic) = (
        format!("/ip4/{OUTSIDE}/tcp/4001"),
        format!("/ip4/{OUTSIDE}/udp/4001/quic-v1"),
    );
    assert_eq!(addresses(&status), [&tcp, &quic]);
    assert_eq!(status["gateway"], GATEWAY);
    for mapped in status["mapped"].as_array().unwrap() {
        assert_eq!(mapped["protocol"], "PCP");
        let left = mapped["expires_in_seconds"].as_f64().unwrap();
        assert!(left > 600.0 && left <= 1800.0, "{left}");
    }
    let status = shown("status", &nodes.inside).unwrap();
    assert!(status.contains(&format!("{tcp} by PCP for ")), "{status}");
    let invite = shown("invite", &nodes.inside).unwrap();
    let mut joining = config(2, &BOTH, "", nodes.peer(1, Vec::new()));
    joining.peers.clear();
    nodes.outside.configure(&joining).unwrap();
    let mut join = Command::new(NODE);
    join.args(["join", "--dry-run", "--config"])
        .arg(nodes.outside.config());
    let section = text(join.arg(invite.trim()), LIMIT).unwrap();
    assert!(
        section.contains(&format!("addresses = [\"{tcp}\", \"{quic}\"")),
        "{section}"
    );
    for address in [tcp, quic] {
        nodes.connect_at(&address).unwrap();
    }
    assert_eq!(nodes.home.forwarded().unwrap().lines().count(), 2);

    nodes.inside.stop(Signal::SIGTERM).unwrap();

    assert_eq!(nodes.home.forwarded().unwrap(), "");
}

#[test]
fn a_router_that_was_started_anew_is_asked_at_once() {
    let _machine = machine::shared();
    let mut nodes = Nodes::start(Daemon::All).unwrap();
    nodes.wait_for("mapped").unwrap();
    nodes.home.stop().unwrap();

    nodes.home.start(Daemon::All).unwrap();

    until("the router forwards again", LIMIT, || {
        Ok((nodes.home.forwarded()?.lines().count() == 2).then_some(()))
    })
    .unwrap();
    nodes.connect_at(&format!("/ip4/{OUTSIDE}/tcp/4001")).unwrap();
}

#[test]
fn a_router_that_speaks_upnp_alone_forwards_and_forgets() {
    let _machine = machine::shared();
    let mut nodes = Nodes::start(Daemon::UpnpAlone).unwrap();

    let status = nodes.wait_for("mapped").unwrap();

    assert_eq!(status["mapped"][0]["protocol"], "UPnP");
    nodes.connect_at(addresses(&status)[0]).unwrap();
    nodes.inside.stop(Signal::SIGTERM).unwrap();
    assert_eq!(nodes.home.forwarded().unwrap(), "");
}

#[test]
fn a_node_with_another_address_is_forwarded_to_there() {
    let _machine = machine::shared();
    let mut nodes = Nodes::start(Daemon::All).unwrap();
    nodes.wait_for("mapped").unwrap();
    let host = &nodes.home.host;

    host.ip(&["address", "flush", "dev", "u0"]).unwrap();
    host.ip(&["address", "add", "10.7.1.9/24", "dev", "u0"]).unwrap();
    host.ip(&["route", "replace", "default", "via", GATEWAY]).unwrap();

    let (address, _) = until("the router forwards to the new address", LIMIT, || {
        let is_there = nodes.home.forwarded()?.contains("10.7.1.9");
        let status = nodes.status()?;
        let address = addresses(&status).first().map(|&address| address.to_owned());
        Ok(address.filter(|_| is_there))
    })
    .unwrap();
    nodes.connect_at(&address).unwrap();
}

#[test]
fn a_router_that_refuses_is_said_to() {
    let _machine = machine::shared();
    let mut home = Home::new().unwrap();
    // The daemon forwards nothing then, and says so.
    home.set_outside("100.64.7.2").unwrap();
    home.start(Daemon::All).unwrap();
    let mut nodes = Nodes::prepare(home).unwrap();
    nodes.inside.start().unwrap();

    let status = nodes.wait_for("refused").unwrap();

    let detail = status["detail"].as_str().unwrap();
    assert!(detail.starts_with("by PCP: "), "{detail}");
    assert_eq!(addresses(&status), [""; 0]);
    let status = shown("status", &nodes.inside).unwrap();
    assert!(
        status.contains(&format!("forwarded none: {GATEWAY} refuses (by PCP: ")),
        "{status}"
    );
    assert_eq!(nodes.home.forwarded().unwrap(), "");
}

#[test]
fn a_router_that_forwards_for_nobody_is_said_not_to_answer() {
    let _machine = machine::shared();
    let mut nodes = Nodes::prepare(Home::new().unwrap()).unwrap();
    nodes.inside.start().unwrap();

    let status = nodes.wait_for("unanswered").unwrap();

    let detail = status["detail"].as_str().unwrap();
    for protocol in ["PCP: ", "NAT-PMP: ", "UPnP: "] {
        assert!(detail.contains(protocol), "{detail}");
    }
}

#[test]
fn a_router_behind_another_nat_is_not_announced() {
    let _machine = machine::shared();
    let (status, invite) = with_old_gateway([100, 64, 3, 9], "double_nat").unwrap();

    assert!(
        status["detail"].as_str().unwrap().contains("100.64.3.9"),
        "{status}"
    );
    assert_eq!(addresses(&status), [""; 0]);
    assert!(
        invite.contains(HOST) && !invite.contains("100.64.3.9"),
        "{invite}"
    );
}

#[test]
fn an_old_router_that_knows_nat_pmp_alone_forwards() {
    let _machine = machine::shared();
    let (status, invite) = with_old_gateway([192, 0, 2, 77], "mapped").unwrap();

    assert_eq!(status["mapped"][0]["protocol"], "NAT-PMP");
    assert_eq!(addresses(&status)[0], "/ip4/192.0.2.77/tcp/4001");
    assert!(invite.contains("/ip4/192.0.2.77/tcp/4001"), "{invite}");
}

/// Starts a node behind a gateway that says that this is its address outside, and returns the node's state then and the
/// content of its invite.
fn with_old_gateway(outside: [u8; 4], state: &str) -> Result<(Value, String)> {
    let home = Home::new()?;
    let gateway = OldGateway::start(&home.router, outside)?;
    let mut nodes = Nodes::prepare(home)?;
    nodes.inside.start()?;
    let n_asked = gateway.serve(&format!("the state {state}"), || {
        Ok(nodes.status()?["state"] == state)
    })?;
    ensure!(n_asked <= 8, "it was asked {n_asked} times");
    let status = nodes.status()?;
    let invite = invite_of(&nodes.inside)?;
    Ok((status, invite))
}

/// Returns what an invite says to the one who makes it.
fn invite_of(node: &Node) -> Result<String> {
    let mut command = Command::new(NODE);
    command.arg("invite").arg("--config").arg(node.config());
    let made = xtask::lab::process::output(&mut command, LIMIT)?;
    Ok(String::from_utf8(made.stderr)?)
}

#[test]
fn a_port_outside_that_another_host_has_gives_way_to_another_port() {
    let _machine = machine::shared();
    let mut home = Home::new().unwrap();
    home.start(Daemon::All).unwrap();
    home.host
        .ip(&["address", "add", "10.7.1.3/24", "dev", "u0"])
        .unwrap();
    let asked = home.host.bind(|| UdpSocket::bind("10.7.1.3:0")).unwrap();
    asked.connect((GATEWAY, 5351)).unwrap();
    asked.set_read_timeout(Some(PATIENCE)).unwrap();
    // NAT-PMP: TCP port 4001 for ten minutes.
    let question = [0, 2, 0, 0, 0x0f, 0xa1, 0x0f, 0xa1, 0, 0, 2, 88];
    until("the other host has the port", LIMIT, || {
        // The router may not be there yet.
        let sent = asked.send(&question).is_ok();
        let mut answer = [0; 16];
        Ok((sent && asked.recv(&mut answer).is_ok() && answer[..4] == [0, 130, 0, 0]).then_some(()))
    })
    .unwrap();
    let mut nodes = Nodes::prepare(home).unwrap();
    nodes.inside.start().unwrap();

    let status = nodes.wait_for("mapped").unwrap();

    let outside = addresses(&status);
    let tcp = outside[0];
    assert!(tcp.starts_with(&format!("/ip4/{OUTSIDE}/tcp/")), "{tcp}");
    assert!(!tcp.ends_with("/4001"), "{tcp}");
    nodes.connect_at(tcp).unwrap();
}

#[test]
fn a_node_with_a_public_address_asks_nobody() {
    let _machine = machine::shared();
    let mut home = Home::new().unwrap();
    // Behind its router's back: what a server in a data centre has.
    let gateway = OldGateway::start(&home.router, [192, 0, 2, 77]).unwrap();
    home.set_public().unwrap();
    let mut nodes = Nodes::prepare(home).unwrap();
    nodes.inside.start().unwrap();

    let n_asked = gateway
        .serve("the state public", || Ok(nodes.status()?["state"] == "public"))
        .unwrap();

    assert_eq!(n_asked, 0);
}

#[test]
fn a_peer_that_knows_no_address_finds_the_forwarded_one_in_the_dht_and_the_page_shows_it() {
    let _machine = machine::shared();
    let mut home = Home::new().unwrap();
    home.start(Daemon::All).unwrap();
    let mut nodes = Nodes::prepare(home).unwrap();
    // A third node, on the host of the one outside, that both know. It has other addresses inside for them.
    let mut third = Node::new(
        Path::new(NODE),
        &nodes.home.peer,
        nodes.home.directory().path(),
        "third",
    )
    .unwrap();
    let known = |number: u8, id: &str, addresses: Vec<String>| PeerConfig {
        id: id.to_owned(),
        addresses,
        allowed_ips: vec![format!("10.{number}.0.{number}/32")],
    };
    let third_at = vec![format!("/ip4/{PEER}/tcp/4009")];
    let dht = "\n[discovery]\ndht = true\n";
    let (inside, outside) = (nodes.peer(1, Vec::new()), nodes.peer(2, Vec::new()));
    let peers = [&inside, &outside].map(|peer| peer.id.clone());
    let mut of_third = config(
        9,
        &["/ip4/0.0.0.0/tcp/4009"],
        dht,
        known(101, &peers[0], Vec::new()),
    );
    of_third.peers.push(known(102, &peers[1], Vec::new()));
    of_third.addresses = vec!["10.99.0.9/24".to_owned()];
    third.configure(&of_third).unwrap();
    let sections = format!("\n[transport]\nport_mapping = true\n\n[metrics]\nlisten = \"{PAGE}\"\n{dht}");
    let mut of_inside = config(1, &BOTH, &sections, outside);
    of_inside
        .peers
        .push(known(103, third.peer_id(), third_at.clone()));
    nodes.inside.configure(&of_inside).unwrap();
    let mut of_outside = config(2, &[], dht, inside);
    of_outside.peers.push(known(104, third.peer_id(), third_at));
    nodes.outside.configure(&of_outside).unwrap();
    third.start().unwrap();
    nodes.inside.start().unwrap();
    let status = nodes.wait_for("mapped").unwrap();
    let announced =
        |node: &Node| -> Result<Value> { Ok(node.ask::<Value>(&["status"])?["reach"]["announced"].clone()) };
    let mapped: Vec<_> = addresses(&status).into_iter().map(str::to_owned).collect();
    until("the forwarded addresses are announced", LIMIT, || {
        let announced = announced(&nodes.inside)?;
        let first = announced.as_array().map(|all| &all[..all.len().min(2)]);
        Ok((first == Some(&[mapped[0].clone().into(), mapped[1].clone().into()])).then_some(()))
    })
    .unwrap();

    nodes.outside.start().unwrap();

    nodes.outside.wait_connected(&nodes.inside, LIMIT).unwrap();
    let shown: Value = nodes.outside.ask(&["peers"]).unwrap();
    let found = shown["peers"][0]["addresses"].as_array().unwrap();
    for address in &mapped {
        let is_found = |one: &&Value| one["address"] == **address && one["origin"] == "dht";
        assert!(found.iter().any(|one| is_found(&one)), "{address}: {found:?}");
    }
    let at = shown["peers"][0]["address"].as_str().unwrap();
    assert!(mapped.iter().any(|address| at.starts_with(address)), "{at}");
    until("packets cross", LIMIT, || {
        Ok(answers(&nodes.home.peer, [10, 42, 0, 1].into(), PATIENCE)?.then_some(()))
    })
    .unwrap();
    shows_ports(&nodes, &mapped).unwrap();
}

/// The page says what is forwarded, and is no wider than its place.
fn shows_ports(nodes: &Nodes, mapped: &[String]) -> Result<()> {
    let directory = nodes.home.directory().path();
    let mut browser = Browser::open(&nodes.home.host, directory, &format!("http://{PAGE}/"))?;
    let told: Vec<_> = mapped.iter().map(|address| format!("{address} by PCP")).collect();
    let line = format!("Ports that {GATEWAY} forwards: {}.", told.join(", "));
    browser.wait_for(&format!(
        "document.getElementById('ports')?.textContent === '{line}'"
    ))?;
    browser.evaluate("document.querySelectorAll('details').forEach((one) => { one.open = true; }); 0")?;
    for scheme in ["light", "dark"] {
        for width in [390, 1280] {
            browser.show_as(width, scheme)?;
            let sizes = "[document.documentElement, document.getElementById('ports')] \
                         .map((one) => one.scrollWidth - one.clientWidth)";
            assert_eq!(browser.evaluate(sizes)?, json!([0, 0]), "{width} {scheme}");
            browser.picture(&format!("ports-{scheme}-{width}"))?;
        }
    }
    assert!(browser.problems().is_empty(), "{:?}", browser.problems());
    Ok(())
}
