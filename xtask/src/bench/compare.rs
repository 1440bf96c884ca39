//! The comparison: every VPN over every link, again and again.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;
use clap::builder::RangedU64ValueParser;
use clap::{Args, ValueEnum};

use super::figure::{LinkKind, Samples};
use super::measure::Site;
use super::peers::{InstalledVpn, Vpn};
use super::report::{Baseline, ComparisonReport, VpnColumn};
use super::underlay::HostPair;
use crate::command::require_root;
use crate::install;
use xtask::lab::clear_leftovers;

/// The name of a program that was built before, in tables and files.
const BEFORE: &str = "stream-router, before";

/// What is measured, for how long and how often.
#[derive(Args, Debug)]
pub(crate) struct ComparisonPlan {
    /// Measure only this one; may be given more than once.
    #[arg(long, value_name = "NAME")]
    only: Vec<Vpn>,
    /// Measure over this link only; may be given more than once.
    #[arg(long, value_name = "LINK")]
    link: Vec<LinkKind>,
    /// Seconds of each measurement.
    #[arg(long, default_value = "5", value_parser = RangedU64ValueParser::<u64>::new().range(1..=600))]
    secs: u64,
    /// How often everything is measured; the report has the medians.
    #[arg(long, default_value = "3", value_parser = RangedU64ValueParser::<u64>::new().range(1..=100))]
    repeats: u64,
    /// Measure a program that was built before beside this build, and print how many times its figures this build's are.
    #[arg(long, value_name = "PROGRAM")]
    against: Option<PathBuf>,
    /// Measure only what a change is likely to change, of these two, in less than three minutes.
    #[arg(long, requires = "against", conflicts_with_all = ["only", "link", "secs", "repeats"])]
    quick: bool,
    /// Print how many times the figures of an earlier report, a file of JSON, this run's are.
    #[arg(long, value_name = "FILE")]
    baseline: Option<PathBuf>,
}

/// Seconds of each measurement of a quick run, and how often it measures.
const QUICK: (u64, u64) = (2, 3);

/// Measures, prints the table and leaves it as Markdown, JSON and SVG in the target directory.
///
/// What cannot be installed or measured is named in the report, and the others are measured all the same.
///
/// # Errors
/// When not root, when a tool is missing, when no VPN is there, or when the report cannot be written.
pub(crate) fn compare(plan: &ComparisonPlan) -> Result<()> {
    require_root("bench")?;
    let baseline = plan.baseline.as_deref().map(Baseline::read).transpose()?;
    install::bench_programs()?;
    clear_leftovers()?;
    let mut peers = Vec::new();
    for vpn in plan.vpns() {
        peers.push((vpn.name(), InstalledVpn::install(vpn)));
        if let (Vpn::StreamRouter, Some(program)) = (vpn, &plan.against) {
            peers.push((BEFORE, InstalledVpn::built_before(program)));
        }
    }
    let mut columns: Vec<VpnColumn> = peers
        .iter()
        .map(|(name, peer)| VpnColumn::new(name, peer))
        .collect();
    // The outermost loop is the repeat, so that a busy minute of the machine falls on all of them.
    for repeat in 1..=plan.repeats() {
        for link in plan.links() {
            for ((name, peer), column) in peers.iter().zip(&mut columns) {
                let Ok(peer) = peer else { continue };
                eprintln!("{name}: {} ({repeat} of {})", link.title(), plan.repeats());
                measure(peer, link, plan, column);
            }
        }
    }
    let report = ComparisonReport::new(plan, columns)?;
    report.publish()?;
    if plan.against.is_some() {
        println!("\n{}", report.ratios_within(Vpn::StreamRouter.name(), BEFORE));
    }
    if let Some(baseline) = baseline {
        println!("\n{}", report.ratios_to(&baseline));
    }
    Ok(())
}

impl ComparisonPlan {
    fn vpns(&self) -> Vec<Vpn> {
        let all = Vpn::value_variants();
        let wanted = |vpn: &Vpn| match self.quick {
            true => *vpn == Vpn::StreamRouter,
            false => self.only.is_empty() || self.only.contains(vpn),
        };
        all.iter().copied().filter(wanted).collect()
    }

    fn links(&self) -> Vec<LinkKind> {
        let all = LinkKind::value_variants();
        let wanted = |link: &LinkKind| match self.quick {
            true => *link == LinkKind::Offloads,
            false => self.link.is_empty() || self.link.contains(link),
        };
        all.iter().copied().filter(wanted).collect()
    }

    /// Returns the seconds of each measurement.
    pub(super) fn secs(&self) -> u64 {
        if self.quick { QUICK.0 } else { self.secs }
    }

    /// Returns how often everything is measured.
    pub(super) fn repeats(&self) -> u64 {
        if self.quick { QUICK.1 } else { self.repeats }
    }
}

fn measure(peer: &InstalledVpn, link: LinkKind, plan: &ComparisonPlan, column: &mut VpnColumn) {
    let (samples, failures) = match over(peer, link, plan) {
        Ok(measured) => measured,
        Err(error) => (Samples::new(), vec![format!("{error:#}")]),
    };
    for (key, values) in samples {
        column.samples.entry(key).or_default().extend(values);
    }
    for failure in failures {
        eprintln!("{}: {failure}", column.name);
        column.failures.push(format!("{}: {failure}", link.name()));
    }
}

fn over(peer: &InstalledVpn, link: LinkKind, plan: &ComparisonPlan) -> Result<(Samples, Vec<String>)> {
    let underlay = HostPair::new(link)?;
    let tunnel = peer.connect(&underlay)?;
    let site = Site {
        underlay: &underlay,
        tunnel: &tunnel,
        link,
        duration: Duration::from_secs(plan.secs()),
        is_short: plan.quick,
    };
    Ok(site.measure())
}
