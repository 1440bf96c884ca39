//! Checks whether the running node has its peers.

use std::error::Error;

use super::finding::Finding;
use super::input::CheckInput;
use crate::cli::request::wait;
use crate::cli::units::called;
use crate::control::{CounterList, PeerList, PeerState, PeerStatus, fetch};

/// The counter of [`judge_duplicates`].
const DUPLICATES: &str = "duplicate_identities";

/// Asks the running node for its peers, if it runs.
pub(super) fn ask(input: &CheckInput) -> Option<Result<PeerList, Box<dyn Error>>> {
    input.running.status()?;
    let socket = input.config.node().control();
    Some(wait(async { fetch::<PeerList>(socket, "").await }))
}

/// Judges the peers of the running node, as it answered.
pub(super) fn check(input: &CheckInput, answer: &Result<PeerList, Box<dyn Error>>) -> Vec<Finding> {
    const CHECK: &str = "peers";
    let socket = input.config.node().control();
    let mut findings = match answer {
        Ok(list) => judge(&list.peers),
        Err(error) => vec![Finding::unknown(CHECK, error.to_string())],
    };
    if let Ok(list) = wait(async { fetch::<CounterList>(socket, "").await }) {
        let counter = list.counters.iter().find(|one| one.name == DUPLICATES);
        findings.push(judge_duplicates(counter.map(|one| one.value)));
    }
    findings
}

/// Judges how often two machines with one key were seen.
fn judge_duplicates(n: Option<u64>) -> Finding {
    const CHECK: &str = "identity";
    match n {
        Some(0) => Finding::ok(CHECK, "no two machines were seen with the key of one peer, or of this node"),
        Some(n) => Finding::warning(
            CHECK,
            format!(
                "{n} times since the node started, two machines were seen with the key of one peer, or a peer has told of \
                 another with the key of this one: only one of the two can be reached at a time. The log names both \
                 addresses; give one of them a key of its own"
            ),
        )
        .fix("journalctl -u stream-router -g 'runs? with the key of'"),
        None => Finding::unknown(CHECK, "the running node does not count it"),
    }
}

/// Judges all peers together, and each one that is not connected.
fn judge(peers: &[PeerStatus]) -> Vec<Finding> {
    const CHECK: &str = "peers";
    let absent: Vec<_> = peers.iter().filter(|peer| is_missed(peer)).collect();
    let n = peers.len();
    let all = match (n, n - absent.len()) {
        (0, _) => Finding::warning(CHECK, "none is configured: nothing goes anywhere"),
        (_, 0) => Finding::problem(CHECK, format!("none of {n} is connected: nothing goes anywhere")),
        (_, there) if absent.is_empty() => Finding::ok(CHECK, format!("{there} of {n} are there")),
        (_, there) => Finding::warning(CHECK, format!("{there} of {n} are there")),
    };
    let mut findings = vec![all];
    findings.extend(absent.into_iter().map(judge_absent));
    findings
}

fn is_missed(peer: &PeerStatus) -> bool {
    // One on demand has nothing sent to it.
    !matches!(peer.state, PeerState::Connected | PeerState::Idle)
}

fn judge_absent(peer: &PeerStatus) -> Finding {
    const CHECK: &str = "peer";
    let finding = match (&peer.last_dial_error, peer.state) {
        // It does not come right by waiting.
        (Some(error), _) if peer.refuses || error.contains("another peer") => Finding::problem(CHECK, error),
        (Some(error), _) => Finding::warning(CHECK, format!("not connected: {error}")),
        (None, PeerState::Disconnected) => Finding::warning(
            CHECK,
            "not connected: no address of it is known, so it has to dial this node, and has not",
        ),
        (None, _) => Finding::warning(CHECK, "not connected: the first attempt is under way"),
    };
    finding.about(called(peer.name.as_deref(), &peer.id))
}

#[cfg(test)]
mod tests {
    use super::super::finding::Verdict;
    use super::*;

    fn peer(state: &str, error: Option<&str>) -> PeerStatus {
        let json = serde_json::json!({
            "id": "12D3", "state": state, "address": null, "transport": null, "direction": null, "rtt_ms": null,
            "handshake_age_seconds": null, "connections": 0, "streams": 0, "allowed_ips": [],
            "rate_bytes_per_second": null, "tx_frames": 0, "tx_bytes": 0, "rx_frames": 0, "rx_bytes": 0,
            "last_dial_error": error, "refuses": false,
        });
        serde_json::from_value(json).unwrap()
    }

    #[test]
    fn a_node_without_a_connection_has_a_problem_and_one_with_some_a_warning() {
        let verdicts = |peers: &[PeerStatus]| judge(peers).iter().map(|one| one.verdict).collect::<Vec<_>>();
        let there = || peer("connected", None);
        let gone = || peer("connecting", Some("connection refused"));

        assert_eq!(verdicts(&[]), [Verdict::Warning]);
        assert_eq!(verdicts(&[there()]), [Verdict::Ok]);
        assert_eq!(verdicts(&[there(), gone()]), [Verdict::Warning, Verdict::Warning]);
        assert_eq!(verdicts(&[gone()]), [Verdict::Problem, Verdict::Warning]);
        let silent = peer("disconnected", None);
        assert_eq!(verdicts(&[there(), silent]), [Verdict::Warning, Verdict::Warning]);
    }

    #[test]
    fn a_key_on_two_machines_is_a_warning() {
        assert_eq!(judge_duplicates(Some(0)).verdict, Verdict::Ok);
        assert_eq!(judge_duplicates(Some(2)).verdict, Verdict::Warning);
        assert_eq!(judge_duplicates(None).verdict, Verdict::Unknown);
    }

    #[test]
    fn what_waiting_does_not_mend_is_a_problem() {
        let error = "another peer, 12D4, answers at /ip4/192.0.2.2/tcp/4001; correct its id or address";
        let finding = &judge(&[peer("connected", None), peer("connecting", Some(error))])[1];
        assert_eq!(
            (finding.verdict, finding.subject.as_deref()),
            (Verdict::Problem, Some("12D3"))
        );
        assert_eq!(finding.detail, error);
    }
}
