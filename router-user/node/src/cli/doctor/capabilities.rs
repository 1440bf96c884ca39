//! Checks the capabilities of the process; a node started from the same place has the same ones.

use super::finding::Finding;
use super::input::CheckInput;
use crate::node::privileges::{described, missing, needed};

const CHECK: &str = "capabilities";

/// Checks the capabilities of this process.
pub(super) fn check(input: &CheckInput) -> Vec<Finding> {
    let needed = needed(&input.config);
    let missing = match missing(&needed) {
        Ok(missing) => missing,
        Err(error) => {
            return vec![Finding::unknown(
                CHECK,
                format!("the kernel does not say: {error}"),
            )];
        }
    };
    if missing.is_empty() {
        let names: Vec<_> = needed.iter().map(|one| one.name).collect();
        return vec![Finding::ok(CHECK, names.join(", "))];
    }
    let detail = format!("this process lacks {}", described(&missing));
    if missing.iter().all(|one| one.is_optional) {
        return vec![Finding::warning(CHECK, detail)];
    }
    vec![Finding::problem(CHECK, detail).fix("sudo stream-router doctor")]
}
