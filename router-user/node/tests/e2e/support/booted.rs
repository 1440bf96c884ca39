//! A root that is booted: systemd is its first process, with a network of its own.

use std::fs::{self, File};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};
use nix::sys::signal::Signal;

use xtask::lab::CleanRoot;
use xtask::lab::process::{output, signal, text, until, wait};

const LIMIT: Duration = Duration::from_secs(120);

/// Makes the device that TUN devices are made with: that of this machine may be closed to all but root.
const FRESH_TUN: &str = "umount -q /dev/net/tun || true; mkdir -p /dev/net; rm -f /dev/net/tun;
    mknod -m 666 /dev/net/tun c 10 200";

/// Ended on drop, with everything that runs in it.
pub(crate) struct Booted {
    nspawn: Child,
    /// The first process of the system, as it is numbered here.
    first: String,
}

impl Booted {
    /// Boots a root that has systemd, and waits until it is up.
    pub(crate) fn start(root: &CleanRoot, log: &Path) -> Result<Self> {
        // Without one it is the first boot, which enables every unit there is.
        let id = root.path().join("etc/machine-id");
        fs::write(&id, "5eedc0de5eedc0de5eedc0de5eedc0de\n").context("cannot name the machine")?;
        let log = File::create(log).with_context(|| format!("cannot create {}", log.display()))?;
        let mut nspawn = Command::new("systemd-nspawn");
        nspawn
            // No service manager here needs to know of it, and there may be none.
            .args(["--quiet", "--register=no", "--keep-unit", "--private-network"])
            .args(["--capability=all", "--system-call-filter=bpf perf_event_open"])
            .arg("--directory")
            .arg(root.path())
            .arg("--boot")
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log);
        let nspawn = nspawn.spawn().context("cannot start systemd-nspawn")?;
        let mut booted = Self {
            nspawn,
            first: String::new(),
        };
        let children = format!("/proc/{0}/task/{0}/children", booted.nspawn.id());
        (booted.first, _) = until("a first process", LIMIT, || {
            let children = fs::read_to_string(&children)?;
            Ok(children
                .split_whitespace()
                .find(|child| {
                    let name = fs::read_to_string(format!("/proc/{child}/comm"));
                    name.is_ok_and(|name| name.trim() == "systemd")
                })
                .map(str::to_owned))
        })?;
        until("the system to be up", LIMIT, || {
            let mut state = booted.command(&["systemctl", "is-active", "multi-user.target"]);
            let said = output(&mut state, LIMIT)?;
            Ok(said.status.success().then_some(()))
        })?;
        booted.run(&["sh", "-c", FRESH_TUN])?;
        Ok(booted)
    }

    /// A program in it.
    pub(crate) fn command(&self, program: &[&str]) -> Command {
        let mut command = Command::new("nsenter");
        command
            .env_clear()
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .env("LC_ALL", "C")
            .args(["--target", &self.first])
            .args([
                "--mount", "--uts", "--ipc", "--net", "--pid", "--cgroup", "--root", "--wd", "--",
            ])
            .args(program);
        command
    }

    /// Runs a program in it, and returns what it printed.
    pub(crate) fn run(&self, program: &[&str]) -> Result<String> {
        text(&mut self.command(program), LIMIT)
    }
}

impl Drop for Booted {
    fn drop(&mut self) {
        // The first one powers off; the second one kills what is left.
        for _ in 0..2 {
            let _ = signal(&self.nspawn, Signal::SIGTERM);
            if wait(&mut self.nspawn, LIMIT).is_ok() {
                return;
            }
        }
        let _ = self.nspawn.kill();
        let _ = self.nspawn.wait();
    }
}
