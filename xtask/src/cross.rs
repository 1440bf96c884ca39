//! Builds the node for another target than that of the compiler in use.
//!
//! Two things are needed that this machine may not have. The standard library of the target is the compiler's own, where
//! `rustup target add` has put it, or is built from source with the compiler that builds the eBPF object. The C of the
//! cryptography is compiled, and all is linked, by zig, which `pip install cargo-zigbuild` brings; or else by what cc and
//! cargo look for: `CC_...` and `CARGO_TARGET_..._LINKER`.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::build::{self, Profile};
use crate::command::{cargo, find_program, read, run};
use crate::dirs;
use crate::toolchain::Toolchain;

/// Builds the object and the node for a target, without symbols, and returns the path of its binary.
///
/// # Errors
/// When a build fails, or when there is neither the standard library of the target nor its source.
pub(crate) fn node(profile: &Profile, target: &str) -> Result<PathBuf> {
    let zig = find_program("cargo-zigbuild");
    if zig.is_none() {
        ensure_c_compiler(target)?;
    }
    build::object()?;
    let is_installed = has_standard_library(target)?;
    let mut cargo = if is_installed {
        cargo()
    } else {
        eprintln!("no standard library for {target} here, so it is built from its source");
        let toolchain = Toolchain::find_or_install();
        let toolchain = toolchain.with_context(|| {
            format!(
                "there is neither the standard library of {target} nor its source; with rustup: \
                 rustup target add {target}"
            )
        })?;
        toolchain.cargo()
    };
    let is_by_zig = zig.is_some();
    if let Some(zig) = zig {
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
    cargo.arg("--");
    if !is_installed {
        // The C library's start files come with the standard library of a target, or with the linker.
        cargo.arg("-Clink-self-contained=no");
    }
    if is_by_zig {
        // Zig takes no notice of how the compiler asks for a static program whose place in memory nobody can tell.
        cargo.arg("-Clink-arg=-pie");
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

/// Fails without a compiler of C for the target that the crate `cc` would find, or a linker that cargo would.
fn ensure_c_compiler(target: &str) -> Result<()> {
    let own = target.starts_with(&format!("{}-", env::consts::ARCH));
    let name = target.replace('-', "_");
    let named = [
        format!("CC_{name}"),
        format!("CC_{target}"),
        "TARGET_CC".to_owned(),
    ];
    let mut compilers = vec![format!("{}-gcc", target.replace("-unknown", ""))];
    if own && target.ends_with("-musl") {
        compilers.push("musl-gcc".to_owned());
    }
    let linker = format!("CARGO_TARGET_{}_LINKER", name.to_uppercase());
    let is_set = |name: &String| env::var_os(name).is_some();
    let compiles = named.iter().any(is_set) || compilers.iter().any(|name| find_program(name).is_some());
    // Cargo links for this machine with the linker of this machine.
    let links = own || is_set(&linker);
    if compiles && links {
        return Ok(());
    }
    bail!(
        "nothing here compiles C and links for {target}. Install one of:\n  \
         pip install cargo-zigbuild    (brings zig, which does both for every target)\n  \
         a compiler such as {}, which Debian has in musl-tools for this machine alone{}",
        compilers.join(" or "),
        if own {
            String::new()
        } else {
            format!(", and name it in {linker} too")
        }
    )
}

fn has_standard_library(target: &str) -> Result<bool> {
    let sysroot = read(Command::new("rustc").args(["--print", "sysroot"]))?;
    let libraries = Path::new(sysroot.trim()).join("lib/rustlib").join(target);
    Ok(libraries.join("lib").is_dir())
}
