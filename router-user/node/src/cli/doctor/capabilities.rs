//! What the process may do; a node started from the same place may do as much.

use super::finding::Finding;
use super::input::CheckInput;
use crate::node::privileges::{lacking, needed, told};

const CHECK: &str = "capabilities";

/// Looks at the process's own.
pub(super) fn check(input: &CheckInput) -> Vec<Finding> {
    let needed = needed(&input.config);
    let lacking = match lacking(&needed) {
        Ok(lacking) => lacking,
        Err(error) => {
            return vec![Finding::unknown(
                CHECK,
                format!("the kernel does not say: {error}"),
            )];
        }
    };
    if lacking.is_empty() {
        let names: Vec<_> = needed.iter().map(|one| one.name).collect();
        return vec![Finding::ok(CHECK, names.join(", "))];
    }
    let detail = format!("this process lacks {}", told(&lacking));
    if lacking.iter().all(|one| one.is_optional) {
        return vec![Finding::warning(CHECK, detail)];
    }
    vec![Finding::problem(CHECK, detail).fix("sudo stream-router doctor")]
}
