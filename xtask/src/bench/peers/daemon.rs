//! A VPN's process, with its log and what it leaves behind.

use std::fs::{self, File};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use nix::sys::signal::Signal;

use xtask::lab::Namespace;
use xtask::lab::process::{signal, until, wait};

const START_LIMIT: Duration = Duration::from_secs(10);
const STOP_LIMIT: Duration = Duration::from_secs(5);
const SHOWN_LOG_LINES: usize = 10;

/// A process that stays in the foreground; ended on drop.
#[derive(Debug)]
pub(super) struct Daemon {
    process: Child,
    log: PathBuf,
    socket: Option<PathBuf>,
}

impl Daemon {
    /// Starts the process with its output in the log.
    pub(super) fn start(mut command: Command, log: PathBuf) -> Result<Self> {
        let file = File::create(&log).with_context(|| format!("cannot create {}", log.display()))?;
        let process = command
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file)
            .spawn()
            .with_context(|| format!("cannot start {}", command.get_program().display()))?;
        Ok(Self {
            process,
            log,
            socket: None,
        })
    }

    /// Returns a socket that the process may leave behind.
    pub(super) fn with_socket(mut self, socket: PathBuf) -> Self {
        self.socket = Some(socket);
        self
    }

    /// Returns the process id.
    pub(super) fn id(&self) -> u32 {
        self.process.id()
    }

    /// Waits for what the process makes; fails with its log when it ends before.
    pub(super) fn wait_for(&mut self, what: &str, mut made: impl FnMut() -> Result<bool>) -> Result<()> {
        let (process, log) = (&mut self.process, &self.log);
        until(what, START_LIMIT, || {
            if let Some(status) = process.try_wait()? {
                bail!("the process ended: {status}");
            }
            Ok(made()?.then_some(()))
        })
        .with_context(|| last_lines(&fs::read_to_string(log).unwrap_or_default()))?;
        Ok(())
    }

    /// Waits for the device, gives it an address and brings it up; the program's MTU stays unless another is named.
    pub(super) fn configure_device(
        &mut self,
        host: &Namespace,
        device: &str,
        address: &str,
        mtu: Option<&str>,
    ) -> Result<()> {
        self.wait_for("the device is there", || host.has_device(device))?;
        host.ip(&["address", "add", &format!("{address}/24"), "dev", device])?;
        if let Some(mtu) = mtu {
            host.ip(&["link", "set", device, "mtu", mtu])?;
        }
        host.ip(&["link", "set", device, "up"])?;
        Ok(())
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        for (name, limit) in [(Signal::SIGTERM, STOP_LIMIT), (Signal::SIGKILL, STOP_LIMIT)] {
            if matches!(self.process.try_wait(), Ok(Some(_))) {
                break;
            }
            if signal(&self.process, name).is_ok() && wait(&mut self.process, limit).is_ok() {
                break;
            }
        }
        if let Some(socket) = &self.socket {
            // Most programs remove it themselves.
            let _ = fs::remove_file(socket);
        }
    }
}

fn last_lines(log: &str) -> String {
    let lines: Vec<&str> = log.lines().collect();
    let first = lines.len().saturating_sub(SHOWN_LOG_LINES);
    format!("the log ends with: {}", lines[first..].join(" / "))
}
