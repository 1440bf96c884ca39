//! A user-space WireGuard: any program that makes a device and takes its configuration over the common socket.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use super::daemon::Daemon;
use super::{INNER, each_side};
use crate::bench::installs::InstalledProgram;
use crate::bench::underlay::{HostPair, OUTER};
use xtask::lab::{Namespace, WIREGUARD_SOCKETS, unique_device};

/// Key pairs of the two hosts, private and public; they protect a test network only.
const KEYS: [(&str, &str); 2] = [
    (
        "90f0342db3087945a0a2348eeb36cff27f1cdc03112af11b09d412d5fdc1e944",
        "489d16f312ae52c66b4304b76e100515b92b837bc11eb23753ce73852099031f",
    ),
    (
        "f8f4be1e5265de2579ddd4a03c66f5e4e5a720e05882a3d65328389ab001d44b",
        "700a159c0f65c2406180a34b76006cb2d2fabd4731ac6048a1f439d0e2fe5c67",
    ),
];
const PORT: u16 = 51820;
/// What `wg-quick` gives a device over a link of 1500 bytes.
const MTU: &str = "1420";

/// Starts WireGuard on each host with these arguments before the device's name.
pub(super) fn start(
    installed: &InstalledProgram,
    arguments: &[&str],
    underlay: &HostPair,
    directory: &Path,
) -> Result<[Daemon; 2]> {
    each_side(|side| {
        let host = &underlay.hosts[side];
        let device = unique_device();
        let mut command = host.command(&installed.program);
        command.args(arguments).arg(&device);
        let socket = Path::new(WIREGUARD_SOCKETS).join(format!("{device}.sock"));
        let log = directory.join(format!("{side}.log"));
        let daemon = Daemon::start(command, log)?.with_socket(socket.clone());
        configure(daemon, host, &device, &socket, side)
    })
}

fn configure(
    mut daemon: Daemon,
    host: &Namespace,
    device: &str,
    socket: &PathBuf,
    side: usize,
) -> Result<Daemon> {
    daemon.wait_for("its socket is there", || Ok(socket.exists()))?;
    let mut stream =
        UnixStream::connect(socket).with_context(|| format!("cannot open {}", socket.display()))?;
    stream.write_all(configuration(side).as_bytes())?;
    let mut answer = String::new();
    for line in BufReader::new(stream).lines() {
        let line = line?;
        if line.is_empty() {
            break;
        }
        answer = line;
    }
    ensure!(answer == "errno=0", "the configuration was refused: {answer}");
    daemon.configure_device(host, device, &INNER[side].to_string(), Some(MTU))?;
    Ok(daemon)
}

/// Sends one request of the cross-platform interface, see <https://www.wireguard.com/xplatform/>.
fn configuration(side: usize) -> String {
    let other = 1 - side;
    format!(
        "set=1\nprivate_key={}\nlisten_port={PORT}\npublic_key={}\nendpoint={}:{PORT}\n\
         replace_allowed_ips=true\nallowed_ip={}/32\n\n",
        KEYS[side].0, KEYS[other].1, OUTER[other], INNER[other]
    )
}
