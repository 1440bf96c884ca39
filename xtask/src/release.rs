//! Builds the node and packages it.

use anyhow::Result;

use crate::build::{self, Profile};
use crate::{cross, dirs, install};
use xtask::dist::{self, PackagePlan, Packages, Packing, Version};

/// What is packaged.
#[derive(Debug)]
pub(crate) struct Release {
    /// The profile that the node is built with.
    pub(crate) profile: Profile,
    /// The target that it is built for, if it is not that of the compiler.
    pub(crate) target: Option<String>,
    /// Command that signs the checksums.
    pub(crate) sign: Option<String>,
}

/// Builds the node and makes packages of it in `target/dist`, or below it in a directory with the name of the target.
///
/// # Errors
/// When a program is missing that packages, when the build fails, or when a package cannot be made.
pub(crate) fn package(release: &Release) -> Result<Packages> {
    install::package_programs()?;
    let version = Version::of_checkout(dirs::workspace())?;
    let out = dirs::target()?.join("dist");
    let (binary, printer, out) = match &release.target {
        None => {
            let binary = build::node(&release.profile)?;
            (binary.clone(), binary, out)
        }
        Some(target) => {
            // Which may not run here.
            let printer = build::node(&Profile::dev())?;
            let binary = cross::node(&release.profile, target)?;
            (binary, printer, out.join(target))
        }
    };
    dist::package(&PackagePlan {
        workspace: dirs::workspace(),
        binary: &binary,
        printer: &printer,
        out: &out,
        version: &version,
        packing: Packing::Small,
        sign: release.sign.as_deref(),
    })
}
