//! The VPNs that are measured, and how each makes a tunnel.

mod stream_router;

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::ValueEnum;
use xtask::lab::probe::answers;
use xtask::lab::process::{text, until};
use xtask::lab::{Node, ScratchDir};

use super::underlay::{OUTER, Underlay};
use crate::build;

/// Inner addresses of the two hosts.
const INNER: [&str; 2] = ["10.42.0.1", "10.42.0.2"];
const CONNECT_LIMIT: Duration = Duration::from_secs(20);

/// What is measured, in the order of the table's columns.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub(crate) enum Vpn {
    /// This build.
    StreamRouter,
    /// No VPN: the ceiling.
    Veth,
}

/// A VPN that is there.
#[derive(Debug)]
pub(super) struct Peer {
    /// Which.
    pub(super) vpn: Vpn,
    /// What its version is.
    pub(super) version: String,
    /// Where its program is; empty for the bare link.
    program: PathBuf,
}

/// A VPN between the two hosts; it ends on drop.
#[derive(Debug)]
pub(super) struct Tunnel {
    /// The address of the second host in it.
    pub(super) to: IpAddr,
    ends: Ends,
    _files: ScratchDir,
}

#[derive(Debug)]
enum Ends {
    Bare,
    Nodes(Box<[Node; 2]>),
}

impl Vpn {
    /// The name in the table and on the command line.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::StreamRouter => "stream-router",
            Self::Veth => "veth",
        }
    }
}

impl Peer {
    /// Builds or installs it.
    pub(super) fn install(vpn: Vpn) -> Result<Self> {
        let (program, version) = match vpn {
            Vpn::StreamRouter => {
                let program = build::node()?;
                let printed = text(
                    std::process::Command::new(&program).arg("--version"),
                    CONNECT_LIMIT,
                )?;
                let version = printed.split_whitespace().last().unwrap_or_default().to_owned();
                (program, version)
            }
            Vpn::Veth => (PathBuf::new(), "no VPN".into()),
        };
        Ok(Self {
            vpn,
            version,
            program,
        })
    }

    /// Makes a tunnel and waits until it carries packets.
    pub(super) fn connect(&self, underlay: &Underlay) -> Result<Tunnel> {
        let files = ScratchDir::unique(self.vpn.name())?;
        let (ends, to) = match self.vpn {
            Vpn::StreamRouter => {
                let nodes = stream_router::start(&self.program, underlay, files.path())?;
                (Ends::Nodes(Box::new(nodes)), INNER[1].parse()?)
            }
            Vpn::Veth => (Ends::Bare, OUTER[1]),
        };
        let tunnel = Tunnel {
            to,
            ends,
            _files: files,
        };
        let [a, _] = &underlay.hosts;
        until("the tunnel carries packets", CONNECT_LIMIT, || {
            Ok(answers(a, tunnel.to, Duration::from_secs(1))?.then_some(()))
        })
        .with_context(|| format!("{} does not connect", self.vpn.name()))?;
        Ok(tunnel)
    }
}

impl Tunnel {
    /// The processes that carry its packets.
    pub(super) fn process_ids(&self) -> Vec<u32> {
        match &self.ends {
            Ends::Bare => Vec::new(),
            Ends::Nodes(nodes) => nodes.iter().filter_map(Node::process_id).collect(),
        }
    }
}
