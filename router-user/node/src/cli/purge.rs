//! `stream-router purge`

use std::fs;
use std::io;
use std::path::Path;
use std::process::Command;

use clap::Args;

use super::defaults::defaults;
use super::outcome::{Outcome, print};
use super::request::wait;
use super::which::WhichFile;
use crate::config::{Config, ConfigError, INSTALLED_CONFIG, OnStop};
use crate::control::{Status, fetch};
use crate::device::{Netlink, has_nft_table, remove_nft_table};
use crate::kernel::{BPFFS, remove_left_pins};
use crate::node::{OwnNumbers, TunnelRoutes};

/// What is removed.
#[derive(Debug, Args)]
pub(super) struct PurgeArguments {
    #[command(flatten)]
    which: WhichFile,
    /// Remove routes and rules of nodes with any other device too, such as one that the configuration named before, but for
    /// those whose device is there: such a node runs
    #[arg(long)]
    all: bool,
    /// Do nothing unless systemd stops this unit and does not start it again, and device.on_stop is not "block"
    #[arg(long, value_name = "UNIT")]
    after_stop: Option<String>,
}

/// A node runs, whose parts are not to be removed. Its device goes with it.
#[derive(Debug, thiserror::Error)]
#[error("the node of {device} runs, as it answers or its device is there; stop it first")]
struct NodeRuns {
    device: String,
}

/// Not everything could be removed.
#[derive(Debug, thiserror::Error)]
#[error("not everything could be removed: {}", why.join("; "))]
struct PartsLeft {
    why: Vec<String>,
}

/// Removes what a node has left on this host.
pub(super) fn purge(arguments: &PurgeArguments) -> Outcome {
    let file = arguments.which.path_or_usual();
    let config = match Config::load(&file) {
        // A package that is removed takes its file along; the node had the default device. Another file may be mistyped.
        Err(ConfigError::Read { source, .. })
            if source.kind() == io::ErrorKind::NotFound && file == Path::new(INSTALLED_CONFIG) =>
        {
            defaults()?
        }
        loaded => loaded?,
    };
    if let Some(unit) = &arguments.after_stop
        && (config.device().on_stop() == Some(OnStop::Block) || !is_stopped(unit)?)
    {
        return Ok(());
    }
    let (device, socket) = (config.device().name(), config.node().control());
    let running = tun_devices()?;
    if running.iter().any(|name| name == device)
        || wait(async { Ok(fetch::<Status>(socket, "").await.is_ok()) })?
    {
        return Err(Box::new(NodeRuns {
            device: device.to_owned(),
        }));
    }
    let mut removed = Vec::new();
    let mut why = routes(device, arguments.all.then_some(&running), &mut removed)?;
    // Without the program there is no table either.
    if has_nft_table(device).unwrap_or(false) {
        match remove_nft_table(device) {
            Ok(()) => removed.push(format!("the table of nftables of {device}")),
            Err(error) => why.push(error.to_string()),
        }
    }
    match remove_left_pins(BPFFS.as_ref(), device) {
        Ok(path) => removed.extend(path.map(|path| path.display().to_string())),
        Err(error) => why.push(format!("pins: {error}")),
    }
    match fs::remove_file(socket) {
        Ok(()) => removed.push(socket.display().to_string()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => why.push(format!("{}: {error}", socket.display())),
    }
    for what in &removed {
        print(format_args!("removed {what}"))?;
    }
    if arguments.all && !running.is_empty() {
        print(format_args!(
            "left what belongs to {}, which is there",
            running.join(", ")
        ))?;
    }
    if removed.is_empty() && why.is_empty() {
        print(format_args!("nothing is left of a node with the device {device}"))?;
    }
    match why.is_empty() {
        true => Ok(()),
        false => Err(Box::new(PartsLeft { why })),
    }
}

/// Returns the names of the TUN devices of this host: a node that runs has one.
fn tun_devices() -> Result<Vec<String>, Box<dyn std::error::Error>> {
    in_runtime(async { Ok(Netlink::open_filtering()?.tun_devices().await?) })
}

/// Removes routes and rules of the node with `device`, or of all nodes but those that run; returns why for those that stay.
fn routes(
    device: &str,
    all_but: Option<&Vec<String>>,
    removed: &mut Vec<String>,
) -> Result<Vec<String>, Box<dyn std::error::Error>> {
    in_runtime(async {
        let netlink = Netlink::open_filtering()?;
        let left = match all_but {
            Some(running) => {
                let running: Vec<_> = running.iter().map(|name| OwnNumbers::of(name)).collect();
                TunnelRoutes::left_of_all(&netlink, &running).await?
            }
            None => TunnelRoutes::left(&netlink, OwnNumbers::of(device)).await?,
        };
        let why = left.take(&netlink).await;
        if why.is_empty() {
            removed.extend(left.rules.iter().map(ToString::to_string));
            removed.extend(left.routes.iter().map(|route| format!("the route {route}")));
        }
        Ok(why)
    })
}

fn in_runtime<T>(
    task: impl Future<Output = Result<T, Box<dyn std::error::Error>>>,
) -> Result<T, Box<dyn std::error::Error>> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(task)
}

/// Returns whether systemd has a job to stop a unit, which is there until the unit's last command ends. A restart is a job
/// of another kind, and a unit that has failed has none. When the whole system goes down, the network outlives the unit.
fn is_stopped(unit: &str) -> io::Result<bool> {
    let jobs = Command::new("systemctl")
        .args(["list-jobs", "--no-legend", "--plain", "--full"])
        .output()?;
    Ok(has_stop_job(&String::from_utf8_lossy(&jobs.stdout), unit))
}

fn has_stop_job(jobs: &str, unit: &str) -> bool {
    let has = |unit, kind| {
        jobs.lines().any(|job| {
            let mut words = job.split_whitespace().skip(1);
            words.next() == Some(unit) && words.next() == Some(kind)
        })
    };
    has(unit, "stop") && !has("shutdown.target", "start")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stop_is_told_from_a_restart_and_from_other_units() {
        let jobs = "  812 stream-router.service restart running\n  813 other.service stop waiting\n";

        assert!(!has_stop_job(jobs, "stream-router.service"));
        assert!(has_stop_job(jobs, "other.service"));
        assert!(!has_stop_job("", "stream-router.service"));
        let shutdown = "  813 other.service stop waiting\n  814 shutdown.target start waiting\n";
        assert!(!has_stop_job(shutdown, "other.service"));
        assert!(!has_stop_job("No jobs running.\n", "jobs"));
    }
}
