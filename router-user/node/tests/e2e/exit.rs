//! A peer as the way to everywhere, networks of peers that are the host's own, and packets that leave in the clear while a
//! node does not run: none.

use std::collections::BTreeSet;
use std::fs;
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;

use crate::support::{NODE, machine};
use xtask::lab::probe::Gate;
use xtask::lab::process::{output, text, until};
use xtask::lab::{Namespace, NodeConfig, Pair, PairPlan, ScratchDir, Transport, Underlay, link};

const LIMIT: Duration = Duration::from_secs(20);
const PAGE: &str = "a page of the network behind";
/// Addresses of the host behind the second node.
const FAR: [&str; 2] = ["198.51.100.2", "2001:db8:5::2"];
const FAR_NETS: [&str; 2] = ["198.51.100.0/24", "2001:db8:5::/64"];
const UDP_PORT: u16 = 7400;
const ALL: [&str; 2] = ["0.0.0.0/0", "::/0"];

/// A pair of nodes of which the second host is the first one's default router as well, and has a web server behind it. The
/// first node dials the second at an address that only its default route leads to.
struct Scene {
    pair: Pair,
    far: Namespace,
    own: Vec<String>,
}

impl Scene {
    /// Makes hosts and cables; no node runs.
    fn new(transport: Transport, underlay: Underlay) -> Result<Self> {
        let plan = PairPlan {
            transport,
            ..PairPlan::unique()
        };
        let mut pair = Pair::prepare(Path::new(NODE), &plan, ScratchDir::unique("exit")?)?;
        let far = Namespace::unique("far")?;
        link(
            (&pair.b.host, "out0", &["198.51.100.1/24", "2001:db8:5::1/64"]),
            (&far, "eth0", &["198.51.100.2/24", "2001:db8:5::2/64"]),
        )?;
        for (side, own) in [(&pair.a, "2001:db8::1/64"), (&pair.b, "2001:db8::2/64")] {
            side.host.ip(&["address", "add", own, "dev", "u0", "nodad"])?;
        }
        pair.a.host.ip(&["route", "add", "default", "via", "192.0.2.2"])?;
        pair.a
            .host
            .ip(&["-6", "route", "add", "default", "via", "2001:db8::2"])?;
        for [address, length] in [["203.0.113.2", "32"], ["2001:db8:ff::2", "128"]] {
            let address = format!("{address}/{length}");
            pair.b.host.ip(&["address", "add", &address, "dev", "lo"])?;
        }
        let port = match transport {
            Transport::Tcp => "tcp/4001",
            Transport::Quic => "udp/4001/quic-v1",
        };
        let (at, any) = match underlay {
            Underlay::V4 => ("/ip4/203.0.113.2", "/ip4/0.0.0.0"),
            Underlay::V6 => ("/ip6/2001:db8:ff::2", "/ip6/::"),
        };
        pair.a.config.peers[0].addresses = vec![format!("{at}/{port}")];
        pair.a.config.listen = Vec::new();
        pair.b.config.peers[0].addresses = Vec::new();
        pair.b.config.listen = vec![format!("{any}/{port}")];
        pair.b.config.sections = "\n[exit]\nserve = true\n".to_owned();
        pair.b.node.configure(&pair.b.config)?;
        // What leaves in the clear is seen at the other end of the cable, as it arrives.
        let seen = "table inet seen { counter clear {}; chain arriving { type filter hook prerouting priority raw; \
                    iifname u0 ip daddr 198.51.100.0/24 counter name clear; iifname u0 ip6 daddr 2001:db8:5::/64 counter \
                    name clear; }; }";
        text(pair.b.host.command("nft").arg(seen), LIMIT)?;
        let own = pair.a.config.peers[0].allowed_ips.clone();
        Ok(Self { pair, far, own })
    }

    /// Lets the first node have these networks behind the second besides its own.
    fn with_networks(&mut self, networks: &[&str]) -> Result<()> {
        let own = self.own.iter().cloned();
        let networks = networks.iter().map(|net| (*net).to_owned());
        self.pair.a.config.peers[0].allowed_ips = own.chain(networks).collect();
        self.pair.a.node.configure(&self.pair.a.config)
    }

