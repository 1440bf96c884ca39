//! A control group whose processes get no more than some memory, of either version.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use xtask::lab::process::until;

const ROOT: &str = "/sys/fs/cgroup";

/// The group; removed on drop, when its processes have ended.
pub(crate) struct ControlGroup {
    directory: PathBuf,
}

impl ControlGroup {
    /// Makes a group that may have so many bytes.
    ///
    /// # Errors
    /// The process may not, or control groups do not count memory here.
    pub(crate) fn with_memory(name: &str, bytes: u64) -> Result<Self> {
        let root = Path::new(ROOT);
        let (parent, limit) = if root.join("cgroup.controllers").exists() {
            let switch = root.join("cgroup.subtree_control");
            if !fs::read_to_string(&switch)?
                .split_whitespace()
                .any(|name| name == "memory")
            {
                fs::write(&switch, "+memory").context("control groups that count memory are needed")?;
            }
            (root.to_owned(), "memory.max")
        } else {
            (root.join("memory"), "memory.limit_in_bytes")
        };
        let directory = parent.join(name);
        fs::create_dir(&directory).with_context(|| format!("cannot make {}", directory.display()))?;
        let group = Self { directory };
        let limit = group.directory.join(limit);
        ensure!(limit.exists(), "{} is needed", limit.display());
        fs::write(&limit, bytes.to_string()).with_context(|| format!("cannot write {}", limit.display()))?;
        Ok(group)
    }

    /// Returns its directory.
    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }
}

impl Drop for ControlGroup {
    fn drop(&mut self) {
        // The kernel lets go of it a moment after the last process.
        let removed = until("the group is empty", Duration::from_secs(10), || {
            Ok(fs::remove_dir(&self.directory).is_ok().then_some(()))
        });
        if let Err(error) = removed {
            eprintln!("{} is left: {error:#}", self.directory.display());
        }
    }
}
