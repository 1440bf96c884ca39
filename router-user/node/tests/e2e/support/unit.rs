//! What systemd makes of the unit, done by hand: user, capabilities, directories, command line.

use std::fs::File;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result};

use xtask::lab::{CleanRoot, Namespace};

/// Makes /proc and /sys of a root; of /sys/fs it shows only the directory of the nodes' pins, as the unit does.
const MOUNT: &str = r#"
set -e
root=$1 user=$2
shift 2
mount -t proc proc "$root/proc"
mount -t sysfs sysfs "$root/sys"
mount -t bpf bpf "$root/mnt"
mkdir -m 0700 "$root/mnt/stream-router"
chroot "$root" chown "$user:" /mnt/stream-router
mount -t tmpfs -o mode=0755 tmpfs "$root/sys/fs"
mkdir -p "$root/sys/fs/bpf/stream-router"
mount --bind "$root/mnt/stream-router" "$root/sys/fs/bpf/stream-router"
mount -o remount,ro "$root/sys/fs"
exec chroot "$root" "$@"
"#;

/// The lines of a unit.
pub(crate) struct Unit(String);

impl Unit {
    /// The unit that is installed in `root`.
    pub(crate) fn installed(root: &CleanRoot) -> Result<Self> {
        let path = root.path().join("usr/lib/systemd/system/stream-router.service");
        let text =
            std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        Ok(Self(text))
    }

    /// The value of a setting that is there once.
    pub(crate) fn value(&self, name: &str) -> Result<&str> {
        let assigned = |line: &'_ str| line.strip_prefix(name).is_some_and(|rest| rest.starts_with('='));
        let line = self.0.lines().find(|line| assigned(line));
        let line = line.with_context(|| format!("the unit has no {name}"))?;
        Ok(&line[name.len() + 1..])
    }

    /// Makes the directories that systemd makes before a start.
    pub(crate) fn make_directories(&self, root: &CleanRoot) -> Result<()> {
        let user = self.value("User")?;
        for (parent, setting) in [("/run", "RuntimeDirectory"), ("/var/lib", "StateDirectory")] {
            let path = format!("{parent}/{}", self.value(setting)?);
            let mode = self.value(&format!("{setting}Mode"))?;
            root.run(&["install", "-d", "-o", user, "-g", user, "-m", mode, &path])?;
        }
        Ok(())
    }

    /// Starts what the unit starts, in a root and a network, as its user with its capabilities.
    pub(crate) fn start(&self, root: &CleanRoot, host: &Namespace, log: &Path) -> Result<Child> {
        let set = |name: &str| -> Result<String> {
            let capabilities = self.value(name)?.split_whitespace();
            let added =
                capabilities.map(|name| format!(",+{}", name.trim_start_matches("CAP_").to_lowercase()));
            Ok(format!("-all{}", added.collect::<String>()))
        };
        let ambient = set("AmbientCapabilities")?;
        let user = self.value("User")?;
        let log = File::create(log).with_context(|| format!("cannot create {}", log.display()))?;
        let mut command: Command = host.command("unshare");
        command
            .env_clear()
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .env("NOTIFY_SOCKET", "/run/notify")
            .env("WATCHDOG_USEC", "30000000")
            .args(["--mount", "--propagation=private", "sh", "-c", MOUNT, "sh"])
            .arg(root.path())
            .args([user, "setpriv", "--clear-groups", "--no-new-privs"])
            .arg(format!("--reuid={user}"))
            .arg(format!("--regid={}", self.value("Group")?))
            .arg(format!("--inh-caps={ambient}"))
            .arg(format!("--ambient-caps={ambient}"))
            .arg(format!("--bounding-set={}", set("CapabilityBoundingSet")?))
            .args(self.value("ExecStart")?.split_whitespace())
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log);
        command.spawn().context("cannot start unshare")
    }
}