    fn reload_with(&mut self, networks: &[&str]) -> Result<String> {
        self.with_networks(networks)?;
        self.reload()
    }

    fn reload(&self) -> Result<String> {
        let socket = self.pair.a.node.socket();
        text(
            self.pair
                .a
                .host
                .command(NODE)
                .arg("reload")
                .arg("--socket")
                .arg(socket),
            LIMIT,
        )
    }

    fn connect(&self) -> Result<()> {
        self.pair.a.node.wait_connected(&self.pair.b.node, LIMIT)?;
        self.pair.b.node.wait_connected(&self.pair.a.node, LIMIT)?;
        Ok(())
    }

    /// Packets to the network behind that have left the first host in the clear so far.
    fn n_clear(&self) -> Result<u64> {
        let listed = ["-j", "list", "counter", "inet", "seen", "clear"];
        let json = text(self.pair.b.host.command("nft").args(listed), LIMIT)?;
        let json: serde_json::Value = serde_json::from_str(&json)?;
        let counters = json["nftables"].as_array().context("a list")?;
        let found = counters
            .iter()
            .find_map(|entry| entry["counter"]["packets"].as_u64());
        found.context("a counter")
    }

    /// What the web server says to the first host, and who it says that it has heard.
    fn fetch(&self, at: &str) -> Result<(String, IpAddr)> {
        let at = SocketAddr::new(at.parse()?, 80);
        let server = self.far.bind(|| TcpListener::bind(at))?;
        thread::scope(|scope| {
            let served = scope.spawn(move || -> Result<IpAddr> {
                let (mut stream, from) = server.accept()?;
                let mut request = [0; 512];
                let n = stream.read(&mut request)?;
                ensure!(request[..n].starts_with(b"GET / "), "a request");
                write!(
                    stream,
                    "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{PAGE}",
                    PAGE.len()
                )?;
                Ok(from.ip())
            });
            let fetched = self.pair.a.host.enter(|| {
                let mut stream = TcpStream::connect_timeout(&at, LIMIT)?;
                stream.set_read_timeout(Some(LIMIT))?;
                write!(stream, "GET / HTTP/1.1\r\nHost: far\r\nConnection: close\r\n\r\n")?;
                let mut answer = String::new();
                stream.read_to_string(&mut answer)?;
                Ok(answer)
            })?;
            let from = served.join().expect("the server does not panic")?;
            Ok((fetched, from))
        })
    }

    /// Sends to the network behind all the time, over IPv4 and IPv6, while `meanwhile` runs; returns how much arrived.
    fn under_traffic(&mut self, meanwhile: impl FnOnce(&mut Self, &AtomicU64) -> Result<()>) -> Result<u64> {
        let stop = Gate::default();
        let arrived = AtomicU64::new(0);
        let senders = [0, 1].map(|family: usize| {
            let any = ["0.0.0.0:0", "[::]:0"][family];
            self.pair.a.host.enter(|| Ok(UdpSocket::bind(any)?))
        });
        let receivers = FAR.map(|far| {
            let far: IpAddr = far.parse()?;
            self.far.bind(|| UdpSocket::bind((far, UDP_PORT)))
        });
        thread::scope(|scope| {
            let (stop, arrived) = (&stop, &arrived);
            let ended = stop.open_on_drop();
            for (sender, far) in senders.into_iter().zip(FAR) {
                let (sender, to) = (sender?, SocketAddr::new(far.parse()?, UDP_PORT));
                scope.spawn(move || {
                    while !stop.pause(Duration::from_millis(2)) {
                        // Whether the host takes it is what this is about.
                        let _refused = sender.send_to(b"not to be read by others", to);
                    }
                });
            }
            for receiver in receivers {
                let receiver = receiver?;
                receiver.set_read_timeout(Some(Duration::from_millis(50)))?;
                scope.spawn(move || {
                    while !stop.is_open() {
                        arrived.fetch_add(u64::from(receiver.recv(&mut [0; 64]).is_ok()), Relaxed);
                    }
                });
            }
            let done = meanwhile(self, arrived);
            drop(ended);
            done
        })?;
        Ok(arrived.load(Relaxed))
    }
}

