//! Finds a compiler for the eBPF programs, and installs what it lacks.
//!
//! The BPF target has no prebuilt `core`, so a compiler serves only with its library source; and the linker reads
//! the compiler's bitcode, so it has to run on the compiler's own LLVM. In order of preference:
//!
//! 1. a rustup toolchain with the `rust-src` component: the nightly, else the one in use;
//! 2. the distribution's compiler with its source, as Debian's `rustc-web cargo-web rust-web-src`.

mod candidate;
mod linker;

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, anyhow};

use crate::command::{find_program, read, run};
use crate::{dirs, install};
use candidate::Candidate;

const DEBIAN_PACKAGES: &[&str] = &["rustc-web", "cargo-web", "rust-web-src"];

/// A compiler, cargo, library source and linker that fit together.
#[derive(Debug)]
pub(crate) struct Toolchain {
    compiler: Candidate,
    linker: PathBuf,
    library_path: PathBuf,
}

impl Toolchain {
    /// Finds a toolchain, or installs one.
    ///
    /// # Errors
    /// When there is none and none can be installed; the message says what to install.
    pub(crate) fn find_or_install() -> Result<Self> {
        let compiler = match ready() {
            Some(compiler) => compiler,
            None => install_compiler()?,
        };
        let tools = dirs::target()?.join("tools");
        let library_path = linker::llvm_directory(&compiler, &tools)?;
        let linker = linker::find_or_install(compiler.llvm_major, &tools)?;
        Ok(Self {
            compiler,
            linker,
            library_path,
        })
    }

    /// Returns a command that runs this toolchain's cargo, free of the settings of the cargo that started this task.
    pub(crate) fn cargo(&self) -> Command {
        let mut command = Command::new(&self.compiler.cargo);
        for name in [
            "CARGO_ENCODED_RUSTFLAGS",
            "CARGO_BUILD_TARGET",
            "CARGO_BUILD_RUSTFLAGS",
            "RUSTC_WORKSPACE_WRAPPER",
            "RUSTC_WRAPPER",
            "RUSTDOC",
            "RUSTFLAGS",
            "RUSTUP_TOOLCHAIN",
        ] {
            command.env_remove(name);
        }
        command
            .current_dir(dirs::workspace())
            .env("RUSTC", &self.compiler.rustc)
            .env("RUSTC_BOOTSTRAP", "1")
            .env("LD_LIBRARY_PATH", &self.library_path);
        command
    }

    /// Returns the linker's path.
    pub(crate) fn linker(&self) -> &std::path::Path {
        &self.linker
    }
}

/// Returns the first compiler that has its source.
fn ready() -> Option<Candidate> {
    let mut rejected = Vec::new();
    for candidate in candidate::all() {
        match candidate.and_then(Candidate::checked) {
            Ok(candidate) => return Some(candidate),
            Err(reason) => rejected.push(reason),
        }
    }
    eprintln!("no compiler here can build the eBPF programs yet:");
    for reason in rejected {
        eprintln!("  {reason:#}");
    }
    None
}

fn install_compiler() -> Result<Candidate> {
    let from_apt = install::apt_newest(DEBIAN_PACKAGES).and_then(|()| still_missing("apt-get"));
    let Err(apt_error) = from_apt else { return from_apt };
    eprintln!("not from apt: {apt_error:#}");
    let from_rustup = install_rust_src().and_then(|()| still_missing("rustup"));
    let Err(rustup_error) = from_rustup else {
        return from_rustup;
    };
    Err(anyhow!(
        "the eBPF programs need a Rust compiler with its library source (LLVM {} to {}). Install one of:\n  \
         rustup toolchain install nightly --component rust-src\n  \
         apt-get install {}    (Debian)\n\
         What was tried: apt: {apt_error:#}; rustup: {rustup_error:#}",
        candidate::LLVM_MAJORS.start(),
        candidate::LLVM_MAJORS.end(),
        DEBIAN_PACKAGES.join(" "),
    ))
}

fn still_missing(installer: &str) -> Result<Candidate> {
    ready().with_context(|| format!("{installer} succeeded, but no compiler has its source"))
}

fn install_rust_src() -> Result<()> {
    find_program("rustup").context("there is no rustup in PATH")?;
    let listed = read(Command::new("rustup").args(["toolchain", "list"]))?;
    let mut command = Command::new("rustup");
    if listed.lines().any(|toolchain| toolchain.starts_with("nightly-")) {
        command.args(["component", "add", "rust-src", "--toolchain=nightly"]);
    } else {
        command.args([
            "toolchain",
            "install",
            "nightly",
            "--profile=minimal",
            "--component=rust-src",
        ]);
    }
    run(&mut command)
}
