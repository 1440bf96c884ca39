//! The files of a package, as they will stand below `/`.

use std::fs::{self, File, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, ensure};

use super::linked::Linked;
use super::{LIMIT, PackagePlan, Platform, Version, notices, reference, time};
use crate::lab::process::text;

/// Directory of the documentation.
pub(super) const DOC: &str = "usr/share/doc/stream-router";
/// Directory for everything of `router-user/node/dist` that has no place of its own.
const SHARE: &str = "usr/share/stream-router";
/// The documents that the README points to.
const DOCUMENTS: &str = "router-user/docs";
/// What a package has beside the program and its documentation.
const DIST: &str = "router-user/node/dist";
const MAN: &str = "usr/share/man";
pub(super) const PROGRAM: &str = "usr/bin/stream-router";

/// Files with places of their own, by name in [`DIST`].
const PLACES: &[(&str, &str)] = &[
    (
        "stream-router.service",
        "usr/lib/systemd/system/stream-router.service",
    ),
    ("sysusers.conf", "usr/lib/sysusers.d/stream-router.conf"),
    ("tmpfiles.conf", "usr/lib/tmpfiles.d/stream-router.conf"),
    ("stream-router.toml", CONFIG),
];

/// What is for those alone who unpack the archive.
const NOT_INSTALLED: &[&str] = &["INSTALL"];

/// The configuration, which upgrades do not overwrite.
pub(super) const CONFIG: &str = "etc/stream-router.toml";

/// Directories that are the package's own, and no other's.
pub(super) const OWN_DIRECTORIES: &[&str] = &[DOC, SHARE, INSTANCES];

/// The configurations of several nodes on a host, and the unit that runs one of them by its name.
const INSTANCES: &str = "etc/stream-router";
const INSTANCE_UNIT: &str = "usr/lib/systemd/system/stream-router@.service";

/// What the unit of one of several nodes has in place of what the unit of a single one has.
const INSTANCE_LINES: &[(&str, &str)] = &[
    (
        "Description=Stream Router VPN node\n",
        "Description=Stream Router VPN node %i\n",
    ),
    ("/etc/stream-router.toml", "/etc/stream-router/%i.toml"),
    ("/etc/stream-router.d", "/etc/stream-router/%i.d"),
    (
        "RuntimeDirectory=stream-router\n",
        "RuntimeDirectory=stream-router-%i\n",
    ),
];

/// Completions, as the program names them and as the shells look for them.
const COMPLETIONS: &[(&str, &str)] = &[
    (
        "stream-router.bash",
        "usr/share/bash-completion/completions/stream-router",
    ),
    (
        "stream-router.fish",
        "usr/share/fish/vendor_completions.d/stream-router.fish",
    ),
    (
        "_stream-router",
        "usr/share/zsh/vendor-completions/_stream-router",
    ),
];

/// A directory that stands for `/`.
#[derive(Debug)]
pub(super) struct Tree(PathBuf);

impl Tree {
    /// Makes an empty tree.
    pub(super) fn new(root: PathBuf) -> Result<Self> {
        fs::create_dir_all(&root).with_context(|| format!("cannot create {}", root.display()))?;
        Ok(Self(root))
    }

    /// Returns the directory of the tree.
    pub(super) fn root(&self) -> &Path {
        &self.0
    }