/// A TCP connection from the first host to the network behind.
struct Flow([TcpStream; 2]);

impl Flow {
    fn open(scene: &Scene) -> Result<Self> {
        let at = SocketAddr::new(FAR[0].parse()?, 7401);
        let listener = scene.far.bind(|| TcpListener::bind(at))?;
        let near = scene
            .pair
            .a
            .host
            .enter(|| Ok(TcpStream::connect_timeout(&at, LIMIT)?))?;
        let ends = [near, listener.accept()?.0];
        for end in &ends {
            end.set_read_timeout(Some(LIMIT))?;
        }
        Ok(Self(ends))
    }

    fn exchange(&mut self) -> Result<()> {
        let [near, far] = &mut self.0;
        let mut heard = [0; 4];
        near.write_all(b"ping")?;
        far.read_exact(&mut heard)?;
        far.write_all(b"pong")?;
        near.read_exact(&mut heard)?;
        ensure!(&heard == b"pong", "{heard:?}");
        Ok(())
    }
}

/// What somebody may delete of a running node's rules and routes: each rule, each route to the network behind, and all of
/// the node's own table.
fn deletions(scene: &Scene) -> Result<Vec<Vec<String>>> {
    let mut all: Vec<Vec<String>> = Vec::new();
    let words = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    for rule in scene
        .pair
        .a
        .host
        .ip(&["rule"])?
        .lines()
        .filter(|rule| rule.contains("0x2053"))
    {
        let (priority, what) = rule.split_once(':').context("a priority")?;
        all.push(words(&format!("rule delete priority {priority}")));
        if let Some((_, table)) = what.split_once("lookup ") {
            all.push(words(&format!("route flush table {table}")));
        }
    }
    if all.is_empty() {
        for (family, net) in ["-4", "-6"].into_iter().zip(FAR_NETS) {
            all.push(words(&format!(
                "{family} route delete {net} dev {}",
                scene.pair.a.config.device
            )));
            all.push(words(&format!(
                "{family} route delete unreachable {net} metric {}",
                metric(scene, family, net)?
            )));
        }
    }
    Ok(all)
}

/// Rules and routes of the first host, in no order.
fn routing(scene: &Scene) -> Result<BTreeSet<String>> {
    let mut all = BTreeSet::new();
    for shown in [
        &["rule"][..],
        &["-6", "rule"],
        &["route", "show", "table", "all"],
        &["-6", "route", "show", "table", "all"],
    ] {
        let lines = scene.pair.a.host.ip(shown)?;
        all.extend(lines.lines().map(|line| line.trim().to_owned()));
    }
    Ok(all)
}

fn metric(scene: &Scene, family: &str, net: &str) -> Result<String> {
    let shown = scene
        .pair
        .a
        .host
        .ip(&[family, "route", "show", net, "type", "unreachable"])?;
    let mut words = shown.split_whitespace().skip_while(|word| *word != "metric");
    Ok(words.nth(1).context("a metric")?.to_owned())
}

/// Waits until more has arrived than now.
fn wait_for_more(arrived: &AtomicU64) -> Result<()> {
    let before = arrived.load(Relaxed);
    until("packets arrive", LIMIT, || {
        Ok((arrived.load(Relaxed) > before + 20).then_some(()))
    })?;
    Ok(())
}

