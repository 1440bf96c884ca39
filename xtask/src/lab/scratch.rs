//! A private directory for keys, configurations, logs and sockets.

use std::fs::{self, DirBuilder};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

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
