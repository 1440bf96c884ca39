//! Builds the eBPF object, then the workspace that embeds it.

mod debug_info;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::command::{cargo, run};
use crate::dirs;
use crate::toolchain::Toolchain;

const BPF_TARGET: &str = if cfg!(target_endian = "little") {
    "bpfel-unknown-none"
} else {
    "bpfeb-unknown-none"
};

/// A cargo profile.
#[derive(Debug)]
pub(crate) struct Profile(String);

impl Profile {
    /// Returns the profile that is quick to build, with overflow checks and debug assertions.
    pub(crate) fn dev() -> Self {
        Self("dev".into())
    }

    /// Returns the profile of what users run.
    pub(crate) fn release() -> Self {
        Self("release".into())
    }

    /// Returns the profile of the workspace manifest with this name.
    pub(crate) fn named(name: String) -> Self {
        Self(name)
    }

    /// Returns the name of the profile.
    pub(crate) fn name(&self) -> &str {
        &self.0
    }

    /// Returns the name of the directory below the target directory that cargo uses for the profile.
    pub(crate) fn directory(&self) -> &str {
        if self.0 == "dev" || self.0 == "test" {
            "debug"
        } else {
            &self.0
        }
    }
}

/// Builds the eBPF object and returns its path.
///
/// # Errors
/// When there is no toolchain, or the build fails.
pub(crate) fn object() -> Result<PathBuf> {
    let target = dirs::target()?;
    let toolchain = Toolchain::find_or_install()?;
    let build = target.join("ebpf-build");
    let flags = [
        "-Cdebuginfo=2".to_owned(),
        "-Clink-arg=--btf".to_owned(),
        format!("-Clinker={}", path(toolchain.linker())?),
    ];
    run(toolchain
        .cargo()
        .args([
            "build",
            "--quiet",
            "--package=router-ebpf",
            "--bins",
            "--release",
            "-Zbuild-std=core",
        ])
        .arg(format!("--target={BPF_TARGET}"))
        .arg("--target-dir")
        .arg(&build)
        .env("CARGO_ENCODED_RUSTFLAGS", flags.join("\x1f"))
        .env("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "1")
        .env("CARGO_PROFILE_RELEASE_DEBUG", "2")
        .env("CARGO_PROFILE_RELEASE_PANIC", "abort"))?;
    let built = build.join(BPF_TARGET).join("release/router-ebpf");
    let object = target.join("ebpf/stream-router.o");
    place(&built, &object)?;
    Ok(object)
}

/// Builds the object and the workspace, and returns the path of the node's binary.
///
/// # Errors
/// When a build fails.
pub(crate) fn workspace(profile: &Profile) -> Result<PathBuf> {
    object()?;
    run(cargo().arg("build").arg(format!("--profile={}", profile.0)))?;
    Ok(dirs::target()?.join(profile.directory()).join("stream-router"))
}

/// Builds the object and the node, and returns the path of its binary.
///
/// # Errors
/// When a build fails.
pub(crate) fn node(profile: &Profile) -> Result<PathBuf> {
    object()?;
    run(cargo()
        .arg("build")
        .arg(format!("--profile={}", profile.0))
        .args(["--package=stream-router-node", "--bin=stream-router"]))?;
    Ok(dirs::target()?.join(profile.directory()).join("stream-router"))
}

/// Replaces the object only when it differs, so that nothing that embeds it is built again.
fn place(built: &Path, object: &Path) -> Result<()> {
    let bytes = fs::read(built).with_context(|| format!("cannot read {}", built.display()))?;
    let bytes = debug_info::without(&bytes)?;
    if fs::read(object).is_ok_and(|present| present == bytes) {
        return Ok(());
    }
    let directory = object.parent().context("the object is inside a directory")?;
    fs::create_dir_all(directory).with_context(|| format!("cannot create {}", directory.display()))?;
    let fresh = object.with_extension("o.new");
    fs::write(&fresh, bytes).with_context(|| format!("cannot write {}", fresh.display()))?;
    fs::rename(&fresh, object).with_context(|| format!("cannot place {}", object.display()))
}

fn path(path: &Path) -> Result<&str> {
    path.to_str()
        .with_context(|| format!("{} is not UTF-8", path.display()))
}