#[test]
fn a_page_comes_through_an_exit_over_both_protocols_and_nothing_leaves_in_the_clear() {
    let _machine = machine::shared();
    for (transport, underlay) in [
        (Transport::Tcp, Underlay::V4),
        (Transport::Quic, Underlay::V4),
        (Transport::Tcp, Underlay::V6),
        (Transport::Quic, Underlay::V6),
    ] {
        let mut scene = Scene::new(transport, underlay).unwrap();
        scene.with_networks(&ALL).unwrap();
        scene.pair.start_nodes().unwrap();

        for (at, own) in FAR.into_iter().zip(["198.51.100.1", "2001:db8:5::1"]) {
            let (page, from) = scene.fetch(at).unwrap();
            assert!(page.ends_with(PAGE), "{page}");
            assert_eq!(from.to_string(), own, "the exit's address");
        }

        assert_eq!(scene.n_clear().unwrap(), 0);
        // A firewall that is loaded anew takes all tables away.
        let table = format!("stream_router_{}", scene.pair.b.config.device.replace('-', "."));
        text(
            scene
                .pair
                .b
                .host
                .command("nft")
                .args(["delete", "table", "inet", &table]),
            LIMIT,
        )
        .unwrap();
        until("the table is back", LIMIT, || {
            let listed = output(
                scene
                    .pair
                    .b
                    .host
                    .command("nft")
                    .args(["list", "table", "inet", &table]),
                LIMIT,
            )?;
            Ok(listed.status.success().then_some(()))
        })
        .unwrap();
        assert!(scene.fetch(FAR[0]).unwrap().0.ends_with(PAGE));
        // The LAN is not the exit's.
        let lan = scene.pair.a.host.ip(&["route", "get", "192.0.2.2"]).unwrap();
        assert!(lan.contains("dev u0"), "{lan}");
        scene.pair.b.node.stop(Signal::SIGTERM).unwrap();
        let left = text(scene.pair.b.host.command("nft").args(["list", "tables"]), LIMIT).unwrap();
        assert_eq!(left.trim(), "table inet seen", "the exit removes its table");
        let forwards = scene
            .pair
            .b
            .host
            .enter(|| Ok(fs::read_to_string("/proc/sys/net/ipv4/ip_forward")?));
        assert_eq!(forwards.unwrap().trim(), "1", "others may have come to need it");
    }
}

#[test]
fn an_exit_is_used_where_sources_are_checked_strictly() {
    let _machine = machine::shared();
    let mut scene = Scene::new(Transport::Quic, Underlay::V4).unwrap();
    let strict = scene
        .pair
        .a
        .host
        .enter(|| Ok(fs::write("/proc/sys/net/ipv4/conf/all/rp_filter", "1")?));
    strict.unwrap();
    scene.with_networks(&ALL).unwrap();
    scene.pair.start_nodes().unwrap();

    let (page, _) = scene.fetch(FAR[0]).unwrap();

    assert!(page.ends_with(PAGE), "{page}");
    assert_eq!(scene.n_clear().unwrap(), 0);
}

#[test]
fn a_reload_turns_an_exit_on_and_off_and_what_stays_in_the_tunnel_never_leaves_it() {
    let _machine = machine::shared();
    let mut scene = Scene::new(Transport::Tcp, Underlay::V4).unwrap();
    scene.with_networks(&FAR_NETS).unwrap();
    scene.pair.start_nodes().unwrap();
    let dial_failures = |scene: &Scene| {
        let status = scene.pair.a.node.status().unwrap();
        assert!(status.is_connected(scene.pair.b.node.peer_id()));
        status.counter("dial_failures").unwrap()
    };
    let before = dial_failures(&scene);

    let n_arrived = scene
        .under_traffic(|scene, arrived| {
            wait_for_more(arrived)?;
            for networks in [
                &ALL[..],
                &["0.0.0.0/1", "128.0.0.0/1", "::/1", "8000::/1"],
                &FAR_NETS,
                &ALL,
            ] {
                scene.reload_with(networks)?;
                wait_for_more(arrived)?;
                ensure!(
                    scene.n_clear()? == 0,
                    "{networks:?}: {} in the clear",
                    scene.n_clear()?
                );
            }
            Ok(())
        })
        .unwrap();

    assert!(n_arrived > 80, "{n_arrived}");
    assert_eq!(
        dial_failures(&scene),
        before,
        "the node's own packets stay outside"
    );
    let rules = scene.pair.a.host.ip(&["rule"]).unwrap();
    assert!(
        rules.contains("suppress_prefixlength 0") && rules.contains("not from all fwmark 0x2053"),
        "{rules}"
    );
    scene.reload_with(&[]).unwrap();
    let rules = scene.pair.a.host.ip(&["rule"]).unwrap();
    assert_eq!(rules.lines().count(), 3, "{rules}");
    let direct = scene.pair.a.host.ip(&["route", "get", FAR[0]]).unwrap();
    assert!(direct.contains("dev u0"), "{direct}");
}

