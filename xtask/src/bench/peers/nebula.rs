//! Nebula with a certificate authority of its own and no lighthouse.

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

const LIMIT: Duration = Duration::from_secs(20);

/// Starts Nebula on each host; everything but addresses and names is as it is shipped.
pub(super) fn start(
    installed: &InstalledProgram,
    underlay: &HostPair,
    directory: &Path,
) -> Result<[Daemon; 2]> {
    let certify = |args: &[&str]| -> Result<()> {
        let mut command = Command::new(installed.program.with_file_name("nebula-cert"));
        text(command.args(args).current_dir(directory), LIMIT)?;
        Ok(())
    };
    certify(&["ca", "-name", "bench"])?;
    each_side(|side| {
        let (name, address) = (format!("host{side}"), format!("{}/24", INNER[side]));
        certify(&["sign", "-name", &name, "-networks", &address])?;
        let device = unique_device();
        let file = directory.join(format!("{name}.yml"));
        fs::write(&file, configuration(side, &device))
            .with_context(|| format!("cannot write {}", file.display()))?;
        let host = &underlay.hosts[side];
        let mut command = host.command(&installed.program);
        command.arg("-config").arg(file).current_dir(directory);
        let mut daemon = Daemon::start(command, directory.join(format!("{name}.log")))?;
        daemon.wait_for("the device is there", || host.has_device(&device))?;
        Ok(daemon)
    })
}

fn configuration(side: usize, device: &str) -> String {
    let other = 1 - side;
    let any = "[{ port: any, proto: any, host: any }]";
    format!(
        "pki: {{ ca: ca.crt, cert: host{side}.crt, key: host{side}.key }}\n\
         static_host_map: {{ \"{}\": [\"{}:4242\"] }}\n\
         lighthouse: {{ am_lighthouse: false }}\n\
         listen: {{ host: 0.0.0.0, port: 4242 }}\n\
         tun: {{ dev: {device} }}\n\
         firewall: {{ outbound: {any}, inbound: {any} }}\n",
        INNER[other], OUTER[other]
    )
}
