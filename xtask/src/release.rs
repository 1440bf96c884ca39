//! Builds the node and packages it.

use anyhow::Result;

use crate::build::{self, Profile};
use crate::{dirs, install};
use xtask::dist::{self, PackagePlan, Packages, Packing, Version};

/// Builds the node with this profile and makes a `.deb` and a `.tar.gz` of it in `target/dist`.
///
/// # Errors
/// When a program is missing that packages, when the build fails, or when a package cannot be made.
pub(crate) fn package(profile: &Profile) -> Result<Packages> {
    install::package_programs()?;
    let version = Version::of_checkout(dirs::workspace())?;
    let binary = build::node(profile)?;
    dist::package(&PackagePlan {
        workspace: dirs::workspace(),
        binary: &binary,
        out: &dirs::target()?.join("dist"),
        version: &version,
        packing: Packing::Small,
    })
}
