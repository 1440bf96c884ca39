//! Quincy: a VPN of a server and clients over QUIC's datagrams.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use super::INNER;
use super::daemon::Daemon;
use crate::bench::installs::{InstalledProgram, cargo_package};
use crate::bench::underlay::{HostPair, OUTER};
use xtask::lab::{Namespace, unique_device};

pub(super) const VERSION: &str = "3.1.1";
const PORT: u16 = 55555;
/// Key pairs of server and client, private and public; they protect a test network only.
const KEYS: [(&str, &str); 2] = [
    (
        "kPA0LbMIeUWgojSO6zbP8n8c3AMRKvEbCdQS1f3B6UQ=",
        "SJ0W8xKuUsZrQwS3bhAFFbkrg3vBHrI3U85zhSCZAx8=",
    ),
    (
        "+PS+HlJl3iV53dSgPGb15OWnIOBYgqPWUyg4mrAB1Es=",
        "cAoVnA9lwkBhgKNLdgBsstL6vUcxrGBIofQ50OL+XGc=",
    ),
];

/// Starts the server on the first host and its client on the second, which gets the next address.
pub(super) fn start(server: &InstalledProgram, underlay: &HostPair, directory: &Path) -> Result<[Daemon; 2]> {
    let client = cargo_package("quincy-client", VERSION, "quincy-client")?;
    let users = directory.join("users.toml");
    write(
        &users,
        &format!(
            "[users.bench]\nauthorized_keys = [{:?}]\nauthorized_certs = []\n",
            KEYS[1].1
        ),
    )?;
    let devices = [unique_device(), unique_device()];
    let configs = [
        format!(
            "name = \"bench\"\ninterface_name = {:?}\nbind_address = {:?}\nbind_port = {PORT}\n\
             tunnel_network = \"{}/24\"\nusers_file = {users:?}\n\
             [protocol]\nmode = \"noise\"\nprivate_key = {:?}\n[log]\nlevel = \"warn\"\n",
            devices[0],
            OUTER[0].to_string(),
            INNER[0],
            KEYS[0].0
        ),
        format!(
            "connection_string = \"{}:{PORT}\"\n[protocol]\nmode = \"noise\"\nserver_public_key = {:?}\n\
             private_key = {:?}\n[network]\ninterface_name = {:?}\n[log]\nlevel = \"warn\"\n",
            OUTER[0], KEYS[0].1, KEYS[1].0, devices[1]
        ),
    ];
    let [a, b] = &underlay.hosts;
    let [of_server, of_client] = &configs;
    Ok([
        run(&server.program, a, directory, "server", of_server, &devices[0])?,
        run(&client.program, b, directory, "client", of_client, &devices[1])?,
    ])
}

fn run(
    program: &Path,
    host: &Namespace,
    directory: &Path,
    role: &str,
    config: &str,
    device: &str,
) -> Result<Daemon> {
    let file = directory.join(role).with_extension("toml");
    write(&file, config)?;
    let mut command = host.command(program);
    command.arg("--config-path").arg(&file);
    let mut daemon = Daemon::start(command, directory.join(role).with_extension("log"))?;
    daemon.wait_for("the device is there", || host.has_device(device))?;
    Ok(daemon)
}

fn write(file: &Path, text: &str) -> Result<()> {
    fs::write(file, text).with_context(|| format!("cannot write {}", file.display()))
}
