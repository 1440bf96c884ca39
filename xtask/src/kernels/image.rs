//! A kernel with its modules, from a Debian package.

use std::cmp::Ordering;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

use super::quiet;
use crate::command::read;

/// A kernel with its modules, unpacked.
#[derive(Clone, Debug)]
pub(super) struct Image {
    release: String,
    tree: PathBuf,
}

impl Image {
    /// Finds the kernel that is called `kernel`: the file of a package, or a version of which the package manager has one.
    /// What is not there yet is downloaded into `directory` and unpacked there; nothing is installed.
    ///
    /// # Errors
    /// When there is no such package, or it has no kernel.
    pub(super) fn find(kernel: &str, directory: &Path) -> Result<Self> {
        let package = Path::new(kernel);
        let package = if package.is_file() {
            package.to_owned()
        } else {
            download(kernel, directory)?
        };
        let name = package.file_stem().context("the package has a name")?;
        let tree = directory.join(name);
        if !tree.join("boot").is_dir() {
            quiet(Command::new("dpkg-deb").arg("--extract").arg(&package).arg(&tree))?;
        }
        let release = release(&tree)?;
        Ok(Self { release, tree })
    }

    /// Returns what `uname -r` says in it.
    pub(super) fn release(&self) -> &str {
        &self.release
    }

    /// Returns the file that is booted.
    pub(super) fn kernel(&self) -> PathBuf {
        self.tree.join("boot").join(format!("vmlinuz-{}", self.release))
    }

    /// Returns where its modules are.
    pub(super) fn modules(&self) -> PathBuf {
        // Debian's next releases have /lib below /usr.
        let places =
            ["lib/modules", "usr/lib/modules"].map(|place| self.tree.join(place).join(&self.release));
        let [first, second] = places;
        if first.is_dir() { first } else { second }
    }
}

fn release(tree: &Path) -> Result<String> {
    let boot = tree.join("boot");
    let entries = fs::read_dir(&boot).with_context(|| format!("cannot read {}", boot.display()))?;
    for entry in entries {
        let name = entry?.file_name();
        if let Some(release) = name.to_str().and_then(|name| name.strip_prefix("vmlinuz-")) {
            return Ok(release.to_owned());
        }
    }
    bail!("{} has no kernel", boot.display())
}

/// Downloads the newest image of a version such as 6.1, unless it is in `directory`, and returns the package's file.
fn download(version: &str, directory: &Path) -> Result<PathBuf> {
    let is_version = version.split('.').count() >= 2
        && version
            .split('.')
            .all(|part| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit()));
    ensure!(
        is_version,
        "{version} is neither the file of a package nor a version such as 6.1"
    );
    let mut names = images(version)?;
    if names.is_empty() {
        // A fresh container image has no lists, and old lists name packages that are gone.
        quiet(Command::new("apt-get").args(["--quiet", "update"]))?;
        names = images(version)?;
    }
    names.sort_by(|left, right| by_numbers(right, left));
    for name in &names {
        if let Some(package) = present(name, directory)? {
            return Ok(package);
        }
        let fetched = read(
            Command::new("apt-get")
                .args(["download", name])
                .current_dir(directory),
        );
        if fetched.is_ok()
            && let Some(package) = present(name, directory)?
        {
            return Ok(package);
        }
    }
    bail!(
        "the package manager has no image of Linux {version}: {}",
        names.join(", ")
    )
}

/// Returns the packages of a version's images for virtual machines, which have all that is needed and are small.
fn images(version: &str) -> Result<Vec<String>> {
    let prefix = format!("linux-image-{version}.");
    let listed = read(Command::new("apt-cache").args(["pkgnames", &prefix]))?;
    Ok(listed
        .lines()
        .filter(|name| name.starts_with(&prefix) && name.ends_with("-cloud-amd64"))
        .map(str::to_owned)
        .collect())
}

fn present(name: &str, directory: &Path) -> Result<Option<PathBuf>> {
    let prefix = format!("{name}_");
    for entry in fs::read_dir(directory).with_context(|| format!("cannot read {}", directory.display()))? {
        let path = entry?.path();
        let file = path
            .file_name()
            .and_then(|file| file.to_str())
            .unwrap_or_default();
        if file.starts_with(&prefix) && file.ends_with(".deb") {
            return Ok(Some(path));
        }
    }
    Ok(None)
}

/// Compares names by the numbers in them.
fn by_numbers(left: &str, right: &str) -> Ordering {
    let numbers = |name: &str| -> Vec<u64> {
        name.split(|letter: char| !letter.is_ascii_digit())
            .filter_map(|digits| digits.parse().ok())
            .collect()
    };
    numbers(left).cmp(&numbers(right))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_image_has_the_highest_numbers() {
        let mut names = [
            "linux-image-6.12.101+deb12-cloud-amd64",
            "linux-image-6.12.117+deb12-cloud-amd64",
            "linux-image-6.12.9+deb12-cloud-amd64",
        ];
        names.sort_by(|left, right| by_numbers(right, left));

        assert_eq!(names[0], "linux-image-6.12.117+deb12-cloud-amd64");
        assert_eq!(names[2], "linux-image-6.12.9+deb12-cloud-amd64");
    }
}
