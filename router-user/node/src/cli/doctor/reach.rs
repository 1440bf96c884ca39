//! Checks how the running node is reached, and which peers packets go to through a relay.

use super::finding::Finding;
use super::input::CheckInput;
use crate::cli::reach::{relay_line, tried_lines};
use crate::cli::units::called;
use crate::control::{PeerStatus, ReachStatus};

const CHECK: &str = "reach";

/// Judges what the running node knows of it, and of its peers.
pub(super) fn check(input: &CheckInput, peers: &[PeerStatus]) -> Vec<Finding> {
    let Some(status) = input.running.status() else {
        return Vec::new();
    };
    let mut findings = judge(&status.reach, input.config.transport().punch());
    findings.extend(peers.iter().filter_map(judge_relayed));
    findings
}

fn judge(reach: &ReachStatus, punches: bool) -> Vec<Finding> {
    if reach.relays.is_empty() {
        return Vec::new();
    }
    let relays = reach.relays.iter().map(|relay| {
        let line = relay_line(relay);
        match relay.held {
            true => Finding::ok(CHECK, line),
            false => Finding::warning(CHECK, line),
        }
    });
    let mut findings: Vec<_> = relays.collect();
    if !punches {
        return findings;
    }
    findings.push(match &reach.seen[..] {
        [] if reach.told.is_empty() => Finding::warning(
            CHECK,
            "no relay says at which address it sees this node, so no direct connections are tried: this takes node.listen, \
             and a relay that is connected from its port and has transport.punch",
        ),
        [] => Finding::ok(
            CHECK,
            format!("peers are told {}, for direct connections", reach.told.join(", ")),
        ),
        seen => {
            let seen: Vec<_> = seen
                .iter()
                .map(|one| {
                    let by = called(one.peer_name.as_deref(), &one.peer);
                    format!("{} (says {by})", one.address)
                })
                .collect();
            Finding::ok(
                CHECK,
                format!(
                    "seen at {}; peers are told {}",
                    seen.join(", "),
                    reach.told.join(", ")
                ),
            )
        }
    });
    findings
}

/// Says why packets to a peer go through a relay, and what was tried.
fn judge_relayed(peer: &PeerStatus) -> Option<Finding> {
    let because = peer.relayed_because.as_ref()?;
    let tried = tried_lines(peer);
    let tried = match &tried[..] {
        [] => String::new(),
        tried => format!("; tried: {}", tried.join("; ")),
    };
    let finding = Finding::warning(CHECK, format!("packets go through a relay: {because}{tried}"));
    Some(finding.about(called(peer.name.as_deref(), &peer.id)))
}

#[cfg(test)]
mod tests {
    use super::super::finding::Verdict;
    use super::*;
    use crate::cli::reach::unreached;
    use crate::control::{DirectTry, RelayStatus, SeenAddress};

    #[test]
    fn a_node_with_relays_is_to_have_its_places_and_to_be_seen() {
        let relay = |held| RelayStatus {
            peer: "12D3KooWOslo".to_owned(),
            peer_name: None,
            held,
            last_error: None,
        };
        let reach = |held, seen: &[&str]| ReachStatus {
            relays: vec![relay(held)],
            seen: seen
                .iter()
                .map(|address| SeenAddress {
                    address: (*address).to_owned(),
                    peer: "12D3KooWOslo".to_owned(),
                    peer_name: None,
                })
                .collect(),
            told: seen.iter().map(|address| (*address).to_owned()).collect(),
            announced: Vec::new(),
            serves: None,
        };
        let verdicts = |reach: &ReachStatus, punches| {
            let findings = judge(reach, punches).into_iter();
            findings.map(|one| one.verdict).collect::<Vec<_>>()
        };
        let seen = &["/ip4/198.51.100.1/tcp/4001"];

        assert_eq!(verdicts(&ReachStatus::default(), true), []);
        assert_eq!(verdicts(&reach(true, seen), true), [Verdict::Ok, Verdict::Ok]);
        assert_eq!(verdicts(&reach(true, &[]), true), [Verdict::Ok, Verdict::Warning]);
        assert_eq!(verdicts(&reach(true, &[]), false), [Verdict::Ok]);
        assert_eq!(verdicts(&reach(false, seen), false), [Verdict::Warning]);
    }

    #[test]
    fn a_relayed_peer_is_a_warning_that_says_what_was_tried() {
        let mut relayed = unreached();
        assert_eq!(judge_relayed(&relayed), None);
        relayed.relayed_because = Some("nobody answered".to_owned());
        relayed.direct_tries = vec![DirectTry {
            address: "/ip4/198.51.100.2/tcp/9".to_owned(),
            error: "timed out".to_owned(),
        }];

        let finding = judge_relayed(&relayed).unwrap();

        assert_eq!(finding.verdict, Verdict::Warning);
        assert_eq!(
            finding.detail,
            "packets go through a relay: nobody answered; tried: tcp 198.51.100.2:9, both sides at once: timed out"
        );
    }
}
