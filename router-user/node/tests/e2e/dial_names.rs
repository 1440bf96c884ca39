//! Peers whose addresses begin with a name, which a real DNS server answers for.

use std::fs::{self, Permissions};
use std::net::UdpSocket;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};
use nix::sys::signal::Signal;
use serde_json::Value;

use crate::support::packets::wait_for_packets;
use crate::support::{NODE, machine};
use xtask::lab::process::{signal, until, wait};
use xtask::lab::{Namespace, Pair, PairPlan, ScratchDir, Transport};

const LIMIT: Duration = Duration::from_secs(40);
const NAME: &str = "vpn.example.test";
/// Where the DNS server is, on the second host.
const SERVER: &str = "192.0.2.53";
/// Where the second node is first, and then.
const FIRST: &str = "192.0.2.12";
const SECOND: &str = "192.0.2.22";

/// A DNS server; ended on drop.
struct DnsServer {
    process: Child,
    hosts: PathBuf,
}

impl DnsServer {
    /// Starts one on a host that knows no name but those of a record.
    fn start(host: &Namespace, directory: &Path, records: &[&str]) -> Result<Self> {
        let hosts = directory.join("hosts");
        fs::write(&hosts, "")?;
        host.ip(&["address", "add", &format!("{SERVER}/24"), "dev", "u0"])?;
        let mut command = host.command("dnsmasq");
        command.args([
            "--keep-in-foreground",
            "--conf-file=/dev/null",
            "--user=root",
            "--pid-file=",
        ]);
        command.args(["--no-resolv", "--no-hosts", "--local=/test/", "--bind-interfaces"]);
        command.arg(format!("--listen-address={SERVER}"));
        command.arg(format!("--addn-hosts={}", hosts.display()));
        command.args(records);
        let process = command.stdin(Stdio::null()).stderr(Stdio::null()).spawn()?;
        let server = Self { process, hosts };
        // Before that a signal would end it.
        until("the server listens", LIMIT, || {
            let is_free = host.enter(|| Ok(UdpSocket::bind((SERVER, 53)).is_ok()))?;
            Ok((!is_free).then_some(()))
        })?;
        Ok(server)
    }

    /// Makes the name stand for these addresses, and no others.
    fn set(&self, addresses: &[&str]) -> Result<()> {
        let lines = addresses.iter().map(|address| format!("{address} {NAME}\n"));
        fs::write(&self.hosts, lines.collect::<String>())?;
        signal(&self.process, Signal::SIGHUP)
    }
}

impl Drop for DnsServer {
    fn drop(&mut self) {
        let ended = signal(&self.process, Signal::SIGTERM).and_then(|()| wait(&mut self.process, LIMIT));
        if let Err(error) = ended {
            eprintln!("cannot stop dnsmasq: {error:#}");
        }
    }
}

/// Makes a program that runs the node with this file of resolvers in place of the system's.
fn node_with_resolvers(directory: &Path, resolvers: &str) -> Result<PathBuf> {
    let (file, program) = (directory.join("resolv.conf"), directory.join("node"));
    fs::write(&file, resolvers)?;
    let enter = format!("mount --bind {} /etc/resolv.conf", file.display());
    let text = format!("#!/bin/sh\nexec unshare --mount sh -c '{enter} && exec {NODE} \"$@\"' sh \"$@\"\n");
    fs::write(&program, text)?;
    fs::set_permissions(&program, Permissions::from_mode(0o755))?;
    Ok(program)
}

/// Makes two nodes of which the first dials the second at these addresses, and the second none.
fn prepare(transport: Transport, addresses: &[&str], records: &[&str]) -> Result<(Pair, DnsServer)> {
    let directory = ScratchDir::unique("dial-names")?;
    let program = node_with_resolvers(directory.path(), &format!("nameserver {SERVER}\n"))?;
    let plan = PairPlan {
        transport,
        ..PairPlan::unique()
    };
    let mut pair = Pair::prepare(&program, &plan, directory)?;
    pair.b
        .host
        .ip(&["address", "add", &format!("{FIRST}/24"), "dev", "u0"])?;
    let server = DnsServer::start(&pair.b.host, pair.directory(), records)?;
    let peer = pair.a.config.peers.first_mut().context("the second is a peer")?;
    peer.addresses = addresses.iter().map(|&address| address.to_owned()).collect();
    pair.a.node.configure(&pair.a.config)?;
    let peer = pair.b.config.peers.first_mut().context("the first is a peer")?;
    peer.addresses.clear();
    pair.b.node.configure(&pair.b.config)?;
    Ok((pair, server))
}