#[test]
fn nothing_leaves_in_the_clear_while_a_node_is_started_anew_its_device_is_down_or_its_peer_is_away() {
    let _machine = machine::shared();
    for networks in [FAR_NETS, ALL] {
        let mut scene = Scene::new(Transport::Tcp, Underlay::V4).unwrap();
        scene.with_networks(&networks).unwrap();
        scene.pair.start_nodes().unwrap();
        let device = scene.pair.a.config.device.clone();
        let mut flow = Flow::open(&scene).unwrap();

        let n_arrived = scene
            .under_traffic(|scene, arrived| {
                wait_for_more(arrived)?;
                flow.exchange()?;
                for signal in [Signal::SIGTERM, Signal::SIGKILL] {
                    scene.pair.a.node.stop(signal)?;
                    let (kept, _) = (scene.pair.a.host.ip(&["route", "get", FAR[0]]), ());
                    ensure!(kept.is_err(), "{signal}: {kept:?}");
                    scene.pair.a.node.start()?;
                    scene.connect()?;
                    wait_for_more(arrived)?;
                    ensure!(
                        scene.n_clear()? == 0,
                        "{signal}: {} in the clear",
                        scene.n_clear()?
                    );
                }
                for deletion in deletions(scene)? {
                    let deletion: Vec<_> = deletion.iter().map(String::as_str).collect();
                    let before = routing(scene)?;
                    scene.pair.a.host.ip(&deletion)?;
                    until("what was deleted is back", LIMIT, || {
                        Ok((routing(scene)? == before).then_some(()))
                    })?;
                    wait_for_more(arrived)?;
                    ensure!(
                        scene.n_clear()? == 0,
                        "{deletion:?}: {} in the clear",
                        scene.n_clear()?
                    );
                }
                scene.pair.a.host.ip(&["link", "set", &device, "down"])?;
                wait_for_more(arrived)?;
                ensure!(
                    scene.n_clear()? == 0,
                    "device down: {} in the clear",
                    scene.n_clear()?
                );
                scene.pair.a.host.ip(&["link", "delete", &device])?;
                scene.pair.a.node.wait_ended(LIMIT)?;
                scene.pair.a.node.start()?;
                wait_for_more(arrived)?;
                ensure!(
                    scene.n_clear()? == 0,
                    "device deleted: {} in the clear",
                    scene.n_clear()?
                );
                Ok(())
            })
            .unwrap();

        assert!(n_arrived > 80, "{n_arrived}");
    }
}

#[test]
fn a_peer_that_is_removed_and_added_leaves_its_networks_blocked_in_between() {
    let _machine = machine::shared();
    let mut scene = Scene::new(Transport::Tcp, Underlay::V4).unwrap();
    scene.with_networks(&FAR_NETS).unwrap();
    scene.pair.start_nodes().unwrap();

    scene
        .under_traffic(|scene, arrived| {
            wait_for_more(arrived)?;
            let with_peer = scene.pair.a.config.clone();
            scene.pair.a.node.configure(&NodeConfig {
                peers: Vec::new(),
                ..with_peer.clone()
            })?;
            let said = scene.reload()?;
            ensure!(said.contains("packets to 198.51.100.0/24 go nowhere"), "{said}");
            scene.pair.a.node.configure(&with_peer)?;
            scene.reload()?;
            scene.connect()?;
            wait_for_more(arrived)
        })
        .unwrap();

    assert_eq!(scene.n_clear().unwrap(), 0);
    // Nobody blocks what no configuration names any more.
    scene.reload_with(&[]).unwrap();
    assert!(
        scene
            .pair
            .a
            .host
            .ip(&["route", "get", FAR[0]])
            .unwrap()
            .contains("dev u0")
    );
}

