//! Packages: a `.deb`, a `.rpm`, a `.tar.gz` and an image for containers, with the same files.
//!
//! 1. [`Version`] says what is packaged, and when it was made; the program says for which machine.
//! 2. The files are laid out as they will stand below `/`: program, manual, completions, unit, configuration, notices.
//! 3. `dpkg-deb`, `rpmbuild` and `tar` pack them. The same program, version and tools give the same bytes.
//! 4. What is inside the program is listed, the checksum of each file is written down, and those may be signed.

mod deb;
mod image;
mod linked;
mod notices;
mod platform;
mod reference;
mod rpm;
mod sbom;
mod tree;
mod version;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::lab::process::text;
use linked::Linked;
use platform::Platform;
use tree::Tree;
pub use version::Version;

/// Time limit of each program that is run here, many times what packing a large program on a busy machine takes.
const LIMIT: Duration = Duration::from_secs(300);
/// Scripts that packages run when they come and go.
const SCRIPTS: &str = "router-user/node/dist/scripts";
const SUMMARY: &str = "VPN dataplane with eBPF over libp2p streams";
const DESCRIPTION: &str = "\
Stream Router carries IP packets between the nodes of a VPN over libp2p
streams. An eBPF program at the VPN's device decides, in the kernel, which
worker each connection belongs to, so the packets of one connection are
never reordered, and large TCP segments cross the tunnel whole.

The service does not start by itself: it needs peers in
/etc/stream-router.toml first.";

/// What to package, and where to put it.
#[derive(Debug)]
pub struct PackagePlan<'a> {
    /// The root of the workspace.
    pub workspace: &'a Path,
    /// The node's program. One for another machine has to be without symbols already.
    pub binary: &'a Path,
    /// The program that prints its manual and completions: the same, or one of the same source that runs here.
    pub printer: &'a Path,
    /// Directory for the packages; made if it is not there.
    pub out: &'a Path,
    /// Version of the packages.
    pub version: &'a Version,
    /// How much time may be spent on small packages.
    pub packing: Packing,
    /// Command of the shell that signs the file of checksums, which it is given as its last argument.
    pub sign: Option<&'a str>,
}

/// How much time may be spent on small packages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Packing {
    /// Small packages, for those who download them.
    Small,
    /// Packages that are made fast, for those who install them here and now.
    Fast,
}

/// The packages that were made.
#[derive(Debug)]
pub struct Packages {
    /// The package for Debian and related distributions.
    pub deb: PathBuf,
    /// The package for distributions with RPM.
    pub rpm: PathBuf,
    /// The archive for other distributions, to be unpacked over `/`.
    pub tarball: PathBuf,
    /// The image for containers.
    pub image: PathBuf,
    /// The list of what is inside the program.
    pub sbom: PathBuf,
    /// The SHA-256 of all of these.
    pub sums: PathBuf,
}

impl Packages {
    /// Returns every file that was made.
    pub fn files(&self) -> [&Path; 6] {
        [
            &self.deb,
            &self.rpm,
            &self.tarball,
            &self.image,
            &self.sbom,
            &self.sums,
        ]
    }
}

