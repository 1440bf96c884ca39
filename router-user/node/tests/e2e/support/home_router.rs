//! A router as homes have it: it masquerades what is behind it, lets in only what answers, and forwards ports on demand.

use std::fs::{self, File};
use std::net::UdpSocket;
use std::process::{Child, Stdio};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use nix::sys::signal::Signal;
use xtask::lab::process::{self, text, until};
use xtask::lab::{Namespace, ScratchDir, link};

const LIMIT: Duration = Duration::from_secs(10);

/// Where the gateway is in the home, and the host behind it. The gateway's address outside has to be one that is not
/// reserved: the daemon gives out no other.
pub(crate) const GATEWAY: &str = "10.7.1.1";
pub(crate) const HOST: &str = "10.7.1.2";
pub(crate) const OUTSIDE: &str = "1.2.3.1";
pub(crate) const PEER: &str = "1.2.3.2";

/// What the daemon that forwards on demand may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Daemon {
    /// All of its protocols.
    All,
    UpnpAlone,
}

/// A home with one host, the router before it, and a peer outside.
pub(crate) struct Home {
    pub(crate) host: Namespace,
    pub(crate) router: Namespace,
    pub(crate) peer: Namespace,
    daemon: Option<Child>,
    directory: ScratchDir,
}

impl Home {
    /// Lays the cables, and sets the router up without a daemon.
    pub(crate) fn new() -> Result<Self> {
        let directory = ScratchDir::unique("home")?;
        let (host, router, peer) = (
            Namespace::unique("home")?,
            Namespace::unique("router")?,
            Namespace::unique("peer")?,
        );
        let inside = |ip: &str| format!("{ip}/24");
        link(
            (&router, "lan", &[&inside(GATEWAY)]),
            (&host, "u0", &[&inside(HOST)]),
        )?;
        link(
            (&router, "wan", &[&inside(OUTSIDE)]),
            (&peer, "u0", &[&inside(PEER)]),
        )?;
        host.ip(&["route", "add", "default", "via", GATEWAY])?;
        text(
            router.command("sysctl").args(["-qw", "net.ipv4.ip_forward=1"]),
            LIMIT,
        )?;
        let home = Self {
            host,
            router,
            peer,
            daemon: None,
            directory,
        };
        home.set_rules()?;
        Ok(home)
    }

    /// Starts the daemon; one that runs ends first, and has forgotten everything as after a power failure.
    pub(crate) fn start(&mut self, daemon: Daemon) -> Result<()> {
        self.stop()?;
        self.set_rules()?;
        let path = self.directory.path().join("miniupnpd.conf");
        let is_on = |on: bool| if on { "yes" } else { "no" };
        let config = format!(
            "ext_ifname=wan\nlistening_ip=lan\nhttp_port=0\nsecure_mode=yes\nenable_upnp=yes\nenable_natpmp={}\n\
             uuid=57023040-49fb-4207-b007-dac26affaed4\n\
             upnp_table_name=home\nupnp_nat_table_name=home\nupnp_forward_chain=forwarded\n\
             upnp_nat_chain=inward_ports\nupnp_nat_postrouting_chain=outward_ports\n\
             allow 1024-65535 10.7.1.0/24 1024-65535\ndeny 0-65535 0.0.0.0/0 0-65535\n",
            is_on(daemon != Daemon::UpnpAlone)
        );
        fs::write(&path, config)?;
        let log = File::create(self.directory.path().join("miniupnpd.log"))?;
        let mut command = self.router.command("miniupnpd");
        command.arg("-d").arg("-f").arg(&path);
        command.arg("-P").arg(self.directory.path().join("miniupnpd.pid"));
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        self.daemon = Some(
            command
                .spawn()
                .context("cannot start miniupnpd; install what Debian calls miniupnpd-nftables")?,
        );
        Ok(())
    }

    /// Ends the daemon, and with it what it forwards.
    pub(crate) fn stop(&mut self) -> Result<()> {
        if let Some(mut daemon) = self.daemon.take() {
            process::signal(&daemon, Signal::SIGKILL)?;
            process::wait(&mut daemon, LIMIT)?;
        }
        Ok(())
    }

