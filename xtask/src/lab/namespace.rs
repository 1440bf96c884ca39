//! Network namespaces and the cables between them.

use std::fs::{self, File};
use std::io;
use std::net::IpAddr;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, setns};
use nix::sys::statfs::{BPF_FS_MAGIC, statfs};
use serde_json::Value;

use super::cleanup::{self, NETNS_ROOT};
use super::enter::confine;
use super::identity::unique_name;
use super::process::{text, until};

const LIMIT: Duration = Duration::from_secs(10);

/// A host: a named network namespace, deleted on drop with the processes in it.
#[derive(Debug)]
pub struct Namespace {
    name: String,
    netns: Arc<File>,
}

impl Namespace {
    /// Creates one with a unique name; it is removed when a signal ends this process, too.
    ///
    /// # Errors
    /// When the kernel refuses, as it does without privilege.
    pub fn unique(label: &str) -> Result<Self> {
        cleanup::at_the_end()?;
        Self::create(&unique_name(label))
    }

    /// Creates one with this name, which must be free.
    ///
    /// # Errors
    /// When the name is taken or the kernel refuses.
    pub fn create(name: &str) -> Result<Self> {
        text(Command::new("ip").args(["netns", "add", name]), LIMIT)?;
        let path = Path::new(NETNS_ROOT).join(name);
        let netns = File::open(&path).with_context(|| format!("cannot open {}", path.display()))?;
        let namespace = Self {
            name: name.to_owned(),
            netns: Arc::new(netns),
        };
        namespace.ip(&["link", "set", "lo", "up"])?;
        Ok(namespace)
    }

    /// Its name, as `ip netns` shows it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Makes a command that runs in the namespace.
    ///
    /// The process gets SIGTERM when the thread that starts it ends.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new(program);
        confine(&mut command, Arc::clone(&self.netns));
        command
    }

    /// Returns the namespace's handle, for a process that is started later.
    pub(super) fn handle(&self) -> Arc<File> {
        Arc::clone(&self.netns)
    }

    /// Runs `ip` for this namespace and returns what it printed.
    ///
    /// # Errors
    /// When it fails.
    pub fn ip(&self, args: &[&str]) -> Result<String> {
        text(Command::new("ip").args(["-n", &self.name]).args(args), LIMIT)
    }

    /// Runs a closure in the namespace, on a thread of its own; sockets that it opens stay in the namespace.
    ///
    /// # Errors
    /// When the namespace cannot be entered, or the closure fails.
    ///
    /// # Panics
    /// When the closure does.
    pub fn enter<T: Send>(&self, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        let inside = || {
            setns(&*self.netns, CloneFlags::CLONE_NEWNET)
                .with_context(|| format!("cannot enter {}", self.name))?;
            work()
        };
        thread::scope(|scope| match scope.spawn(inside).join() {
            Ok(result) => result,
            Err(panic) => std::panic::resume_unwind(panic),
        })
    }

    /// Runs `bind` in the namespace until its address is free. One that was closed before may be in use for a moment
    /// longer: a program that is being started elsewhere in this process holds all of its sockets until it executes.
    ///
    /// # Errors
    /// When the namespace cannot be entered, or the socket cannot be bound in time.
    pub fn bind<T: Send>(&self, bind: impl Fn() -> io::Result<T> + Sync) -> Result<T> {
        let (socket, _) = until("a free address", LIMIT, || match self.enter(|| Ok(bind())) {
            Ok(Err(error)) if error.kind() == io::ErrorKind::AddrInUse => Ok(None),
            Ok(bound) => Ok(Some(bound?)),
            Err(error) => Err(error),
        })?;
        Ok(socket)
    }

    /// Returns whether a device of this name is in the namespace.
    ///
    /// # Errors
    /// When `ip` fails.
    pub fn has_device(&self, device: &str) -> Result<bool> {
        Ok(self.device(device)?.is_some())
    }

    /// Waits until a device that was set up carries packets: the kernel looks at a cable at most once a second, and
    /// drops what is sent before.
    ///
    /// # Errors
    /// When it does not in time.
    pub fn wait_device_up(&self, device: &str) -> Result<()> {
        until(&format!("{device} is up"), LIMIT, || {
            let shown = self
                .device(device)?
                .with_context(|| format!("no device {device}"))?;
            Ok((shown["operstate"] == "UP").then_some(()))
        })?;
        Ok(())
    }

    fn device(&self, device: &str) -> Result<Option<Value>> {
        let links: Vec<Value> = serde_json::from_str(&self.ip(&["-json", "link", "show"])?)
            .context("ip -json link printed no list")?;
        Ok(links.into_iter().find(|link| link["ifname"] == device))
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        if let Err(error) = cleanup::remove_namespace(&self.name) {
            eprintln!("cannot remove namespace {}: {error:#}", self.name);
        }
    }
}

