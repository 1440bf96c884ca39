//! Compilers that may be able to build the eBPF programs.

use std::env;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

use crate::command::{find_program, read};

/// LLVM versions that the linker is published for.
pub(super) const LLVM_MAJORS: RangeInclusive<u32> = 20..=22;

/// The workspace's minimum compiler version, as (major, minor).
const MIN_RUST: (u32, u32) = (1, 95);

/// A compiler with its cargo.
#[derive(Debug)]
pub(super) struct Candidate {
    pub(super) cargo: PathBuf,
    pub(super) rustc: PathBuf,
    pub(super) sysroot: PathBuf,
    pub(super) llvm_major: u32,
    release: String,
}

/// Returns every compiler worth a look, the preferred one first.
pub(super) fn all() -> Vec<Result<Candidate>> {
    let mut all = Vec::new();
    for home in rustup_homes() {
        let nightly = home.join("toolchains").join(format!("nightly-{}", host_triple()));
        if nightly.is_dir() {
            all.push(Candidate::inspect(&nightly.join("bin")));
        }
    }
    if let Ok(sysroot) = read(Command::new("rustc").args(["--print", "sysroot"])) {
        all.push(Candidate::inspect(&Path::new(sysroot.trim()).join("bin")));
    }
    all.push(Candidate::inspect(Path::new("/usr/bin")));
    all
}

impl Candidate {
    fn inspect(bin: &Path) -> Result<Self> {
        let (cargo, rustc) = (bin.join("cargo"), bin.join("rustc"));
        ensure!(
            cargo.is_file() && rustc.is_file(),
            "{}: no cargo and rustc there",
            bin.display()
        );
        let version = read(Command::new(&rustc).arg("-vV"))?;
        let field = |name: &str| {
            version
                .lines()
                .find_map(|line| line.strip_prefix(name))
                .with_context(|| format!("{} -vV prints no {name:?}", rustc.display()))
        };
        let release = field("release: ")?.to_owned();
        let llvm_major = field("LLVM version: ")?
            .split('.')
            .next()
            .and_then(|major| major.parse().ok())
            .with_context(|| format!("{} -vV prints an LLVM version that is no number", rustc.display()))?;
        let sysroot = read(Command::new(&rustc).args(["--print", "sysroot"]))?
            .trim()
            .into();
        Ok(Self {
            cargo,
            rustc,
            sysroot,
            llvm_major,
            release,
        })
    }

    /// Returns the candidate, if it can build the programs.
    pub(super) fn checked(self) -> Result<Self> {
        let name = self.rustc.display();
        let source = self.sysroot.join("lib/rustlib/src/rust/library/core/Cargo.toml");
        if !source.is_file() {
            bail!(
                "{name} {}: no library source ({} is missing)",
                self.release,
                source.display()
            );
        }
        let mut parts = self.release.split('.').map(|part| part.parse().unwrap_or(0));
        let version = (parts.next().unwrap_or(0), parts.next().unwrap_or(0));
        ensure!(
            version >= MIN_RUST,
            "{name} {}: older than Rust {}.{}",
            self.release,
            MIN_RUST.0,
            MIN_RUST.1
        );
        ensure!(
            LLVM_MAJORS.contains(&self.llvm_major),
            "{name} {}: the linker has no build for its LLVM {}",
            self.release,
            self.llvm_major
        );
        Ok(self)
    }
}

/// Returns Rustup's directories: its own setting, this user's, and that of the user who called sudo.
fn rustup_homes() -> Vec<PathBuf> {
    let mut homes: Vec<PathBuf> = env::var_os("RUSTUP_HOME")
        .map(PathBuf::from)
        .into_iter()
        .collect();
    homes.extend(env::home_dir().map(|home| home.join(".rustup")));
    if let Some(name) = env::var("SUDO_USER").ok()
        && let Ok(Some(user)) = nix::unistd::User::from_name(&name)
    {
        homes.push(user.dir.join(".rustup"));
    }
    homes.dedup();
    homes
}

fn host_triple() -> String {
    format!("{}-unknown-linux-gnu", env::consts::ARCH)
}

/// Returns the directory of the compiler's LLVM library, and the library's file name.
pub(super) fn llvm_library(candidate: &Candidate) -> Result<PathBuf> {
    let multiarch = format!("/usr/lib/{}-linux-gnu", env::consts::ARCH);
    let directories = [
        candidate.sysroot.join("lib"),
        multiarch.into(),
        "/usr/lib64".into(),
        "/usr/lib".into(),
    ];
    let major = candidate.llvm_major;
    for directory in &directories {
        let Ok(entries) = directory.read_dir() else {
            continue;
        };
        for entry in entries.flatten() {
            let name = entry.file_name();
            let name = name.to_string_lossy();
            let of_this_version = name.starts_with(&format!("libLLVM.so.{major}"))
                || name.starts_with(&format!("libLLVM-{major}.so"))
                || name.starts_with(&format!("libLLVM-{major}-rust"));
            if of_this_version {
                return Ok(entry.path());
            }
        }
    }
    let llvm = find_program("llvm-config").map(|path| format!(" (llvm-config is {})", path.display()));
    bail!(
        "{} uses LLVM {major}, but no libLLVM of that version is in {}{}",
        candidate.rustc.display(),
        directories
            .map(|directory| directory.display().to_string())
            .join(", "),
        llvm.unwrap_or_default()
    )
}
