//! Builds the node and packages it.

use std::path::PathBuf;

use anyhow::Result;

use crate::build::{self, Profile};
use crate::{cross, dirs, install, verify};
use xtask::dist::{self, PackagePlan, Packages, Packing, Version};

/// What is packaged.
#[derive(Debug)]
pub(crate) struct Release {
    /// The profile that the node is built with.
    pub(crate) profile: Profile,
    /// The targets that it is built for, if not for that of the compiler alone.
    pub(crate) targets: Vec<String>,
    /// Command that signs the checksums.
    pub(crate) sign: Option<String>,
    /// Whether the packages are tried where nothing else is.
    pub(crate) verify: bool,
}

/// Builds the node and makes packages of it in `target/dist`, or below it in directories with the names of the targets.
///
/// # Errors
/// When a program is missing that packages, when a build fails, or when a package cannot be made or does not work.
pub(crate) fn package(release: &Release) -> Result<Vec<Packages>> {
    install::package_programs()?;
    let version = Version::of_checkout(dirs::workspace())?;
    let mut made = Vec::new();
    for (binary, printer, out) in programs(release)? {
        made.push(dist::package(&PackagePlan {
            workspace: dirs::workspace(),
            binary: &binary,
            printer: &printer,
            out: &out,
            version: &version,
            packing: Packing::Small,
            sign: release.sign.as_deref(),
        })?);
    }
    if release.verify {
        for packages in &made {
            verify::all(packages)?;
        }
    }
    Ok(made)
}

/// Returns the programs, each with one that runs here and with the directory of its packages.
fn programs(release: &Release) -> Result<Vec<(PathBuf, PathBuf, PathBuf)>> {
    let out = dirs::target()?.join("dist");
    if release.targets.is_empty() {
        let binary = build::node(&release.profile)?;
        return Ok(vec![(binary.clone(), binary, out)]);
    }
    let mut programs = Vec::new();
    for target in &release.targets {
        let binary = cross::node(&release.profile, target)?;
        let runs_here =
            target.starts_with(&format!("{}-", std::env::consts::ARCH)) && target.ends_with("-musl");
        let printer = if runs_here {
            binary.clone()
        } else {
            build::node(&Profile::dev())?
        };
        programs.push((binary, printer, out.join(target)));
    }
    Ok(programs)
}