/// One end of a cable: the host, the device's name there, and its addresses with prefix lengths.
pub type End<'a> = (&'a Namespace, &'a str, &'a [&'a str]);

/// Lays a cable: a veth pair with addresses on both ends and no route but the connected ones, ready to carry packets.
///
/// # Errors
/// When a name is taken or an address is not valid.
pub fn link(left: End<'_>, right: End<'_>) -> Result<()> {
    left.0.ip(&[
        "link",
        "add",
        left.1,
        "type",
        "veth",
        "peer",
        "name",
        right.1,
        "netns",
        right.0.name(),
    ])?;
    for (host, device, addresses) in [left, right] {
        for address in addresses {
            let (ip, _) = address
                .split_once('/')
                .ok_or_else(|| anyhow!("{address} has no prefix length"))?;
            let mut args = vec!["address", "add", address, "dev", device];
            if ip.parse::<IpAddr>()?.is_ipv6() {
                args.push("nodad");
            }
            host.ip(&args)?;
        }
        host.ip(&["link", "set", device, "up"])?;
    }
    left.0.wait_device_up(left.1)?;
    right.0.wait_device_up(right.1)
}

/// Mounts bpffs where the pins go, unless it is there.
///
/// # Errors
/// When the kernel refuses.
pub fn mount_bpffs() -> Result<()> {
    let path = Path::new("/sys/fs/bpf");
    fs::create_dir_all(path).with_context(|| format!("cannot create {}", path.display()))?;
    if statfs(path)?.filesystem_type() == BPF_FS_MAGIC {
        return Ok(());
    }
    mount(Some("bpf"), path, Some("bpf"), MsFlags::empty(), None::<&str>)
        .with_context(|| format!("cannot mount bpffs on {}", path.display()))
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn a_cable_carries_traffic_and_nothing_is_left() -> Result<()> {
        let (left, right) = (Namespace::unique("left")?, Namespace::unique("right")?);
        link(
            (&left, "u0", &["192.0.2.1/24", "2001:db8::1/64"]),
            (&right, "u0", &["192.0.2.2/24", "2001:db8::2/64"]),
        )?;
        let listener = right.enter(|| Ok(TcpListener::bind("[2001:db8::2]:7000")?))?;

        let stream = left.enter(|| Ok(TcpStream::connect("[2001:db8::2]:7000")?))?;

        assert_eq!(listener.accept()?.1, stream.local_addr()?);
        text(left.command("ping").args(["-c1", "-W2", "192.0.2.2"]), LIMIT)?;
        let name = left.name().to_owned();
        drop(left);
        assert!(!Path::new(NETNS_ROOT).join(name).exists());
        Ok(())
    }

    #[test]
    fn a_dropped_namespace_ends_its_processes() -> Result<()> {
        let namespace = Namespace::unique("ends")?;
        let mut child = namespace.command("sleep").arg("600").spawn()?;

        drop(namespace);

        assert!(!child.wait()?.success());
        Ok(())
    }
}
