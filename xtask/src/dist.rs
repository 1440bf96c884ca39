//! Packages: a `.deb` and a `.tar.gz` with the same files.
//!
//! 1. [`Version`] says what is packaged, and when it was made.
//! 2. The files are laid out as they will stand below `/`: program, manual, completions, unit, configuration, notices.
//! 3. `dpkg-deb` and `tar` pack them. The same program, version and tools give the same bytes.

mod deb;
mod notices;
mod reference;
mod tree;
mod version;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::lab::process::text;
use tree::Tree;
pub use version::Version;

/// Time limit of each program that is run here, many times what packing a large program on a busy machine takes.
const LIMIT: Duration = Duration::from_secs(300);

/// What to package, and where to put it.
#[derive(Debug)]
pub struct PackagePlan<'a> {
    /// The root of the workspace.
    pub workspace: &'a Path,
    /// The node's program, which also prints its manual and completions.
    pub binary: &'a Path,
    /// Directory for the packages; made if it is not there.
    pub out: &'a Path,
    /// Version of the packages.
    pub version: &'a Version,
    /// How much time may be spent on small packages.
    pub packing: Packing,
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
    /// The archive for other distributions, to be unpacked over `/`.
    pub tarball: PathBuf,
}

/// Makes both packages.
///
/// # Errors
/// When a file or a program is missing, or a program fails.
pub fn package(plan: &PackagePlan<'_>) -> Result<Packages> {
    let version = plan.version.text();
    let name = format!("stream-router-{version}-{}", std::env::consts::ARCH);
    let root = plan.out.join(&name);
    if root.exists() {
        fs::remove_dir_all(&root).with_context(|| format!("cannot clear {}", root.display()))?;
    }
    let tree = Tree::new(root)?;
    tree.fill(plan)?;
    let deb = deb::build(plan, &tree)?;
    // Debian has the licences in /usr/share/common-licenses, others have not.
    for licence in ["LICENSE-APACHE", "LICENSE-MIT"] {
        tree.copy(&plan.workspace.join(licence), &format!("{}/{licence}", tree::DOC))?;
    }
    tree.settle()?;
    let tarball = tarball(plan, &name)?;
    fs::remove_dir_all(tree.root()).context("cannot remove the files that were packed")?;
    Ok(Packages { deb, tarball })
}

fn tarball(plan: &PackagePlan<'_>, name: &str) -> Result<PathBuf> {
    let tarball = plan.out.join(format!("{name}.tar.gz"));
    let gzip = match plan.packing {
        Packing::Small => "gzip --no-name -9",
        Packing::Fast => "gzip --no-name -1",
    };
    let mut tar = Command::new("tar");
    tar.arg("--create")
        .arg("--file")
        .arg(&tarball)
        .arg(format!("--use-compress-program={gzip}"))
        .args([
            "--format=gnu",
            "--sort=name",
            "--owner=0",
            "--group=0",
            "--numeric-owner",
        ])
        .arg(format!("--mtime=@{}", plan.version.epoch_secs()))
        .arg(format!("--exclude={name}/{}", deb::CONTROL))
        .arg("--directory")
        .arg(plan.out)
        .arg(name);
    text(&mut tar, LIMIT)?;
    Ok(tarball)
}
