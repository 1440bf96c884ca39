//! A Debian system of the fewest packages, made of files of this one or of Debian's archive.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, Permissions};
use std::io::Write;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use super::ScratchDir;
use super::process::{text, wait};

const LIMIT: Duration = Duration::from_secs(60);
/// How long a system may take to be downloaded, and its programs to be emulated that configure it.
const ARCHIVE_LIMIT: Duration = Duration::from_secs(1200);

/// What packages bring that no program needs.
const LEFT_OUT: &[&str] = &[
    "usr/share/doc/",
    "usr/share/man/",
    "usr/share/locale/",
    "usr/share/info/",
];

/// Files that scripts of packages make, and that every system has.
const MADE_BY_SCRIPTS: &[(&str, &str)] = &[
    ("/usr/share/base-passwd/passwd.master", "etc/passwd"),
    ("/usr/share/base-passwd/group.master", "etc/group"),
    ("/etc/adduser.conf", "etc/adduser.conf"),
];

/// Devices: name, major and minor number.
const DEVICES: &[(&str, &str, &str)] = &[
    ("null", "1", "3"),
    ("zero", "1", "5"),
    ("urandom", "1", "9"),
    ("net/tun", "10", "200"),
];

/// The root of a Debian system that has the essential packages, those that a package to be tried depends on, and
/// nothing else. Removed on drop.
#[derive(Debug)]
pub struct CleanRoot(ScratchDir);

/// An installed package.
struct Installed {
    essential: bool,
    depends: String,
}

impl CleanRoot {
    /// Makes one that has what `deb` depends on.
    ///
    /// # Errors
    /// When this system is no Debian system, or when it lacks a package that `deb` depends on.
    pub fn for_package(deb: &Path) -> Result<Self> {
        Self::with(deb, &[])
    }

    /// Makes one that has what `deb` depends on, and other packages.
    ///
    /// # Errors
    /// When this system is no Debian system, or when it lacks one of the packages.
    pub fn with(deb: &Path, others: &[&str]) -> Result<Self> {
        let installed = installed()?;
        let depends = field(deb, "Depends")?;
        let wanted = [&[depends.trim()], others].concat().join(", ");
        let packages = closure(&installed, &wanted)?;
        let root = Self(ScratchDir::unique("root")?);
        root.copy_files(&packages)?;
        root.write_database(&packages)?;
        for (from, to) in MADE_BY_SCRIPTS {
            if Path::new(from).exists() {
                fs::copy(from, root.path().join(to)).with_context(|| format!("cannot copy {from}"))?;
            }
        }
        for directory in ["dev/net", "proc", "sys", "run", "tmp", "var/log", "mnt"] {
            root.make_directory(directory)?;
        }
        for (name, major, minor) in DEVICES {
            let device = root.path().join("dev").join(name);
            text(
                Command::new("mknod")
                    .args(["-m", "666"])
                    .arg(device)
                    .args(["c", major, minor]),
                LIMIT,
            )?;
        }
        text(Command::new("ldconfig").arg("-r").arg(root.path()), LIMIT)?;
        Ok(root)
    }

    /// Makes one of a release of Debian, of its archive, for the machine that `deb` is for, with what `deb` depends on
    /// and other packages.
    ///
    /// # Errors
    /// When the archive cannot be reached, or `mmdebstrap` fails.
    pub fn of_release(release: &str, deb: &Path, others: &[&str]) -> Result<Self> {
        let architecture = field(deb, "Architecture")?;
        let depends = field(deb, "Depends")?;
        let needed = clauses(&depends).filter_map(|alternatives| alternatives.first().copied());
        let packages: Vec<&str> = needed.chain(others.iter().copied()).collect();
        let root = Self(ScratchDir::unique("root")?);
        let mut bootstrap = Command::new("mmdebstrap");
        bootstrap
            .args(["--quiet", "--mode=root", "--variant=essential"])
            .arg(format!("--architectures={}", architecture.trim()))
            .arg(format!("--include={}", packages.join(",")));
        text(bootstrap.arg(release).arg(root.path()), ARCHIVE_LIMIT)?;
        // Only its owner may enter what mmdebstrap was given, and a node with a user of its own runs in it.
        fs::set_permissions(root.path(), Permissions::from_mode(0o755)).context("cannot open the root")?;
        Ok(root)
    }

