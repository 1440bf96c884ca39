//! The report: figures and machine, as a table and a picture for people and as JSON for programs.

mod baseline;
mod json;
mod machine;
mod markdown;
mod plot;

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};

use super::compare::ComparisonPlan;
use super::figure::Samples;
use super::peers::InstalledVpn;
use crate::dirs;
pub(super) use baseline::Baseline;
use machine::Machine;

/// All that was measured of one VPN.
#[derive(Debug)]
pub(super) struct VpnColumn {
    pub(super) name: &'static str,
    /// Version of the VPN; `None` when it is not installed.
    pub(super) version: Option<String>,
    pub(super) samples: Samples,
    /// Why figures are missing.
    pub(super) failures: Vec<String>,
}

/// A finished run.
#[derive(Debug)]
pub(super) struct ComparisonReport {
    machine: Machine,
    secs: u64,
    repeats: u64,
    columns: Vec<VpnColumn>,
}

impl VpnColumn {
    /// Makes an empty column for a VPN that is installed, or could not be.
    pub(super) fn new(name: &'static str, peer: &Result<InstalledVpn>) -> Self {
        let failures = peer.as_ref().err().map(|error| format!("not there: {error:#}"));
        Self {
            name,
            version: peer.as_ref().ok().map(|peer| peer.version().to_owned()),
            samples: Samples::new(),
            failures: failures.into_iter().collect(),
        }
    }
}

impl ComparisonReport {
    pub(super) fn new(plan: &ComparisonPlan, columns: Vec<VpnColumn>) -> Result<Self> {
        if columns.iter().all(|column| column.samples.is_empty()) {
            let failures: Vec<String> = columns
                .iter()
                .map(|column| format!("{}: {}", column.name, column.failures.join("; ")))
                .collect();
            bail!("nothing could be measured: {}", failures.join("; "));
        }
        Ok(Self {
            machine: Machine::of_this_run()?,
            secs: plan.secs(),
            repeats: plan.repeats(),
            columns,
        })
    }

    /// Prints the table and writes all forms of the report.
    pub(super) fn publish(&self) -> Result<()> {
        let directory = dirs::target()?.join("bench");
        fs::create_dir_all(&directory).with_context(|| format!("cannot create {}", directory.display()))?;
        let markdown = self.markdown();
        write(&directory.join("report.md"), &markdown)?;
        write(&directory.join("report.json"), &self.json()?)?;
        write(&directory.join("report.svg"), &self.svg()?)?;
        println!("{markdown}");
        eprintln!("written to {}", directory.display());
        Ok(())
    }
}

fn write(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::figure::{Figure, LinkKind};

    /// Returns a run of one figure, with a VPN that is installed and one that is not.
    pub(super) fn report() -> ComparisonReport {
        let key = (LinkKind::Offloads, Figure::Tcp);
        let there = VpnColumn {
            name: "veth",
            version: Some(String::new()),
            samples: Samples::from([(key, vec![3.0, 1.0, 2.0])]),
            failures: Vec::new(),
        };
        let absent = VpnColumn {
            name: "tinc",
            version: None,
            samples: Samples::new(),
            failures: vec!["not there: no apt-get".into()],
        };
        ComparisonReport {
            machine: Machine {
                date: "2000-01-01".into(),
                kernel: "6.18".into(),
                cpu: "CPU".into(),
                cpu_flags: vec!["aes".into()],
                n_cpus: 2,
                congestion_control: "cubic".into(),
            },
            secs: 5,
            repeats: 3,
            columns: vec![there, absent],
        }
    }
}