#[test]
fn what_a_stop_leaves_is_as_the_configuration_says_and_purge_removes_it() {
    let _machine = machine::shared();
    let mut scene = Scene::new(Transport::Tcp, Underlay::V4).unwrap();
    let blocked = |scene: &Scene| {
        let shown = scene
            .pair
            .a
            .host
            .ip(&["route", "show", "table", "all", "type", "unreachable"])
            .unwrap();
        let rules = scene.pair.a.host.ip(&["rule"]).unwrap();
        (shown.contains("metric 4"), rules.lines().count() > 3)
    };
    let command = |scene: &Scene, name: &str| {
        let mut command = scene.pair.a.host.command(NODE);
        command.arg(name).arg("--config").arg(scene.pair.a.node.config());
        output(&mut command, LIMIT).unwrap()
    };
    for (on_stop, signal, expected) in [
        ("", Signal::SIGINT, false),
        ("", Signal::SIGTERM, true),
        ("on_stop = \"remove\"", Signal::SIGTERM, false),
        ("on_stop = \"block\"", Signal::SIGINT, true),
    ] {
        scene.with_networks(&ALL).unwrap();
        let file = scene.pair.a.node.config();
        let written = fs::read_to_string(&file).unwrap();
        fs::write(
            &file,
            written.replace("[device]\n", &format!("[device]\n{on_stop}\n")),
        )
        .unwrap();
        scene.pair.a.node.start().unwrap();
        assert!(!command(&scene, "purge").status.success(), "a node runs");

        scene.pair.a.node.stop(signal).unwrap();

        assert_eq!(blocked(&scene), (expected, expected), "{on_stop} {signal}");
        let doctor = String::from_utf8(command(&scene, "doctor").stdout).unwrap();
        assert_eq!(doctor.contains("stream-router purge"), expected, "{doctor}");
        let purged = command(&scene, "purge");
        assert!(purged.status.success(), "{purged:?}");
        assert_eq!(
            String::from_utf8_lossy(&purged.stdout).contains("removed"),
            expected
        );
        assert_eq!(blocked(&scene), (false, false));
    }
}

#[test]
fn a_service_that_is_stopped_leaves_nothing_and_one_that_is_started_anew_stays_blocked() {
    let _machine = machine::shared();
    let mut scene = Scene::new(Transport::Tcp, Underlay::V4).unwrap();
    scene.with_networks(&FAR_NETS).unwrap();
    scene.pair.a.node.start().unwrap();
    scene.pair.a.node.stop(Signal::SIGKILL).unwrap();
    // systemd itself needs a machine of its own; what it says of its jobs is all that counts here.
    let directory = ScratchDir::unique("systemctl").unwrap();
    let program = directory.path().join("systemctl");
    let path = std::env::join_paths(
        std::iter::once(directory.path().to_owned())
            .chain(std::env::split_paths(&std::env::var_os("PATH").unwrap())),
    )
    .unwrap();
    let purge_with = |job: &str| {
        fs::write(&program, format!("#!/bin/sh\necho '{job}'\n")).unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        let mut command = scene.pair.a.host.command(NODE);
        command.args(["purge", "--after-stop", "stream-router.service", "--config"]);
        command.arg(scene.pair.a.node.config()).env("PATH", &path);
        let ended = output(&mut command, LIMIT).unwrap();
        assert!(ended.status.success(), "{ended:?}");
        scene.pair.a.host.ip(&["route", "get", FAR[0]])
    };

    for job in [
        "",
        "7 stream-router.service restart running",
        "8 other.service stop running",
    ] {
        assert!(purge_with(job).is_err(), "{job}");
    }
    assert!(
        purge_with("9 stream-router.service stop running")
            .unwrap()
            .contains("dev u0")
    );
}

