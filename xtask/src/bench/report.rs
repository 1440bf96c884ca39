//! What was measured, on what, as a table for people and as JSON for programs.

mod json;
mod machine;
mod markdown;

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};

use super::compare::Plan;
use super::figure::Samples;
use super::peers::Peer;
use crate::dirs;
use machine::Machine;

/// All that was measured of one VPN.
#[derive(Debug)]
pub(super) struct Column {
    pub(super) name: &'static str,
    /// Nothing when it is not there.
    pub(super) version: Option<String>,
    pub(super) samples: Samples,
    /// Why something is missing.
    pub(super) failures: Vec<String>,
}

/// A finished run.
#[derive(Debug)]
pub(super) struct Report {
    machine: Machine,
    secs: u64,
    repeats: u64,
    columns: Vec<Column>,
}

impl Column {
    /// An empty column for a VPN that is there, or not.
    pub(super) fn new(name: &'static str, peer: &Result<Peer>) -> Self {
        let failures = peer.as_ref().err().map(|error| format!("not there: {error:#}"));
        Self {
            name,
            version: peer.as_ref().ok().map(|peer| peer.version().to_owned()),
            samples: Samples::new(),
            failures: failures.into_iter().collect(),
        }
    }
}

impl Report {
    pub(super) fn new(plan: &Plan, columns: Vec<Column>) -> Result<Self> {
        if columns.iter().all(|column| column.samples.is_empty()) {
            let failures: Vec<String> = columns
                .iter()
                .map(|column| format!("{}: {}", column.name, column.failures.join("; ")))
                .collect();
            bail!("nothing could be measured: {}", failures.join("; "));
        }
        Ok(Self {
            machine: Machine::of_this_run()?,
            secs: plan.secs,
            repeats: plan.repeats,
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
        println!("{markdown}");
        eprintln!("written to {}", directory.display());
        Ok(())
    }
}

fn write(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}
