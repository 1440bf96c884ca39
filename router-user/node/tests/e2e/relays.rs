//! Nodes behind NAT that reach each other through a third, and do not listen: nothing else is tried.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::support::{NODE, machine};
use xtask::lab::probe::{PingPlan, answers};
use xtask::lab::process::until;
use xtask::lab::{
    NatKind, NatLab, NatPlan, Node, NodeConfig, PeerConfig, ScratchDir, Transport, unique_device,
};

const LIMIT: Duration = Duration::from_secs(30);
const PATIENCE: Duration = Duration::from_secs(1);
const SECOND_AT: &str = "/ip4/198.51.100.9/tcp/4002";

fn start(transport: Transport) -> Result<NatLab> {
    let plan = NatPlan {
        kinds: [NatKind::Masquerade; 2],
        transport,
        listens: false,
    };
    NatLab::start(Path::new(NODE), &plan)
}

/// Checks that packets cross both ways, and that both sides say that a relay takes them.
fn check(lab: &NatLab) -> Result<()> {
    for (own, other) in [(0, 1), (1, 0)] {
        lab.nodes[own].wait_connected(&lab.nodes[other], LIMIT)?;
        let pings = PingPlan::new(NatLab::inner(other)).run(&lab.network.hosts[own])?;
        assert_eq!(pings.n_lost(), 0);
        let path = lab.path(own)?.context("it is connected")?;
        assert!(lab.is_relayed(&path), "{path}");
    }
    Ok(())
}

fn reach_each_other(transport: Transport) -> Result<()> {
    let lab = start(transport)?;
    check(&lab)?;
    assert!(lab.relay.status()?.counter("circuits_relayed")? >= 1);
    assert_eq!(lab.relay.status()?.counter("reservations_given")?, 2);
    let served = served(&lab.relay)?;
    assert_eq!(served["reservations"], 2);
    assert!(
        served["circuits"].as_u64() >= Some(1) && served["bytes"].as_u64() > Some(0),
        "{served}"
    );
    Ok(())
}

/// Returns what a relay says that it does.
fn served(relay: &Node) -> Result<Value> {
    Ok(relay.ask::<Value>(&["status"])?["reach"]["serves"].take())
}

/// Changes a node's file.
fn rewrite(node: &Node, change: impl FnOnce(&str) -> String) -> Result<()> {
    let before = fs::read_to_string(node.config())?;
    let after = change(&before);
    ensure!(after != before, "nothing is changed in {before}");
    Ok(fs::write(node.config(), after)?)
}

/// Starts another relay beside the first, for nodes that do not know of it yet.
fn second_relay(lab: &NatLab, directory: &ScratchDir) -> Result<Node> {
    let mut relay = Node::new(Path::new(NODE), &lab.network.middle, directory.path(), "second")?;
    let peer = |node: &Node, number: u8| PeerConfig {
        id: node.peer_id().to_owned(),
        addresses: Vec::new(),
        allowed_ips: vec![format!("10.43.0.{number}/32")],
    };
    relay.configure(&NodeConfig {
        device: unique_device(),
        addresses: vec!["10.43.0.8/24".to_owned()],
        mtu: 1420,
        listen: vec![SECOND_AT.to_owned()],
        sections: "\n[relay]\nserve = true\n".to_owned(),
        peers: vec![peer(&lab.nodes[0], 1), peer(&lab.nodes[1], 2)],
    })?;
    relay.start()?;
    Ok(relay)
}

/// Sends bytes from one node's host to the other's. Returns how long they took.
fn send(lab: &NatLab, bytes: &[u8]) -> Result<Duration> {
    let at = SocketAddr::new(NatLab::inner(1), 7000);
    let listener = lab.network.hosts[1].enter(|| Ok(TcpListener::bind(at)?))?;
    let begun = Instant::now();
    let mut client = lab.network.hosts[0].enter(|| Ok(TcpStream::connect_timeout(&at, LIMIT)?))?;
    let received = thread::scope(|scope| {
        let server = scope.spawn(move || -> Result<Vec<u8>> {
            let (mut stream, _) = listener.accept()?;
            stream.set_read_timeout(Some(LIMIT))?;
            let mut received = Vec::new();
            stream.read_to_end(&mut received)?;
            Ok(received)
        });
        client.write_all(bytes)?;
        drop(client);
        server.join().expect("it does not panic")
    })?;
    ensure!(received == bytes, "{} of {} bytes", received.len(), bytes.len());
    Ok(begun.elapsed())
}

#[test]
fn two_nodes_behind_nat_reach_each_other_through_a_relay_over_tcp() {
    let _machine = machine::shared();
    reach_each_other(Transport::Tcp).unwrap();
}

#[test]
fn two_nodes_behind_nat_reach_each_other_through_a_relay_over_quic() {
    let _machine = machine::shared();
    reach_each_other(Transport::Quic).unwrap();
}

/// Changes whether the file of a node says `relay.via`, and has the running node read it.
fn reload(lab: &NatLab, node: usize, says: bool) -> Result<()> {
    let file = lab.nodes[node].config();
    let line = format!("via = [\"{}\"]\n", lab.relay.peer_id());
    let text = fs::read_to_string(&file)?;
    let text = match says {
        true => text.replace("[relay]\n", &format!("[relay]\n{line}")),
        false => text.replace(&line, ""),
    };
    fs::write(&file, text)?;
    let answer: Value = lab.nodes[node].ask(&["reload"])?;
    assert_eq!(answer["applied"], json!(["relay.via"]), "{answer}");
    assert_eq!(answer["needs_restart"], json!([]), "{answer}");
    Ok(())
}

fn reach(lab: &NatLab, node: usize) -> Result<Value> {
    Ok(lab.nodes[node].ask::<Value>(&["status"])?["reach"].clone())
}