    /// Lays everything out that is the same in every package.
    pub(super) fn fill(&self, plan: &PackagePlan<'_>, linked: &[Linked], platform: &Platform) -> Result<()> {
        let workspace = plan.workspace;
        self.program(plan.binary, platform)?;
        self.manual(plan)?;
        self.completions(plan)?;
        for entry in entries(&workspace.join(DIST))? {
            let name = entry.file_name().unwrap_or_default().to_string_lossy();
            if entry.is_file() && !NOT_INSTALLED.contains(&&*name) {
                let place = PLACES.iter().find(|(file, _)| *file == name);
                let place = place.map_or_else(|| format!("{SHARE}/{name}"), |(_, place)| (*place).to_owned());
                self.copy(&entry, &place)?;
            }
        }
        let unit = workspace.join(DIST).join("stream-router.service");
        let unit = fs::read_to_string(&unit).with_context(|| format!("cannot read {}", unit.display()))?;
        self.write(INSTANCE_UNIT, &instance_unit(&unit)?)?;
        self.make_directory(INSTANCES)?;
        for (file, place) in [
            ("README.md", "README.md"),
            ("router-user/node/src/control/API.md", "API.md"),
            ("router-user/node/src/metrics/METRICS.md", "METRICS.md"),
        ] {
            self.copy(&workspace.join(file), &format!("{DOC}/{place}"))?;
        }
        for document in entries(&workspace.join(DOCUMENTS))? {
            let name = document.file_name().unwrap_or_default().to_string_lossy();
            self.copy(&document, &format!("{DOC}/docs/{name}"))?;
        }
        self.write(&format!("{DOC}/copyright"), &copyright(workspace)?)?;
        self.write(&format!("{DOC}/changelog"), &changelog(plan.version)?)?;
        self.write(&format!("{DOC}/THIRD-PARTY"), &notices::text_of(linked)?)?;
        self.gzip(&[format!("{DOC}/changelog"), format!("{DOC}/THIRD-PARTY")])
    }

    /// Gives every file and directory its mode, whatever the umask is, and the time of a version.
    ///
    /// Of libraries the loader is executable, as it is where it comes from.
    pub(super) fn settle(&self, version: &Version) -> Result<()> {
        let time = SystemTime::UNIX_EPOCH + Duration::from_secs(version.epoch_secs());
        let mut paths = self.walk()?;
        paths.push(self.0.clone());
        for path in paths {
            let failed = || format!("cannot set mode and time of {}", path.display());
            let executable = path.is_dir() || path == self.0.join(PROGRAM) || is_loader(&path);
            let mode = if executable { 0o755 } else { 0o644 };
            fs::set_permissions(&path, Permissions::from_mode(mode)).with_context(failed)?;
            let file = File::open(&path).with_context(failed)?;
            file.set_modified(time).with_context(failed)?;
        }
        Ok(())
    }

    /// Returns every file and directory, in order.
    pub(super) fn walk(&self) -> Result<Vec<PathBuf>> {
        let mut found = Vec::new();
        let mut waiting = vec![self.0.clone()];
        while let Some(directory) = waiting.pop() {
            for entry in entries(&directory)? {
                if entry.is_dir() {
                    waiting.push(entry.clone());
                }
                found.push(entry);
            }
        }
        found.sort();
        Ok(found)
    }

    /// Copies a file to a place in the tree.
    pub(super) fn copy(&self, from: &Path, place: &str) -> Result<()> {
        let to = self.place(place)?;
        fs::copy(from, &to).with_context(|| format!("cannot copy {} to {}", from.display(), to.display()))?;
        Ok(())
    }

    /// Writes a file at a place in the tree.
    pub(super) fn write(&self, place: &str, content: &str) -> Result<()> {
        let path = self.place(place)?;
        fs::write(&path, content).with_context(|| format!("cannot write {}", path.display()))
    }

    /// Makes a directory in the tree.
    pub(super) fn make_directory(&self, place: &str) -> Result<()> {
        let path = self.0.join(place);
        fs::create_dir_all(&path).with_context(|| format!("cannot create {}", path.display()))
    }

    fn place(&self, place: &str) -> Result<PathBuf> {
        let path = self.0.join(place);
        let parent = path.parent().context("a place is in a directory")?;
        fs::create_dir_all(parent).with_context(|| format!("cannot create {}", parent.display()))?;
        Ok(path)
    }

    fn program(&self, binary: &Path, platform: &Platform) -> Result<()> {
        if !platform.is_native() {
            // The linker has done what strip does, which knows programs for this machine only.
            return self.copy(binary, PROGRAM);
        }
        let to = self.place(PROGRAM)?;
        let mut strip = Command::new("strip");
        strip.args([
            "--strip-unneeded",
            "--remove-section=.comment",
            "--remove-section=.note",
        ]);
        text(strip.arg("-o").arg(&to).arg(binary), LIMIT)?;
        Ok(())
    }

