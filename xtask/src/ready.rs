//! The ready network: two nodes in network namespaces of their own, with names that people can type.

use std::fs;
use std::io::ErrorKind;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use nix::sys::signal::Signal;

use crate::command::require_root;
use crate::{build, install};
use xtask::lab::{self, PIN_ROOT, Pair, PairPlan, ScratchDir, Transport, Underlay};

/// Namespaces of the two nodes.
pub(crate) const HOSTS: [&str; 2] = ["sr-demo-a", "sr-demo-b"];
/// TUN devices of the two nodes; they differ, because all nodes of a machine share the pin directory.
pub(crate) const DEVICES: [&str; 2] = ["sr0", "sr1"];
/// Device MTU in bytes.
pub(crate) const MTU: u32 = 1420;

const DIRECTORY: &str = "/run/stream-router-demo";

/// Two running nodes.
#[derive(Debug)]
pub(crate) struct ReadyNetwork {
    /// The nodes and their hosts.
    pub(crate) pair: Pair,
    /// The node's binary.
    pub(crate) binary: PathBuf,
    _claim: UnixListener,
}

impl ReadyNetwork {
    /// Builds the node, makes the network and waits until the nodes are connected.
    ///
    /// # Errors
    /// When not root, when another ready network runs, when a build fails, or when a node does not start.
    pub(crate) fn start() -> Result<Self> {
        require_root("run")?;
        let claim = claim()?;
        install::programs()?;
        let binary = build::node(&build::Profile::release())?;
        lab::remove_network(&HOSTS, &[])?;
        let mut pair = Pair::prepare(&binary, &plan(), directory()?)?;
        pair.start_nodes()?;
        Ok(Self {
            pair,
            binary,
            _claim: claim,
        })
    }

    /// Stops the nodes in order, removes the network, and tells what was left, which should be nothing.
    ///
    /// # Errors
    /// When a node does not end.
    pub(crate) fn stop(mut self) -> Result<Vec<String>> {
        let mut left = Vec::new();
        for (side, device) in [&mut self.pair.a, &mut self.pair.b].into_iter().zip(DEVICES) {
            let status = side.node.stop(Signal::SIGTERM)?;
            if !status.success() {
                left.push(format!("the node of {device} ended with {status}"));
            }
            if side.host.has_device(device)? {
                left.push(format!("device {device}"));
            }
            let traces = [side.node.socket(), Path::new(PIN_ROOT).join(device)];
            left.extend(existing(&traces));
        }
        drop(self);
        let hosts = HOSTS.map(|host| Path::new("/run/netns").join(host));
        left.extend(existing(&hosts));
        left.extend(existing(&[PathBuf::from(DIRECTORY)]));
        Ok(left)
    }
}

/// Reserves the ready network's names as long as this process lives; an abstract socket leaves nothing behind when it
/// is killed.
fn claim() -> Result<UnixListener> {
    let name = SocketAddr::from_abstract_name("stream-router-demo")?;
    match UnixListener::bind_addr(&name) {
        Ok(claim) => Ok(claim),
        Err(error) if error.kind() == ErrorKind::AddrInUse => {
            bail!(
                "another `cargo xtask run` has the namespaces {}; end it first",
                HOSTS.join(" and ")
            )
        }
        Err(error) => Err(error).context("cannot claim the names of the ready network"),
    }
}

fn directory() -> Result<ScratchDir> {
    match fs::remove_dir_all(DIRECTORY) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot clear {DIRECTORY}"))
        }
        _ => ScratchDir::create(Path::new(DIRECTORY)),
    }
}

fn plan() -> PairPlan {
    PairPlan {
        hosts: HOSTS.map(str::to_owned),
        devices: DEVICES.map(str::to_owned),
        mtu: MTU,
        underlay: Underlay::V4,
        transport: Transport::Tcp,
    }
}

fn existing(paths: &[PathBuf]) -> impl Iterator<Item = String> {
    paths
        .iter()
        .filter(|path| path.exists())
        .map(|path| path.display().to_string())
}
