//! What the package has for Prometheus and Grafana asks for metrics that there are.

use std::collections::BTreeSet;

use super::network::recorded;
use super::*;

const DASHBOARD: &str = include_str!("../../../dist/grafana-dashboard.json");
const ALERTS: &str = include_str!("../../../dist/alerts.yml");
const COUNTERS: &str = include_str!("../../../../docs/counters-and-maps.md");

/// Every query of the dashboard: those of panels, and those that fill its variables.
fn queries(value: &Value, into: &mut Vec<String>) {
    match value {
        Value::Object(object) => {
            for (name, inner) in object {
                match inner {
                    Value::String(text) if ["expr", "query", "definition"].contains(&name.as_str()) => {
                        into.push(text.clone());
                    }
                    inner => queries(inner, into),
                }
            }
        }
        Value::Array(values) => values.iter().for_each(|inner| queries(inner, into)),
        _ => {}
    }
}

/// The words of a query, and the strings in it.
fn words(query: &str) -> impl Iterator<Item = &str> {
    query
        .split(|c: char| !c.is_ascii_alphanumeric() && c != '_')
        .filter(|word| !word.is_empty())
}

fn metrics_in(query: &str) -> impl Iterator<Item = &str> {
    words(query).filter(|word| {
        ["stream_router_", "libp2p_", "process_"]
            .iter()
            .any(|prefix| word.starts_with(prefix))
    })
}

fn known() -> BTreeSet<String> {
    let sources = MetricsSources {
        others: Arc::new(recorded()),
        ..sources(CheckState::Ok)
    };
    lint(&collect::open_metrics(&sources).expect("metrics"))
        .into_keys()
        .collect()
}

fn check(query: &str, known: &BTreeSet<String>) {
    let unknown: Vec<_> = metrics_in(query).filter(|name| !known.contains(*name)).collect();
    assert!(unknown.is_empty(), "{unknown:?} is not exported: {query}");
    assert!(
        metrics_in(query).next().is_some() || query.starts_with("up{"),
        "no metric of the node: {query}"
    );
    // Reasons stand in quotation marks behind reason= or reason=~.
    for matcher in query.split("reason=").skip(1) {
        let reasons = matcher
            .trim_start_matches('~')
            .split('"')
            .nth(1)
            .expect("a string");
        for reason in reasons.split('|') {
            assert!(
                COUNTERS.contains(&format!("\n| `{reason}` |")),
                "there is no {reason}: {query}"
            );
        }
    }
}

#[test]
fn every_query_of_the_dashboard_asks_for_what_is_exported() {
    let dashboard: Value = serde_json::from_str(DASHBOARD).unwrap();
    let mut found = Vec::new();
    queries(&dashboard, &mut found);
    let known = known();

    assert!(found.len() > 20, "{found:?}");
    // The query that finds the data source names its kind.
    for query in found.iter().filter(|query| *query != "prometheus") {
        check(query, &known);
    }
    let panels = dashboard["panels"].as_array().unwrap();
    let ids: BTreeSet<_> = panels.iter().map(|panel| panel["id"].as_u64()).collect();
    assert_eq!(ids.len(), panels.len(), "ids are unique");
}

#[test]
fn every_alert_asks_for_what_is_exported_and_says_what_to_do() {
    let known = known();
    let rules: Vec<_> = ALERTS.split("\n      - alert: ").skip(1).collect();

    assert!(rules.len() >= 8, "{}", rules.len());
    for rule in rules {
        let field = |name: &str| {
            let mut lines = rule.lines().map(str::trim);
            let found = lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
            found.unwrap_or_else(|| panic!("{name} is missing: {rule}"))
        };
        check(field("expr"), &known);
        for name in ["for", "severity", "summary", "description"] {
            assert!(!field(name).is_empty(), "{rule}");
        }
    }
}
