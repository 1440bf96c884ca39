//! How long a flow is silent when the network under the nodes changes.

use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::{Args, ValueEnum};

use super::silence::longest_silence;
use crate::build;
use xtask::lab::process::text;
use xtask::lab::{Namespace, Pair, PairPlan, ScratchDir, Transport, link};

const COMMAND_LIMIT: Duration = Duration::from_secs(10);
const CONNECT_LIMIT: Duration = Duration::from_secs(40);
/// What the nodes get to settle between two changes.
const REST: Duration = Duration::from_secs(2);

/// Ways of a pair: how its connections are carried.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Way {
    Tcp,
    Mptcp,
    Quic,
}

impl Way {
    const ALL: [Self; 3] = [Self::Tcp, Self::Mptcp, Self::Quic];

    fn name(self) -> &'static str {
        match self {
            Self::Tcp => "TCP",
            Self::Mptcp => "MPTCP",
            Self::Quic => "QUIC",
        }
    }

    fn multiaddr(self, at: &str) -> String {
        match self {
            Self::Tcp | Self::Mptcp => format!("/ip4/{at}/tcp/4001"),
            Self::Quic => format!("/ip4/{at}/udp/4001/quic-v1"),
        }
    }
}

/// What changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Change {
    OwnAddress,
    PeersAddress,
    Interface,
    Gateway,
    NatMapping,
    BlackHole,
}

impl Change {
    const ALL: [Self; 6] = [
        Self::OwnAddress,
        Self::PeersAddress,
        Self::Interface,
        Self::Gateway,
        Self::NatMapping,
        Self::BlackHole,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::OwnAddress => "the sender's address is replaced",
            Self::PeersAddress => "the receiver's address is replaced",
            Self::Interface => "interface down, another one up",
            Self::Gateway => "another gateway, with a NAT of its own",
            Self::NatMapping => "the NAT forgets its mappings",
            Self::BlackHole => "silent black hole on one path of two",
        }
    }

    fn n_paths(self) -> usize {
        match self {
            Self::OwnAddress | Self::PeersAddress | Self::NatMapping => 1,
            Self::Interface | Self::Gateway | Self::BlackHole => 2,
        }
    }

    fn has_nat(self) -> bool {
        matches!(self, Self::Gateway | Self::NatMapping)
    }
}

/// Two nodes, and a path or two between them, each with a router.
struct Crossing {
    pair: Pair,
    routers: Vec<Namespace>,
    /// In which of its two states the network is.
    state: usize,
}

/// What is measured.
#[derive(Debug, Args)]
pub(crate) struct RoamingPlan {
    /// Changes of each kind and in each direction.
    #[arg(long, default_value = "20", value_parser = clap::value_parser!(u32).range(1..))]
    tries: u32,
    /// Change the network in this way; may be given several times. Default: all.
    #[arg(long = "change", value_name = "CHANGE")]
    changes: Vec<Change>,
    /// Connect the nodes in this way; may be given several times. Default: all.
    #[arg(long = "over", value_name = "WAY")]
    ways: Vec<Way>,
    /// Run this program in place of one that is built.
    #[arg(long, value_name = "PROGRAM")]
    program: Option<PathBuf>,
}

/// Prints the longest silences of a flow from the first node to the second, and of one back.
pub(super) fn run(plan: &RoamingPlan) -> Result<()> {
    let binary = match &plan.program {
        Some(program) => program.clone(),
        None => build::node(&build::Profile::release())?,
    };
    let tries = plan.tries;
    println!("\nlongest silence of 64-byte packets every 5 ms, ms: median / largest of {tries}");
    println!("{:<40} | transport | first host to second | and back", "change");
    let chosen = |change: &Change| plan.changes.is_empty() || plan.changes.contains(change);
    let is_over = |way: &Way| plan.ways.is_empty() || plan.ways.contains(way);
    for change in Change::ALL.into_iter().filter(chosen) {
        for way in Way::ALL.into_iter().filter(is_over) {
            let (mut there, mut back) = (Vec::new(), Vec::new());
            let measured = measure(&binary, change, way, tries, [&mut there, &mut back]);
            let columns = [shown(&mut there), shown(&mut back)];
            let (change, way) = (change.name(), way.name());
            println!(
                "{change:<40} | {way:<9} | {:>20} | {:>15}",
                columns[0], columns[1]
            );
            measured.with_context(|| format!("{change} over {way}"))?;
        }
    }
    Ok(())
}

