//! What machine a program is for, and whether it is whole without libraries.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};

/// Machines that packages are made for: ELF's number, and the name in Rust and rpm, in Debian and in images.
const MACHINES: &[(u16, &str, &str)] = &[(62, "x86_64", "amd64"), (183, "aarch64", "arm64")];
const HEADER_LEN: usize = 64;
const SEGMENT_LEN: usize = 56;
/// The segment that names the loader of a program's libraries.
const PT_INTERP: u32 = 3;

/// A program's machine, and how it is linked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Platform {
    /// The machine's name in Rust and rpm.
    pub(super) arch: &'static str,
    /// The machine's name in Debian and in images.
    pub(super) debian_arch: &'static str,
    /// Whether the program needs no library.
    pub(super) is_static: bool,
}

impl Platform {
    /// Reads it from the program.
    ///
    /// # Errors
    /// When the file cannot be read, is no program of 64 bits, or is for a machine that there are no packages for.
    pub(super) fn of(program: &Path) -> Result<Self> {
        let failed = || format!("cannot read {}; build it first", program.display());
        let file = File::open(program).with_context(failed)?;
        let mut header = [0; HEADER_LEN];
        file.read_exact_at(&mut header, 0).with_context(failed)?;
        ensure!(
            header.starts_with(b"\x7fELF\x02\x01"),
            "{} is no program of 64 bits",
            program.display()
        );
        let half = |at: usize| u16::from_le_bytes([header[at], header[at + 1]]);
        let machine = MACHINES.iter().find(|(number, ..)| *number == half(18));
        let Some(&(_, arch, debian_arch)) = machine else {
            bail!("{} is for a machine that has no packages", program.display());
        };
        ensure!(
            usize::from(half(54)) == SEGMENT_LEN,
            "{} has no segments",
            program.display()
        );
        let mut segments = vec![0; usize::from(half(56)) * SEGMENT_LEN];
        let start = header[32..40].try_into().expect("eight bytes");
        file.read_exact_at(&mut segments, u64::from_le_bytes(start))
            .with_context(failed)?;
        let is_static = segments
            .chunks_exact(SEGMENT_LEN)
            .all(|segment| segment[..4] != PT_INTERP.to_le_bytes());
        Ok(Self {
            arch,
            debian_arch,
            is_static,
        })
    }

    /// Returns whether programs for it run here.
    pub(super) fn is_native(&self) -> bool {
        self.arch == std::env::consts::ARCH
    }

    /// Returns the compiler's name of it.
    pub(super) fn triple(&self) -> String {
        let libc = if self.is_static { "musl" } else { "gnu" };
        format!("{}-unknown-linux-{libc}", self.arch)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lab::ScratchDir;

    #[test]
    fn the_running_program_is_for_this_machine() {
        let platform = Platform::of(&std::env::current_exe().unwrap()).unwrap();

        assert_eq!(platform.arch, std::env::consts::ARCH);
        assert!(platform.is_native());
        assert_eq!(platform.is_static, cfg!(target_feature = "crt-static"));
    }

    #[test]
    fn a_program_without_a_loader_is_static() {
        let mut program = vec![0; HEADER_LEN + SEGMENT_LEN];
        program[..6].copy_from_slice(b"\x7fELF\x02\x01");
        program[18] = 183;
        program[32] = 64;
        program[54] = 56;
        program[56] = 1;
        let scratch = ScratchDir::unique("platform").unwrap();
        let path = scratch.path().join("program");
        std::fs::write(&path, &program).unwrap();

        let platform = Platform::of(&path).unwrap();

        assert_eq!(platform.triple(), "aarch64-unknown-linux-musl");
        assert_eq!(platform.debian_arch, "arm64");
        program[HEADER_LEN] = 3;
        std::fs::write(&path, &program).unwrap();
        assert_eq!(Platform::of(&path).unwrap().triple(), "aarch64-unknown-linux-gnu");
    }

    #[test]
    fn what_is_no_program_is_refused() {
        assert!(Platform::of(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml"))).is_err());
    }
}
