//! A path that is long and loses packets: how much one flow carries, and how long it stands still.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use clap::{Args, ValueEnum};

use super::peers::{InstalledVpn, NodeWay, Tunnel, Vpn};
use super::stats::Summary;
use super::underlay::HostPair;
use crate::build;
use xtask::lab::Transport;
use xtask::lab::probe::{IperfServer, iperf};

/// Round trips of the path.
const ROUND_TRIPS: [Duration; 2] = [Duration::from_millis(20), Duration::from_millis(80)];
/// Packets of a thousand that are lost, there alone: acknowledgements are not hit.
const LOSSES: [u32; 4] = [0, 1, 5, 20];

/// What is measured over a far path, for how long and how often.
#[derive(Args, Debug)]
pub(crate) struct FarPlan {
    /// Seconds of each measurement.
    #[arg(long, default_value = "10")]
    secs: u64,
    /// Measurements of each kind.
    #[arg(long, default_value = "3", value_parser = clap::value_parser!(u32).range(1..))]
    repeats: u32,
    /// Measure only nodes that are connected so; may be given more than once.
    #[arg(long, value_name = "WAY")]
    only: Vec<NodesBy>,
    /// Measure this VPN too; may be given more than once.
    #[arg(long, value_name = "NAME")]
    beside: Vec<Vpn>,
    /// Congestion control of the flow, such as cubic; the host's unless it is said.
    #[arg(long, value_name = "NAME")]
    inner: Option<String>,
    /// Run this program in place of one that is built.
    #[arg(long, value_name = "PROGRAM")]
    program: Option<PathBuf>,
}

/// How two nodes are connected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum NodesBy {
    /// TCP with the host's congestion control.
    Tcp,
    /// TCP with bbr.
    TcpBbr,
    /// TCP with cubic.
    TcpCubic,
    /// QUIC.
    Quic,
}

impl NodesBy {
    fn name(self) -> &'static str {
        match self {
            Self::Tcp => "TCP",
            Self::TcpBbr => "TCP, bbr",
            Self::TcpCubic => "TCP, cubic",
            Self::Quic => "QUIC",
        }
    }

    fn way(self) -> NodeWay {
        let (transport, congestion) = match self {
            Self::Tcp => (Transport::Tcp, None),
            Self::TcpBbr => (Transport::Tcp, Some("bbr")),
            Self::TcpCubic => (Transport::Tcp, Some("cubic")),
            Self::Quic => (Transport::Quic, None),
        };
        NodeWay {
            transport,
            congestion,
        }
    }
}

/// What carries the flow.
enum Way {
    Nodes(NodesBy),
    Vpn(InstalledVpn),
}

impl Way {
    fn all(plan: &FarPlan) -> Result<Vec<Self>> {
        let mut ways = vec![Self::Vpn(InstalledVpn::install(Vpn::Veth)?)];
        let is_wanted = |by: &&NodesBy| plan.only.is_empty() || plan.only.contains(by);
        let nodes = NodesBy::value_variants().iter().filter(is_wanted);
        ways.extend(nodes.copied().map(Self::Nodes));
        for vpn in &plan.beside {
            ways.push(Self::Vpn(InstalledVpn::install(*vpn)?));
        }
        Ok(ways)
    }

    fn name(&self) -> &'static str {
        match self {
            Self::Nodes(by) => by.name(),
            Self::Vpn(installed) => installed.vpn.name(),
        }
    }

    fn connect(&self, program: &Path, underlay: &HostPair) -> Result<Tunnel> {
        match self {
            Self::Nodes(by) => Tunnel::between_nodes(program, underlay, &by.way()),
            Self::Vpn(installed) => installed.connect(underlay),
        }
    }
}

/// Values of one way over one path.
#[derive(Default)]
struct Cell {
    /// Gbit/s.
    rates: Vec<f64>,
    /// Share of the mean that the slowest second had, the first left out, in per cent.
    slowest: Vec<f64>,
}

/// Prints a table: a row for each path, a column for each way.
///
/// # Errors
/// When a build fails, or when a measurement cannot be made.
pub(super) fn run(plan: &FarPlan) -> Result<()> {
    let program = match &plan.program {
        Some(program) => program.clone(),
        None => build::node(&build::Profile::release())?,
    };
    let ways = Way::all(plan)?;
    for round_trip in ROUND_TRIPS {
        let mut rows: Vec<Vec<Cell>> = LOSSES
            .iter()
            .map(|_| ways.iter().map(|_| Cell::default()).collect())
            .collect();
        for repeat in 1..=plan.repeats {
            for (column, way) in ways.iter().enumerate() {
                eprintln!(
                    "{} ms, {} ({repeat} of {})",
                    round_trip.as_millis(),
                    way.name(),
                    plan.repeats
                );
                measure(plan, &program, round_trip, way, |row, rate, slowest| {
                    if let Some(cell) = rows.get_mut(row).and_then(|row| row.get_mut(column)) {
                        cell.rates.push(rate);
                        cell.slowest.push(slowest);
                    }
                })
                .with_context(|| way.name())?;
            }
        }
        print(plan, round_trip, &ways, &rows);
    }
    Ok(())
}

fn measure(
    plan: &FarPlan,
    program: &Path,
    round_trip: Duration,
    way: &Way,
    mut note: impl FnMut(usize, f64, f64),
) -> Result<()> {
    let underlay = HostPair::far(round_trip / 2)?;
    let tunnel = way.connect(program, &underlay)?;
    let [a, b] = &underlay.hosts;
    let congestion = plan.inner.as_ref().map(|name| format!("--congestion={name}"));
    let args: Vec<&str> = congestion.as_deref().into_iter().collect();
    for (row, per_mille) in LOSSES.iter().enumerate() {
        underlay.lose(*per_mille)?;
        // A new server for each run: one that still ends a run refuses the next.
        let _server = IperfServer::start(b)?;
        let report = iperf(a, tunnel.to, Duration::from_secs(plan.secs), &args)?;
        let mean = report.received_bits_per_second;
        let seconds = report.of_each_second.iter().skip(1).copied();
        let slowest = seconds.reduce(f64::min).context("a second is too short")?;
        note(row, mean * 1e-9, 100.0 * slowest / mean);
    }
    Ok(())
}

fn print(plan: &FarPlan, round_trip: Duration, ways: &[Way], rows: &[Vec<Cell>]) {
    println!(
        "\nround trip {} ms, one flow of {}: Gbit/s, medians of {} (smallest-largest; slowest second of all, % of its mean)",
        round_trip.as_millis(),
        plan.inner.as_deref().unwrap_or("the host's congestion control"),
        plan.repeats
    );
    let names: Vec<_> = ways.iter().map(Way::name).collect();
    println!(
        "| loss | {} |\n|---{}|",
        names.join(" | "),
        "|---".repeat(names.len())
    );
    for (per_mille, row) in LOSSES.iter().zip(rows) {
        let cells: Vec<_> = row.iter().map(Cell::text).collect();
        println!("| {} % | {} |", f64::from(*per_mille) / 10.0, cells.join(" | "));
    }
}

impl Cell {
    fn text(&self) -> String {
        match (Summary::of(&self.rates), Summary::of(&self.slowest)) {
            (Some(rate), Some(slowest)) => format!(
                "{:.3} ({:.3}-{:.3}; {:.0})",
                rate.median, rate.min, rate.max, slowest.min
            ),
            _ => "none".to_owned(),
        }
    }
}
