//! The documentation names every path, field and parameter, and no other.

use std::collections::BTreeSet;

use serde_json::Value;

use super::super::*;
use super::example::Example;
use super::reload::{problems, reload};
use stream_router_engine::capture_filter::{MAX_FILTER_BYTES, MAX_FILTER_DEPTH};

const API: &str = include_str!("../API.md");

/// The section of a path, up to the next one.
fn section(path: &str) -> &'static str {
    let (_, rest) = API.split_once(&format!("\n## {path}\n")).expect("a section");
    rest.split("\n## ").next().unwrap_or_default()
}

/// What stands in backticks in the first column of the tables headed so.
fn named(section: &str, heading: &str) -> BTreeSet<String> {
    let mut tables = section
        .split("\n\n")
        .filter(|part| part.trim_start().starts_with(heading));
    let table = tables.next().expect("a table");
    let first = table
        .trim()
        .lines()
        .skip(2)
        .filter_map(|line| line.split('|').nth(1));
    first
        .flat_map(|cell| cell.split('`').skip(1).step_by(2))
        .map(str::to_owned)
        .collect()
}

/// The fields of `value`, those inside others behind a dot; no field may be empty.
fn fields(value: &Value, above: &str, into: &mut BTreeSet<String>) {
    match value {
        Value::Object(object) => {
            for (name, inner) in object {
                let name = if above.is_empty() {
                    name.clone()
                } else {
                    format!("{above}.{name}")
                };
                fields(inner, &name, into);
                into.insert(name);
            }
        }
        Value::Array(values) => {
            assert!(!values.is_empty(), "{above} has no example");
            values.iter().for_each(|inner| fields(inner, above, into));
        }
        Value::Null => panic!("{above} has no example"),
        _ => {}
    }
}

fn check<R: Resource>(example: &R) {
    let mut expected = BTreeSet::new();
    fields(&serde_json::to_value(example).expect("JSON"), "", &mut expected);

    assert_eq!(named(section(R::PATH), "| field |"), expected, "{}", R::PATH);
    assert!(API.contains(&format!("| `GET {}` |", R::PATH)), "{}", R::PATH);
}

#[test]
fn every_field_of_every_answer_is_documented_and_no_other() {
    check(&Example.status());
    check(&Example.peers());
    check(&Example.flows(&FlowQuery::default()).unwrap());
    check(&Example.workers());
    check(&Example.streams());
    check(&Example.counters().unwrap());
    check(&Example.events());
    check(&Example.invite());
    check(&Example.routes().unwrap());
}

#[test]
fn every_field_of_a_reload_is_documented_and_no_other() {
    let mut expected = BTreeSet::new();
    for example in [
        serde_json::to_value(reload()).unwrap(),
        serde_json::to_value(problems()).unwrap(),
    ] {
        fields(&example, "", &mut expected);
    }

    assert_eq!(named(section(Reload::PATH), "| field |"), expected);
    assert!(API.contains(&format!("| `POST {}` |", Reload::PATH)));
}

#[test]
fn every_parameter_is_documented_and_no_other() {
    let documented = named(section(FlowList::PATH), "| parameter |");
    let refused = FlowQuery::parse("x=1").unwrap_err();
    let (_, known) = refused.split_once("; there are ").unwrap();

    assert_eq!(documented, known.split(", ").map(str::to_owned).collect());
}

#[test]
fn every_parameter_of_a_capture_is_documented_and_no_other() {
    let documented = named(section(CAPTURE_PATH), "| parameter |");
    let refused = CaptureQuery::parse("x=1").unwrap_err();
    let (_, known) = refused.split_once("; there are ").unwrap();

    assert_eq!(
        documented,
        known.split(", ").map(str::to_owned).collect::<BTreeSet<_>>()
    );
    assert!(API.contains(&format!("| `GET {CAPTURE_PATH}` |")));
    assert!(section(CAPTURE_PATH).contains(&format!("| 1 to {MAX_SNAPLEN}; {MAX_SNAPLEN} by default |")));
    assert!(section(CAPTURE_PATH).contains(&format!("an expression of up to {MAX_FILTER_BYTES} bytes")));
    assert!(section(CAPTURE_PATH).contains(&format!(
        "parentheses, up to {MAX_FILTER_DEPTH} inside each other"
    )));
    assert!(section(CAPTURE_PATH).contains(CAPTURE_CONTENT_TYPE));
}

#[test]
fn the_default_and_the_bounds_of_the_limit_are_as_documented() {
    assert!(section(FlowList::PATH).contains(&format!("| 1 to {MAX_FLOWS}; {DEFAULT_FLOWS} by default |")));
}
