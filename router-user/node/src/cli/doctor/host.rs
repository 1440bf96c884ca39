//! Checks what a running node wants of the host: its device, addresses, routes, hook, settings, gateways and pins, as it has last
//! compared them with the kernel's state.

use super::finding::Finding;
use super::input::CheckInput;
use crate::control::{HostState, HostStatus, HostThing};

const CHECK: &str = "host";

/// Makes the running node compare at once, and put back what it has left.
const FIX: &str = "stream-router reload";

/// Reports each thing that is not as the running node wants it; nothing without a running node.
pub(super) fn check(input: &CheckInput) -> Vec<Finding> {
    input
        .running
        .status()
        .map(|status| judge(&status.host))
        .unwrap_or_default()
}

fn judge(host: &HostStatus) -> Vec<Finding> {
    let wrong = host.things.iter().filter(|thing| thing.state != HostState::Ok);
    let mut findings: Vec<_> = wrong.map(finding).collect();
    // What could not be looked at, and for how long nobody has.
    let looks = HostStatus {
        things: Vec::new(),
        ..host.clone()
    };
    let blind = looks.problems().into_iter();
    findings.extend(blind.map(|problem| Finding::problem(CHECK, problem).fix(FIX)));
    if findings.is_empty() {
        let detail = format!(
            "device, addresses, routes, hook, settings, gateways and pins are as the node wants them; {} changes by others were \
             put back",
            host.put_back
        );
        findings.push(Finding::ok(CHECK, detail));
    }
    findings
}

fn finding(thing: &HostThing) -> Finding {
    let finding = Finding::problem(CHECK, thing.text()).fix(thing.fix.as_deref().unwrap_or(FIX));
    match thing.name.as_str() {
        "" => finding.about(&thing.kind),
        name => finding.about(format!("{} {name}", thing.kind)),
    }
}

#[cfg(test)]
mod tests {
    use super::super::finding::Verdict;
    use super::*;

    fn thing(name: &str, state: HostState, detail: Option<&str>) -> HostThing {
        HostThing {
            kind: "route".to_owned(),
            name: name.to_owned(),
            state,
            detail: detail.map(str::to_owned),
            fix: None,
        }
    }

    #[test]
    fn each_thing_that_is_not_right_is_a_problem_and_so_is_an_old_look() {
        let right = HostStatus {
            age_seconds: 1.0,
            things: vec![thing("10.42.0.2/32", HostState::Ok, None)],
            ..HostStatus::default()
        };
        let mut wrong = right.clone();
        wrong
            .things
            .push(thing("10.42.0.3/32", HostState::Conflict, Some("is missing")));
        let old = HostStatus {
            age_seconds: 31.0,
            ..right.clone()
        };
        let blind = HostStatus {
            error: Some("no socket".to_owned()),
            ..right.clone()
        };
        let verdicts =
            |host: &HostStatus| -> Vec<_> { judge(host).iter().map(|found| found.verdict).collect() };

        let mut taken = right.clone();
        taken.things.push(HostThing {
            fix: Some("ip route del 10.42.0.3/32".to_owned()),
            ..thing("10.42.0.3/32", HostState::Conflict, Some("leads elsewhere"))
        });

        assert_eq!(verdicts(&right), [Verdict::Ok]);
        assert_eq!(judge(&taken)[0].fix.as_deref(), Some("ip route del 10.42.0.3/32"));
        assert_eq!(judge(&wrong)[0].fix.as_deref(), Some(FIX));
        assert_eq!(verdicts(&wrong), [Verdict::Problem]);
        assert_eq!(judge(&wrong)[0].subject.as_deref(), Some("route 10.42.0.3/32"));
        assert_eq!(verdicts(&old), [Verdict::Problem]);
        assert_eq!(verdicts(&blind), [Verdict::Problem]);
    }
}
