//! Fetches the VPNs that this build is compared with into a directory of their own; the system stays as it is.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

use crate::command::{cargo, find_program, read, run};
use crate::dirs;

const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// A program with its version, and the directory that holds all that came with it.
#[derive(Debug)]
pub(super) struct InstalledProgram {
    pub(super) version: String,
    pub(super) program: PathBuf,
    pub(super) root: PathBuf,
}

/// Which release of Debian a package is taken from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Suite {
    /// The system's own release, for programs that need its libraries.
    Own,
    /// The newest packages, for programs that need no library but libc.
    Sid,
}

/// Builds a package of the cargo registry.
pub(super) fn cargo_package(package: &str, version: &str, program: &str) -> Result<InstalledProgram> {
    let directory = directory()?;
    let root = directory.join(format!("{package}-{version}"));
    let file = root.join("bin").join(program);
    if !file.is_file() {
        run(cargo()
            .args([
                "install",
                "--locked",
                "--no-track",
                "--force",
                package,
                "--version",
                version,
            ])
            .arg("--root")
            .arg(&root)
            .arg("--target-dir")
            .arg(directory.join("build")))?;
    }
    Ok(InstalledProgram {
        version: version.to_owned(),
        program: file,
        root,
    })
}

/// Unpacks Debian packages, the first of which has the program.
pub(super) fn debian_packages(suite: Suite, packages: &[&str], program: &str) -> Result<InstalledProgram> {
    let name = packages.first().context("no package is named")?;
    let place = directory()?.join(name);
    if !place.is_dir() {
        let fresh = place.with_extension("new");
        remove(&fresh)?;
        fetch(suite, packages, &fresh)?;
        fs::rename(&fresh, &place).with_context(|| format!("cannot place {}", place.display()))?;
    }
    let deb = archives(&place)?
        .into_iter()
        .find(|deb| is_of(deb, name))
        .with_context(|| format!("{} holds no archive of {name}", place.display()))?;
    let version = read(Command::new("dpkg-deb").arg("--field").arg(deb).arg("Version"))?;
    let root = place.join("root");
    let program = root.join(program);
    ensure!(program.is_file(), "{name} has no {}", program.display());
    Ok(InstalledProgram {
        version: version.trim().to_owned(),
        program,
        root,
    })
}

fn directory() -> Result<PathBuf> {
    let directory = dirs::target()?.join("bench-peers");
    fs::create_dir_all(&directory).with_context(|| format!("cannot create {}", directory.display()))?;
    Ok(directory)
}

fn fetch(suite: Suite, packages: &[&str], place: &Path) -> Result<()> {
    let apt = PrivateApt::new()?;
    let suite = match suite {
        Suite::Own => &apt.own_suite,
        Suite::Sid => "sid",
    };
    fs::create_dir_all(place).with_context(|| format!("cannot create {}", place.display()))?;
    let wanted = packages.iter().map(|package| format!("{package}/{suite}"));
    run(apt.get().arg("download").args(wanted).current_dir(place))?;
    for deb in archives(place)? {
        run(Command::new("dpkg-deb")
            .arg("--extract")
            .arg(deb)
            .arg(place.join("root")))?;
    }
    Ok(())
}

/// An apt with lists and sources of its own: the same mirror, with sid beside the system's release.
struct PrivateApt {
    directory: PathBuf,
    own_suite: String,
}

impl PrivateApt {
    fn new() -> Result<Self> {
        if find_program("apt-get").is_none() {
            bail!("this system has no apt-get");
        }
        let printed = read(Command::new("apt-get").args([
            "indextargets",
            "--format",
            "$(LABEL) $(COMPONENT) $(CODENAME) $(REPO_URI)",
            "Created-By: Packages",
        ]))?;
        let (own_suite, mirror) = main_archive(&printed).context("apt has no Debian archive")?;
        let directory = directory()?.join("apt");
        for part in ["lists/partial", "cache/archives/partial"] {
            let part = directory.join(part);
            fs::create_dir_all(&part).with_context(|| format!("cannot create {}", part.display()))?;
        }
        let source = |suite| format!("deb [signed-by={KEYRING}] {mirror} {suite} main\n");
        let mut sources = source("sid");
        if own_suite != "sid" {
            sources += &source(own_suite);
        }
        let file = directory.join("sources.list");
        fs::write(&file, sources).with_context(|| format!("cannot write {}", file.display()))?;
        let apt = Self {
            directory,
            own_suite: own_suite.to_owned(),
        };
        run(apt.get().arg("update"))?;
        Ok(apt)
    }

    fn get(&self) -> Command {
        let directory = self.directory.display();
        let mut command = Command::new("apt-get");
        command.arg("--quiet=2");
        for option in [
            format!("Dir::Etc::SourceList={directory}/sources.list"),
            "Dir::Etc::SourceParts=-".into(),
            format!("Dir::State::Lists={directory}/lists"),
            format!("Dir::Cache={directory}/cache"),
            "Acquire::Languages=none".into(),
            "APT::Sandbox::User=root".into(),
        ] {
            command.args(["--option", &option]);
        }
        command
    }
}

/// Returns code name and mirror of the first archive that is Debian's main one.
fn main_archive(targets: &str) -> Option<(&str, &str)> {
    targets.lines().find_map(|line| {
        let words: Vec<&str> = line.split(' ').collect();
        match words[..] {
            ["Debian", "main", suite, mirror] => Some((suite, mirror)),
            _ => None,
        }
    })
}

fn archives(place: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(place).with_context(|| format!("cannot read {}", place.display()))?;
    let paths = entries.flatten().map(|entry| entry.path());
    Ok(paths
        .filter(|path| path.extension().is_some_and(|extension| extension == "deb"))
        .collect())
}

fn is_of(deb: &Path, package: &str) -> bool {
    let name = deb.file_name().unwrap_or_default().to_string_lossy();
    name.strip_prefix(package)
        .is_some_and(|rest| rest.starts_with('_'))
}

fn remove(directory: &Path) -> Result<()> {
    match fs::remove_dir_all(directory) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", directory.display()))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mirror_is_that_of_the_main_archive() {
        let targets = "Debian-Security main bookworm-security http://mirror.invalid/security/\n\
            Debian contrib bookworm http://mirror.invalid/debian/\n\
            Debian main bookworm http://mirror.invalid/debian/\n";

        assert_eq!(
            main_archive(targets),
            Some(("bookworm", "http://mirror.invalid/debian/"))
        );
        assert_eq!(main_archive("Ubuntu main noble http://mirror.invalid/\n"), None);
    }

    #[test]
    fn an_archive_belongs_to_one_package() {
        let deb = Path::new("/x/tinc_1.0.36-2_amd64.deb");

        assert!(is_of(deb, "tinc"));
        assert!(!is_of(deb, "tin"));
    }
}
