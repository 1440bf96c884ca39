//! Installs programs from the system's package manager.

use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::process::{self, Command};

use anyhow::{Context, Result, bail};

use crate::command::{find_program, is_root, run};

/// Programs that the ready network runs, with the Debian package of each.
const PROGRAMS: &[(&str, &str)] = &[
    ("ip", "iproute2"),
    ("ping", "iputils-ping"),
    ("tracepath", "iputils-tracepath"),
    ("iperf3", "iperf3"),
    ("bpftool", "bpftool"),
];

/// Programs that the comparison with other VPNs runs beside those.
const BENCH_PROGRAMS: &[(&str, &str)] = &[("ethtool", "ethtool"), ("nft", "nftables")];

/// Programs that the tests run beside those.
const TEST_PROGRAMS: &[(&str, &str)] = &[
    ("tcpdump", "tcpdump"),
    ("sysctl", "procps"),
    ("tmux", "tmux"),
    ("chromium", "chromium"),
    ("zsh", "zsh"),
    ("fish", "fish"),
    ("dnsmasq", "dnsmasq-base"),
    ("tinyproxy", "tinyproxy-bin"),
    ("microsocks", "microsocks"),
    ("nginx", "nginx-core"),
    ("curl", "curl"),
    ("openssl", "openssl"),
    ("miniupnpd", "miniupnpd-nftables"),
    ("ss", "iproute2"),
    ("systemd-analyze", "systemd"),
    ("systemd-nspawn", "systemd-container"),
];

/// Programs that make packages, and the one that runs a node with the privileges of a unit.
const PACKAGE_PROGRAMS: &[(&str, &str)] = &[
    ("dpkg", "dpkg"),
    ("dpkg-deb", "dpkg"),
    ("dpkg-shlibdeps", "dpkg-dev"),
    ("rpmbuild", "rpm"),
    ("strip", "binutils"),
    ("tar", "tar"),
    ("gzip", "gzip"),
    ("setpriv", "util-linux"),
];

/// Programs that make bare roots and enter them.
const ROOT_PROGRAMS: &[(&str, &str)] = &[("mmdebstrap", "mmdebstrap"), ("unshare", "util-linux")];

/// Programs that try packages beside those.
const VERIFY_PROGRAMS: &[(&str, &str)] = &[
    ("rpm", "rpm"),
    ("skopeo", "skopeo"),
    ("podman", "podman"),
    ("runc", "runc"),
];

/// Programs that make machines with other kernels, and that run in them beside those.
const MACHINE_PROGRAMS: &[(&str, &str)] = &[
    ("qemu-system-x86_64", "qemu-system-x86"),
    ("busybox", "busybox-static"),
    ("tc", "iproute2"),
    ("xz", "xz-utils"),
    ("dpkg-deb", "dpkg"),
    ("strip", "binutils"),
    ("ldd", "libc-bin"),
];

/// Makes sure that every program the ready network runs is there.
///
/// # Errors
/// When one is missing and cannot be installed.
pub(crate) fn programs() -> Result<()> {
    ensure(PROGRAMS)
}

/// Makes sure that every program the comparison with other VPNs runs is there.
///
/// # Errors
/// When one is missing and cannot be installed.
pub(crate) fn bench_programs() -> Result<()> {
    ensure(&[PROGRAMS, BENCH_PROGRAMS].concat())
}

/// Makes sure that every program a test runs is there.
///
/// # Errors
/// When one is missing and cannot be installed.
pub(crate) fn test_programs() -> Result<()> {
    ensure(
        &[
            PROGRAMS,
            BENCH_PROGRAMS,
            TEST_PROGRAMS,
            PACKAGE_PROGRAMS,
            ROOT_PROGRAMS,
        ]
        .concat(),
    )
}

/// Makes sure that every program that makes machines with other kernels, or runs in them, is there.
///
/// # Errors
/// When one is missing and cannot be installed.
pub(crate) fn machine_programs() -> Result<()> {
    ensure(&[PROGRAMS, BENCH_PROGRAMS, MACHINE_PROGRAMS].concat())
}

/// Makes sure that every program that tries packages is there.
///
/// # Errors
/// When one is missing and cannot be installed.
pub(crate) fn verify_programs() -> Result<()> {
    ensure(&[PROGRAMS, PACKAGE_PROGRAMS, ROOT_PROGRAMS, VERIFY_PROGRAMS].concat())
}

/// Makes sure that every program that makes packages, or that their test runs, is there.
///
/// # Errors
/// When one is missing and cannot be installed.
pub(crate) fn package_programs() -> Result<()> {
    ensure(PACKAGE_PROGRAMS)
}

