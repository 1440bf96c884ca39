//! A `stream-router` process with its files.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::Signal;
use serde::de::DeserializeOwned;

use super::enter::confine;
use super::process::{self, text, until};
use super::status::{Counters, Peers};
use super::{Namespace, Status};

/// A node has to answer within this time after its start; a debug build on a busy machine loads its programs in 1 s.
const START_LIMIT: Duration = Duration::from_secs(20);
/// A node has to end within this time after a signal.
const STOP_LIMIT: Duration = Duration::from_secs(10);
const COMMAND_LIMIT: Duration = Duration::from_secs(10);
const SHOWN_LOG_LINES: usize = 60;

/// What a node's configuration says.
#[derive(Clone, Debug)]
pub struct NodeConfig {
    /// Device name.
    pub device: String,
    /// Inner addresses with prefix lengths.
    pub addresses: Vec<String>,
    /// Device MTU in bytes.
    pub mtu: u32,
    /// Multiaddresses to listen on.
    pub listen: Vec<String>,
    /// Further sections, as they stand in the file.
    pub sections: String,
    /// Peers.
    pub peers: Vec<PeerConfig>,
}

/// What a node's configuration says of a peer.
#[derive(Clone, Debug)]
pub struct PeerConfig {
    /// Peer id.
    pub id: String,
    /// Multiaddresses to dial.
    pub addresses: Vec<String>,
    /// Prefixes that belong to the peer.
    pub allowed_ips: Vec<String>,
}

/// A node in a namespace; stopped on drop, and its log shown when that happens in a panic.
#[derive(Debug)]
pub struct Node {
    binary: PathBuf,
    netns: Arc<File>,
    files: PathBuf,
    peer_id: String,
    process: Option<Child>,
}

impl Node {
    /// Makes an identity for a node; its files get `label` as their name in the directory.
    ///
    /// # Errors
    /// When `stream-router keygen` fails.
    pub fn new(binary: &Path, host: &Namespace, directory: &Path, label: &str) -> Result<Self> {
        let files = directory.join(label);
        let key = files.with_extension("key");
        let peer_id = text(
            Command::new(binary).arg("keygen").arg("--out").arg(&key),
            COMMAND_LIMIT,
        )?
        .trim()
        .to_owned();
        ensure!(!peer_id.is_empty(), "keygen printed no peer id");
        Ok(Self {
            binary: binary.to_owned(),
            netns: host.handle(),
            files,
            peer_id,
            process: None,
        })
    }

    /// Returns the node's peer id.
    pub fn peer_id(&self) -> &str {
        &self.peer_id
    }

    /// Returns the process id while it runs.
    pub fn process_id(&self) -> Option<u32> {
        self.process.as_ref().map(Child::id)
    }

    /// Returns the key file.
    pub fn key(&self) -> PathBuf {
        self.files.with_extension("key")
    }

    /// Returns the configuration file.
    pub fn config(&self) -> PathBuf {
        self.files.with_extension("toml")
    }

    /// Returns the control socket.
    pub fn socket(&self) -> PathBuf {
        self.files.with_extension("sock")
    }