    /// Makes another one with the same files.
    ///
    /// Files share their content: to change one, remove it first.
    ///
    /// # Errors
    /// When a file cannot be linked.
    pub fn twin(&self) -> Result<Self> {
        let twin = ScratchDir::unique("root")?;
        let mut copy = Command::new("cp");
        copy.args(["--archive", "--link", "--no-target-directory"]);
        text(copy.arg(self.path()).arg(twin.path()), LIMIT)?;
        Ok(Self(twin))
    }

    /// Returns where it is.
    pub fn path(&self) -> &Path {
        self.0.path()
    }

    /// Runs a program in it, without a network, and returns what it printed.
    ///
    /// # Errors
    /// When it fails.
    pub fn run(&self, program: &[&str]) -> Result<String> {
        let mut chroot = Command::new("unshare");
        chroot
            .args(["--net", "chroot"])
            .env("DEBIAN_FRONTEND", "noninteractive")
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .env("LC_ALL", "C");
        text(chroot.arg(self.path()).args(program), LIMIT)
    }

    /// Installs a package in it.
    ///
    /// # Errors
    /// When dpkg fails, as it does without what the package depends on.
    pub fn install(&self, deb: &Path) -> Result<()> {
        let inside = self.path().join("tmp/package.deb");
        fs::copy(deb, &inside).with_context(|| format!("cannot copy {}", deb.display()))?;
        self.run(&["dpkg", "--install", "/tmp/package.deb"])?;
        fs::remove_file(&inside).with_context(|| format!("cannot remove {}", inside.display()))
    }

