//! Measures a peer while another peer stands still: the same load on both, with the other's node running and stopped.

use std::net::{IpAddr, UdpSocket};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::stats::Summary;
use crate::build;
use xtask::lab::probe::{IperfServer, PingPlan, iperf};
use xtask::lab::{Namespace, Node, NodeConfig, Pair, PairPlan, PeerConfig, ScratchDir, link};

/// Length of a window. A connection whose peer is silent ends after 5 s, and with it what could hold others up.
const WINDOW: Duration = Duration::from_secs(4);
/// The load on the other peer, enough to fill its queue within the first second.
const RATE_PPS: u64 = 5000;
const PAYLOAD: [u8; 1200] = [0; 1200];
const PORT: u16 = 7000;
const PING_INTERVAL: Duration = Duration::from_millis(10);
const CONNECT_LIMIT: Duration = Duration::from_secs(20);
const OTHER: &str = "10.42.0.3";

/// Figures of the measured peer in one window.
#[derive(Clone, Copy, Debug)]
struct WindowResult {
    tcp_bps: f64,
    ping_p50_ms: f64,
    ping_p99_ms: f64,
}

type Value = fn(&WindowResult) -> f64;

/// A pair, and a third node that is the first one's other peer.
struct ThreeNodes {
    other: Node,
    other_host: Namespace,
    pair: Pair,
}

/// Prints throughput and round trip of one peer in windows that take turns: the other peer's node running, and stopped.
pub(super) fn run(repeats: u32) -> Result<()> {
    let nodes = ThreeNodes::start(&build::node(&build::Profile::release())?)?;
    let (mut running, mut stopped) = (Vec::new(), Vec::new());
    for _ in 0..repeats {
        running.push(nodes.window()?);
        stopped.push(nodes.while_stopped()?);
    }
    println!(
        "\na TCP flow and pings to one peer, {RATE_PPS} UDP packets/s of {} B to another; medians of {repeats}",
        PAYLOAD.len()
    );
    println!("                   | its node runs | is stopped | change");
    let figures: [(&str, Value); 3] = [
        ("TCP, Gbit/s", |result| result.tcp_bps * 1e-9),
        ("ping p50, ms", |result| result.ping_p50_ms),
        ("ping p99, ms", |result| result.ping_p99_ms),
    ];
    for (name, value) in figures {
        let median = |all: &[WindowResult]| {
            let values: Vec<_> = all.iter().map(value).collect();
            Summary::of(&values).map(|summary| summary.median)
        };
        let before = median(&running).context("no window was measured")?;
        let after = median(&stopped).context("no window was measured")?;
        let change = 100.0 * (after / before - 1.0);
        println!("{name:<18} | {before:>13.3} | {after:>10.3} | {change:>+5.1} %");
    }
    Ok(())
}

impl ThreeNodes {
    fn start(binary: &Path) -> Result<Self> {
        let mut pair = Pair::prepare(binary, &PairPlan::unique(), ScratchDir::unique("isolation")?)?;
        let other_host = Namespace::unique("other")?;
        link(
            (&other_host, "u0", &["2001:db8:1::2/64"]),
            (&pair.a.host, "u1", &["2001:db8:1::1/64"]),
        )?;
        let mut other = Node::new(binary, &other_host, pair.directory(), "other")?;
        pair.a.config.peers.push(PeerConfig {
            id: other.peer_id().to_owned(),
            addresses: vec!["/ip6/2001:db8:1::2/tcp/4001".to_owned()],
            allowed_ips: vec![format!("{OTHER}/32")],
        });
        pair.a.node.configure(&pair.a.config)?;
        other.configure(&NodeConfig {
            addresses: vec![format!("{OTHER}/24")],
            listen: vec!["/ip6/::/tcp/4001".to_owned()],
            peers: vec![PeerConfig {
                id: pair.a.node.peer_id().to_owned(),
                addresses: Vec::new(),
                allowed_ips: vec!["10.42.0.1/32".to_owned()],
            }],
            ..pair.b.config.clone()
        })?;
        other.start()?;
        pair.start_nodes()?;
        pair.a.node.wait_connected(&other, CONNECT_LIMIT)?;
        Ok(Self {
            other,
            other_host,
            pair,
        })
    }

    fn while_stopped(&self) -> Result<WindowResult> {
        let process = self.other.process_id().context("the other node does not run")?;
        let process = Pid::from_raw(process as i32);
        kill(process, Signal::SIGSTOP).context("cannot stop the other node")?;
        let result = self.window();
        kill(process, Signal::SIGCONT).context("cannot continue the other node")?;
        let node = &self.pair.a.node;
        node.wait_for("the stopped peer is noticed or back", CONNECT_LIMIT, |status| {
            status.is_connected(self.other.peer_id())
        })?;
        result
    }

    /// Measures one window under the load.
    fn window(&self) -> Result<WindowResult> {
        let (a, b) = (&self.pair.a, &self.pair.b);
        let receiver = self
            .other_host
            .enter(|| Ok(UdpSocket::bind(("0.0.0.0", PORT))?))?;
        let _server = IperfServer::start(&b.host)?;
        let stop = AtomicBool::new(false);
        let result = thread::scope(|scope| {
            let load = scope.spawn(|| a.host.enter(|| send(OTHER.parse()?, &stop)));
            let tcp = scope.spawn(|| iperf(&a.host, b.v4, WINDOW, &[]));
            let pings = PingPlan {
                count: (WINDOW.as_millis() / PING_INTERVAL.as_millis()) as u32,
                interval: PING_INTERVAL,
                ..PingPlan::new(b.v4)
            }
            .run(&a.host);
            let tcp = tcp.join().expect("iperf does not panic");
            stop.store(true, Relaxed);
            load.join().expect("the load does not panic")?;
            let pings = pings?;
            let at = |percent| pings.percentile_ms(percent).context("no ping was answered");
            Ok(WindowResult {
                tcp_bps: tcp?.received_bits_per_second,
                ping_p50_ms: at(50)?,
                ping_p99_ms: at(99)?,
            })
        });
        drop(receiver);
        result
    }
}

fn send(to: IpAddr, stop: &AtomicBool) -> Result<()> {
    let socket = UdpSocket::bind(("0.0.0.0", 0)).context("cannot open a socket")?;
    let started = Instant::now();
    for n in 1.. {
        if stop.load(Relaxed) {
            break;
        }
        // Refusals are part of the load: a full queue.
        let _ = socket.send_to(&PAYLOAD, (to, PORT));
        let due = Duration::from_nanos(n * 1_000_000_000 / RATE_PPS);
        thread::sleep(due.saturating_sub(started.elapsed()));
    }
    Ok(())
}
