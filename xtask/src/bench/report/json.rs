//! The report as JSON.

use anyhow::{Context, Result};
use serde::Serialize;

use super::machine::Machine;
use super::{ComparisonReport, VpnColumn};
use crate::bench::stats::Summary;

#[derive(Serialize)]
struct RunJson<'a> {
    machine: &'a Machine,
    seconds: u64,
    repeats: u64,
    vpns: Vec<VpnJson<'a>>,
}

#[derive(Serialize)]
struct VpnJson<'a> {
    name: &'a str,
    version: Option<&'a str>,
    failures: &'a [String],
    figures: Vec<FigureJson<'a>>,
}

#[derive(Serialize)]
struct FigureJson<'a> {
    link: &'a str,
    figure: String,
    title: &'a str,
    unit: &'a str,
    values: &'a [f64],
    #[serde(flatten)]
    summary: Option<Summary>,
}

impl ComparisonReport {
    /// Returns every value, with the median and the spread.
    pub(super) fn json(&self) -> Result<String> {
        let run = RunJson {
            machine: &self.machine,
            seconds: self.secs,
            repeats: self.repeats,
            vpns: self.columns.iter().map(vpn).collect(),
        };
        let text = serde_json::to_string_pretty(&run).context("cannot write the report as JSON")?;
        Ok(text + "\n")
    }
}

fn vpn(column: &VpnColumn) -> VpnJson<'_> {
    let entries = column.samples.iter().map(|((link, figure), values)| FigureJson {
        link: link.name(),
        figure: format!("{figure:?}"),
        title: figure.title(),
        unit: figure.unit(),
        values,
        summary: Summary::of(values),
    });
    VpnJson {
        name: column.name,
        version: column.version.as_deref(),
        failures: &column.failures,
        figures: entries.collect(),
    }
}
