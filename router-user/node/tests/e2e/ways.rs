//! How a node's TCP connections leave its host: through a real proxy, with a congestion control, over Multipath TCP.

mod web_server;

use std::fs;
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};
use nix::sys::signal::Signal;
use serde_json::Value;

use crate::support::packets::wait_for_packets;
use crate::support::{NODE, machine};
use xtask::lab::probe::PingPlan;
use xtask::lab::process::{signal, text, until, wait};
use xtask::lab::{Namespace, Pair, PairPlan, ScratchDir};

const LIMIT: Duration = Duration::from_secs(40);

/// Where the proxy is, on the second host, and the second node itself.
const PROXY: &str = "192.0.2.8";
const NODE_AT: &str = "192.0.2.12";

/// A name that only the proxy's file of hosts has.
const NAME: &str = "vpn.inner.test";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Http,
    Socks5,
}

impl Kind {
    fn port(self) -> u16 {
        match self {
            Self::Http => 3128,
            Self::Socks5 => 1080,
        }
    }

    fn url(self, password: &str) -> String {
        let scheme = match self {
            Self::Http => "http",
            Self::Socks5 => "socks5",
        };
        format!("{scheme}://node:{password}@{PROXY}:{}", self.port())
    }
}

/// A proxy that connects to port 4001 for those who know a password; ended on drop.
struct Proxy(Child);

impl Proxy {
    fn start(kind: Kind, host: &Namespace, directory: &Path) -> Result<Self> {
        let hosts = directory.join("hosts");
        fs::write(&hosts, format!("{NODE_AT} {NAME}\n"))?;
        let program = match kind {
            Kind::Http => {
                let config = directory.join("tinyproxy.conf");
                let text = format!(
                    "Port {}\nListen {PROXY}\nTimeout 60\nBasicAuth node secret\nConnectPort 4001\n",
                    kind.port()
                );
                fs::write(&config, text)?;
                format!("tinyproxy -d -c {}", config.display())
            }
            Kind::Socks5 => format!("microsocks -i {PROXY} -p {} -u node -P secret", kind.port()),
        };
        let script = format!("mount --bind {} /etc/hosts && exec {program}", hosts.display());
        let mut command: Command = host.command("unshare");
        command.args(["--mount", "sh", "-c", &script]);
        let log = fs::File::create(directory.join(format!("{kind:?}.log")))?;
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let proxy = Self(command.spawn()?);
        until("the proxy listens", LIMIT, || {
            let reached = host.enter(|| Ok(TcpStream::connect((PROXY, kind.port())).is_ok()))?;
            Ok(reached.then_some(()))
        })?;
        Ok(proxy)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let ended = signal(&self.0, Signal::SIGTERM).and_then(|()| wait(&mut self.0, LIMIT));
        if let Err(error) = ended {
            eprintln!("cannot stop the proxy: {error:#}");
        }
    }
}

/// Makes two nodes of which the first reaches nothing of the second's host but the proxies, and dials these addresses.
fn prepare(addresses: &[&str]) -> Result<Pair> {
    let directory = ScratchDir::unique("ways")?;
    let mut pair = Pair::prepare(Path::new(NODE), &PairPlan::unique(), directory)?;
    let host = &pair.b.host;
    for address in [PROXY, NODE_AT] {
        host.ip(&["address", "add", &format!("{address}/24"), "dev", "u0"])?;
    }
    let wall = "table inet wall { chain input { type filter hook input priority 0; \
                iifname u0 tcp dport 4001 drop; iifname u0 udp dport 4001 drop; }; }";
    text(host.command("nft").arg(wall), LIMIT)?;
    let peer = pair.a.config.peers.first_mut().context("the second is a peer")?;
    peer.addresses = addresses.iter().map(|&address| address.to_owned()).collect();
    let peer = pair.b.config.peers.first_mut().context("the first is a peer")?;
    peer.addresses.clear();
    pair.b.node.configure(&pair.b.config)?;
    pair.b.node.start()?;
    Ok(pair)
}

fn start(pair: &mut Pair, transport: &str) -> Result<()> {
    pair.a.config.sections = format!("\n[transport]\n{transport}\n");
    pair.a.node.configure(&pair.a.config)?;
    pair.a.node.start()?;
    Ok(())
}

fn wait_for_error(pair: &Pair, expected: &str) -> Result<()> {
    until(expected, LIMIT, || {
        let said: Value = pair.a.node.ask(&["peers"])?;
        let said = said["peers"][0]["last_dial_error"].as_str();
        Ok(said.is_some_and(|error| error.contains(expected)).then_some(()))
    })?;
    Ok(())
}

/// Names the proxy, with the password in a file of its own.
fn with_password_file(kind: Kind, directory: &Path, password: &str) -> Result<String> {
    let path = directory.join("password");
    fs::write(&path, format!("{password}\n"))?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600))?;
    let url = kind.url("x").replace(":x@", "@");
    Ok(format!("proxy = {url:?}\nproxy_password_file = {path:?}"))
}

