//! `stream-router doctor`: finds what keeps a node from running, or from running well, and names the command that fixes
//! it.
//!
//! With `--json` one object: `findings`, each with `check` (a name that stays), `subject` (the interface, address or
//! file that it is about, or null), `verdict` (`ok`, `warning`, `problem` or `unknown`), `detail` and `fix` (a command,
//! or null); and the numbers of `problems`, `warnings` and `unknown`.
//!
//! Each group is a file: probes look, and pure functions judge what they saw.

mod addresses;
mod capabilities;
mod clock;
mod exit;
mod files;
mod finding;
mod firewall;
mod forwarding;
mod host;
mod input;
mod interfaces;
mod kernel;
mod leftovers;
mod metrics_port;
mod named;
mod node;
mod overlaps;
mod path;
mod peers;
mod port_mapping;
mod ports;
mod reach;
mod resources;
mod routes;
mod service;
mod sysctl;
mod trial;

use std::collections::BTreeSet;
use std::path::Path;

use clap::Args;
use serde::Serialize;

use super::defaults::defaults;
use super::outcome::{Outcome, print};
use super::which::WhichFile;
use crate::config::{Config, INSTALLED_CONFIG};
use finding::{Finding, Verdict};
use input::CheckInput;

/// What is checked.
#[derive(Debug, Args)]
pub(super) struct DoctorArguments {
    #[command(flatten)]
    which: WhichFile,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Some checks found a problem; the findings have been printed.
#[derive(Debug, thiserror::Error)]
#[error("{n} of the checks found a problem")]
struct ProblemsFound {
    n: usize,
}

#[derive(Debug, Serialize)]
struct DoctorReport {
    problems: usize,
    warnings: usize,
    unknown: usize,
    findings: Vec<Finding>,
}

/// Runs every check, and prints the findings.
pub(super) fn doctor(arguments: &DoctorArguments) -> Outcome {
    let report = DoctorReport::of(examine(arguments.which.named().as_deref())?);
    if arguments.json {
        print(serde_json::to_string_pretty(&report)?)?;
    } else {
        print(report.text())?;
    }
    match report.problems {
        0 => Ok(()),
        n => Err(Box::new(ProblemsFound { n })),
    }
}

fn examine(named: Option<&Path>) -> Result<Vec<Finding>, Box<dyn std::error::Error>> {
    let installed = Path::new(INSTALLED_CONFIG);
    // One that may not be looked at is there.
    let is_installed = !matches!(installed.try_exists(), Ok(false));
    let file = named.or(is_installed.then_some(installed));
    let loaded = file.map(Config::load_regular);
    let mut findings = vec![files::configuration(file, loaded.as_ref())];
    // With a file that is wrong, the rest is looked at as without one.
    let (config, file) = match loaded {
        Some(Ok(config)) => (config, file),
        _ => (defaults()?, None),
    };
    let (running, control) = node::look(config.node().control())?;
    let input = CheckInput {
        config,
        file: file.map(Path::to_owned),
        running,
    };
    findings.push(control);
    findings.extend(host::check(&input));
    let peers = peers::ask(&input);
    findings.extend(peers.iter().flat_map(|answer| peers::check(&input, answer)));
    findings.extend(port_mapping::check(&input));
    // Whether it says who they are is judged above.
    let peers = peers
        .and_then(Result::ok)
        .map_or_else(Vec::new, |list| list.peers);
    findings.extend(reach::check(&input, &peers));
    findings.extend(files::key(&input));
    findings.extend(named::check(&input));
    findings.extend(service::check(&input));
    findings.extend(capabilities::check(&input));
    findings.extend(resources::check(&input));
    findings.extend(kernel::check());
    findings.extend(trial::check(&input));
    findings.extend(sysctl::check(&input));
    findings.extend(forwarding::check(&input));
    let (routes, underlays) = routes::check(&input);
    findings.extend(routes);
    findings.extend(overlaps::check(&input));
    findings.push(leftovers::check(&input)?);
    findings.extend(exit::check(&input));
    findings.extend(path::check(&input)?);
    findings.extend(interfaces::check(&input, &underlays)?);
    findings.extend(addresses::check(&input));
    findings.extend(ports::check(&input));
    findings.extend(metrics_port::check(&input));
    findings.extend(firewall::check(&input));
    findings.extend(clock::check());
    Ok(findings)
}

/// What stands in the way of a node that is to start.
pub(super) struct Obstacles {
    /// Everything that is not as it should be, in lines.
    pub(super) lines: Vec<String>,
    /// How much of it is a problem.
    pub(super) n_problems: usize,
}

/// Looks at what a start needs of the host beside the privileges: key and whatever else the configuration names, device,
/// gateways, ports, nftables.
///
/// # Errors
/// The system gives no runtime.
pub(super) fn before_a_start(config: &Config, file: &Path) -> Result<Obstacles, Box<dyn std::error::Error>> {
    let (running, _) = node::look(config.node().control())?;
    let input = CheckInput {
        config: config.clone(),
        file: Some(file.to_owned()),
        running,
    };
    let mut findings: Vec<_> = files::key(&input).into_iter().collect();
    findings.extend(named::check(&input));
    findings.extend(exit::check(&input));
    findings.extend(interfaces::check(&input, &BTreeSet::new())?);
    findings.extend(ports::check(&input));
    findings.extend(metrics_port::check(&input));
    findings.retain(|finding| finding.verdict != Verdict::Ok);
    let problems = findings
        .iter()
        .filter(|finding| finding.verdict == Verdict::Problem);
    Ok(Obstacles {
        n_problems: problems.count(),
        lines: findings.iter().map(Finding::text).collect(),
    })
}

impl DoctorReport {
    fn of(findings: Vec<Finding>) -> Self {
        let n = |verdict| {
            findings
                .iter()
                .filter(|finding| finding.verdict == verdict)
                .count()
        };
        Self {
            problems: n(Verdict::Problem),
            warnings: n(Verdict::Warning),
            unknown: n(Verdict::Unknown),
            findings,
        }
    }

    fn text(&self) -> String {
        let lines = self.findings.iter().map(Finding::text);
        format!(
            "{}{} problems, {} warnings, {} could not be checked",
            lines.collect::<String>(),
            self.problems,
            self.warnings,
            self.unknown
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_a_configuration() {
        let config = defaults().unwrap();
        assert_eq!(config.device().name(), "sr0");
        assert!(config.peers().is_empty());
    }

    #[test]
    fn a_report_counts_by_verdict_and_has_a_line_for_each_finding() {
        let report = DoctorReport::of(vec![
            Finding::ok("clock", "synchronised"),
            Finding::warning("rp_filter", "strict").fix("sysctl -w a=2"),
            Finding::problem("key", "missing"),
            Finding::unknown("firewall", "not root").about("tcp/4001"),
        ]);

        assert_eq!((report.problems, report.warnings, report.unknown), (1, 1, 1));
        assert_eq!(
            report.text(),
            "ok       clock              synchronised\n\
             warning  rp_filter          strict\n\
             \u{20}                           sysctl -w a=2\n\
             problem  key                missing\n\
             unknown  firewall           tcp/4001: not root\n\
             1 problems, 1 warnings, 1 could not be checked"
        );
        let json = serde_json::to_value(&report).unwrap();
        assert_eq!(
            json["findings"][1],
            serde_json::json!({
                "check": "rp_filter", "subject": null, "verdict": "warning", "detail": "strict", "fix": "sysctl -w a=2",
            })
        );
    }
}
