//! tinc 1.0 in its router mode.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};

use super::daemon::Daemon;
use super::{INNER, each_side};
use crate::bench::installs::InstalledProgram;
use crate::bench::underlay::{HostPair, OUTER};
use xtask::lab::process::text;
use xtask::lab::unique_device;

const LIMIT: Duration = Duration::from_secs(60);

/// Starts tinc on each host; everything but addresses and names is as it is shipped.
pub(super) fn start(
    installed: &InstalledProgram,
    underlay: &HostPair,
    directory: &Path,
) -> Result<[Daemon; 2]> {
    let libraries = libraries(&installed.root);
    let devices = each_side(|side| prepare(installed, &libraries, directory, side))?;
    for side in 0..2 {
        let (from, to) = (
            host_file(directory, side, side),
            host_file(directory, 1 - side, side),
        );
        fs::copy(&from, &to).with_context(|| format!("cannot copy {}", from.display()))?;
    }
    each_side(|side| {
        let host = &underlay.hosts[side];
        let mut command = host.command(&installed.program);
        command.env("LD_LIBRARY_PATH", &libraries);
        command
            .arg("--no-detach")
            .arg("--config")
            .arg(home(directory, side));
        command.arg("--pidfile").arg(home(directory, side).join("pid"));
        let mut daemon = Daemon::start(command, directory.join(format!("{side}.log")))?;
        daemon.configure_device(host, &devices[side], &INNER[side].to_string(), None)?;
        Ok(daemon)
    })
}

/// Writes the configuration of one side and makes its key, which is added to its host file.
fn prepare(installed: &InstalledProgram, libraries: &str, directory: &Path, side: usize) -> Result<String> {
    let device = unique_device();
    let home = home(directory, side);
    fs::create_dir_all(home.join("hosts")).with_context(|| format!("cannot create {}", home.display()))?;
    let own = format!(
        "Name = host{side}\nConnectTo = host{}\nInterface = {device}\nDeviceType = tun\nAddressFamily = ipv4\n",
        1 - side
    );
    fs::write(home.join("tinc.conf"), own)?;
    let shared = format!("Address = {}\nSubnet = {}/32\n", OUTER[side], INNER[side]);
    fs::write(host_file(directory, side, side), shared)?;
    let mut command = Command::new(&installed.program);
    command.env("LD_LIBRARY_PATH", libraries);
    text(command.arg("--config").arg(&home).arg("--generate-keys"), LIMIT)?;
    Ok(device)
}

fn home(directory: &Path, side: usize) -> std::path::PathBuf {
    directory.join(format!("home{side}"))
}

/// Returns what the first side knows of the second.
fn host_file(directory: &Path, of: usize, on: usize) -> std::path::PathBuf {
    home(directory, of).join("hosts").join(format!("host{on}"))
}

/// Returns the directories of shared libraries that were unpacked beside the program.
fn libraries(root: &Path) -> String {
    let places = ["lib", "usr/lib"].map(|place| fs::read_dir(root.join(place)));
    let directories = places.into_iter().flatten().flatten().flatten();
    let paths: Vec<String> = directories
        .map(|entry| entry.path().display().to_string())
        .collect();
    paths.join(":")
}
