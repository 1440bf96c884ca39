//! Packages in bare roots: they come, work and go.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use super::{LIMIT, Machine, nodes};
use xtask::dist::Packages;
use xtask::lab::process::text;
use xtask::lab::{CleanRoot, ScratchDir, Traces};

/// A release of Debian.
#[derive(Clone, Copy, Debug)]
pub(super) struct Release {
    /// What it is called.
    pub(super) name: &'static str,
    codename: &'static str,
    /// Version of its C library, as (major, minor).
    libc: (u32, u32),
}

/// Releases that the packages have to work in, the oldest first.
pub(super) const RELEASES: [Release; 2] = [
    Release {
        name: "Debian 12",
        codename: "bookworm",
        libc: (2, 36),
    },
    Release {
        name: "Debian 13",
        codename: "trixie",
        libc: (2, 41),
    },
];

/// Names that RPM's packages have for what a root of Debian has, beside its libraries.
const PROVIDED: &[&str] = &["/bin/sh", "coreutils", "systemd", "rtld(GNU_HASH)"];

/// Installs the package in a root of a release, runs it there and purges it.
pub(super) fn debian(release: Release, packages: &Packages, machine: &Machine) -> Result<String> {
    let own = own_libc()?;
    if !machine.is_static && own > release.libc {
        return Ok(format!(
            "not tried, as this is a package for systems with the C library {}.{} or newer",
            own.0, own.1
        ));
    }
    let root = CleanRoot::of_release(release.codename, &packages.deb, &[])?;
    let before = Traces::of(&root)?;
    root.install(&packages.deb)?;
    commands_in(&root)?;
    let carried = if machine.is_native {
        nodes::carry_packets_in(&root)?;
        "two nodes carry packets"
    } else {
        "emulated"
    };
    root.run(&["dpkg", "--purge", "stream-router"])?;
    let after = Traces::of(&root)?;
    let left: Vec<_> = after.files.difference(&before.files).collect();
    ensure!(left.is_empty(), "the package left {left:?}");
    ensure!(after.users == before.users, "the package left a user");
    Ok(format!(
        "installed, its commands run, {carried}, purged, nothing is left"
    ))
}

/// Installs the package in a root with a database of RPM, where what it needs is known to RPM, and erases it.
pub(super) fn rpm(packages: &Packages, machine: &Machine) -> Result<String> {
    let [.., newest] = RELEASES;
    let root = CleanRoot::of_release(newest.codename, &packages.deb, &["systemd"])?;
    let scratch = ScratchDir::unique("rpm")?;
    let rpm = |arguments: &[&str]| {
        let mut rpm = Command::new("rpm");
        rpm.arg(format!("--root={}", root.path().display()))
            .arg("--dbpath=/var/lib/rpm");
        text(rpm.args(arguments), LIMIT)
    };
    let path = |file: &Path| -> Result<String> { Ok(file.to_str().context("a path is UTF-8")?.to_owned()) };
    rpm(&["--install", &path(&system(&root, scratch.path())?)?])?;
    let before = Traces::of(&root)?;
    // Programs for another machine are emulated.
    rpm(&["--install", "--ignorearch", &path(&packages.rpm)?])?;
    let said = rpm(&["--verify", "stream-router"])?;
    ensure!(said.is_empty(), "rpm finds the package changed: {said}");
    commands_in(&root)?;
    rpm(&["--erase", "stream-router"])?;
    let after = Traces::of(&root)?;
    let left = after.files.difference(&before.files);
    // The identity stays, as documented, and so do directories that a whole system has.
    let left = left.filter(|file| file.contains("stream-router") || root.path().join(file).is_file());
    let left: Vec<_> = left.filter(|file| !file.starts_with("var/lib/rpm/")).collect();
    ensure!(
        left == ["var/lib/stream-router", "var/lib/stream-router/identity.key"],
        "the package left {left:?}"
    );
    let how = if machine.is_native { "run" } else { "run emulated" };
    Ok(format!(
        "installed with its dependencies met, its commands {how}, erased, the identity is left"
    ))
}

/// Makes a package that tells RPM what a root of Debian has.
fn system(root: &CleanRoot, scratch: &Path) -> Result<PathBuf> {
    let libraries = root.path().join("usr/lib");
    let mut find = Command::new("find");
    find.arg(libraries).args(["-type", "f", "-name", "*.so.*"]);
    let libraries = text(&mut find, LIMIT)?;
    let mut provides = Command::new("/usr/lib/rpm/rpmdeps");
    let provides = text(provides.arg("--provides").args(libraries.lines()), LIMIT)?;
    let provides = provides.lines().chain(PROVIDED.iter().copied());
    let provides: String = provides.map(|name| format!("Provides: {name}\n")).collect();
    let specification = scratch.join("system.spec");
    let content = format!(
        "Name: system\nVersion: 1\nRelease: 1\nSummary: What a root has\nLicense: none\nBuildArch: noarch\n{provides}\
         %description\nWhat a root has.\n%files\n"
    );
    fs::write(&specification, content).context("cannot write a specification")?;
    let mut build = Command::new("rpmbuild");
    build
        .args(["-bb", "--quiet"])
        .arg(format!("--define=_topdir {}", scratch.display()));
    text(build.arg(specification), LIMIT)?;
    Ok(scratch.join("RPMS/noarch/system-1-1.noarch.rpm"))
}

fn commands_in(root: &CleanRoot) -> Result<()> {
    commands(|arguments| root.run(&[&["stream-router"], arguments].concat()))
}

/// Runs the commands that need no node, as one does who has just installed the program.
pub(super) fn commands(run: impl Fn(&[&str]) -> Result<String>) -> Result<()> {
    let version = run(&["--version"])?;
    ensure!(version.starts_with("stream-router "), "it printed {version}");
    let made = run(&["keygen"])?;
    let id = run(&["id"])?;
    ensure!(
        made == id && id.starts_with("12D3KooW"),
        "keygen printed {made}, id {id}"
    );
    let checked = run(&["check", "--config", "/etc/stream-router.toml"])?;
    ensure!(checked.contains("valid"), "check printed {checked}");
    let invite = run(&["invite", "--addresses=/ip4/192.0.2.1/tcp/4001"])?;
    ensure!(!invite.trim().is_empty(), "invite printed nothing");
    Ok(())
}

/// Returns the version of the C library that a program which is not static was built with here.
fn own_libc() -> Result<(u32, u32)> {
    let printed = text(Command::new("getconf").arg("GNU_LIBC_VERSION"), LIMIT)?;
    let version = printed.trim().strip_prefix("glibc ").and_then(|version| {
        let (major, minor) = version.split_once('.')?;
        Some((major.parse().ok()?, minor.parse().ok()?))
    });
    version.with_context(|| format!("getconf printed {printed}"))
}
