//! The image, as container tools take it.

use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::LIMIT;
use xtask::dist::Packages;
use xtask::lab::ScratchDir;
use xtask::lab::process::text;

/// Reads the image as docker and as others do, loads it and runs it without a network.
pub(super) fn run(packages: &Packages) -> Result<String> {
    let image = packages.image.display();
    for form in ["docker-archive", "oci-archive"] {
        let mut inspect = Command::new("skopeo");
        inspect
            .args(["inspect", "--config"])
            .arg(format!("{form}:{image}"));
        let config = text(&mut inspect, LIMIT)?;
        let config: Value =
            serde_json::from_str(&config).with_context(|| format!("skopeo printed {config}"))?;
        let entry = &config["config"]["Entrypoint"][0];
        ensure!(
            *entry == "/usr/bin/stream-router",
            "{form}: the entry point is {entry}"
        );
    }
    let storage = ScratchDir::unique("podman")?;
    let podman = |arguments: &[&str]| {
        let place = |name: &str| storage.path().join(name);
        let mut podman = Command::new("podman");
        podman
            .arg("--root")
            .arg(place("root"))
            .arg("--runroot")
            .arg(place("run"))
            .arg("--tmpdir")
            .arg(place("tmp"))
            .args(["--storage-driver=vfs", "--events-backend=none"])
            // Which needs neither systemd nor control groups of one kind.
            .args(["--cgroup-manager=cgroupfs", "--runtime=runc"]);
        text(podman.args(arguments), LIMIT)
    };
    let loaded = podman(&["load", "--input", &image.to_string()])?;
    let name = loaded
        .lines()
        .find_map(|line| line.strip_prefix("Loaded image: "));
    let name = name
        .with_context(|| format!("podman load printed {loaded}"))?
        .trim();
    ensure!(name.contains("/stream-router:"), "the image is called {name}");
    let version = podman(&[
        "run",
        "--rm",
        "--network=none",
        "--pull=never",
        // The usual limits are above those of some systems.
        "--ulimit=nofile=1024:1024",
        "--ulimit=nproc=1024:1024",
        name,
        "--version",
    ])?;
    ensure!(version.starts_with("stream-router "), "it printed {version}");
    Ok("skopeo reads it as docker-archive and oci-archive, podman loads and runs it".into())
}
