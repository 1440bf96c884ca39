//! Runs the whole test suite.

use anyhow::Result;

use crate::command::{cargo, require_root, run};
use crate::kernels::{self, KernelsPlan};
use crate::{build, install, verify};
use xtask::lab;

/// What is tested beyond what packages have. Without it nothing of it would be built.
pub(crate) const FEATURES: &str = "--features=stream-router-node/otlp";

/// Longest time without a step of a test program, many times what one takes.
const IDLE_LIMIT_SECS: &str = "600";

/// What test programs read the number of their threads from.
const TEST_THREADS: &str = "RUST_TEST_THREADS";

/// Tests of a program at a time. Most wait for most of the time, and those with real nodes see to it themselves how many
/// run beside each other.
const N_TEST_THREADS: &str = "8";

/// Builds the object and runs every test: units, documentation, and real nodes in network namespaces. Without arguments
/// the package is tried in bare roots too, and if `kernels`, other kernels are booted.
///
/// # Errors
/// When not root (a test that was left out has not passed), or when a test fails.
pub(crate) fn run_all(args: &[String], kernels: bool) -> Result<()> {
    require_root("test")?;
    install::test_programs()?;
    lab::clear_leftovers()?;
    build::object()?;
    let mut tests = cargo();
    tests.args(["test", "--no-fail-fast", FEATURES]).args(args);
    if std::env::var_os(lab::TIME_LIMIT_SECS).is_none() {
        tests.env(lab::TIME_LIMIT_SECS, IDLE_LIMIT_SECS);
    }
    if std::env::var_os(TEST_THREADS).is_none() {
        tests.env(TEST_THREADS, N_TEST_THREADS);
    }
    let tested = run(&mut tests);
    lab::clear_leftovers()?;
    tested?;
    if args.is_empty() {
        verify::briefly()?;
    }
    // Machines of another architecture are not made.
    if kernels && args.is_empty() && cfg!(target_arch = "x86_64") {
        kernels::run(&KernelsPlan::of_the_suite())?;
    }
    Ok(())
}
