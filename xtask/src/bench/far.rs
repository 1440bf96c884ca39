//! A path that is long and loses packets: how much one flow carries, and how long it stands still.

use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::{Args, ValueEnum};

use super::peers::{InstalledVpn, NodeWay, Tunnel, Vpn};
use super::stats::Summary;
use super::underlay::HostPair;
use crate::build;
use xtask::lab::Transport;
use xtask::lab::probe::{IperfServer, PingPlan, iperf};

/// Time by which the flow begins before the pings beside it, until TCP has found its rate, and ends after them.
const MARGIN: Duration = Duration::from_secs(1);
const PING_INTERVAL: Duration = Duration::from_millis(20);
/// Packets of a thousand that are lost, there alone: acknowledgements are not hit.
const LOSSES: [u32; 4] = [0, 1, 5, 20];

/// What is measured over a far path, for how long and how often.
#[derive(Args, Debug)]
pub(crate) struct FarPlan {
    /// Seconds of each measurement.
    #[arg(long, default_value = "10", value_parser = clap::value_parser!(u64).range(4..))]
    secs: u64,
    /// Round trips of the path in milliseconds.
    #[arg(long, value_name = "MS", default_value = "20,80", value_delimiter = ',', value_parser = clap::value_parser!(u32).range(1..=1000))]
    round_trips: Vec<u32>,
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
    /// The longest but one of a hundred pings beside it, in milliseconds.
    pings: Vec<f64>,
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
    for ms in &plan.round_trips {
        let round_trip = Duration::from_millis((*ms).into());
        let mut rows: Vec<Vec<Cell>> = LOSSES
            .iter()
            .map(|_| ways.iter().map(|_| Cell::default()).collect())
            .collect();
        for repeat in 1..=plan.repeats {
            for (column, way) in ways.iter().enumerate() {
                eprintln!("{ms} ms, {} ({repeat} of {})", way.name(), plan.repeats);
                let cells = rows.iter_mut().filter_map(|row| row.get_mut(column));
                measure(plan, &program, round_trip, way, cells).with_context(|| way.name())?;
            }
        }
        print(plan, *ms, &ways, &rows);
    }
    Ok(())
}

fn measure<'c>(
    plan: &FarPlan,
    program: &Path,
    round_trip: Duration,
    way: &Way,
    cells: impl Iterator<Item = &'c mut Cell>,
) -> Result<()> {
    let underlay = HostPair::far(round_trip / 2)?;
    let tunnel = way.connect(program, &underlay)?;
    let [a, b] = &underlay.hosts;
    let congestion = plan.inner.as_ref().map(|name| format!("--congestion={name}"));
    let args: Vec<&str> = congestion.as_deref().into_iter().collect();
    let duration = Duration::from_secs(plan.secs);
    let pings = PingPlan {
        count: ((duration - 2 * MARGIN).as_millis() / PING_INTERVAL.as_millis()) as u32,
        interval: PING_INTERVAL,
        ..PingPlan::new(tunnel.to)
    };
    for (per_mille, cell) in LOSSES.iter().zip(cells) {
        underlay.lose(*per_mille)?;
        // A new server for each run: one that still ends a run refuses the next.
        let _server = IperfServer::start(b)?;
        let (report, pings) = thread::scope(|scope| {
            let flow = scope.spawn(|| iperf(a, tunnel.to, duration, &args));
            thread::sleep(MARGIN);
            let pings = pings.run(a);
            (flow.join().expect("the flow does not panic"), pings)
        });
        let report = report?;
        let mean = report.received_bits_per_second;
        let seconds = report.of_each_second.iter().skip(1).copied();
        let slowest = seconds.reduce(f64::min).context("a second is too short")?;
        cell.rates.push(mean * 1e-9);
        cell.slowest.push(100.0 * slowest / mean);
        cell.pings.extend(pings?.percentile_ms(99));
    }
    Ok(())
}

fn print(plan: &FarPlan, round_trip_ms: u32, ways: &[Way], rows: &[Vec<Cell>]) {
    println!(
        "\nround trip {round_trip_ms} ms, one flow of {}: Gbit/s, medians of {} (smallest-largest; slowest second of all, \
         % of its mean; ping beside it, p99, ms)",
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
        let of = [&self.rates, &self.slowest, &self.pings].map(|values| Summary::of(values));
        match of {
            [Some(rate), Some(slowest), ping] => format!(
                "{:.3} ({:.3}-{:.3}; {:.0}; {})",
                rate.median,
                rate.min,
                rate.max,
                slowest.min,
                ping.map_or_else(|| "all lost".to_owned(), |ping| format!("{:.0}", ping.median))
            ),
            _ => "none".to_owned(),
        }
    }
}
