//! What a machine boots into: the programs with their libraries, the modules, and a script that runs the checks.

use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use super::archive::Archive;
use super::checks::{Counted, Tests};
use super::image::Image;
use super::{modules, quiet};
use crate::command::{find_program, read};

/// The programs of this build.
#[derive(Debug)]
pub(super) struct Programs {
    /// The node.
    pub(super) node: PathBuf,
    /// The end-to-end tests.
    pub(super) e2e: PathBuf,
    /// The tests of the programs in the kernel.
    pub(super) program_run: PathBuf,
}

/// What the tests run beside the node.
const TOOLS: &[&str] = &[
    "ip",
    "tc",
    "nft",
    "ping",
    "iperf3",
    "ethtool",
    "tracepath",
    "unshare",
];

/// Begins the line by which a machine tells of itself.
pub(super) const MARK: &str = "@@";

const INIT: &str = "#!/bin/busybox sh
/bin/busybox --install -s /bin
export PATH=/bin HOME=/root RUST_BACKTRACE=0 STREAM_ROUTER_LAB_PATIENCE=10
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t securityfs security /sys/kernel/security
mount -t devtmpfs dev /dev
mount -t tmpfs run /run
mount -t bpf bpf /sys/fs/bpf
mount -t cgroup2 cgroup /sys/fs/cgroup
for module in /modules/*; do insmod $module || echo @@ cannot load $module; done
ip link set lo up
";

/// Writes the archive that a machine with this kernel boots into.
///
/// # Errors
/// When a part cannot be read, or the archive not be written.
pub(super) fn write(path: &Path, image: &Image, programs: &Programs, checks: &[Counted]) -> Result<()> {
    let mut archive = Archive::create(path)?;
    for directory in [
        "/dev", "/proc", "/sys", "/tmp", "/run", "/root", "/etc", "/var/run",
    ] {
        archive.directory(Path::new(directory))?;
    }
    let busybox = find_program("busybox").context("there is no busybox")?;
    add_program(&mut archive, &busybox, Path::new("/bin/busybox"))?;
    for tool in TOOLS {
        let file = find_program(tool).with_context(|| format!("there is no {tool}"))?;
        // Behind a name of busybox's own it would not be found.
        add_program(&mut archive, &file, &Path::new("/usr/local/bin").join(tool))?;
    }
    for program in [&programs.node, &programs.e2e, &programs.program_run] {
        // The tests know the node by the path that cargo has built it at.
        add_stripped(&mut archive, program)?;
    }
    for (number, module) in modules::in_order(&image.modules())?.iter().enumerate() {
        let name = format!("/modules/{number:03}");
        archive.file(Path::new(&name), &modules::contents(module)?)?;
    }
    archive.file(Path::new("/init"), script(programs, checks)?.as_bytes())?;
    archive.finish()
}

fn script(programs: &Programs, checks: &[Counted]) -> Result<String> {
    let mut script = INIT.replace("PATH=/bin", "PATH=/usr/local/bin:/bin");
    writeln!(script, "echo {MARK} booted $(uname -r)")?;
    for Counted { check, .. } in checks {
        let program = match check.tests {
            Tests::Nodes(_) => &programs.e2e,
            Tests::Programs(_) => &programs.program_run,
        };
        let tests = check.tests.names();
        let exact = if tests.iter().all(|test| !test.ends_with("::")) {
            " --exact"
        } else {
            ""
        };
        writeln!(script, "echo {MARK} begin {}", check.name)?;
        writeln!(script, "start=$(cut -d. -f1 /proc/uptime)")?;
        // A filter that matches nothing is a success to the program, so what passed is counted.
        writeln!(
            script,
            "{{ {} --test-threads=1{exact} {}; echo $? >/tmp/status; }} | tee /tmp/said",
            program.display(),
            tests.join(" ")
        )?;
        writeln!(
            script,
            "passed=$(sed -n 's/^test result: .* \\([0-9]*\\) passed;.*/\\1/p' /tmp/said)"
        )?;
        writeln!(
            script,
            "echo {MARK} end {} $(cat /tmp/status) ${{passed:-0}} $(($(cut -d. -f1 /proc/uptime) - start))",
            check.name
        )?;
    }
    writeln!(script, "echo {MARK} done")?;
    writeln!(script, "poweroff -f")?;
    Ok(script)
}

fn add_stripped(archive: &mut Archive, program: &Path) -> Result<()> {
    let stripped = program.with_extension("stripped");
    quiet(Command::new("strip").arg("-o").arg(&stripped).arg(program))?;
    let added = add_program(archive, &stripped, program);
    fs::remove_file(&stripped).with_context(|| format!("cannot remove {}", stripped.display()))?;
    added
}

/// Adds a program as `path`, and the libraries that it is linked with where they are here.
fn add_program(archive: &mut Archive, program: &Path, path: &Path) -> Result<()> {
    archive.copy(program, path)?;
    // It fails for a program without libraries.
    let Ok(output) = Command::new("ldd").arg(program).output() else {
        return read(&mut Command::new("ldd")).map(drop);
    };
    for word in String::from_utf8_lossy(&output.stdout).split_whitespace() {
        if word.starts_with('/') {
            archive.copy(Path::new(word), Path::new(word))?;
        }
    }
    Ok(())
}
