//! Checks what an exit needs: nftables and forwarding where it is served, and a reverse-path filter that lets packets between
//! nodes in where it is used.

use super::finding::Finding;
use super::input::CheckInput;
use super::node::RunningNode;
use super::sysctl::read;
use crate::device::{NftError, has_nft_table, nft_table};
use crate::node::{diverts_ipv4, is_strict};

const CHECK: &str = "exit";

/// Checks what the configuration asks for; nothing if it asks for neither.
pub(super) fn check(input: &CheckInput) -> Vec<Finding> {
    let device = input.config.device().name();
    let mut findings = Vec::new();
    let runs = matches!(input.running, RunningNode::Yes(_));
    if input.config.exit().serve() {
        let forwards = |name: &str| read(name).is_some_and(|value| value != "0");
        let nets = || input.config.peers().iter().flat_map(|peer| peer.allowed_ips());
        let mut off = Vec::new();
        if nets().any(|net| net.addr().is_ipv4()) && !forwards("net.ipv4.ip_forward") {
            off.push("net.ipv4.ip_forward");
        }
        if nets().any(|net| net.addr().is_ipv6()) && !forwards("net.ipv6.conf.all.forwarding") {
            off.push("net.ipv6.conf.all.forwarding");
        }
        findings.push(judge_serving(has_nft_table(device), &off, runs, device).about("serve"));
    }
    if diverts_ipv4(&input.config) {
        // The mark counts only with this setting.
        let counts = read("net.ipv4.conf.all.src_valid_mark").is_some_and(|value| value != "0");
        let is_restored = counts && has_nft_table(device).unwrap_or(false);
        findings.push(judge_sources(is_strict(device), is_restored, runs).about("reverse path"));
    }
    findings
}

fn judge_serving(table: Result<bool, NftError>, off: &[&str], runs: bool, device: &str) -> Finding {
    match table {
        Err(NftError::Missing) => Finding::problem(
            CHECK,
            "nft is not installed, and a node with exit.serve does not start without",
        )
        .fix("apt install nftables"),
        Err(error) => Finding::unknown(CHECK, error.to_string()),
        Ok(false) if runs => Finding::problem(
            CHECK,
            format!(
                "the table {} was removed: packets of peers leave with their own addresses, or not",
                nft_table(device)
            ),
        )
        .fix("stream-router reload"),
        Ok(_) if runs && !off.is_empty() => Finding::problem(
            CHECK,
            format!("{} is off: packets of peers go nowhere", off.join(", ")),
        )
        .fix(format!(
            "sysctl -w {}",
            off.iter()
                .map(|name| format!("{name}=1"))
                .collect::<Vec<_>>()
                .join(" ")
        )),
        Ok(_) if runs => Finding::ok(CHECK, "packets of peers leave with this host's address"),
        Ok(_) => Finding::ok(CHECK, "nft is installed"),
    }
}

fn judge_sources(strict: bool, restored: bool, runs: bool) -> Finding {
    match (strict, restored) {
        (false, _) => Finding::ok(CHECK, "no interface checks sources strictly"),
        (true, true) => Finding::ok(CHECK, "an interface checks sources strictly; packets between nodes have their mark"),
        (true, false) if runs => Finding::problem(
            CHECK,
            "an interface checks sources strictly, and drops what peers answer: the way back leads into the tunnel",
        )
        .fix("sysctl -w net.ipv4.conf.all.rp_filter=2"),
        (true, false) => Finding::ok(
            CHECK,
            "an interface checks sources strictly; the node will mark packets between nodes, if nft is installed",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::super::finding::Verdict;
    use super::*;

    #[test]
    fn serving_needs_nft_its_table_and_forwarding() {
        let judged = |table, off: &[&str], runs| judge_serving(table, off, runs, "sr0");

        assert_eq!(
            judged(Err(NftError::Missing), &[], false).fix.as_deref(),
            Some("apt install nftables")
        );
        assert_eq!(judged(Ok(false), &["x"], false).verdict, Verdict::Ok);
        assert_eq!(judged(Ok(false), &[], true).verdict, Verdict::Problem);
        let off = judged(Ok(true), &["net.ipv4.ip_forward"], true);
        assert_eq!(off.fix.as_deref(), Some("sysctl -w net.ipv4.ip_forward=1"));
        assert_eq!(judged(Ok(true), &[], true).verdict, Verdict::Ok);
    }

    #[test]
    fn strict_sources_and_no_marks_are_a_problem_of_a_running_node() {
        assert_eq!(judge_sources(true, false, true).verdict, Verdict::Problem);
        for (strict, restored, runs) in [(false, false, true), (true, true, true), (true, false, false)] {
            assert_eq!(judge_sources(strict, restored, runs).verdict, Verdict::Ok);
        }
    }
}
