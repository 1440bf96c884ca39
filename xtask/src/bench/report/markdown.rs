//! The report as Markdown.

use std::fmt::Write as _;

use clap::ValueEnum;

use super::{ComparisonReport, VpnColumn};
use crate::bench::figure::{Figure, LinkKind};
use crate::bench::stats::Summary;

const MISSING: &str = "–";
const CONDITIONS: &str = "\
Every VPN runs as it ships, with its own MTU; WireGuard's programs have the 1420 bytes that wg-quick sets. \
UDP comes from one sender per CPU at rates that rise until most is lost, and is counted when all queues are full. \
Loss is random and at the receiver, so it meets data and not acknowledgements. \
Versions with a dash are Debian's.\n";

impl ComparisonReport {
    /// Returns a line on the run, a table for each link, and what is missing with the reason.
    pub(super) fn markdown(&self) -> String {
        let machine = &self.machine;
        let mut text = format!(
            "{}, Linux {}, {} × {} ({}), TCP with {}; both ends of every tunnel and the traffic generators share it.\n\
             {} s for each measurement, {}.\n",
            machine.date,
            machine.kernel,
            machine.n_cpus,
            machine.cpu,
            machine.cpu_flags.join(" "),
            machine.congestion_control,
            self.secs,
            match self.repeats {
                1 => "made once".into(),
                n => format!("medians of {n}, smallest and largest in parentheses"),
            },
        );
        for link in LinkKind::value_variants() {
            self.link_table(*link, &mut text);
        }
        text += "\n";
        text += CONDITIONS;
        let notes = self.notes();
        if !notes.is_empty() {
            text += "\n";
            text += &notes;
        }
        text
    }

    fn link_table(&self, link: LinkKind, text: &mut String) {
        let measured = |figure: &Figure| {
            let key = (link, *figure);
            self.columns
                .iter()
                .any(|column| column.samples.contains_key(&key))
        };
        let rows: Vec<Figure> = Figure::value_variants()
            .iter()
            .copied()
            .filter(measured)
            .collect();
        if rows.is_empty() {
            return;
        }
        let _ = write!(text, "\n**{}**\n\n", link.title());
        line(text, "", self.columns.iter().map(heading));
        line(text, "---", self.columns.iter().map(|_| "---:".to_owned()));
        for figure in rows {
            let cells = self.columns.iter().map(|column| cell(column, link, figure));
            line(text, &format!("{}, {}", figure.title(), figure.unit()), cells);
        }
    }

    fn notes(&self) -> String {
        let mut notes = String::new();
        for column in &self.columns {
            for failure in &column.failures {
                let _ = writeln!(notes, "- {}: {}", column.name, failure.replace('\n', " "));
            }
        }
        notes
    }
}

fn line(text: &mut String, first: &str, cells: impl Iterator<Item = String>) {
    let cells: Vec<String> = cells.collect();
    let _ = writeln!(text, "| {first} | {} |", cells.join(" | "));
}

fn heading(column: &VpnColumn) -> String {
    match &column.version {
        Some(version) => format!("{} {version}", column.name).trim_end().to_owned(),
        None => column.name.to_owned(),
    }
}

fn cell(column: &VpnColumn, link: LinkKind, figure: Figure) -> String {
    let values = column.samples.get(&(link, figure)).map_or(&[][..], Vec::as_slice);
    match (Summary::of(values), values.len()) {
        (None, _) => MISSING.into(),
        (Some(summary), 1) => rounded(summary.median),
        (Some(summary), _) => format!(
            "{} ({}–{})",
            rounded(summary.median),
            rounded(summary.min),
            rounded(summary.max)
        ),
    }
}

/// Returns a value with three significant digits.
pub(super) fn rounded(value: f64) -> String {
    let decimals = match value.abs() {
        size if size >= 100.0 => 0,
        size if size >= 10.0 => 1,
        size if size >= 1.0 => 2,
        _ => 3,
    };
    format!("{value:.decimals$}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::report::tests::report;

    #[test]
    fn numbers_keep_three_digits() {
        let shown = [1234.5, 12.345, 1.2345, 0.012345].map(rounded);

        assert_eq!(shown, ["1234", "12.3", "1.23", "0.012"]);
    }

    #[test]
    fn a_vpn_that_is_not_there_has_a_column_and_a_reason() {
        let text = report().markdown();

        assert!(
            text.contains("|  | veth | tinc |\n| --- | ---: | ---: |\n"),
            "{text}"
        );
        assert!(
            text.contains("| TCP, 1 flow, Gbit/s | 2.00 (1.00–3.00) | – |\n"),
            "{text}"
        );
        assert!(text.ends_with("\n- tinc: not there: no apt-get\n"), "{text}");
        assert!(!text.contains(LinkKind::Frames.title()), "{text}");
    }
}
