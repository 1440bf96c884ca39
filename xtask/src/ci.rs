//! Everything that has to hold before a change lands.

use anyhow::Result;

use crate::command::{cargo, require_root, run};
use crate::{build, test};

/// Checks format, lints and documentation, then runs the whole test suite, in other kernels too if `kernels`.
///
/// # Errors
/// When not root, or when a check or a test fails.
pub(crate) fn run_all(kernels: bool) -> Result<()> {
    require_root("ci")?;
    run(cargo().args(["fmt", "--all", "--check"]))?;
    build::object()?;
    run(cargo().args(["clippy", test::FEATURES, "--all-targets", "--", "-Dwarnings"]))?;
    // The node as it is packaged.
    run(cargo().args(["clippy", "--package=stream-router-node", "--", "-Dwarnings"]))?;
    // The library without its network, as those build it who bring their own.
    run(cargo().args([
        "clippy",
        "--package=stream-router",
        "--no-default-features",
        "--all-targets",
        "--",
        "-Dwarnings",
    ]))?;
    // On the host, where it compiles but never runs; its one unstable feature needs the key.
    run(cargo()
        .args(["clippy", "--release", "--package=router-ebpf", "--", "-Dwarnings"])
        .env("RUSTC_BOOTSTRAP", "1"))?;
    run(cargo()
        .args(["doc", test::FEATURES, "--no-deps", "--document-private-items"])
        .env("RUSTDOCFLAGS", "-Dwarnings"))?;
    test::run_all(&[], kernels)
}