#[test]
fn a_network_of_the_host_is_refused_with_both_named_unless_the_peer_is_to_go_first() {
    let _machine = machine::shared();
    let mut scene = Scene::new(Transport::Tcp, Underlay::V4).unwrap();
    scene.pair.start_nodes().unwrap();
    let host = &scene.pair.a.host;
    host.ip(&["link", "add", "lan0", "type", "veth", "peer", "name", "lan1"])
        .unwrap();
    for end in ["lan0", "lan1"] {
        host.ip(&["link", "set", end, "up"]).unwrap();
    }
    host.ip(&[
        "address",
        "add",
        "198.51.100.77/24",
        "dev",
        "lan0",
        "noprefixroute",
    ])
    .unwrap();
    let file = scene.pair.a.node.config();
    let v6 = "2001:db8:5::/64";
    for (lan, metric, network) in [
        ("198.51.100.0/24", "100", "198.51.100.0/24"),
        ("198.51.100.0/24", "0", "198.51.100.0/24"),
        ("198.51.100.0/24", "100", "198.51.100.2/32"),
        (v6, "256", v6),
        (v6, "2000", v6),
        (v6, "100", "2001:db8:5::2/128"),
    ] {
        let family = if lan.contains(':') { "-6" } else { "-4" };
        let route = [family, "route", "add", lan, "dev", "lan0", "metric", metric];
        scene.pair.a.host.ip(&route).unwrap();
        scene.with_networks(&[network]).unwrap();

        let mut reload = scene.pair.a.host.command(NODE);
        reload
            .arg("reload")
            .arg("--socket")
            .arg(scene.pair.a.node.socket());
        let mut check = scene.pair.a.host.command(NODE);
        check.args(["check", "--live", "--config"]).arg(&file);
        let mut doctor = scene.pair.a.host.command(NODE);
        doctor.args(["doctor", "--config"]).arg(&file);
        for (what, command, code) in [
            ("reload", &mut reload, 1),
            ("check", &mut check, 2),
            ("doctor", &mut doctor, 1),
        ] {
            let ended = output(command, LIMIT).unwrap();
            let said = [ended.stdout, ended.stderr].concat();
            let said = String::from_utf8_lossy(&said);
            assert_eq!(ended.status.code(), Some(code), "{what}: {said}");
            for named in [lan, network, "lan0", "override"] {
                assert!(said.contains(named), "{what}: {named}: {said}");
            }
        }
        let way = scene
            .pair
            .a
            .host
            .ip(&["route", "get", FAR[usize::from(family == "-6")]])
            .unwrap();
        assert!(way.contains("dev lan0"), "the LAN is not lost: {way}");

        // The last section is the peer's.
        let written = fs::read_to_string(&file).unwrap();
        fs::write(&file, written + "override = true\n").unwrap();
        scene.reload().unwrap();
        let far = FAR[usize::from(family == "-6")];
        let way = scene.pair.a.host.ip(&["route", "get", far]).unwrap();
        assert!(way.contains(&scene.pair.a.config.device), "{way}");
        assert!(scene.fetch(far).unwrap().0.ends_with(PAGE));
        scene.reload_with(&[]).unwrap();
        let route = [family, "route", "delete", lan, "dev", "lan0", "metric", metric];
        scene.pair.a.host.ip(&route).unwrap();
    }
    // An address of the device makes a route as well.
    let mut own = scene.pair.a.config.clone();
    own.addresses = vec!["192.0.2.200/24".to_owned()];
    scene.pair.a.node.configure(&own).unwrap();
    let mut check = scene.pair.a.host.command(NODE);
    let ended = output(check.args(["check", "--live", "--config"]).arg(&file), LIMIT).unwrap();
    let said = String::from_utf8(ended.stderr).unwrap();
    assert!(
        said.contains("192.0.2.0/24 of device.addresses is routed by this host already, through u0"),
        "{said}"
    );
    // At the start as at a reload.
    scene
        .pair
        .a
        .host
        .ip(&["route", "add", "198.51.100.0/24", "dev", "lan0", "metric", "100"])
        .unwrap();
    scene.with_networks(&FAR_NETS).unwrap();
    scene.pair.a.node.stop(Signal::SIGTERM).unwrap();
    scene.pair.a.node.launch().unwrap();
    assert!(!scene.pair.a.node.wait_ended(LIMIT).unwrap().success());
    let log = scene.pair.a.node.log().unwrap();
    assert!(
        log.contains("198.51.100.0/24 of peer") && log.contains("through lan0"),
        "{log}"
    );
}
