//! Makes a Debian package of a tree.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use super::tree::{CONFIG, Tree};
use super::{DESCRIPTION, LIMIT, PackagePlan, Packing, Platform, SCRIPTS, SUMMARY};
use crate::lab::process::text;

/// Directory of a package's control files.
const CONTROL: &str = "DEBIAN";
pub(super) const MAINTAINER: &str = "The Stream Router developers <stream-router@noreply.invalid>";
const SCRIPT_NAMES: &[&str] = &["postinst", "prerm", "postrm"];

/// Packs the tree, with control files that are no part of it afterwards.
pub(super) fn build(plan: &PackagePlan<'_>, tree: &Tree, platform: &Platform) -> Result<PathBuf> {
    // Before there are control files, which are no part of what is installed.
    let installed = tree.walk()?;
    let control = control(plan, tree, &installed, platform)?;
    tree.write(&format!("{CONTROL}/md5sums"), &sums(tree, &installed)?)?;
    tree.write(&format!("{CONTROL}/control"), &control)?;
    tree.write(&format!("{CONTROL}/conffiles"), &format!("/{CONFIG}\n"))?;
    for script in SCRIPT_NAMES {
        let place = format!("{CONTROL}/{script}");
        tree.copy(&plan.workspace.join(SCRIPTS).join(script), &place)?;
        let path = tree.root().join(place);
        fs::set_permissions(&path, Permissions::from_mode(0o755))
            .with_context(|| format!("cannot make {} executable", path.display()))?;
    }
    let deb = format!(
        "stream-router_{}_{}.deb",
        plan.version.text(),
        platform.debian_arch
    );
    let deb = plan.out.join(deb);
    let mut dpkg = Command::new("dpkg-deb");
    dpkg.env("SOURCE_DATE_EPOCH", plan.version.epoch_secs().to_string())
        .args(match plan.packing {
            Packing::Small => ["-Zxz", "-z9"],
            Packing::Fast => ["-Znone", "-z0"],
        })
        .args(["--root-owner-group", "--build"])
        .args([tree.root(), &deb]);
    let packed = text(&mut dpkg, LIMIT);
    let control = tree.root().join(CONTROL);
    fs::remove_dir_all(&control).with_context(|| format!("cannot remove {}", control.display()))?;
    packed?;
    Ok(deb)
}

fn control(
    plan: &PackagePlan<'_>,
    tree: &Tree,
    installed: &[PathBuf],
    platform: &Platform,
) -> Result<String> {
    let libraries = if platform.is_static {
        String::new()
    } else {
        libraries(plan, tree)? + ", "
    };
    let description = DESCRIPTION.lines().map(|line| match line {
        "" => " .\n".to_owned(),
        line => format!(" {line}\n"),
    });
    Ok(format!(
        "Package: stream-router\n\
         Version: {}\n\
         Architecture: {}\n\
         Maintainer: {MAINTAINER}\n\
         Installed-Size: {}\n\
         Depends: {libraries}passwd\n\
         Suggests: bpftool\n\
         Section: net\n\
         Priority: optional\n\
         Description: {SUMMARY}\n{}",
        plan.version.text(),
        platform.debian_arch,
        installed_kib(installed)?,
        description.collect::<String>(),
    ))
}

/// Returns the size as the policy counts it: a file in whole KiB, anything else as one KiB.
fn installed_kib(installed: &[PathBuf]) -> Result<u64> {
    let mut kib = 0;
    for path in installed {
        let metadata =
            fs::symlink_metadata(path).with_context(|| format!("cannot look at {}", path.display()))?;
        kib += if metadata.is_file() {
            metadata.len().div_ceil(1024)
        } else {
            1
        };
    }
    Ok(kib)
}

/// Returns the packages whose libraries the program needs, with the versions it needs.
fn libraries(plan: &PackagePlan<'_>, tree: &Tree) -> Result<String> {
    // dpkg-shlibdeps wants to be in a source package.
    let source = plan.out.join("debian-source");
    let debian = source.join("debian");
    fs::create_dir_all(&debian).with_context(|| format!("cannot create {}", debian.display()))?;
    let stub = "Source: stream-router\n\nPackage: stream-router\nArchitecture: any\n";
    fs::write(debian.join("control"), stub).context("cannot write a control file")?;
    let program = fs::canonicalize(tree.root().join("usr/bin/stream-router")).context("no program")?;
    let mut shlibdeps = Command::new("dpkg-shlibdeps");
    shlibdeps
        .current_dir(&source)
        .arg("-O")
        .arg(format!("-e{}", program.display()));
    let printed = text(&mut shlibdeps, LIMIT);
    fs::remove_dir_all(&source).with_context(|| format!("cannot remove {}", source.display()))?;
    let printed = printed?;
    let depends = printed
        .lines()
        .find_map(|line| line.strip_prefix("shlibs:Depends="));
    Ok(depends.context("dpkg-shlibdeps names no library")?.to_owned())
}

fn sums(tree: &Tree, installed: &[PathBuf]) -> Result<String> {
    let config = Path::new(CONFIG);
    let files = installed
        .iter()
        .filter(|path| path.is_file())
        .filter_map(|path| path.strip_prefix(tree.root()).ok())
        .filter(|path| *path != config);
    text(Command::new("md5sum").current_dir(tree.root()).args(files), LIMIT)
}
