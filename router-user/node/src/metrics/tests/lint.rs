//! What `promtool check metrics` and OpenMetrics 1.0 ask of a text of metrics.
//!
//! The end-to-end test runs this file against a live node.

use std::collections::{BTreeMap, BTreeSet};

/// Labels that the node's own metrics may have: each has few values.
const LABELS: [&str; 15] = [
    "name",
    "version",
    "device",
    "interface",
    "mode",
    "sink",
    "check",
    "uplink",
    "peer",
    "state",
    "direction",
    "worker",
    "stream",
    "origin",
    "reason",
];

/// Units that are not base units, as parts of names.
const DERIVED_UNITS: [&str; 10] = [
    "ms",
    "us",
    "milliseconds",
    "microseconds",
    "nanoseconds",
    "minutes",
    "hours",
    "kilobytes",
    "bits",
    "percent",
];

/// A family as it was exported.
#[derive(Debug, Default)]
pub(crate) struct Exported {
    /// Its type.
    pub(crate) kind: String,
    /// The names of its samples' labels.
    pub(crate) labels: BTreeSet<String>,
    /// Its samples.
    pub(crate) n_samples: usize,
}

/// Checks `text` and returns its families by the names that queries use: with `_total` and `_info`, and with the
/// suffixes of a histogram.
///
/// # Panics
/// With the line that is wrong.
pub(crate) fn lint(text: &str) -> BTreeMap<String, Exported> {
    let body = text.strip_suffix("# EOF\n").expect("# EOF is the end");
    assert!(!body.contains("# EOF"), "# EOF is in the middle");
    let mut exported: BTreeMap<String, Exported> = BTreeMap::new();
    let (mut families, mut series) = (BTreeSet::new(), BTreeSet::new());
    let (mut family, mut kind, mut unit) = (String::new(), String::new(), None);
    for line in body.lines() {
        let words: Vec<&str> = line.splitn(4, ' ').collect();
        match words[..] {
            ["#", "HELP", name, help] => {
                check_unit(&family, unit.as_deref());
                assert!(help.ends_with('.') && help.len() > 2, "no text: {line}");
                assert!(families.insert(name.to_owned()), "twice: {line}");
                (family, kind, unit) = (name.to_owned(), String::new(), None);
                check_name(name);
            }
            ["#", "TYPE", name, found] => {
                assert_eq!(name, family, "{line}");
                kind = found.to_owned();
                let names = suffixes(found).iter().map(|suffix| format!("{name}{suffix}"));
                for name in names {
                    let new = Exported {
                        kind: kind.clone(),
                        ..Exported::default()
                    };
                    assert!(
                        exported.insert(name, new).is_none(),
                        "another has this name: {line}"
                    );
                }
            }
            ["#", "UNIT", name, found] => {
                assert_eq!(name, family, "{line}");
                assert!(
                    !found.is_empty() && name.ends_with(&format!("_{found}")),
                    "{line}"
                );
                unit = Some(found.to_owned());
            }
            _ => {
                let (sample, value) = line.rsplit_once(' ').expect("a sample");
                let (name, labels) = sample.split_once('{').map_or((sample, ""), |(name, rest)| {
                    (name, rest.strip_suffix('}').expect("labels end"))
                });
                let known = exported
                    .get_mut(name)
                    .unwrap_or_else(|| panic!("of no family: {line}"));
                assert!(
                    name.starts_with(&family),
                    "apart from its family {family}: {line}"
                );
                assert!(series.insert(sample.to_owned()), "twice: {line}");
                known.labels.extend(check_labels(labels, line));
                known.n_samples += 1;
                let value: f64 = value.parse().unwrap_or_else(|_| panic!("no number: {line}"));
                assert!(!value.is_nan(), "{line}");
                assert!(kind != "counter" || value >= 0.0, "{line}");
                assert!(kind != "info" || value == 1.0, "{line}");
            }
        }
    }
    check_unit(&family, unit.as_deref());
    exported
}

fn suffixes(kind: &str) -> &'static [&'static str] {
    match kind {
        "counter" => &["_total"],
        "info" => &["_info"],
        "gauge" => &[""],
        "histogram" => &["_bucket", "_sum", "_count"],
        other => panic!("no type: {other:?}"),
    }
}

fn check_name(name: &str) {
    let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
    assert!(name.bytes().all(allowed) && !name.contains("__"), "{name}");
    assert!(
        ["stream_router_", "libp2p_", "process_"]
            .iter()
            .any(|prefix| name.starts_with(prefix)),
        "{name}"
    );
    for suffix in ["_total", "_count", "_sum", "_bucket", "_info", "_created"] {
        assert!(!name.ends_with(suffix), "{name} has a suffix that a type adds");
    }
    for derived in DERIVED_UNITS {
        assert!(
            !name.split('_').any(|part| part == derived),
            "{name} is in no base unit"
        );
    }
}

/// A name that ends with a unit says so. Of libp2p's one does not.
fn check_unit(name: &str, unit: Option<&str>) {
    let known = ["seconds", "bytes", "ratio"]
        .into_iter()
        .find(|unit| name.ends_with(&format!("_{unit}")));
    assert!(known.is_none() || known == unit, "{name} has no UNIT");
}

fn check_labels(labels: &str, line: &str) -> Vec<String> {
    let mut names = Vec::new();
    let mut rest = labels;
    while !rest.is_empty() {
        let (name, after) = rest
            .split_once("=\"")
            .unwrap_or_else(|| panic!("no label: {line}"));
        let end = end_of_value(after).unwrap_or_else(|| panic!("a value without end: {line}"));
        assert!(!names.contains(&name.to_owned()), "a label twice: {line}");
        let own = !line.starts_with("libp2p_");
        assert!(
            !own || LABELS.contains(&name),
            "a label that may have many values: {line}"
        );
        names.push(name.to_owned());
        rest = after.get(end + 1..).unwrap_or_default();
        rest = rest.strip_prefix(',').unwrap_or(rest);
    }
    names
}

/// Where the quotation mark stands that ends a value.
fn end_of_value(text: &str) -> Option<usize> {
    let mut escaped = false;
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => return Some(at),
            _ => {}
        }
    }
    None
}