    /// Returns what the node has printed since it was made.
    ///
    /// # Errors
    /// When there is no log, because it was never started.
    pub fn log(&self) -> Result<String> {
        let path = self.files.with_extension("log");
        fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))
    }

    /// Writes the configuration file.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn configure(&self, config: &NodeConfig) -> Result<()> {
        let mut toml = format!(
            "[node]\nkey = {:?}\nlisten = {:?}\ncontrol = {:?}\n\n\
             [device]\nname = {:?}\naddresses = {:?}\nmtu = {}\n",
            self.key(),
            config.listen,
            self.socket(),
            config.device,
            config.addresses,
            config.mtu
        );
        toml += &config.sections;
        for peer in &config.peers {
            toml += &format!(
                "\n[[peer]]\nid = {:?}\naddresses = {:?}\nallowed_ips = {:?}\n",
                peer.id, peer.addresses, peer.allowed_ips
            );
        }
        let path = self.config();
        fs::write(&path, toml).with_context(|| format!("cannot write {}", path.display()))
    }

    /// Starts the node and waits until it answers on its control socket.
    ///
    /// # Errors
    /// When it ends before, or does not answer in time; the message carries its log.
    pub fn start(&mut self) -> Result<Status> {
        self.launch()?;
        let (status, _) = until("the node answers", START_LIMIT, || {
            self.ensure_alive()?;
            Ok(self.status().ok())
        })
        .with_context(|| self.shown_log())?;
        Ok(status)
    }

    /// Starts the node and does not wait.
    ///
    /// # Errors
    /// When it runs already or cannot be started.
    pub fn launch(&mut self) -> Result<()> {
        ensure!(self.process.is_none(), "the node runs already");
        let path = self.files.with_extension("log");
        let log = File::options()
            .append(true)
            .create(true)
            .open(&path)
            .with_context(|| format!("cannot open {}", path.display()))?;
        let mut command = Command::new(&self.binary);
        command.arg("run").arg("--config").arg(self.config());
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        confine(&mut command, Arc::clone(&self.netns));
        let child = command
            .spawn()
            .with_context(|| format!("cannot start {}", self.binary.display()))?;
        self.process = Some(child);
        Ok(())
    }

    /// Fails when the process has ended.
    ///
    /// # Errors
    /// When it has; the message tells how.
    pub fn ensure_alive(&mut self) -> Result<()> {
        let process = self.process.as_mut().context("the node was not started")?;
        match process.try_wait()? {
            None => Ok(()),
            Some(status) => bail!("the node has ended: {status}"),
        }
    }

    /// Asks the node for its status, peers and counters, with the commands that users have.
    ///
    /// # Errors
    /// When it does not answer.
    pub fn status(&self) -> Result<Status> {
        let mut status: Status = self.ask(&["status"])?;
        status.peers = self.ask::<Peers>(&["peers"])?.peers;
        let counters = self.ask::<Counters>(&["counters"])?.counters;
        status.counters = counters
            .into_iter()
            .map(|counter| (counter.name, counter.value))
            .collect();
        Ok(status)
    }

    /// Runs a command that asks the node, and returns what it prints as JSON.
    ///
    /// # Errors
    /// When the node does not answer, or with something else.
    pub fn ask<T: DeserializeOwned>(&self, command: &[&str]) -> Result<T> {
        let mut asked = Command::new(&self.binary);
        asked
            .args(command)
            .args(["--json", "--socket"])
            .arg(self.socket());
        let json = text(&mut asked, COMMAND_LIMIT)?;
        serde_json::from_str(&json).with_context(|| format!("{command:?} --json printed {json}"))
    }

    /// Waits until the status satisfies a condition; returns it with the time that took.
    ///
    /// # Errors
    /// When it does not within the limit, or the node fails; the message carries the last status.
    pub fn wait_for(
        &self,
        what: &str,
        limit: Duration,
        condition: impl Fn(&Status) -> bool,
    ) -> Result<(Status, Duration)> {
        let mut last = None;
        until(what, limit, || {
            let status = self.status()?;
            let satisfied = condition(&status);
            last = Some(status.clone());
            Ok(satisfied.then_some(status))
        })
        .with_context(|| format!("{}last status: {last:#?}", self.shown_log()))
    }

    /// Waits until a peer is connected.
    ///
    /// # Errors
    /// When it is not within the limit.
    pub fn wait_connected(&self, peer: &Self, limit: Duration) -> Result<Duration> {
        let (_, taken) = self.wait_for("the peer is connected", limit, |status| {
            status.is_connected(peer.peer_id())
        })?;
        Ok(taken)
    }

    /// Sends a signal and waits for the end.
    ///
    /// # Errors
    /// When the node does not run, or does not end in time.
    pub fn stop(&mut self, signal: Signal) -> Result<ExitStatus> {
        let mut process = self.process.take().context("the node does not run")?;
        let ended = process::signal(&process, signal).and_then(|()| process::wait(&mut process, STOP_LIMIT));
        if ended.is_err() {
            self.process = Some(process);
        }
        ended.with_context(|| self.shown_log())
    }

    /// Waits until the node ends by itself.
    ///
    /// # Errors
    /// When it does not run, or not end in time.
    pub fn wait_ended(&mut self, limit: Duration) -> Result<ExitStatus> {
        let process = self.process.as_mut().context("the node does not run")?;
        let status = process::wait(process, limit)?;
        self.process = None;
        Ok(status)
    }

    fn shown_log(&self) -> String {
        let log = self.log().unwrap_or_default();
        let skipped = log.lines().count().saturating_sub(SHOWN_LOG_LINES);
        let lines: Vec<&str> = log.lines().skip(skipped).collect();
        format!("log of {}:\n{}\n", self.files.display(), lines.join("\n"))
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.shown_log());
        }
        if self
            .process
            .as_mut()
            .is_none_or(|process| !matches!(process.try_wait(), Ok(None)))
        {
            return;
        }
        if let Err(error) = self.stop(Signal::SIGTERM) {
            eprintln!("{error:#}");
        }
        if self.process.is_some()
            && let Err(error) = self.stop(Signal::SIGKILL)
        {
            eprintln!("{error:#}");
        }
    }
}
