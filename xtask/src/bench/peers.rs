//! The VPNs that are measured, and how each makes a tunnel.

mod daemon;
mod nebula;
mod quincy;
mod stream_router;
mod tinc;
mod wireguard;

use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::ValueEnum;

use super::installs::{InstalledProgram, Suite, cargo_package, debian_packages};
use super::underlay::{HostPair, OUTER};
use crate::build;
use daemon::Daemon;
pub(super) use stream_router::NodeWay;
use xtask::lab::probe::answers;
use xtask::lab::process::{text, until};
use xtask::lab::{Node, ScratchDir};

/// Inner addresses of the two hosts.
const INNER: [IpAddr; 2] = [
    IpAddr::V4(Ipv4Addr::new(10, 42, 0, 1)),
    IpAddr::V4(Ipv4Addr::new(10, 42, 0, 2)),
];
const CONNECT_LIMIT: Duration = Duration::from_secs(20);

/// The VPNs that are measured, in the order of the table's columns.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub(crate) enum Vpn {
    /// This build.
    StreamRouter,
    /// WireGuard's own, in Go, with segmentation and receive offload.
    WireguardGo,
    /// WireGuard in Rust, of Mullvad.
    Gotatun,
    /// WireGuard in Rust, of Cloudflare.
    Boringtun,
    /// Slack's mesh, in Go.
    Nebula,
    /// The oldest mesh, in C.
    Tinc,
    /// QUIC's datagrams, in Rust.
    Quincy,
    /// No VPN: the ceiling.
    Veth,
}

/// A VPN that is installed.
#[derive(Debug)]
pub(super) struct InstalledVpn {
    /// Which VPN it is.
    pub(super) vpn: Vpn,
    installed: Option<InstalledProgram>,
}

/// A VPN between the two hosts; it ends on drop.
#[derive(Debug)]
pub(super) struct Tunnel {
    /// The address of the second host in the tunnel.
    pub(super) to: IpAddr,
    ends: TunnelEnds,
    _files: ScratchDir,
}

#[derive(Debug)]
enum TunnelEnds {
    Bare,
    Nodes(Box<[Node; 2]>),
    Daemons([Daemon; 2]),
}

impl Vpn {
    /// Returns the name in the table and on the command line.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::StreamRouter => "stream-router",
            Self::WireguardGo => "wireguard-go",
            Self::Gotatun => "gotatun",
            Self::Boringtun => "boringtun",
            Self::Nebula => "nebula",
            Self::Tinc => "tinc",
            Self::Quincy => "quincy",
            Self::Veth => "veth",
        }
    }
}

impl InstalledVpn {
    /// Builds or installs the VPN.
    pub(super) fn install(vpn: Vpn) -> Result<Self> {
        let installed = match vpn {
            Vpn::StreamRouter => Some(this_build()?),
            Vpn::WireguardGo => Some(debian_packages(
                Suite::Sid,
                &["wireguard-go"],
                "usr/bin/wireguard-go",
            )?),
            Vpn::Gotatun => Some(cargo_package("gotatun-cli", "0.10.2", "gotatun")?),
            Vpn::Boringtun => Some(cargo_package("boringtun-cli", "0.7.1", "boringtun-cli")?),
            Vpn::Nebula => Some(debian_packages(Suite::Sid, &["nebula"], "usr/bin/nebula")?),
            Vpn::Tinc => Some(debian_packages(
                Suite::Own,
                &["tinc", "liblzo2-2"],
                "usr/sbin/tincd",
            )?),
            Vpn::Quincy => Some(cargo_package("quincy-server", quincy::VERSION, "quincy-server")?),
            Vpn::Veth => None,
        };
        Ok(Self { vpn, installed })
    }

    /// Takes a program of Stream Router that was built before.
    pub(super) fn built_before(program: &Path) -> Result<Self> {
        Ok(Self {
            vpn: Vpn::StreamRouter,
            installed: Some(own_program(program.to_owned())?),
        })
    }

    /// Returns the version of the VPN; the bare link has none.
    pub(super) fn version(&self) -> &str {
        self.installed.as_ref().map_or("", |installed| &installed.version)
    }

