//! What a host has of its node, as the tools of the system show it.

use std::time::Duration;

use anyhow::Result;

use xtask::lab::Side;
use xtask::lab::process::{text, until};

/// How long a node may take to put its host right.
pub(crate) const LIMIT: Duration = Duration::from_secs(10);

/// The device, its addresses, its routes in every table, the rules, and the filters at its egress, a line each.
///
/// # Errors
/// A tool cannot run; a device that is gone is no error.
pub(crate) fn view(side: &Side) -> Result<Vec<String>> {
    let device = &side.config.device;
    let mut view = Vec::new();
    for (what, args) in [
        ("link", &["-oneline", "link", "show", "dev", device][..]),
        ("address", &["-oneline", "address", "show", "dev", device]),
        ("route", &["-4", "route", "show", "table", "all", "dev", device]),
        ("route", &["-6", "route", "show", "table", "all", "dev", device]),
        (
            "unreachable",
            &["-4", "route", "show", "table", "all", "type", "unreachable"],
        ),
        (
            "unreachable",
            &["-6", "route", "show", "table", "all", "type", "unreachable"],
        ),
        ("rule", &["-4", "rule", "show"]),
        ("rule", &["-6", "rule", "show"]),
    ] {
        let shown = side.host.ip(args).unwrap_or_default();
        // A qdisc and its queue are not the node's, and whether the queue is full is told as well.
        let told = |line: &str| line.split(" qdisc ").next().unwrap_or_default().to_owned();
        let lines = shown.lines().map(|line| format!("{what}: {}", told(line.trim())));
        view.extend(lines.filter(|line| !line.contains("multicast ff00::/8")));
    }
    let filters = ["filter", "show", "dev", device, "egress"];
    let shown = text(side.host.command("tc").args(filters), LIMIT).unwrap_or_default();
    let programs = shown.lines().filter(|line| line.contains("handle"));
    view.extend(programs.map(|line| {
        let known = |word: &&str| word.starts_with("sr_") || *word == "direct-action" || *word == "pref";
        format!(
            "filter: {}",
            line.split(' ').filter(known).collect::<Vec<_>>().join(" ")
        )
    }));
    view.sort();
    Ok(view)
}

/// Waits until the host has of its node what it had `before`.
///
/// # Errors
/// It has not in time.
pub(crate) fn wait_for_view(side: &Side, what: &str, before: &[String]) -> Result<()> {
    let mut last = Vec::new();
    let outcome = until(what, LIMIT, || {
        last = view(side)?;
        Ok((last == before).then_some(()))
    });
    outcome.map(drop).map_err(|error| {
        let gone: Vec<_> = before.iter().filter(|line| !last.contains(line)).collect();
        let new: Vec<_> = last.iter().filter(|line| !before.contains(line)).collect();
        error.context(format!("missing: {gone:#?}\nnew: {new:#?}"))
    })
}
