//! Checks the peers' networks against the routes that the host has.

use super::finding::Finding;
use super::input::CheckInput;
use crate::cli::host_routes::look;
use crate::node::Overlaps;

const CHECK: &str = "route_conflict";

/// Looks for every network of a peer in the host's main table.
pub(super) fn check(input: &CheckInput) -> Vec<Finding> {
    match look(&input.config) {
        Ok(found) => judge(
            &found,
            input.file.as_deref().map(|file| file.display().to_string()),
        ),
        Err(error) => vec![Finding::unknown(CHECK, error.to_string())],
    }
}

fn judge(found: &Overlaps, file: Option<String>) -> Vec<Finding> {
    let file = file.unwrap_or_else(|| "FILE".to_owned());
    let conflicts = found.conflicts.iter().map(|conflict| {
        let way_out = match conflict.peer {
            Some(_) => "narrow allowed_ips, or say override = true for the peer",
            None => "choose other device.addresses",
        };
        Finding::problem(CHECK, format!("{conflict}; a node does not start so: {way_out}"))
            .about(conflict.overlap.network.to_string())
            .fix(format!("stream-router check --live --config {file}"))
    });
    let kept = found.kept.iter().map(|kept| {
        Finding::warning(CHECK, kept.to_string())
            .about(kept.overlap.network.to_string())
            .fix(format!("ip route get {}", kept.overlap.host.net.addr()))
    });
    let mut findings: Vec<_> = conflicts.chain(kept).collect();
    if findings.is_empty() {
        findings.push(Finding::ok(
            CHECK,
            "no network of a peer is a network of this host",
        ));
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::super::finding::Verdict;
    use super::*;

    #[test]
    fn nothing_found_is_fine() {
        let findings = judge(&Overlaps::default(), None);

        assert_eq!(findings.len(), 1);
        assert_eq!(findings[0].verdict, Verdict::Ok);
    }
}