    fn manual(&self, plan: &PackagePlan<'_>) -> Result<()> {
        let first = self.place(&format!("{MAN}/man1/stream-router.1"))?;
        let directory = first.parent().context("a page is in a directory")?;
        generate(plan.printer, "man", directory)?;
        let document = |name| {
            let path = plan.workspace.join(DOCUMENTS).join(name);
            fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))
        };
        self.write(
            &format!("{MAN}/man5/stream-router.toml.5"),
            &reference::page(&document("configuration.md")?, &document("operations.md")?)?,
        )?;
        let names = entries(directory)?;
        let names = names.iter().filter_map(|page| page.file_name());
        let mut pages: Vec<_> = names
            .map(|name| format!("{MAN}/man1/{}", name.to_string_lossy()))
            .collect();
        pages.push(format!("{MAN}/man5/stream-router.toml.5"));
        self.gzip(&pages)
    }

    fn completions(&self, plan: &PackagePlan<'_>) -> Result<()> {
        let scratch = self.place("completions/scratch")?;
        let directory = scratch.parent().context("a file is in a directory")?;
        generate(plan.printer, "completions", directory)?;
        for (file, place) in COMPLETIONS {
            self.copy(&directory.join(file), place)?;
        }
        fs::remove_dir_all(directory).with_context(|| format!("cannot remove {}", directory.display()))
    }

    fn gzip(&self, places: &[String]) -> Result<()> {
        let mut gzip = Command::new("gzip");
        gzip.args(["--no-name", "-9"]);
        text(gzip.args(places.iter().map(|place| self.0.join(place))), LIMIT)?;
        Ok(())
    }
}

/// Makes the unit that runs the node with the name of an instance out of the one that runs a single node.
fn instance_unit(unit: &str) -> Result<String> {
    INSTANCE_LINES
        .iter()
        .try_fold(unit.to_owned(), |unit, (single, instance)| {
            ensure!(unit.contains(single), "the unit has no {single:?}");
            Ok(unit.replace(single, instance))
        })
}

fn generate(binary: &Path, what: &str, out: &Path) -> Result<()> {
    text(
        Command::new(binary).args(["generate", what, "--out"]).arg(out),
        LIMIT,
    )?;
    Ok(())
}

fn entries(directory: &Path) -> Result<Vec<PathBuf>> {
    let failed = || format!("cannot read {}", directory.display());
    let entries = fs::read_dir(directory).with_context(failed)?;
    let mut paths = entries
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<Result<Vec<_>, _>>()
        .with_context(failed)?;
    paths.sort();
    Ok(paths)
}

/// Returns whether a file loads the libraries of programs, and is one itself.
fn is_loader(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    name.starts_with("ld-linux")
}

/// Returns the copyright file, in the format of <https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/>.
fn copyright(workspace: &Path) -> Result<String> {
    let path = workspace.join("LICENSE-MIT");
    let mit = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let holder = mit
        .lines()
        .find_map(|line| line.strip_prefix("Copyright (c) "))
        .context("LICENSE-MIT names nobody")?;
    let permission = mit
        .lines()
        .skip_while(|line| !line.starts_with("Permission"))
        .map(|line| match line {
            "" => " .\n".to_owned(),
            line => format!(" {line}\n"),
        });
    Ok(format!(
        "Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/\n\
         Upstream-Name: stream-router\n\n\
         Files: *\nCopyright: {holder}\nLicense: Expat or Apache-2.0\n\
         Comment: The licences of the libraries inside the program are in THIRD-PARTY.gz.\n\n\
         License: Expat\n{}\n\
         License: Apache-2.0\n On Debian systems, its text is in /usr/share/common-licenses/Apache-2.0.\n",
        permission.collect::<String>()
    ))
}

fn changelog(version: &Version) -> Result<String> {
    let date = time(version, "--rfc-email")?;
    Ok(format!(
        "stream-router ({}) unstable; urgency=medium\n\n  * Built from source.\n\n -- {}  {date}\n",
        version.text(),
        super::deb::MAINTAINER,
    ))
}
