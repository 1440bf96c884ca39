//! Which of this host's nodes a command is about.

use std::env;
use std::path::PathBuf;

use clap::Args;

use crate::config::{Config, DEFAULT_CONTROL_SOCKET, DEFAULT_KEY_FILE, INSTALLED_CONFIG, Instance};

/// Variable that names a configuration file.
const CONFIG_VARIABLE: &str = "STREAM_ROUTER_CONFIG";
/// Variable that names a control socket.
const SOCKET_VARIABLE: &str = "STREAM_ROUTER_SOCKET";

/// Which node is meant by its name.
#[derive(Clone, Debug, Args)]
pub(super) struct WhichInstance {
    /// Name of the node, that of its file in /etc/stream-router, where a host has several
    #[arg(long = "name", id = "instance", value_name = "NAME")]
    instance: Option<Instance>,
}

/// Which running node is asked.
#[derive(Clone, Debug, Args)]
pub(super) struct WhichNode {
    /// Control socket of the node; else STREAM_ROUTER_SOCKET names it, or it is the one node that runs
    #[arg(long, value_name = "PATH", conflicts_with = "instance")]
    socket: Option<PathBuf>,
    #[command(flatten)]
    which: WhichInstance,
}

/// Which configuration file is meant.
#[derive(Clone, Debug, Args)]
pub(super) struct WhichFile {
    /// Configuration file of the node; else STREAM_ROUTER_CONFIG names it, or it is /etc/stream-router.toml
    #[arg(long, value_name = "FILE", conflicts_with = "instance")]
    config: Option<PathBuf>,
    #[command(flatten)]
    which: WhichInstance,
}

impl WhichInstance {
    /// Returns the identity file: the one that is `said`, or that of the node, or else the usual one.
    pub(super) fn key(self, said: Option<PathBuf>) -> PathBuf {
        let own = self.instance.map(|instance| instance.key());
        said.or(own).unwrap_or_else(|| DEFAULT_KEY_FILE.into())
    }
}

impl WhichNode {
    /// Returns the control socket.
    pub(super) fn socket(&self) -> PathBuf {
        socket_or_running(self.named())
    }

    /// Returns the control sockets: the one that is named, or else those of all nodes that run, or else the usual one.
    pub(super) fn sockets(&self) -> Vec<PathBuf> {
        if let Some(socket) = self.named() {
            return vec![socket];
        }
        let running = running();
        if running.is_empty() {
            return vec![DEFAULT_CONTROL_SOCKET.into()];
        }
        running
    }

    fn named(&self) -> Option<PathBuf> {
        let instance = self.which.instance.as_ref().map(control_of);
        self.socket.clone().or(instance).or_else(of_variable)
    }
}

impl WhichFile {
    /// Returns the file that was named by option or variable.
    pub(super) fn named(&self) -> Option<PathBuf> {
        let instance = self.which.instance.as_ref().map(Instance::config);
        let variable = env::var_os(CONFIG_VARIABLE).map(PathBuf::from);
        self.config.clone().or(instance).or(variable)
    }

    /// Returns the file.
    pub(super) fn path(&self) -> PathBuf {
        self.named().unwrap_or_else(|| INSTALLED_CONFIG.into())
    }
}

/// Returns the control socket: the one that is `named` by an option, or by the variable, or that of the one node that
/// runs, or else the usual one.
pub(super) fn socket_or_running(named: Option<PathBuf>) -> PathBuf {
    named
        .or_else(of_variable)
        .unwrap_or_else(|| match &running()[..] {
            [only] => only.clone(),
            _ => DEFAULT_CONTROL_SOCKET.into(),
        })
}

fn of_variable() -> Option<PathBuf> {
    env::var_os(SOCKET_VARIABLE).map(PathBuf::from)
}

/// Returns the sockets that are there.
fn running() -> Vec<PathBuf> {
    let usual = PathBuf::from(DEFAULT_CONTROL_SOCKET);
    let instances = Instance::configured();
    let all = std::iter::once(usual).chain(instances.iter().map(control_of));
    all.filter(|socket| socket.exists()).collect()
}

/// Returns the node's control socket: the one of its file, as far as that can be read.
pub(super) fn control_of(instance: &Instance) -> PathBuf {
    let config = Config::load(&instance.config());
    config.map_or_else(
        |_unreadable| instance.control(),
        |config| config.node().control().to_owned(),
    )
}