    /// Makes a tunnel and waits until it carries packets.
    pub(super) fn connect(&self, underlay: &HostPair) -> Result<Tunnel> {
        let files = ScratchDir::unique(self.vpn.name())?;
        let ends = match &self.installed {
            Some(installed) => self.start(installed, underlay, files.path())?,
            None => TunnelEnds::Bare,
        };
        Tunnel::once_it_carries(ends, underlay, files)
            .with_context(|| format!("{} does not connect", self.vpn.name()))
    }

    fn start(&self, installed: &InstalledProgram, underlay: &HostPair, files: &Path) -> Result<TunnelEnds> {
        let wireguard = |arguments: &[&str]| {
            wireguard::start(installed, arguments, underlay, files).map(TunnelEnds::Daemons)
        };
        match self.vpn {
            Vpn::StreamRouter => {
                let nodes = stream_router::start(&installed.program, underlay, files, &NodeWay::default())?;
                Ok(TunnelEnds::Nodes(Box::new(nodes)))
            }
            Vpn::WireguardGo => wireguard(&["--foreground"]),
            Vpn::Gotatun | Vpn::Boringtun => wireguard(&["--foreground", "--disable-drop-privileges"]),
            Vpn::Nebula => nebula::start(installed, underlay, files).map(TunnelEnds::Daemons),
            Vpn::Tinc => tinc::start(installed, underlay, files).map(TunnelEnds::Daemons),
            Vpn::Quincy => quincy::start(installed, underlay, files).map(TunnelEnds::Daemons),
            Vpn::Veth => Ok(TunnelEnds::Bare),
        }
    }
}

impl Tunnel {
    /// Makes one between two nodes that run `program`, and waits until it carries packets.
    pub(super) fn between_nodes(program: &Path, underlay: &HostPair, way: &NodeWay) -> Result<Self> {
        let files = ScratchDir::unique("nodes")?;
        let nodes = stream_router::start(program, underlay, files.path(), way)?;
        Self::once_it_carries(TunnelEnds::Nodes(Box::new(nodes)), underlay, files)
    }

    fn once_it_carries(ends: TunnelEnds, underlay: &HostPair, files: ScratchDir) -> Result<Self> {
        let to = match ends {
            TunnelEnds::Bare => OUTER[1],
            _ => INNER[1],
        };
        let tunnel = Self {
            to,
            ends,
            _files: files,
        };
        let [a, _] = &underlay.hosts;
        until("the tunnel carries packets", CONNECT_LIMIT, || {
            Ok(answers(a, tunnel.to, Duration::from_secs(1))?.then_some(()))
        })?;
        Ok(tunnel)
    }

    /// Returns the addresses of the two hosts in the tunnel.
    pub(super) fn addresses(&self) -> [IpAddr; 2] {
        match self.ends {
            TunnelEnds::Bare => OUTER,
            _ => INNER,
        }
    }

    /// Says whether there is no VPN.
    pub(super) fn is_bare(&self) -> bool {
        matches!(self.ends, TunnelEnds::Bare)
    }

    /// Returns the processes that carry the tunnel's packets.
    pub(super) fn process_ids(&self) -> Vec<u32> {
        match &self.ends {
            TunnelEnds::Bare => Vec::new(),
            TunnelEnds::Nodes(nodes) => nodes.iter().filter_map(Node::process_id).collect(),
            TunnelEnds::Daemons(daemons) => daemons.iter().map(Daemon::id).collect(),
        }
    }
}

fn this_build() -> Result<InstalledProgram> {
    own_program(build::node(&build::Profile::release())?)
}

fn own_program(program: PathBuf) -> Result<InstalledProgram> {
    let printed = text(Command::new(&program).arg("--version"), CONNECT_LIMIT)?;
    Ok(InstalledProgram {
        version: printed.split_whitespace().last().unwrap_or_default().to_owned(),
        root: program.parent().unwrap_or(&program).to_owned(),
        program,
    })
}

/// Makes a value for each side, 0 and 1.
fn each_side<T>(mut make: impl FnMut(usize) -> Result<T>) -> Result<[T; 2]> {
    Ok([make(0)?, make(1)?])
}
