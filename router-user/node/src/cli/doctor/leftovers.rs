//! Checks what keeps packets to peers' networks from leaving in the clear, and what a node that does not run has left of it.

use std::path::Path;

use super::finding::Finding;
use super::input::CheckInput;
use super::node::RunningNode;
use crate::device::{Netlink, NetlinkError};
use crate::node::{OwnNumbers, TunnelRoutes};

const CHECK: &str = "blocked_networks";

/// Networks that are named.
const MAX_NAMED: usize = 8;

/// Lists the routes of the node that lead nowhere.
///
/// # Errors
/// The system gives no runtime.
pub(super) fn check(input: &CheckInput) -> Result<Finding, Box<dyn std::error::Error>> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let numbers = OwnNumbers::of(input.config.device().name());
    let left = runtime.block_on(async {
        let netlink = Netlink::open_filtering()?;
        TunnelRoutes::left(&netlink, numbers).await
    });
    Ok(judge(left, &input.running, input.file.as_deref()).about(input.config.device().name()))
}

fn judge(left: Result<TunnelRoutes, NetlinkError>, running: &RunningNode, file: Option<&Path>) -> Finding {
    let left = match left {
        Ok(left) => left,
        Err(error) => return Finding::unknown(CHECK, error.to_string()),
    };
    let nets: Vec<_> = left.routes.iter().map(|route| route.net.to_string()).collect();
    let named = nets[..nets.len().min(MAX_NAMED)].join(", ");
    let more = match nets.len().saturating_sub(MAX_NAMED) {
        0 => String::new(),
        n => format!(" and {n} more"),
    };
    match running {
        _ if left == TunnelRoutes::default() => Finding::ok(CHECK, "none"),
        RunningNode::Yes(_) => Finding::ok(
            CHECK,
            format!("{named}{more}: into the tunnel or nowhere, whatever becomes of the device"),
        ),
        RunningNode::Unknown => Finding::unknown(
            CHECK,
            format!("{named}{more}; whether the node runs cannot be told, as it may not be asked"),
        ),
        RunningNode::No => {
            let file = file.map_or_else(String::new, |file| format!(" --config {}", file.display()));
            Finding::warning(
                CHECK,
                format!(
                    "{named}{more}: packets there go nowhere until the node that has run is started again"
                ),
            )
            .fix(format!("stream-router purge{file}"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::finding::Verdict;
    use super::*;
    use crate::device::{Route, RouteTarget};

    #[test]
    fn what_a_node_left_is_named_with_the_command_that_removes_it() {
        let block = |text: &str| Route {
            target: RouteTarget::Unreachable,
            ..Route::to_interface(1, text.parse().unwrap())
        };
        let left = |n: u8| TunnelRoutes {
            routes: (0..n)
                .map(|number| block(&format!("10.{number}.0.0/16")))
                .collect(),
            rules: Vec::new(),
        };

        let finding = judge(Ok(left(10)), &RunningNode::No, Some(Path::new("/etc/sr.toml")));
        assert_eq!(finding.verdict, Verdict::Warning);
        assert_eq!(
            finding.fix.as_deref(),
            Some("stream-router purge --config /etc/sr.toml")
        );
        assert!(finding.detail.starts_with("10.0.0.0/16, ") && finding.detail.contains("and 2 more"));
        assert_eq!(judge(Ok(left(0)), &RunningNode::No, None).verdict, Verdict::Ok);
        assert_eq!(
            judge(Ok(left(1)), &RunningNode::Unknown, None).verdict,
            Verdict::Unknown
        );
    }
}