fn ensure(programs: &[(&str, &str)]) -> Result<()> {
    let missing: Vec<_> = programs
        .iter()
        .filter(|(program, _)| find_program(program).is_none())
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    let packages: Vec<&str> = missing.iter().map(|(_, package)| *package).collect();
    apt(&packages).with_context(|| {
        let names: Vec<&str> = missing.iter().map(|(program, _)| *program).collect();
        format!(
            "missing programs: {}; install what your distribution calls {}",
            names.join(", "),
            packages.join(" ")
        )
    })
}

/// Installs the newest versions of Debian packages that there are, also in place of older ones.
///
/// # Errors
/// When there is no apt, when not root, or when apt fails.
pub(crate) fn apt_newest(packages: &[&str]) -> Result<()> {
    ensure_apt(packages)?;
    let _nothing_starts = NoServices::begin()?;
    run(apt_get().arg("update"))?;
    run(&mut apt_install(packages))
}

/// Installs Debian packages.
///
/// # Errors
/// When there is no apt, when not root, or when apt fails.
pub(crate) fn apt(packages: &[&str]) -> Result<()> {
    ensure_apt(packages)?;
    let _nothing_starts = NoServices::begin()?;
    if lists_are_present() && run(&mut apt_install(packages)).is_ok() {
        return Ok(());
    }
    run(apt_get().arg("update"))?;
    run(&mut apt_install(packages))
}

/// What Debian's packages ask before they start a service of theirs.
const POLICY: &str = "/usr/sbin/policy-rc.d";

/// Has packages start no services: a web server is wanted for its program alone.
struct NoServices {
    /// Whether the answer is of this process; a system may have one of its own.
    is_own: bool,
}

impl NoServices {
    fn begin() -> Result<Self> {
        let made = File::options()
            .write(true)
            .create_new(true)
            .mode(0o755)
            .open(POLICY);
        let mut file = match made {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::AlreadyExists => return Ok(Self { is_own: false }),
            Err(error) => return Err(error).with_context(|| format!("cannot make {POLICY}")),
        };
        // Removed again if it cannot be written.
        let own = Self { is_own: true };
        file.write_all(policy(process::id()).as_bytes())
            .with_context(|| format!("cannot write {POLICY}"))?;
        Ok(own)
    }
}

impl Drop for NoServices {
    fn drop(&mut self) {
        if self.is_own
            && let Err(error) = fs::remove_file(POLICY)
        {
            eprintln!("cannot remove {POLICY}: {error}");
        }
    }
}

/// The answer is no while a process is there, so that nothing is forbidden by one that was killed.
fn policy(pid: u32) -> String {
    format!(
        "#!/bin/sh\n# Of cargo xtask, while it installs programs.\nkill -0 {pid} 2>/dev/null && exit 101\nrm -f {POLICY}\nexit 0\n"
    )
}

fn ensure_apt(packages: &[&str]) -> Result<()> {
    if find_program("apt-get").is_none() {
        bail!("this system has no apt-get");
    }
    if !is_root() {
        bail!("not root; run: sudo apt-get install {}", packages.join(" "));
    }
    eprintln!("installing with apt-get: {}", packages.join(" "));
    Ok(())
}

/// Updates the package lists. A fresh container image has none, and an install with stale ones fails after a long wait.
fn lists_are_present() -> bool {
    let Ok(entries) = fs::read_dir("/var/lib/apt/lists") else {
        return false;
    };
    entries
        .flatten()
        .any(|entry| entry.file_name().to_string_lossy().contains("Packages"))
}

fn apt_install(packages: &[&str]) -> Command {
    let mut command = apt_get();
    command
        .args(["install", "--yes", "--no-install-recommends"])
        .args(packages);
    command
}

fn apt_get() -> Command {
    let mut command = Command::new("apt-get");
    command
        .env("DEBIAN_FRONTEND", "noninteractive")
        .arg("--quiet")
        .arg("--option=DPkg::Lock::Timeout=300");
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn services_may_start_again_when_the_process_that_forbade_it_is_gone() {
        let answer = |pid| {
            let script = policy(pid).replace(&format!("rm -f {POLICY}"), "");
            let status = Command::new("sh").arg("-c").arg(script).status();
            status.expect("a shell").code()
        };
        let mut child = Command::new("true").spawn().expect("a process");
        child.wait().expect("it ends");

        assert_eq!([answer(process::id()), answer(child.id())], [Some(101), Some(0)]);
    }
}
