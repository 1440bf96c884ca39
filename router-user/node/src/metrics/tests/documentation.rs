//! The documentation names every path, check and metric, and no other.

use std::collections::{BTreeMap, BTreeSet};

use super::*;

const METRICS: &str = include_str!("../METRICS.md");

/// The rows of the tables headed so, cell by cell.
fn rows(heading: &str) -> Vec<Vec<&'static str>> {
    let parts = METRICS.split("\n\n");
    let tables = parts.filter(|part| part.trim_start().starts_with(heading));
    let lines = tables.flat_map(|table| table.trim().lines().skip(2));
    lines
        .map(|line| line.trim_matches('|').split('|').map(str::trim).collect())
        .collect()
}

fn in_backticks(cell: &str) -> BTreeSet<String> {
    cell.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

#[test]
fn every_metric_is_documented_with_type_and_labels_and_no_other() {
    let documented: BTreeMap<String, (String, BTreeSet<String>)> = rows("| metric |")
        .into_iter()
        .map(|row| {
            assert!(row[3].len() > 5, "{row:?} has no meaning");
            let names = in_backticks(row[0]);
            let name = names.into_iter().next().expect("a name");
            (name, (row[1].to_owned(), in_backticks(row[2])))
        })
        .collect();

    let own = exported()
        .into_iter()
        .map(|(name, family)| (name, (family.kind, family.labels)));

    // The example has no counter of drops, whose labels are those of events.
    let mut expected: BTreeMap<_, _> = own.collect();
    let labels = expected["stream_router_events_total"].1.clone();
    expected.get_mut("stream_router_drops_total").expect("drops").1 = labels;
    assert_eq!(documented, expected);
}

#[test]
fn every_path_is_documented_and_no_other() {
    let documented: BTreeSet<_> = rows("| request |")
        .into_iter()
        .flat_map(|row| in_backticks(row[0]))
        .collect();

    let paths = routes::PATHS.iter().map(|path| format!("GET {path}"));

    assert_eq!(documented, paths.collect());
}

#[test]
fn every_check_of_health_is_documented() {
    let documented: Vec<_> = rows("| check |")
        .into_iter()
        .flat_map(|row| in_backticks(row[0]))
        .collect();

    assert_eq!(documented, ["node", "threads", "host", "device", "peers"]);
}

#[test]
fn every_field_of_the_history_is_documented_and_no_other() {
    let documented: BTreeSet<_> = rows("| field |")
        .into_iter()
        .flat_map(|row| in_backticks(row[0]))
        .collect();
    let recorder = history::Recorder::default();
    recorder.record(&Example);

    let sample = serde_json::to_value(recorder.history().samples[0]).unwrap();

    let fields = sample
        .as_object()
        .unwrap()
        .keys()
        .map(|field| format!("samples.{field}"));
    assert_eq!(documented, fields.chain(["samples".to_owned()]).collect());
}
