//! Runs the whole test suite.

use anyhow::Result;
use xtask::lab;

use crate::command::{cargo, require_root, run};
use crate::{build, install};

/// Builds the object and runs every test: units, documentation, and real nodes in network namespaces.
///
/// # Errors
/// When not root (a test that was left out has not passed), or when a test fails.
pub(crate) fn run_all(args: &[String]) -> Result<()> {
    require_root("test")?;
    install::programs()?;
    lab::clear_leftovers()?;
    build::object()?;
    let tested = run(cargo().args(["test", "--no-fail-fast"]).args(args));
    lab::clear_leftovers()?;
    tested
}
