//! The figures of a run as ratios to those of another, or of another program in the same run.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use clap::ValueEnum;
use serde::Deserialize;

use super::ComparisonReport;
use super::markdown::rounded;
use crate::bench::figure::{Figure, LinkKind};
use crate::bench::stats::Summary;

/// Medians of one program, by the names that files have of link and figure.
type Medians = BTreeMap<(String, String), f64>;

/// The medians of an earlier run.
#[derive(Debug)]
pub(in crate::bench) struct Baseline {
    vpns: BTreeMap<String, Medians>,
}

#[derive(Deserialize)]
struct RunFile {
    vpns: Vec<VpnFile>,
}

#[derive(Deserialize)]
struct VpnFile {
    name: String,
    figures: Vec<FigureFile>,
}

#[derive(Deserialize)]
struct FigureFile {
    link: String,
    figure: String,
    median: f64,
}

impl Baseline {
    /// Reads a report in JSON.
    pub(in crate::bench) fn read(path: &Path) -> Result<Self> {
        let text = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        Self::parse(&text).with_context(|| format!("{} is no report of `cargo xtask bench`", path.display()))
    }

    fn parse(text: &str) -> Result<Self> {
        let file: RunFile = serde_json::from_str(text)?;
        ensure!(!file.vpns.is_empty(), "it has no figures");
        let medians = |vpn: VpnFile| -> (String, Medians) {
            let entries = vpn.figures.into_iter();
            let entries = entries.map(|entry| ((entry.link, entry.figure), entry.median));
            (vpn.name, entries.collect())
        };
        Ok(Self {
            vpns: file.vpns.into_iter().map(medians).collect(),
        })
    }
}

impl ComparisonReport {
    /// Returns a table of what each VPN has now and had then, and how many times as much it is.
    pub(in crate::bench) fn ratios_to(&self, baseline: &Baseline) -> String {
        let mut text = String::new();
        for column in &self.columns {
            if let Some(then) = baseline.vpns.get(column.name) {
                text += &table(column.name, "earlier", &self.medians(column.name), then);
            }
        }
        if text.is_empty() {
            text += "The earlier report has no figure of what was measured now.\n";
        }
        text
    }

    /// Returns the same of two columns of this run.
    pub(in crate::bench) fn ratios_within(&self, now: &str, before: &str) -> String {
        table(now, before, &self.medians(now), &self.medians(before))
    }

    fn medians(&self, name: &str) -> Medians {
        let columns = self.columns.iter().filter(|column| column.name == name);
        let samples = columns.flat_map(|column| &column.samples);
        let medians = samples.filter_map(|((link, figure), values)| {
            let key = (link.name().to_owned(), format!("{figure:?}"));
            Some((key, Summary::of(values)?.median))
        });
        medians.collect()
    }
}

fn table(now_name: &str, then_name: &str, now: &Medians, then: &Medians) -> String {
    let mut text =
        format!("| link | figure | {now_name} | {then_name} | ratio | |\n|---|---|---:|---:|---:|---|\n");
    for link in LinkKind::value_variants() {
        for figure in Figure::value_variants() {
            let key = (link.name().to_owned(), format!("{figure:?}"));
            let (Some(now), Some(then)) = (now.get(&key), then.get(&key)) else {
                continue;
            };
            let _ = writeln!(
                text,
                "| {} | {}, {} | {} | {} | {} | {} |",
                link.short_title(),
                figure.title(),
                figure.unit(),
                rounded(*now),
                rounded(*then),
                rounded(now / then),
                verdict(*figure, *now, *then),
            );
        }
    }
    text
}

/// Says which is better, where they differ by more than a tenth: runs of the same program differ by less.
fn verdict(figure: Figure, now: f64, then: f64) -> &'static str {
    let (more, less) = if figure.less_is_better() {
        ("worse", "better")
    } else {
        ("better", "worse")
    };
    match now / then {
        ratio if ratio > 1.1 => more,
        ratio if ratio < 0.9 => less,
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::report::tests::report;

    #[test]
    fn a_run_is_compared_with_its_own_report() {
        let run = report();
        let baseline = Baseline::parse(&run.json().unwrap()).unwrap();

        let text = run.ratios_to(&baseline);

        assert!(
            text.contains("| veth with offloads | TCP, 1 flow, Gbit/s | 2.00 | 2.00 | 1.00 |  |\n"),
            "{text}"
        );
    }

    #[test]
    fn what_is_no_report_is_refused() {
        for text in ["", "{}", r#"{"vpns": []}"#, r#"{"vpns": [{"name": "veth"}]}"#] {
            assert!(Baseline::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn more_of_a_cost_is_worse() {
        assert_eq!(verdict(Figure::Tcp, 2.0, 1.0), "better");
        assert_eq!(verdict(Figure::PingIdle50, 2.0, 1.0), "worse");
        assert_eq!(verdict(Figure::PingIdle50, 1.0, 2.0), "better");
        assert_eq!(verdict(Figure::Tcp, 1.05, 1.0), "");
    }
}