#[test]
fn running_nodes_are_reached_through_a_relay_from_a_reload_on_until_another() {
    let _machine = machine::shared();
    // They listen, so that the relay can see from which port; and their NATs let nothing direct pass.
    let plan = NatPlan {
        kinds: [NatKind::Symmetric; 2],
        transport: Transport::Tcp,
        listens: true,
    };
    let mut lab = NatLab::start(Path::new(NODE), &plan).unwrap();
    check(&lab).unwrap();
    for node in [0, 1] {
        reload(&lab, node, false).unwrap();
        assert_eq!(reach(&lab, node).unwrap()["relays"], json!([]));
    }
    // What stands stays, and nothing comes up again.
    let pings = PingPlan::new(NatLab::inner(1))
        .run(&lab.network.hosts[0])
        .unwrap();
    assert_eq!(pings.n_lost(), 0);
    for node in &mut lab.nodes {
        node.stop(Signal::SIGTERM).unwrap();
        node.start().unwrap();
    }
    for node in &lab.nodes {
        node.wait_connected(&lab.relay, LIMIT).unwrap();
    }
    assert!(!answers(&lab.network.hosts[0], NatLab::inner(1), PATIENCE).unwrap());

    for node in [0, 1] {
        reload(&lab, node, true).unwrap();
    }

    check(&lab).unwrap();
    for node in [0, 1] {
        until("the relay sees the listening port", LIMIT, || {
            let reach = reach(&lab, node)?;
            let is_seen = reach["relays"][0]["held"] == true && reach["seen"][0]["address"].is_string();
            Ok(is_seen.then_some(()))
        })
        .unwrap();
    }
}

#[test]
fn flows_go_on_through_a_relay_that_was_started_anew() {
    let _machine = machine::shared();
    let mut lab = start(Transport::Tcp).unwrap();
    check(&lab).unwrap();

    lab.relay.stop(Signal::SIGTERM).unwrap();
    lab.relay.start().unwrap();

    until("packets cross again", LIMIT, || {
        Ok(answers(&lab.network.hosts[0], NatLab::inner(1), PATIENCE)?.then_some(()))
    })
    .unwrap();
    check(&lab).unwrap();
}

#[test]
fn flows_go_on_through_the_other_relay_when_one_goes_away() {
    let _machine = machine::shared();
    let mut lab = start(Transport::Tcp).unwrap();
    check(&lab).unwrap();
    let directory = ScratchDir::unique("second").unwrap();
    let mut second = second_relay(&lab, &directory).unwrap();
    for node in &mut lab.nodes {
        node.stop(Signal::SIGTERM).unwrap();
        let id = second.peer_id();
        rewrite(node, |text| {
            let both = text.replacen("via = [", &format!("via = [{id:?}, "), 1);
            format!(
                "{both}\n[[peer]]\nid = {id:?}\naddresses = [{SECOND_AT:?}]\nallowed_ips = ['10.43.0.8/32']\n"
            )
        })
        .unwrap();
        node.start().unwrap();
    }
    let has_places = |relay: &Node| Ok((served(relay)?["reservations"] == 2).then_some(()));
    for relay in [&lab.relay, &second] {
        until("both nodes have places at the relay", LIMIT, || has_places(relay)).unwrap();
    }
    let crosses = || Ok(answers(&lab.network.hosts[0], NatLab::inner(1), PATIENCE)?.then_some(()));
    until("packets cross", LIMIT, crosses).unwrap();

    let path = lab.path(0).unwrap().expect("it is connected");
    let (gone, other) = match lab.is_relayed(&path) {
        true => (&mut lab.relay, &second),
        false => (&mut second, &lab.relay),
    };
    gone.stop(Signal::SIGKILL).unwrap();
    let other = other.peer_id().to_owned();
    let host = &lab.network.hosts[0];
    let (_, took) = until("packets cross again", LIMIT, || {
        Ok(answers(host, NatLab::inner(1), PATIENCE)?.then_some(()))
    })
    .unwrap();
    eprintln!("packets cross through the other relay {took:?} after one was killed");
    let path = lab.path(0).unwrap().expect("it is connected");
    assert!(path.starts_with(&format!("/p2p/{other}/p2p-circuit")), "{path}");
}

#[test]
fn a_relay_keeps_its_rate_from_a_reload_on_and_loses_no_byte() {
    let _machine = machine::shared();
    const RATE: usize = 400_000;
    let lab = start(Transport::Tcp).unwrap();
    check(&lab).unwrap();
    let bytes: Vec<u8> = (0..3 * RATE as u32).map(|n| (n % 251) as u8).collect();
    let free = send(&lab, &bytes).unwrap();

    rewrite(&lab.relay, |text| {
        text.replacen("serve = true", &format!("serve = true\nmax_rate = {RATE}"), 1)
    })
    .unwrap();
    let reload = lab.relay.ask::<Value>(&["reload"]).unwrap();
    assert_eq!(
        reload["applied"],
        serde_json::json!(["relay.max_rate"]),
        "{reload}"
    );

    let before = served(&lab.relay).unwrap();
    let took = send(&lab, &bytes).unwrap();
    eprintln!(
        "{} bytes took {free:?} without a rate, {took:?} at {RATE} bytes per second",
        bytes.len()
    );
    let rate = bytes.len() as f64 / took.as_secs_f64();
    assert!(rate <= 1.2 * RATE as f64, "{rate} bytes per second");
    let after = served(&lab.relay).unwrap();
    let relayed = |served: &Value| served["bytes"].as_u64().expect("a number");
    assert!(relayed(&after) - relayed(&before) >= bytes.len() as u64);
}
