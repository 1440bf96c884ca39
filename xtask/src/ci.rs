//! Everything that has to hold before a change lands.

use anyhow::Result;

use crate::command::{cargo, require_root, run};
use crate::{build, dirs, test};

/// Checks format, lints and documentation, then runs the whole test suite.
///
/// # Errors
/// When not root, or when a check or a test fails.
pub(crate) fn run_all() -> Result<()> {
    require_root("ci")?;
    run(cargo().args(["fmt", "--all", "--check"]))?;
    build::object()?;
    run(cargo().args(["clippy", "--all-targets", "--", "-Dwarnings"]))?;
    if dirs::has_library("router-ebpf")? {
        run(cargo().args(["clippy", "--package=router-ebpf", "--lib", "--", "-Dwarnings"]))?;
    }
    run(cargo()
        .args(["doc", "--no-deps", "--document-private-items"])
        .env("RUSTDOCFLAGS", "-Dwarnings"))?;
    test::run_all(&[])
}
