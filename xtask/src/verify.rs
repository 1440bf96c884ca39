//! Tries packages where nothing else is: in bare roots of Debian's releases, in one with a database of RPM, in a container.
//!
//! The roots are made of Debian's archive. What is tried in them has no network; two nodes of the installed program have
//! one of their own. Packages for another machine are tried under emulation, which knows no eBPF: their commands alone.

mod container;
mod nodes;
mod roots;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use crate::command::{find_program, read, require_root};
use crate::{dirs, install};
use xtask::dist::{self, PackagePlan, Packages, Packing, Version};
use xtask::lab::ScratchDir;
use xtask::lab::process::text;

/// Time limit of each program that is run here; one that is emulated takes tens of seconds.
const LIMIT: Duration = Duration::from_secs(300);

/// Name of the emulator in a root of nothing but an archive.
const EMULATOR: &str = "emulator";

/// What packages are for.
#[derive(Debug)]
struct Machine {
    /// Debian's name of it.
    architecture: String,
    /// Whether programs for it run here without emulation.
    is_native: bool,
    /// Whether the kernel starts programs for it, by itself or with an emulator.
    is_startable: bool,
    /// Whether the program needs no library.
    is_static: bool,
}

/// Tries every package, and prints what came of it.
///
/// # Errors
/// When not root, when something is missing, or when a package does not work.
pub(crate) fn all(packages: &Packages) -> Result<()> {
    require_root("dist --verify")?;
    install::verify_programs()?;
    let machine = Machine::of(packages)?;
    println!("packages for {}:", machine.architecture);
    attempt("checksums", || sums(packages))?;
    attempt("archive", || archive(packages, &machine))?;
    if !machine.is_startable {
        bail!("roots and container were not tried. {}", machine.hint());
    }
    for release in roots::RELEASES {
        attempt(release.name, || roots::debian(release, packages, &machine))?;
    }
    attempt("RPM", || roots::rpm(packages, &machine))?;
    attempt("container", || container::run(packages))
}

/// Tries the package for Debian of the program that the tests are run with, in both releases at once.
///
/// # Errors
/// When something is missing, or when the package does not work.
pub(crate) fn briefly() -> Result<()> {
    let out = ScratchDir::unique("packages")?;
    let program = dirs::target()?.join("debug/stream-router");
    let packages = dist::package(&PackagePlan {
        workspace: dirs::workspace(),
        binary: &program,
        printer: &program,
        out: out.path(),
        version: &Version::new("0.1.0+test", 1_790_000_000),
        packing: Packing::Fast,
        sign: None,
    })?;
    let machine = Machine::of(&packages)?;
    std::thread::scope(|scope| {
        let tried = roots::RELEASES.map(|release| {
            let (packages, machine) = (&packages, &machine);
            scope.spawn(move || attempt(release.name, || roots::debian(release, packages, machine)))
        });
        let tried = tried.map(|tried| {
            tried
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        });
        tried.into_iter().collect()
    })
}

fn attempt(name: &str, trial: impl FnOnce() -> Result<String>) -> Result<()> {
    let start = Instant::now();
    let told = trial().with_context(|| format!("{name}: the packages do not work"))?;
    println!("  {name}: {told} ({} s)", start.elapsed().as_secs());
    Ok(())
}

fn sums(packages: &Packages) -> Result<String> {
    let directory = packages.sums.parent().context("a file is in a directory")?;
    let mut check = Command::new("sha256sum");
    check.current_dir(directory).arg("--check").arg(&packages.sums);
    let checked = text(&mut check, LIMIT)?.lines().count();
    Ok(format!("{checked} files are as they were made"))
}

/// Runs the program of the archive: in a root of nothing but the archive, if it needs no library.
fn archive(packages: &Packages, machine: &Machine) -> Result<String> {
    let root = ScratchDir::unique("archive")?;
    unpack(&packages.tarball, root.path())?;
    let program = root.path().join("usr/bin/stream-router");
    if !machine.is_static {
        let version = text(Command::new(&program).arg("--version"), LIMIT).with_context(|| machine.hint())?;
        ensure!(version.starts_with("stream-router "), "it printed {version}");
        return Ok("runs with the libraries of this system".into());
    }
    // Of an archive, systemd-tmpfiles makes it.
    let state = root.path().join("var/lib/stream-router");
    fs::create_dir_all(&state).with_context(|| format!("cannot create {}", state.display()))?;
    // An emulator is static, too, and needs nothing of the root.
    let emulator = (!machine.is_native).then(|| machine.emulator()).transpose()?;
    if let Some(emulator) = &emulator {
        let inside = root.path().join(EMULATOR);
        fs::copy(emulator, &inside).with_context(|| format!("cannot copy {}", emulator.display()))?;
    }
    let chroot = || {
        let mut chroot = Command::new("chroot");
        chroot.arg(root.path());
        if emulator.is_some() {
            chroot.arg(Path::new("/").join(EMULATOR));
        }
        chroot.arg("/usr/bin/stream-router");
        chroot
    };
    roots::commands(|arguments| text(chroot().args(arguments), LIMIT))?;
    if emulator.is_some() {
        return Ok("its commands run in a root of nothing else, emulated".into());
    }
    nodes::carry_packets(&program)?;
    Ok("its commands run in a root of nothing else, two nodes carry packets".into())
}

fn unpack(archive: &Path, to: &Path) -> Result<()> {
    let mut tar = Command::new("tar");
    tar.args(["--extract", "--strip-components=1", "--no-same-owner", "--file"]);
    text(tar.arg(archive).arg("--directory").arg(to), LIMIT)?;
    Ok(())
}

impl Machine {
    fn of(packages: &Packages) -> Result<Self> {
        let field = |name: &str| {
            read(
                Command::new("dpkg-deb")
                    .arg("--field")
                    .arg(&packages.deb)
                    .arg(name),
            )
        };
        let architecture = field("Architecture")?.trim().to_owned();
        let own = read(Command::new("dpkg").arg("--print-architecture"))?;
        let is_native = architecture == own.trim();
        let handler = format!("/proc/sys/fs/binfmt_misc/qemu-{}", machine_name(&architecture));
        Ok(Self {
            is_native,
            is_startable: is_native || Path::new(&handler).exists(),
            is_static: !field("Depends")?.contains("libc6"),
            architecture,
        })
    }

    /// Where the program is that emulates it.
    fn emulator(&self) -> Result<PathBuf> {
        let name = format!("qemu-{}-static", machine_name(&self.architecture));
        find_program(&name).with_context(|| self.hint())
    }

    /// What is missing if a program does not run here.
    fn hint(&self) -> String {
        if self.is_native {
            return "the program does not run here".into();
        }
        format!(
            "programs for {} do not run here. The package qemu-user-static brings what emulates them; where systemd \
             does not tell the kernel of it, these do: mount -t binfmt_misc none /proc/sys/fs/binfmt_misc; \
             /usr/lib/systemd/systemd-binfmt",
            self.architecture
        )
    }
}

/// Returns what others than Debian call an architecture.
fn machine_name(architecture: &str) -> &str {
    match architecture {
        "amd64" => "x86_64",
        "arm64" => "aarch64",
        other => other,
    }
}