fn measure(
    binary: &Path,
    change: Change,
    way: Way,
    tries: u32,
    [there, back]: [&mut Vec<Duration>; 2],
) -> Result<()> {
    let mut crossing = Crossing::build(binary, change, way)?;
    for _ in 0..tries {
        there.push(crossing.silence(change, false)?);
        back.push(crossing.silence(change, true)?);
    }
    Ok(())
}

fn shown(silences: &mut [Duration]) -> String {
    silences.sort_unstable();
    match (silences.get(silences.len() / 2), silences.last()) {
        (Some(median), Some(largest)) => format!("{} / {}", median.as_millis(), largest.as_millis()),
        _ => "none".to_owned(),
    }
}

impl Crossing {
    fn build(binary: &Path, change: Change, way: Way) -> Result<Self> {
        let plan = PairPlan {
            transport: match way {
                Way::Tcp | Way::Mptcp => Transport::Tcp,
                Way::Quic => Transport::Quic,
            },
            ..PairPlan::unique()
        };
        let mut pair = Pair::prepare(binary, &plan, ScratchDir::unique("roaming")?)?;
        pair.a.host.ip(&["link", "del", "u0"])?;
        let mut routers = Vec::new();
        for path in 0..change.n_paths() {
            routers.push(lay_path([&pair.a.host, &pair.b.host], path, change)?);
        }
        for (side, last) in [(&mut pair.a, [2, 12]), (&mut pair.b, [1, 11])] {
            let peer = side.config.peers.first_mut().context("there is a peer")?;
            // Each is dialled at both addresses that it may have, but nobody dials through a NAT.
            peer.addresses = match change.has_nat() && last == [1, 11] {
                true => Vec::new(),
                false => last.map(|last| way.multiaddr(&outer(last))).to_vec(),
            };
            if way == Way::Mptcp {
                side.config.sections.push_str("[transport]\nmptcp = true\n");
                let limits = ["mptcp", "limits", "set", "subflow", "4", "add_addr_accepted", "4"];
                side.host.ip(&limits)?;
            }
            side.node.configure(&side.config)?;
        }
        if way == Way::Mptcp && change == Change::BlackHole {
            // Whichever side has dialled, the other path is known to both.
            for (side, last) in [(&pair.a, 11), (&pair.b, 12)] {
                let at = outer(last);
                side.host
                    .ip(&["mptcp", "endpoint", "add", &at, "dev", "u1", "signal", "subflow"])?;
            }
        }
        pair.start_nodes()?;
        Ok(Self {
            pair,
            routers,
            state: 0,
        })
    }

    /// Changes the network once, and returns the longest silence of a flow; with `back`, of one to the first host.
    fn silence(&mut self, change: Change, back: bool) -> Result<Duration> {
        let (a, b) = (&self.pair.a, &self.pair.b);
        for (side, other) in [(a, b), (b, a)] {
            side.node.wait_connected(&other.node, CONNECT_LIMIT)?;
        }
        thread::sleep(REST);
        let (hosts, to) = match back {
            true => ([&b.host, &a.host], a.v4),
            false => ([&a.host, &b.host], b.v4),
        };
        let state = 1 - self.state;
        let silence = longest_silence(hosts, to, || self.change(change, state))?;
        self.state = state;
        Ok(silence)
    }

    /// Brings the network from one of two states into the other.
    fn change(&self, change: Change, state: usize) -> Result<()> {
        let (a, b) = (&self.pair.a.host, &self.pair.b.host);
        let old = 1 - state;
        match change {
            Change::OwnAddress => replace_address(a, "u0", [1, 11][old], [1, 11][state], &[2, 12]),
            Change::PeersAddress => replace_address(b, "u0", [2, 12][old], [2, 12][state], &[1, 11]),
            Change::NatMapping => replace_address(self.router(0)?, "right", 101 + old, 101 + state, &[2, 12]),
            Change::Interface => {
                a.ip(&["link", "set", &device(old), "down"])?;
                a.ip(&["link", "set", &device(state), "up"])?;
                route(a, &[2, 12], &device(state))
            }
            Change::Gateway => route(a, &[2, 12], &device(state)),
            Change::BlackHole => {
                nft(
                    self.router(old)?,
                    "table inet hole { chain forward { type filter hook forward priority 0; policy drop; }; }",
                )?;
                nft(self.router(state)?, "add table inet hole; delete table inet hole")
            }
        }
    }