/// Makes all packages.
///
/// # Errors
/// When a file or a program is missing, or a program fails.
pub fn package(plan: &PackagePlan<'_>) -> Result<Packages> {
    let platform = Platform::of(plan.binary)?;
    let name = format!("stream-router-{}-{}", plan.version.text(), platform.arch);
    let root = plan.out.join(&name);
    if root.exists() {
        fs::remove_dir_all(&root).with_context(|| format!("cannot clear {}", root.display()))?;
    }
    let linked = Linked::all(plan.workspace, &platform)?;
    let tree = Tree::new(root)?;
    tree.fill(plan, &linked, &platform)?;
    tree.settle(plan.version)?;
    let deb = deb::build(plan, &tree, &platform)?;
    // Debian has the licences in /usr/share/common-licenses, others have not.
    for licence in ["LICENSE-APACHE", "LICENSE-MIT"] {
        tree.copy(&plan.workspace.join(licence), &format!("{}/{licence}", tree::DOC))?;
    }
    tree.settle(plan.version)?;
    let rpm = rpm::build(plan, &tree, &platform)?;
    let image = image::build(plan, &tree, &platform)?;
    let notes = plan.workspace.join("router-user/node/dist/INSTALL");
    tree.copy(&notes, &format!("{}/INSTALL", tree::DOC))?;
    tree.settle(plan.version)?;
    let tarball = tarball(plan, &name)?;
    fs::remove_dir_all(tree.root()).context("cannot remove the files that were packed")?;
    let sbom = sbom::build(plan, &linked, &platform)?;
    let sums = sums(plan, &name, &[&deb, &rpm, &tarball, &image, &sbom])?;
    if let Some(command) = plan.sign {
        sign(command, &sums)?;
    }
    Ok(Packages {
        deb,
        rpm,
        tarball,
        image,
        sbom,
        sums,
    })
}

fn tarball(plan: &PackagePlan<'_>, name: &str) -> Result<PathBuf> {
    let packed = plan.out.join(format!("{name}.tar"));
    archive(plan.out, &[name], &packed, plan.version)?;
    gzip(&packed, plan.packing)
}

/// Makes a tar archive of parts of a directory, with nothing in it of who made it, where and when.
fn archive(directory: &Path, parts: &[&str], to: &Path, version: &Version) -> Result<()> {
    let mut tar = Command::new("tar");
    tar.arg("--create").arg("--file").arg(to).args([
        "--format=gnu",
        "--sort=name",
        "--owner=0",
        "--group=0",
        "--numeric-owner",
    ]);
    tar.arg(format!("--mtime=@{}", version.epoch_secs()));
    text(tar.arg("--directory").arg(directory).args(parts), LIMIT)?;
    Ok(())
}

/// Compresses a file in its place, and returns what it is called then.
fn gzip(file: &Path, packing: Packing) -> Result<PathBuf> {
    let level = match packing {
        Packing::Small => "-9",
        Packing::Fast => "-1",
    };
    let mut gzip = Command::new("gzip");
    text(gzip.args(["--force", "--no-name", level]).arg(file), LIMIT)?;
    let mut name = file.as_os_str().to_owned();
    name.push(".gz");
    Ok(name.into())
}

fn sums(plan: &PackagePlan<'_>, name: &str, files: &[&Path]) -> Result<PathBuf> {
    let names = files.iter().filter_map(|file| file.file_name());
    let sums = text(Command::new("sha256sum").current_dir(plan.out).args(names), LIMIT)?;
    let path = plan.out.join(format!("{name}.sha256"));
    fs::write(&path, sums).with_context(|| format!("cannot write {}", path.display()))?;
    Ok(path)
}

fn sign(command: &str, sums: &Path) -> Result<()> {
    let mut shell = Command::new("sh");
    shell
        .arg("-c")
        .arg(format!("{command} \"$1\""))
        .arg("sh")
        .arg(sums);
    text(&mut shell, LIMIT).context("the checksums are not signed")?;
    Ok(())
}

/// Returns the SHA-256 of a file.
fn sha256(file: &Path) -> Result<String> {
    let printed = text(Command::new("sha256sum").arg("--").arg(file), LIMIT)?;
    let digest = printed.split_whitespace().next();
    Ok(digest.context("sha256sum printed nothing")?.to_owned())
}

/// Returns the time of a version in a format that `date` knows.
fn time(version: &Version, format: &str) -> Result<String> {
    let epoch = format!("@{}", version.epoch_secs());
    let mut date = Command::new("date");
    date.env("LC_ALL", "C").args(["--utc", format, "--date", &epoch]);
    Ok(text(&mut date, LIMIT)?.trim().to_owned())
}
