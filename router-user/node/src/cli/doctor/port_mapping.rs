//! Checks whether the router before a running node forwards ports to it, where the configuration asks for that.

use super::finding::Finding;
use super::input::CheckInput;
use crate::control::{PortMappingState, PortMappingStatus};

const CHECK: &str = "port_mapping";

/// Reports what has come of it; nothing without a running node.
pub(super) fn check(input: &CheckInput) -> Option<Finding> {
    judge(&input.running.status()?.port_mapping)
}

fn judge(mapping: &PortMappingStatus) -> Option<Finding> {
    let finding = match mapping.state {
        PortMappingState::Off => return None,
        PortMappingState::Asking => Finding::unknown(CHECK, "the node is looking for a gateway; try again"),
        PortMappingState::Mapped if mapping.detail.is_none() => Finding::ok(CHECK, mapping.to_string()),
        PortMappingState::Public => Finding::ok(CHECK, mapping.to_string()),
        // There are other ways to a node, and other ones that need none.
        PortMappingState::Mapped
        | PortMappingState::NoGateway
        | PortMappingState::Unanswered
        | PortMappingState::Refused
        | PortMappingState::DoubleNat => Finding::warning(CHECK, mapping.to_string()),
    };
    Some(finding)
}

#[cfg(test)]
mod tests {
    use super::super::finding::Verdict;
    use super::*;

    #[test]
    fn a_router_that_forwards_nothing_is_worth_a_warning() {
        let judged = |state, detail: Option<&str>| {
            let status = PortMappingStatus {
                state,
                gateway: Some("192.168.0.1".to_owned()),
                detail: detail.map(str::to_owned),
                ..PortMappingStatus::default()
            };
            judge(&status).map(|finding| (finding.verdict, finding.detail))
        };
        assert_eq!(judged(PortMappingState::Off, None), None);
        assert_eq!(
            judged(PortMappingState::Refused, Some("by PCP: no")),
            Some((
                Verdict::Warning,
                "none: 192.168.0.1 refuses (by PCP: no)".to_owned()
            ))
        );
        let is_ok = |state, detail| judged(state, detail).is_some_and(|(verdict, _)| verdict == Verdict::Ok);
        assert!(is_ok(PortMappingState::Mapped, None));
        assert!(!is_ok(PortMappingState::Mapped, Some("not quic 4001")));
        assert!(is_ok(
            PortMappingState::Public,
            Some("this host has a public address")
        ));
    }
}
