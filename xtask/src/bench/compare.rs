//! The comparison: every VPN over every link, again and again.

use std::time::Duration;

use anyhow::Result;
use clap::builder::RangedU64ValueParser;
use clap::{Args, ValueEnum};

use super::figure::{LinkKind, Samples};
use super::measure::Site;
use super::peers::{InstalledVpn, Vpn};
use super::report::{ComparisonReport, VpnColumn};
use super::underlay::HostPair;
use crate::command::require_root;
use crate::install;
use xtask::lab::clear_leftovers;

/// What is measured, for how long and how often.
#[derive(Args, Debug)]
pub(crate) struct ComparisonPlan {
    /// Measure only this one; may be given more than once.
    #[arg(long, value_name = "NAME")]
    only: Vec<Vpn>,
    /// Seconds of each measurement.
    #[arg(long, default_value = "5", value_parser = RangedU64ValueParser::<u64>::new().range(1..=600))]
    pub(super) secs: u64,
    /// How often everything is measured; the report has the medians.
    #[arg(long, default_value = "3", value_parser = RangedU64ValueParser::<u64>::new().range(1..=100))]
    pub(super) repeats: u64,
}

/// Measures, prints the table and leaves it as Markdown, JSON and SVG in the target directory.
///
/// What cannot be installed or measured is named in the report, and the others are measured all the same.
///
/// # Errors
/// When not root, when a tool is missing, when no VPN is there, or when the report cannot be written.
pub(crate) fn compare(plan: &ComparisonPlan) -> Result<()> {
    require_root("bench")?;
    install::bench_programs()?;
    clear_leftovers()?;
    let mut peers = Vec::new();
    for vpn in plan.vpns() {
        peers.push((vpn, InstalledVpn::install(vpn)));
    }
    let mut columns: Vec<VpnColumn> = peers
        .iter()
        .map(|(vpn, peer)| VpnColumn::new(vpn.name(), peer))
        .collect();
    // The outermost loop is the repeat, so that a busy minute of the machine falls on all of them.
    for repeat in 1..=plan.repeats {
        for link in LinkKind::value_variants() {
            for ((_, peer), column) in peers.iter().zip(&mut columns) {
                let Ok(peer) = peer else { continue };
                eprintln!(
                    "{}: {} ({repeat} of {})",
                    peer.vpn.name(),
                    link.title(),
                    plan.repeats
                );
                measure(peer, *link, plan, column);
            }
        }
    }
    ComparisonReport::new(plan, columns)?.publish()
}

impl ComparisonPlan {
    fn vpns(&self) -> Vec<Vpn> {
        let all = Vpn::value_variants();
        let wanted = |vpn: &Vpn| self.only.is_empty() || self.only.contains(vpn);
        all.iter().copied().filter(wanted).collect()
    }
}

fn measure(peer: &InstalledVpn, link: LinkKind, plan: &ComparisonPlan, column: &mut VpnColumn) {
    let (samples, failures) = match over(peer, link, Duration::from_secs(plan.secs)) {
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

fn over(peer: &InstalledVpn, link: LinkKind, duration: Duration) -> Result<(Samples, Vec<String>)> {
    let underlay = HostPair::new(link)?;
    let tunnel = peer.connect(&underlay)?;
    let site = Site {
        underlay: &underlay,
        tunnel: &tunnel,
        link,
        duration,
    };
    Ok(site.measure())
}
