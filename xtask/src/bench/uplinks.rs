//! What several uplinks carry together.

use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::Value;

use super::silence::longest_silence;
use crate::build;
use xtask::lab::probe::{IperfServer, iperf};
use xtask::lab::process::{text, until};
use xtask::lab::{Namespace, Pair, PairPlan, ScratchDir, Transport, link};

const COMMAND_LIMIT: Duration = Duration::from_secs(60);
const CONNECT_LIMIT: Duration = Duration::from_secs(60);
/// What the nodes get to settle between two changes.
const REST: Duration = Duration::from_secs(2);

/// What each uplink carries.
const RATE: &str = "100mbit";
/// What it sends at once, and how much may wait for it.
const QUEUE: [&str; 4] = ["burst", "12500", "latency", "50ms"];

const N_FLOWS: usize = 10;
const DURATION: Duration = Duration::from_secs(10);

/// Times that each uplink ends in each way.
const TRIES: usize = 5;

/// How an uplink ends.
#[derive(Clone, Copy, Debug)]
enum End {
    DeviceDown,
    BlackHole,
}

impl End {
    fn change(self, host: &Namespace, device: &str, is_end: bool) -> Result<()> {
        let mut command = match self {
            Self::DeviceDown => {
                let mut command = host.command("ip");
                command.args(["link", "set", device, if is_end { "down" } else { "up" }]);
                command
            }
            Self::BlackHole => {
                let mut command = host.command("nft");
                command.arg(match is_end {
                    true => format!(
                        "table inet hole {{ chain input {{ type filter hook input priority 0; iifname {device} drop; }}; \
                         chain output {{ type filter hook output priority 0; oifname {device} drop; }}; }}"
                    ),
                    false => "delete table inet hole".to_owned(),
                });
                command
            }
        };
        text(&mut command, COMMAND_LIMIT)?;
        Ok(())
    }
}

/// Prints what ten TCP flows carry through one uplink and through two of 100 Mbit/s each; the nodes run `program`, or this
/// build.
pub(super) fn run(program: Option<PathBuf>) -> Result<()> {
    let binary = match program {
        Some(program) => program,
        None => build::node(&build::Profile::release())?,
    };
    println!("\n{N_FLOWS} TCP flows for {DURATION:?}, Mbit/s; each uplink carries {RATE}");
    println!("transport | uplinks | first host to second | and back");
    for transport in [Transport::Tcp, Transport::Quic] {
        for n_uplinks in [1, 2] {
            let pair = start(&binary, transport, n_uplinks)?;
            let [there, back] = [throughput(&pair, false)?, throughput(&pair, true)?];
            let name = format!("{transport:?}");
            println!("{name:<9} | {n_uplinks:>7} | {there:>20.0} | {back:>8.0}");
        }
    }
    println!("\nlongest silence of 64-byte packets every 5 ms, ms: median / largest of {TRIES}");
    for transport in [Transport::Tcp, Transport::Quic] {
        for end in [End::DeviceDown, End::BlackHole] {
            let pair = start(&binary, transport, 2)?;
            let mut silences = (0..TRIES)
                .map(|_| silence(&pair, end))
                .collect::<Result<Vec<_>>>()?;
            silences.sort_unstable();
            let [median, largest] = [TRIES / 2, TRIES - 1].map(|at| silences[at].as_millis());
            println!(
                "{:<9} | {:<10} | {median} / {largest}",
                format!("{transport:?}"),
                format!("{end:?}")
            );
        }
    }
    Ok(())
}

/// Returns the longest silence of a flow while the uplink ends that it has.
fn silence(pair: &Pair, end: End) -> Result<Duration> {
    let hosts = [&pair.a.host, &pair.b.host];
    let mut longest = Duration::ZERO;
    for device in ["u0", "u1"] {
        until("both uplinks", CONNECT_LIMIT, || {
            let list: Value = pair.a.node.ask(&["peers"])?;
            let links = list["peers"][0]["links"].as_array().context("there are links")?;
            Ok((links.iter().filter(|link| link["answers"] == true).count() == 2).then_some(()))
        })?;
        thread::sleep(REST);
        let silence = longest_silence(hosts, pair.b.v4, || end.change(hosts[0], device, true))?;
        end.change(hosts[0], device, false)?;
        longest = longest.max(silence);
    }
    Ok(longest)
}

/// Makes two nodes with two cables between them, of which the first dials by so many.
fn start(binary: &Path, transport: Transport, n_uplinks: usize) -> Result<Pair> {
    let plan = PairPlan {
        transport,
        ..PairPlan::unique()
    };
    let mut pair = Pair::prepare(binary, &plan, ScratchDir::unique("uplinks")?)?;
    let (a, b) = (&pair.a.host, &pair.b.host);
    a.ip(&["link", "delete", "u0"])?;
    let mut addresses = Vec::new();
    for uplink in 0..2 {
        let device = format!("u{uplink}");
        let [at_a, at_b] = [1, 2].map(|host| format!("192.0.2.{}", 128 * uplink + host));
        let prefixes = [&at_a, &at_b].map(|at| format!("{at}/25"));
        link((a, &device, &[&prefixes[0]]), (b, &device, &[&prefixes[1]]))?;
        for host in [a, b] {
            let mut command = host.command("tc");
            command.args(["qdisc", "add", "dev", &device, "root", "tbf", "rate", RATE]);
            text(command.args(QUEUE), COMMAND_LIMIT)?;
        }
        addresses.push(match transport {
            Transport::Tcp => format!("/ip4/{at_b}/tcp/4001"),
            Transport::Quic => format!("/ip4/{at_b}/udp/4001/quic-v1"),
        });
    }
    for uplink in 0..n_uplinks {
        let section = format!("\n[[transport.uplink]]\ndevice = \"u{uplink}\"\n");
        pair.a.config.sections += &section;
    }
    let peer = pair.a.config.peers.first_mut().context("there is a peer")?;
    peer.addresses = addresses;
    let peer = pair.b.config.peers.first_mut().context("there is a peer")?;
    peer.addresses.clear();
    for side in [&pair.a, &pair.b] {
        side.node.configure(&side.config)?;
    }
    pair.start_nodes()?;
    for side in [&pair.a, &pair.b] {
        until("streams for all uplinks", CONNECT_LIMIT, || {
            let list: Value = side.node.ask(&["streams"])?;
            let n_streams = list["streams"].as_array().map(Vec::len);
            Ok((n_streams == Some(n_uplinks)).then_some(()))
        })?;
    }
    Ok(pair)
}

/// Returns what arrives of flows from the first host to the second; with `back`, of those the other way.
fn throughput(pair: &Pair, back: bool) -> Result<f64> {
    let (from, to, at) = match back {
        false => (&pair.a.host, &pair.b.host, pair.b.v4),
        true => (&pair.b.host, &pair.a.host, pair.a.v4),
    };
    let _server = IperfServer::start(to)?;
    let n_flows = N_FLOWS.to_string();
    let report = iperf(from, at, DURATION, &["--parallel", &n_flows])?;
    Ok(report.received_bits_per_second / 1e6)
}
