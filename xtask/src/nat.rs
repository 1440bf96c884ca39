//! Two nodes behind NATs of every kind, each with each, over TCP and over QUIC: whether they connect directly, how soon, and
//! whether the packets of a flow stay in order as it moves there from the relay.

use std::fmt;
use std::io::{IsTerminal, stdout};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use clap::Args;
use serde::Serialize;

use crate::command::require_root;
use crate::{build, install};
use xtask::lab::probe::{Tally, UdpPlan, answers, datagrams};
use xtask::lab::process::until;
use xtask::lab::{NatKind, NatLab, NatPlan, Transport};

/// How long two nodes have for their first packet.
const FIRST_PACKET: Duration = Duration::from_secs(30);
/// How long a direct connection is waited for. One that comes at all does at the first try or the second.
const DIRECT: Duration = Duration::from_secs(20);
/// How long packets are sent on after it.
const AFTER: Duration = Duration::from_secs(3);
const PATIENCE: Duration = Duration::from_millis(200);

/// A flow whose packets are seldom enough that none waits for another.
const FLOWS: UdpPlan = UdpPlan {
    n_flows: 8,
    short_len: u32::MAX,
    rate: 1000,
};

/// What is tried.
#[derive(Args)]
pub(crate) struct NatsPlan {
    /// Pairs of these kinds of NAT alone; all without.
    #[arg(long = "kind", value_name = "KIND")]
    kinds: Vec<String>,
    /// Pairs alone of which the first is of this kind: a row of the table.
    #[arg(long, value_name = "KIND")]
    first: Option<String>,
    /// One transport alone: tcp or quic.
    #[arg(long, value_parser = ["tcp", "quic"])]
    transport: Option<String>,
    /// Run this program in place of one that is built.
    #[arg(long, value_name = "PROGRAM")]
    program: Option<PathBuf>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// What became of a pair.
#[derive(Debug, Serialize)]
struct Outcome {
    transport: &'static str,
    kinds: [&'static str; 2],
    /// `direct` or `relayed`; null if no packet has crossed.
    path: Option<&'static str>,
    first_packet_seconds: Option<f64>,
    direct_seconds: Option<f64>,
    packets: u64,
    lost: u64,
    reordered: u64,
    duplicated: u64,
}

/// Tries every pair and prints what became of it. Fails if a pair has no way at all, or packets of a flow change their order.
///
/// # Errors
/// When not root, when the build fails, or when a network cannot be made.
pub(crate) fn run(plan: &NatsPlan) -> Result<ExitCode> {
    require_root("nat")?;
    install::programs()?;
    let binary = match &plan.program {
        Some(program) => program.clone(),
        None => build::node(&build::Profile::release())?,
    };
    let kinds = plan.kinds()?;
    let only = plan.first.as_deref().map(kind_called).transpose()?;
    let mut outcomes = Vec::new();
    if !plan.json {
        println!("{}", Outcome::HEAD);
    }
    for (name, transport) in [("tcp", Transport::Tcp), ("quic", Transport::Quic)] {
        if plan.transport.as_ref().is_some_and(|only| only != name) {
            continue;
        }
        for (n, first) in kinds.iter().enumerate() {
            if only.is_some_and(|only| only != *first) {
                continue;
            }
            for second in kinds.iter().skip(n).filter(|second| first.goes_with(**second)) {
                if stdout().is_terminal() && !plan.json {
                    eprint!("{name}: {} and {} ...\r", first.name(), second.name());
                }
                let outcome = measure(&binary, [*first, *second], name, transport)
                    .with_context(|| format!("{name}: {} and {}", first.name(), second.name()))?;
                if !plan.json {
                    println!("{outcome}");
                }
                outcomes.push(outcome);
            }
        }
    }
    if plan.json {
        println!("{}", serde_json::to_string_pretty(&outcomes)?);
    }
    let is_good = |outcome: &Outcome| outcome.path.is_some() && outcome.reordered + outcome.duplicated == 0;
    Ok(match outcomes.iter().all(is_good) {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    })
}

impl NatsPlan {
    fn kinds(&self) -> Result<Vec<NatKind>> {
        if self.kinds.is_empty() {
            return Ok(NatKind::ALL.to_vec());
        }
        self.kinds.iter().map(|name| kind_called(name)).collect()
    }
}

fn kind_called(name: &str) -> Result<NatKind> {
    let known = NatKind::ALL.into_iter().find(|kind| kind.name() == name);
    let names = NatKind::ALL.map(NatKind::name).join(", ");
    known.with_context(|| format!("{name:?} is no kind of NAT; there are {names}"))
}

fn measure(binary: &Path, kinds: [NatKind; 2], name: &'static str, transport: Transport) -> Result<Outcome> {
    let plan = NatPlan {
        kinds,
        transport,
        listens: true,
    };
    let lab = NatLab::start(binary, &plan)?;
    let to = NatLab::inner(1);
    let first = until("a packet crosses", FIRST_PACKET, || {
        Ok(answers(&lab.network.hosts[0], to, PATIENCE)?.then(Instant::now))
    });
    let mut outcome = Outcome {
        transport: name,
        kinds: kinds.map(NatKind::name),
        path: None,
        first_packet_seconds: None,
        direct_seconds: None,
        packets: 0,
        lost: 0,
        reordered: 0,
        duplicated: 0,
    };
    let Ok((first, _)) = first else {
        return Ok(outcome);
    };
    outcome.first_packet_seconds = Some((first - lab.started).as_secs_f64());
    let (direct, tally) = cross(&lab)?;
    outcome.direct_seconds = direct.map(|direct| (direct - lab.started).as_secs_f64());
    outcome.path = Some(if direct.is_some() { "direct" } else { "relayed" });
    (outcome.packets, outcome.lost) = (tally.n_sent, tally.n_lost);
    (outcome.reordered, outcome.duplicated) = (tally.n_reordered, tally.n_duplicated);
    Ok(outcome)
}

/// Has packets cross both ways until some time after the direct connection is there, or has been waited for. Returns when
/// both sides used it, and what became of the packets.
fn cross(lab: &NatLab) -> Result<(Option<Instant>, Tally)> {
    let both = || lab.wait_direct(DIRECT).ok();
    thread::scope(|scope| {
        let ways = [(0, 1), (1, 0)].map(|(from, to)| {
            scope.spawn(move || {
                let hosts = (&lab.network.hosts[from], &lab.network.hosts[to]);
                let mut direct = None;
                let tally = datagrams(FLOWS, hosts, NatLab::inner(to), || {
                    direct = both();
                    thread::sleep(AFTER);
                })?;
                Ok::<_, anyhow::Error>((direct, tally))
            })
        });
        let (mut last, mut sum) = (None, Tally::default());
        for way in ways {
            let (direct, tally) = way.join().expect("no probe panics")?;
            last = last.max(direct);
            sum += tally;
        }
        Ok((last, sum))
    })
}

impl Outcome {
    const HEAD: &'static str = "       between                                   path     first packet   direct  packets  lost  \
                                reordered  duplicated";
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = |time: Option<f64>| time.map_or("-".to_owned(), |time| format!("{time:.2} s"));
        let pair = self.kinds.join(" and ");
        write!(
            f,
            "{:<6} {pair:<41} {:<9} {:>11} {:>8} {:>8} {:>5} {:>10} {:>11}",
            self.transport,
            self.path.unwrap_or("none"),
            seconds(self.first_packet_seconds),
            seconds(self.direct_seconds),
            self.packets,
            self.lost,
            self.reordered,
            self.duplicated,
        )
    }
}