/// Waits until the first node says something of the peer.
fn wait_for(pair: &Pair, what: &str, field: &str, is_it: impl Fn(&str) -> bool) -> Result<()> {
    until(what, LIMIT, || {
        let said: Value = pair.a.node.ask(&["peers"])?;
        let said = said["peers"][0][field].as_str();
        Ok(said.is_some_and(&is_it).then_some(()))
    })?;
    Ok(())
}

#[test]
fn a_peer_is_dialled_where_its_name_says_and_where_it_says_later() {
    let _machine = machine::shared();
    for (transport, address) in [
        (Transport::Tcp, format!("/dns4/{NAME}/tcp/4001")),
        (Transport::Quic, format!("/dns/{NAME}/udp/4001/quic-v1")),
    ] {
        let (mut pair, server) = prepare(transport, &[&address], &[]).unwrap();
        pair.a.node.start().unwrap();
        pair.b.node.start().unwrap();
        let reason = format!("there is no name {NAME} (asked {SERVER})");
        wait_for(&pair, &reason, "last_dial_error", |error| error == reason).unwrap();

        server.set(&["192.0.2.99", FIRST]).unwrap();
        wait_for_packets(&pair).unwrap();

        let host = &pair.b.host;
        host.ip(&["address", "add", &format!("{SECOND}/24"), "dev", "u0"])
            .unwrap();
        host.ip(&["address", "delete", &format!("{FIRST}/24"), "dev", "u0"])
            .unwrap();
        server.set(&[SECOND]).unwrap();
        wait_for(&pair, "the new address", "address", |address| {
            address.contains(SECOND)
        })
        .unwrap();
        wait_for_packets(&pair).unwrap();
    }
}

#[test]
fn a_name_may_stand_for_whole_addresses() {
    let _machine = machine::shared();
    let record = format!("--txt-record=_dnsaddr.{NAME},dnsaddr=/ip4/{FIRST}/tcp/4001");
    let (mut pair, _server) = prepare(Transport::Tcp, &[&format!("/dnsaddr/{NAME}")], &[&record]).unwrap();

    pair.a.node.start().unwrap();
    pair.b.node.start().unwrap();

    wait_for_packets(&pair).unwrap();
}

#[test]
fn a_name_is_looked_up_outside_the_tunnel_that_takes_the_way_to_the_resolver() {
    let _machine = machine::shared();
    let (mut pair, server) = prepare(Transport::Tcp, &[&format!("/dns4/{NAME}/tcp/4001")], &[]).unwrap();
    server.set(&[FIRST]).unwrap();
    let config = fs::read_to_string(pair.a.node.config()).unwrap();
    let config = config.replacen(
        "allowed_ips = [",
        "override = true\nallowed_ips = [\"192.0.2.0/24\", ",
        1,
    );
    fs::write(pair.a.node.config(), config).unwrap();
    pair.a.node.start().unwrap();
    pair.b.node.start().unwrap();
    wait_for_packets(&pair).unwrap();

    pair.b.node.stop(Signal::SIGTERM).unwrap();
    pair.b.node.start().unwrap();

    wait_for_packets(&pair).unwrap();
}

#[test]
fn a_resolver_that_does_not_answer_is_named() {
    let _machine = machine::shared();
    let (mut pair, server) = prepare(Transport::Tcp, &[&format!("/dns4/{NAME}/tcp/4001")], &[]).unwrap();
    drop(server);

    pair.a.node.start().unwrap();

    wait_for(&pair, "the resolver", "last_dial_error", |error| {
        error.starts_with(&format!("cannot look up {NAME}: "))
            && error.ends_with(&format!("(asked {SERVER})"))
    })
    .unwrap();
}
