//! A private directory for keys, configurations, logs and sockets.

use std::fs::{self, DirBuilder};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result};

use super::cleanup;
use super::identity::unique_name;

/// A directory of mode 0700, removed with all it holds on drop.
#[derive(Debug)]
pub struct ScratchDir(PathBuf);

impl ScratchDir {
    /// Creates one with a unique name in the system's directory for temporary files.
    ///
    /// # Errors
    /// When it cannot be created.
    pub fn unique(label: &str) -> Result<Self> {
        cleanup::at_the_end()?;
        Self::create(&std::env::temp_dir().join(unique_name(label)))
    }

    /// Creates one that stays until this process has ended, however it does, and returns where it is.
    ///
    /// For what many share of whom nobody knows that he is the last: the language drops nothing that is static.
    ///
    /// # Errors
    /// When it cannot be created, or nothing be started that removes it.
    pub fn until_the_end(label: &str) -> Result<&'static Path> {
        let directory = Self::unique(label)?;
        let remover = remover(directory.path())?;
        let (directory, _) = Box::leak(Box::new((directory, remover)));
        Ok(directory.path())
    }

    /// Creates one at a path where nothing is.
    ///
    /// # Errors
    /// When it cannot be created.
    pub fn create(path: &Path) -> Result<Self> {
        DirBuilder::new()
            .mode(0o700)
            .create(path)
            .with_context(|| format!("cannot create {}", path.display()))?;
        Ok(Self(path.to_owned()))
    }

    /// Returns where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for ScratchDir {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0) {
            eprintln!("cannot remove {}: {error}", self.0.display());
        }
    }
}

/// Starts a program that removes a directory when its input is closed, as the end of this process does.
fn remover(directory: &Path) -> Result<Child> {
    let mut shell = Command::new("sh");
    shell
        .args(["-c", "read -r _; rm -rf -- \"$1\"", "sh"])
        .arg(directory)
        .stdin(Stdio::piped())
        // Whoever reads what this process prints is not to wait for that one.
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    shell.spawn().context("cannot start sh")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::lab::process::wait;

    #[test]
    fn what_stays_to_the_end_is_removed_then_and_not_before() {
        let parent = ScratchDir::unique("parent").unwrap();
        let directory = ScratchDir::create(&parent.path().join("a directory")).unwrap();
        let kept = directory.path().to_owned();
        std::mem::forget(directory);
        fs::write(kept.join("file"), "kept").unwrap();
        let mut remover = remover(&kept).unwrap();

        assert!(remover.try_wait().unwrap().is_none());
        assert!(kept.join("file").exists());
        drop(remover.stdin.take());

        assert!(wait(&mut remover, Duration::from_secs(10)).unwrap().success());
        assert!(!kept.exists());
    }
}
