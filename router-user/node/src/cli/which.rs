//! Which of this host's nodes a command is about.

use std::env;
use std::path::{Path, PathBuf};

use clap::Args;

use crate::config::{Config, DEFAULT_CONTROL_SOCKET, DEFAULT_KEY_FILE, INSTALLED_CONFIG, Instance};

/// Variable that names a configuration file.
const CONFIG_VARIABLE: &str = "STREAM_ROUTER_CONFIG";
/// Variable that names a control socket.
const SOCKET_VARIABLE: &str = "STREAM_ROUTER_SOCKET";

/// It is not said which of several nodes is meant.
#[derive(Debug, thiserror::Error)]
#[error("the nodes of this host have names, of which --name takes one: {names}")]
pub(super) struct NotSaid {
    names: String,
}

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
    ///
    /// # Errors
    /// The host has several nodes.
    pub(super) fn socket(&self) -> Result<PathBuf, NotSaid> {
        socket_or_running(self.named())
    }

    /// Returns the control sockets: the one that is named, or else those of all nodes that run, or else of the one that
    /// there is.
    ///
    /// # Errors
    /// The host has several nodes, of which none runs.
    pub(super) fn sockets(&self) -> Result<Vec<PathBuf>, NotSaid> {
        if let Some(socket) = self.named() {
            return Ok(vec![socket]);
        }
        match running() {
            none if none.is_empty() => Ok(vec![the_only_one()?]),
            running => Ok(running),
        }
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
    ///
    /// # Errors
    /// The host has nodes with names, and none without.
    pub(super) fn path(&self) -> Result<PathBuf, NotSaid> {
        match self.named() {
            Some(file) => Ok(file),
            None if has_usual() => Ok(INSTALLED_CONFIG.into()),
            None => match &Instance::configured()[..] {
                [] => Ok(INSTALLED_CONFIG.into()),
                instances => Err(NotSaid::among(instances)),
            },
        }
    }

    /// Returns the file, or where that of a node without a name would be.
    pub(super) fn path_or_usual(&self) -> PathBuf {
        self.named().unwrap_or_else(|| INSTALLED_CONFIG.into())
    }
}

impl NotSaid {
    fn among(instances: &[Instance]) -> Self {
        let names: Vec<_> = instances.iter().map(Instance::name).collect();
        Self {
            names: names.join(", "),
        }
    }
}

/// Returns the control socket: the one that is `named` by an option, or by the variable, or that of the one node that
/// runs, or else of the one that there is.
///
/// # Errors
/// The host has several nodes.
pub(super) fn socket_or_running(named: Option<PathBuf>) -> Result<PathBuf, NotSaid> {
    match named.or_else(of_variable) {
        Some(socket) => Ok(socket),
        None => match &running()[..] {
            [only] => Ok(only.clone()),
            _ => the_only_one(),
        },
    }
}

/// Returns the control socket of the node without a name, or else of the one that has a name.
fn the_only_one() -> Result<PathBuf, NotSaid> {
    let usual = Path::new(DEFAULT_CONTROL_SOCKET);
    if usual.exists() || has_usual() {
        return Ok(usual.to_owned());
    }
    match &Instance::configured()[..] {
        [] => Ok(usual.to_owned()),
        [only] => Ok(control_of(only)),
        several => Err(NotSaid::among(several)),
    }
}

/// Returns whether there is a file of a node without a name. One that may not be looked at is there.
fn has_usual() -> bool {
    !matches!(Path::new(INSTALLED_CONFIG).try_exists(), Ok(false))
}

/// Returns the configuration file where none is named by an option, unless it has to be said which.
pub(super) fn usual_file() -> Option<PathBuf> {
    let file = WhichFile {
        config: None,
        which: WhichInstance { instance: None },
    };
    file.path().ok()
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