    fn router(&self, path: usize) -> Result<&Namespace> {
        self.routers.get(path).context("there is no such path")
    }
}

fn outer(last: usize) -> String {
    format!("192.0.2.{last}")
}

/// The interface of both hosts on a path.
fn device(path: usize) -> String {
    format!("u{path}")
}

/// Lays a path between the hosts, and returns its router. The router answers for each of them on the other side.
fn lay_path([a, b]: [&Namespace; 2], path: usize, change: Change) -> Result<Namespace> {
    let router = Namespace::unique("router")?;
    let device = device(path);
    let address = |last: usize| format!("{}/32", outer(last));
    // With a NAT the hosts have one address each, which is reached by either path.
    let [own, peers] = match (path, change.has_nat()) {
        (0, _) => [vec![address(1)], vec![address(2)]],
        (_, true) => [Vec::new(), Vec::new()],
        (_, false) => [vec![address(11)], vec![address(12)]],
    };
    let [own, peers] =
        [&own, &peers].map(|addresses| addresses.iter().map(String::as_str).collect::<Vec<_>>());
    link((a, &device, &own), (&router, "left", &[]))?;
    link((b, &device, &peers), (&router, "right", &[]))?;
    for host in [a, b, &router] {
        host.enter(|| {
            for conf in ["all", "default"] {
                fs::write(format!("/proc/sys/net/ipv4/conf/{conf}/rp_filter"), "0")?;
            }
            Ok(())
        })?;
    }
    router.enter(|| {
        fs::write("/proc/sys/net/ipv4/conf/all/forwarding", "1")?;
        for side in ["left", "right"] {
            fs::write(format!("/proc/sys/net/ipv4/conf/{side}/proxy_arp"), "1")?;
            fs::write(format!("/proc/sys/net/ipv4/neigh/{side}/proxy_delay"), "0")?;
        }
        Ok(())
    })?;
    route(&router, &[1, 11], "left")?;
    route(&router, &[2, 12], "right")?;
    if change.has_nat() {
        let last = 101 + 10 * path;
        router.ip(&["address", "add", &address(last), "dev", "right"])?;
        nft(
            &router,
            "table ip nat { chain out { type nat hook postrouting priority 100; oifname right masquerade; }; }",
        )?;
        route(b, &[last, last + 1], &device)?;
    }
    match change {
        Change::OwnAddress | Change::PeersAddress => {
            route(a, &[2, 12], &device)?;
            route(b, &[1, 11], &device)?;
        }
        Change::BlackHole => {
            route(a, &[[2, 12][path]], &device)?;
            route(b, &[[1, 11][path]], &device)?;
        }
        Change::Interface => {
            route(b, &[[1, 11][path]], &device)?;
            if path == 1 {
                a.ip(&["link", "set", &device, "down"])?;
            } else {
                route(a, &[2, 12], &device)?;
            }
        }
        Change::Gateway | Change::NatMapping if path == 0 => route(a, &[2, 12], &device)?,
        Change::Gateway | Change::NatMapping => {}
    }
    Ok(router)
}

/// Has a host send to these addresses by a device.
fn route(host: &Namespace, to: &[usize], device: &str) -> Result<()> {
    for last in to {
        host.ip(&["route", "replace", &outer(*last), "dev", device])?;
    }
    Ok(())
}

/// Replaces the only address of a device. The routes by the device go with it, and are made anew.
fn replace_address(host: &Namespace, device: &str, old: usize, new: usize, to: &[usize]) -> Result<()> {
    host.ip(&["address", "delete", &format!("{}/32", outer(old)), "dev", device])?;
    host.ip(&["address", "add", &format!("{}/32", outer(new)), "dev", device])?;
    route(host, to, device)
}

fn nft(host: &Namespace, rules: &str) -> Result<()> {
    text(host.command("nft").arg(rules), COMMAND_LIMIT)?;
    Ok(())
}