    /// Gives the router this address outside, and no other.
    pub(crate) fn set_outside(&self, ip: &str) -> Result<()> {
        self.router.ip(&["address", "flush", "dev", "wan"])?;
        self.router
            .ip(&["address", "add", &format!("{ip}/24"), "dev", "wan"])?;
        Ok(())
    }

    /// Gives the host a public address, from which it reaches the router.
    pub(crate) fn set_public(&mut self) -> Result<()> {
        self.host.ip(&["address", "flush", "dev", "u0"])?;
        self.host.ip(&["address", "add", "192.0.2.50/24", "dev", "u0"])?;
        self.router
            .ip(&["address", "add", "192.0.2.1/24", "dev", "lan"])?;
        let way = ["route", "replace", "default", "via", "192.0.2.1"];
        self.host.ip(&way)?;
        Ok(())
    }

    /// Returns the rules by which the router forwards on demand.
    pub(crate) fn forwarded(&self) -> Result<String> {
        let chain = ["list", "chain", "inet", "home", "inward_ports"];
        let rules = text(self.router.command("nft").args(chain), LIMIT)?;
        let rules = rules.lines().filter(|line| line.contains("dnat"));
        Ok(rules.map(str::trim).collect::<Vec<_>>().join("\n"))
    }

    /// Returns what the daemon has said.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.directory.path().join("miniupnpd.log")).unwrap_or_default()
    }

    pub(crate) fn directory(&self) -> &ScratchDir {
        &self.directory
    }

    fn set_rules(&self) -> Result<()> {
        let rules = "table inet home
            delete table inet home
            table inet home {
                chain inward { type nat hook prerouting priority dstnat; jump inward_ports; }
                chain outward { type nat hook postrouting priority srcnat; jump outward_ports; oifname wan masquerade; }
                chain to_itself { type filter hook input priority filter; iifname wan ct state new drop; }
                chain through {
                    type filter hook forward priority filter;
                    ct state established,related accept
                    jump forwarded
                    iifname wan drop
                }
                chain forwarded { }
                chain inward_ports { }
                chain outward_ports { }
            }";
        text(self.router.command("nft").arg(rules), LIMIT)?;
        Ok(())
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("log of the router:\n{}", self.log());
        }
        if let Err(error) = self.stop() {
            eprintln!("{error:#}");
        }
    }
}

/// A gateway that knows NAT-PMP alone, and says that this is its address outside. It answers as it should until it is told
/// something else, and counts what it is asked.
pub(crate) struct OldGateway {
    socket: UdpSocket,
    outside: [u8; 4],
}

impl OldGateway {
    pub(crate) fn start(router: &Namespace, outside: [u8; 4]) -> Result<Self> {
        let socket = router.bind(|| UdpSocket::bind("0.0.0.0:5351"))?;
        socket.set_read_timeout(Some(Duration::from_millis(200)))?;
        Ok(Self { socket, outside })
    }

    /// Answers what comes until `is_done`; returns how many datagrams came.
    pub(crate) fn serve(&self, what: &str, mut is_done: impl FnMut() -> Result<bool>) -> Result<usize> {
        let mut n_asked = 0;
        until(what, Duration::from_secs(60), || {
            let mut buffer = [0; 1100];
            match self.socket.recv_from(&mut buffer) {
                Ok((len, from)) => {
                    n_asked += 1;
                    if let Some(answer) = self.answer(&buffer[..len]) {
                        self.socket.send_to(&answer, from)?;
                    }
                }
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                Err(error) => bail!(error),
            }
            Ok(is_done()?.then_some(()))
        })?;
        Ok(n_asked)
    }

    fn answer(&self, asked: &[u8]) -> Option<Vec<u8>> {
        let epoch = 7_u32.to_be_bytes();
        match asked {
            [0, 0] => Some([&[0, 128, 0, 0][..], &epoch, &self.outside].concat()),
            [0, opcode @ (1 | 2), _, _, inside @ .., o0, o1, l0, l1, l2, l3] => Some(
                [
                    &[0, 128 + opcode, 0, 0][..],
                    &epoch,
                    inside,
                    &[*o0, *o1, *l0, *l1, *l2, *l3],
                ]
                .concat(),
            ),
            // The version is not supported.
            _ => Some([&[0, asked.get(1)? | 128, 0, 1][..], &epoch].concat()),
        }
    }
}