fn goes_through(kind: Kind, refusals: &[(&str, &str)]) -> Result<()> {
    let by_ip = format!("/ip4/{NODE_AT}/tcp/4001");
    let mut pair = prepare(&[&by_ip])?;
    let proxy = Proxy::start(kind, &pair.b.host, pair.directory())?;
    for (password, error) in refusals {
        start(&mut pair, &format!("proxy = \"{}\"", kind.url(password)))?;
        wait_for_error(&pair, error)?;
        let log = pair.a.node.log()?;
        assert!(!log.contains(password), "{log}");
        pair.a.node.stop(Signal::SIGTERM)?;
    }

    let by_name = format!("/dns4/{NAME}/tcp/4001");
    for address in [by_ip, by_name] {
        pair.a.config.peers[0].addresses = vec![address.clone()];
        let section = with_password_file(kind, pair.directory(), "secret")?;
        start(&mut pair, &section)?;
        wait_for_packets(&pair)?;
        let pings = PingPlan::new(pair.b.v6).run(&pair.a.host)?;
        assert_eq!(pings.n_lost(), 0, "{address}");
        pair.a.node.stop(Signal::SIGTERM)?;
    }
    drop(proxy);

    start(&mut pair, &format!("proxy = \"{}\"", kind.url("secret")))?;
    wait_for_error(&pair, "onnection refused")
}

#[test]
fn a_peer_behind_an_http_proxy_is_reached_through_it_alone() {
    let _machine = machine::shared();
    goes_through(
        Kind::Http,
        &[("wrong-password", "wants a user name and a password")],
    )
    .unwrap();
}

#[test]
fn a_peer_behind_a_socks_proxy_is_reached_through_it_alone() {
    let _machine = machine::shared();
    goes_through(Kind::Socks5, &[("wrong-password", "assword")]).unwrap();
}

#[test]
fn what_a_proxy_refuses_or_cannot_carry_is_said_and_an_exception_is_dialled_directly() {
    let _machine = machine::shared();
    let (tcp, quic) = (
        format!("/ip4/{NODE_AT}/tcp/4002"),
        format!("/ip4/{NODE_AT}/udp/4001/quic-v1"),
    );
    let mut pair = prepare(&[&tcp]).unwrap();
    let _proxy = Proxy::start(Kind::Http, &pair.b.host, pair.directory()).unwrap();
    let url = Kind::Http.url("secret");
    start(&mut pair, &format!("proxy = \"{url}\"")).unwrap();
    wait_for_error(&pair, "the proxy answers 403 Forbidden").unwrap();
    pair.a.node.stop(Signal::SIGTERM).unwrap();

    pair.a.config.peers[0].addresses = vec![quic];
    start(&mut pair, &format!("proxy = \"{url}\"")).unwrap();
    wait_for_error(&pair, "carries TCP alone").unwrap();
    pair.a.node.stop(Signal::SIGTERM).unwrap();

    text(pair.b.host.command("nft").arg("delete table inet wall"), LIMIT).unwrap();
    pair.a.config.peers[0].addresses = vec![format!("/ip4/{NODE_AT}/tcp/4001")];
    start(
        &mut pair,
        &format!("proxy = \"{url}\"\nno_proxy = [\"{NODE_AT}\"]"),
    )
    .unwrap();
    wait_for_packets(&pair).unwrap();
}

#[test]
fn connections_have_the_congestion_control_and_the_protocol_that_the_file_says() {
    let _machine = machine::shared();
    let mut pair = Pair::prepare(
        Path::new(NODE),
        &PairPlan::unique(),
        ScratchDir::unique("ways").unwrap(),
    )
    .unwrap();
    for side in [&mut pair.a, &mut pair.b] {
        side.config.sections = "\n[transport]\ncongestion = \"reno\"\nmptcp = true\n".to_owned();
        side.node.configure(&side.config).unwrap();
    }
    pair.start_nodes().unwrap();

    for side in [&pair.a, &pair.b] {
        let connections = [
            "-tinH",
            "state",
            "established",
            "( sport = :4001 or dport = :4001 )",
        ];
        let shown = text(side.host.command("ss").args(connections), LIMIT).unwrap();
        assert!(
            shown.contains(" reno ") && shown.contains("tcp-ulp-mptcp"),
            "{shown}"
        );
    }
    assert_eq!(PingPlan::new(pair.b.v4).run(&pair.a.host).unwrap().n_lost(), 0);

    // A peer that does not take part gets TCP.
    pair.b.node.stop(Signal::SIGTERM).unwrap();
    pair.b.config.sections.clear();
    pair.b.node.configure(&pair.b.config).unwrap();
    pair.b.node.start().unwrap();
    wait_for_packets(&pair).unwrap();
}

#[test]
fn a_congestion_control_that_the_kernel_lacks_ends_the_node_with_those_that_it_has() {
    let _machine = machine::shared();
    let directory = ScratchDir::unique("ways").unwrap();
    let mut pair = Pair::prepare(Path::new(NODE), &PairPlan::unique(), directory).unwrap();
    pair.a.config.sections = "\n[transport]\ncongestion = \"no-such\"\n".to_owned();
    pair.a.node.configure(&pair.a.config).unwrap();

    let error = format!("{:#}", pair.a.node.start().unwrap_err());

    assert!(
        error.contains("cannot use the congestion control no-such: the kernel has reno"),
        "{error}"
    );
}