    /// Returns every file and directory in it, without the first `/`.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn files(&self) -> Result<BTreeSet<String>> {
        let listed = text(
            Command::new("find")
                .arg(self.path())
                .args(["-mindepth", "1", "-printf", "%P\n"]),
            LIMIT,
        )?;
        Ok(listed.lines().map(str::to_owned).collect())
    }

    fn make_directory(&self, name: &str) -> Result<()> {
        let path = self.path().join(name);
        fs::create_dir_all(&path).with_context(|| format!("cannot create {}", path.display()))
    }

    fn copy_files(&self, packages: &BTreeSet<String>) -> Result<()> {
        let listed = text(
            Command::new("dpkg-query").arg("--listfiles").args(packages),
            LIMIT,
        )?;
        // What is a link here, such as /bin, is one there.
        let mut links = BTreeMap::new();
        for name in ["bin", "lib", "lib32", "lib64", "libx32", "sbin"] {
            if let Ok(target) = fs::read_link(Path::new("/").join(name)) {
                symlink(&target, self.path().join(name)).with_context(|| format!("cannot link {name}"))?;
                self.make_directory(&target.to_string_lossy())?;
                links.insert(name, target.to_string_lossy().into_owned());
            }
        }
        let mut files = BTreeSet::new();
        for path in listed.lines().filter_map(|line| line.strip_prefix('/')) {
            let (first, rest) = path.split_once('/').unwrap_or((path, ""));
            let path = match links.get(first) {
                Some(_) if rest.is_empty() => continue,
                Some(target) => format!("{target}/{rest}"),
                None => path.to_owned(),
            };
            let wanted = !LEFT_OUT.iter().any(|prefix| path.starts_with(prefix));
            if wanted && fs::symlink_metadata(Path::new("/").join(&path)).is_ok() {
                files.insert(path);
            }
        }
        let mut list = files.into_iter().collect::<Vec<_>>().join("\n");
        list.push('\n');
        let mut pack = Command::new("tar")
            .args(["--directory=/", "--create", "--no-recursion", "--files-from=-"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot start tar")?;
        let packed = pack.stdout.take().context("tar's output is a pipe")?;
        let mut unpack = Command::new("tar")
            .arg("--extract")
            .arg("--directory")
            .arg(self.path())
            .stdin(packed)
            .spawn()
            .context("cannot start tar")?;
        let mut names = pack.stdin.take().context("tar's input is a pipe")?;
        names
            .write_all(list.as_bytes())
            .context("cannot tell tar what to copy")?;
        drop(names);
        for tar in [&mut pack, &mut unpack] {
            let status = wait(tar, LIMIT)?;
            ensure!(
                status.success(),
                "tar cannot copy the files of {packages:?}: {status}"
            );
        }
        Ok(())
    }

    /// Returns what dpkg knows of the packages.
    fn write_database(&self, packages: &BTreeSet<String>) -> Result<()> {
        const DATABASE: &str = "var/lib/dpkg";
        for name in ["info", "updates", "triggers", "alternatives", "parts"] {
            self.make_directory(&format!("{DATABASE}/{name}"))?;
        }
        let status = text(Command::new("dpkg-query").arg("--status").args(packages), LIMIT)?;
        let path = self.path().join(DATABASE).join("status");
        fs::write(&path, status).with_context(|| format!("cannot write {}", path.display()))?;
        let lists = Path::new("/").join(DATABASE).join("info");
        for entry in fs::read_dir(&lists).with_context(|| format!("cannot read {}", lists.display()))? {
            let path: PathBuf = entry?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            let package = name
                .strip_suffix(".list")
                .map(|name| name.split(':').next().unwrap_or(name));
            if package.is_some_and(|package| packages.contains(package)) {
                let to = self.path().join(DATABASE).join("info").join(&*name);
                fs::copy(&path, to).with_context(|| format!("cannot copy {}", path.display()))?;
            }
        }
        Ok(())
    }
}

/// Returns a field of a package.
fn field(deb: &Path, name: &str) -> Result<String> {
    text(Command::new("dpkg-deb").arg("--field").arg(deb).arg(name), LIMIT)
}

/// Returns the packages that are installed here, by name.
fn installed() -> Result<BTreeMap<String, Installed>> {
    let format = "${Package}\t${db:Status-Status}\t${Essential}\t${Pre-Depends}, ${Depends}\n";
    let listed = text(
        Command::new("dpkg-query")
            .arg("--show")
            .arg(format!("--showformat={format}")),
        LIMIT,
    )?;
    let mut packages = BTreeMap::new();
    for line in listed.lines() {
        let [name, "installed", essential, depends] = line.split('\t').collect::<Vec<_>>()[..] else {
            continue;
        };
        let package = Installed {
            essential: essential == "yes",
            depends: depends.to_owned(),
        };
        packages.insert(name.to_owned(), package);
    }
    Ok(packages)
}

/// Returns the essential packages, what `depends` names, and everything that these depend on.
fn closure(installed: &BTreeMap<String, Installed>, depends: &str) -> Result<BTreeSet<String>> {
    let mut packages = BTreeSet::new();
    let essential = installed.iter().filter(|(_, package)| package.essential);
    let mut waiting: Vec<String> = essential.map(|(name, _)| name.clone()).collect();
    for alternatives in clauses(depends) {
        match alternatives.iter().find(|name| installed.contains_key(**name)) {
            Some(name) => waiting.push((*name).to_owned()),
            None => bail!("none of {} is installed; install one", alternatives.join(", ")),
        }
    }
    while let Some(name) = waiting.pop() {
        if !packages.insert(name.clone()) {
            continue;
        }
        let Some(package) = installed.get(&name) else {
            continue;
        };
        for alternatives in clauses(&package.depends) {
            // What is not found is a virtual package; essential packages depend on none that they do not bring.
            let found = alternatives.iter().find(|name| installed.contains_key(**name));
            waiting.extend(found.map(|name| (*name).to_owned()));
        }
    }
    Ok(packages)
}

/// Returns the names in a list of dependencies: one of each must be there.
fn clauses(depends: &str) -> impl Iterator<Item = Vec<&str>> {
    let clauses = depends.split(',').filter(|clause| !clause.trim().is_empty());
    clauses.map(|clause| clause.split('|').map(package_name).collect())
}

/// Returns the name in `name:any (>= 1)`.
fn package_name(alternative: &str) -> &str {
    let alternative = alternative.trim();
    alternative.split([' ', '(', ':']).next().unwrap_or(alternative)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn package(essential: bool, depends: &str) -> Installed {
        Installed {
            essential,
            depends: depends.to_owned(),
        }
    }

    #[test]
    fn a_closure_has_what_is_essential_and_what_is_needed() {
        let installed = BTreeMap::from([
            ("base".to_owned(), package(true, "libc:any (>= 2.3), awk")),
            ("libc".to_owned(), package(false, "")),
            ("wanted".to_owned(), package(false, ", absent | libc")),
            ("other".to_owned(), package(false, "")),
        ]);

        let found = closure(&installed, "missing | wanted (>= 1), libc").unwrap();

        let expected = ["base", "libc", "wanted"].map(str::to_owned);
        assert_eq!(found, BTreeSet::from(expected));
        assert!(closure(&installed, "missing").is_err());
    }
}
