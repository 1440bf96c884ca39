//! Builds the node for another target than that of the compiler in use.
//!
//! Two things are needed that this machine may not have. The standard library of the target is the compiler's own, where
//! `rustup target add` has put it, or is built from source with the compiler that builds the eBPF object. The C of the
//! cryptography is compiled, and all is linked, by zig, which `pip install cargo-zigbuild` brings; or else by what cc and
//! cargo look for: `CC_...` and `CARGO_TARGET_..._LINKER`.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;

use crate::build::{self, Profile};
use crate::command::{cargo, find_program, read, run};
use crate::dirs;
use crate::toolchain::Toolchain;

/// Builds the object and the node for a target, without symbols, and returns the path of its binary.
///
/// # Errors
/// When a build fails, or when there is neither the standard library of the target nor its source.
pub(crate) fn node(profile: &Profile, target: &str) -> Result<PathBuf> {
    build::object()?;
    let is_installed = has_standard_library(target)?;
    let mut cargo = if is_installed {
        cargo()
    } else {
        Toolchain::find_or_install()?.cargo()
    };
    if let Some(zig) = find_program("cargo-zigbuild") {
        cargo = by_zig(&cargo, &zig);
    }
    cargo.arg("rustc");
    if !is_installed {
        cargo.arg("-Zbuild-std=std,panic_abort");
    }
    cargo
        .arg(format!("--profile={}", profile.name()))
        .arg(format!("--target={target}"))
        .args(["--package=stream-router-node", "--bin=stream-router"])
        // The strip of this machine may know its own programs only.
        .arg(format!("--config=profile.{}.strip=\"symbols\"", profile.name()));
    if !is_installed {
        // The C library's start files come with the standard library of a target, or with the linker.
        cargo.args(["--", "-Clink-self-contained=no"]);
    }
    run(&mut cargo)?;
    let directory = dirs::target()?.join(target).join(profile.directory());
    Ok(directory.join("stream-router"))
}

/// Returns cargo-zigbuild in the environment of a cargo, which it runs with zig as compiler of C and linker.
fn by_zig(cargo: &Command, zig: &Path) -> Command {
    let mut command = Command::new(zig);
    command
        .env("CARGO", cargo.get_program())
        .current_dir(dirs::workspace());
    for (name, value) in cargo.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    command
}

fn has_standard_library(target: &str) -> Result<bool> {
    let sysroot = read(Command::new("rustc").args(["--print", "sysroot"]))?;
    let libraries = Path::new(sysroot.trim()).join("lib/rustlib").join(target);
    Ok(libraries.join("lib").is_dir())
}
