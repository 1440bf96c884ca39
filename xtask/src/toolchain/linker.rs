//! The BPF linker, built for the compiler's LLVM.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::candidate::{Candidate, llvm_library};
use crate::command::{cargo, run};

const VERSION: &str = "0.10.3";

/// Returns a directory that holds the compiler's LLVM library and nothing else.
///
/// The linker loads the first `libLLVM*` that a directory of `LD_LIBRARY_PATH` lists, whatever its version.
pub(super) fn llvm_directory(compiler: &Candidate, tools: &Path) -> Result<PathBuf> {
    let library = llvm_library(compiler)?;
    let directory = tools.join(format!("llvm-{}", compiler.llvm_major));
    let name = library.file_name().context("a library's path ends in its name")?;
    let link = directory.join(name);
    if fs::read_link(&link).is_ok_and(|target| target == library) && directory.read_dir()?.count() == 1 {
        return Ok(directory);
    }
    if directory.exists() {
        fs::remove_dir_all(&directory).with_context(|| format!("cannot clear {}", directory.display()))?;
    }
    fs::create_dir_all(&directory).with_context(|| format!("cannot create {}", directory.display()))?;
    symlink(&library, &link).with_context(|| format!("cannot link {}", link.display()))?;
    Ok(directory)
}

/// Returns the linker for this LLVM, built from the package registry when it is not there yet.
pub(super) fn find_or_install(llvm_major: u32, tools: &Path) -> Result<PathBuf> {
    let root = tools.join(format!("bpf-linker-{VERSION}-llvm-{llvm_major}"));
    let linker = root.join("bin/bpf-linker");
    if linker.is_file() {
        return Ok(linker);
    }
    eprintln!("building bpf-linker {VERSION} for LLVM {llvm_major} (about a minute, once)");
    let build = tools.join("build");
    run(cargo()
        .args([
            "install",
            "bpf-linker",
            "--locked",
            "--no-track",
            "--no-default-features",
        ])
        .arg(format!("--version={VERSION}"))
        .arg(format!("--features=llvm-{llvm_major},rust-llvm-{llvm_major}"))
        .arg("--root")
        .arg(&root)
        .arg("--target-dir")
        .arg(&build)
        // Its work is LLVM's, which is built already; optimised, it would take twice as long to build.
        .env("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "256")
        .env("CARGO_PROFILE_RELEASE_LTO", "off")
        .env("CARGO_PROFILE_RELEASE_OPT_LEVEL", "0"))?;
    fs::remove_dir_all(&build).with_context(|| format!("cannot remove {}", build.display()))?;
    Ok(linker)
}
