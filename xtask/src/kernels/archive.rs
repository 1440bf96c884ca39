//! An archive that a kernel unpacks into its first file system (kernel: `Documentation/driver-api/early-userspace`).

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use std::collections::BTreeSet;

const DIRECTORY: u32 = 0o040_755;
const FILE: u32 = 0o100_755;

/// A cpio archive ("newc") that is being written.
pub(super) struct Archive {
    out: BufWriter<File>,
    paths: BTreeSet<PathBuf>,
    written: usize,
}

impl Archive {
    /// Begins an archive in the file at `path`.
    ///
    /// # Errors
    /// When it cannot be created.
    pub(super) fn create(path: &Path) -> Result<Self> {
        let file = File::create(path).with_context(|| format!("cannot create {}", path.display()))?;
        Ok(Self {
            out: BufWriter::new(file),
            paths: BTreeSet::new(),
            written: 0,
        })
    }

    /// Returns whether something of this path is in it.
    pub(super) fn holds(&self, path: &Path) -> bool {
        self.paths.contains(path)
    }

    /// Adds a directory, and those it is in.
    ///
    /// # Errors
    /// When the archive cannot be written.
    pub(super) fn directory(&mut self, path: &Path) -> Result<()> {
        if path.parent().is_none() || self.holds(path) {
            return Ok(());
        }
        self.parent(path)?;
        self.entry(path, DIRECTORY, &[])
    }

    /// Adds an executable file with these bytes.
    ///
    /// # Errors
    /// When the archive cannot be written.
    pub(super) fn file(&mut self, path: &Path, bytes: &[u8]) -> Result<()> {
        if self.holds(path) {
            return Ok(());
        }
        self.parent(path)?;
        self.entry(path, FILE, bytes)
    }

    /// Adds the file at `from` as `path`.
    ///
    /// # Errors
    /// When it cannot be read, or the archive not be written.
    pub(super) fn copy(&mut self, from: &Path, path: &Path) -> Result<()> {
        let bytes = fs::read(from).with_context(|| format!("cannot read {}", from.display()))?;
        self.file(path, &bytes)
    }

    /// Completes the archive.
    ///
    /// # Errors
    /// When it cannot be written.
    pub(super) fn finish(mut self) -> Result<()> {
        self.header("TRAILER!!!", 0, 0)?;
        self.out.flush().context("cannot write the archive")
    }

    fn parent(&mut self, path: &Path) -> Result<()> {
        path.parent().map_or(Ok(()), |parent| self.directory(parent))
    }

    fn entry(&mut self, path: &Path, mode: u32, bytes: &[u8]) -> Result<()> {
        self.paths.insert(path.to_owned());
        let name = path
            .to_str()
            .context("the path is not UTF-8")?
            .trim_start_matches('/');
        self.header(name, mode, bytes.len())?;
        self.bytes(bytes)?;
        self.pad()
    }

    fn header(&mut self, name: &str, mode: u32, len: usize) -> Result<()> {
        let number = self.paths.len();
        let name_len = name.len() + 1;
        // Number, mode, owner, group, links, time, size, device (4), length of the name, checksum.
        let header = format!(
            "070701{number:08x}{mode:08x}{0:08x}{0:08x}{1:08x}{0:08x}{len:08x}{0:08x}{0:08x}{0:08x}{0:08x}{name_len:08x}{0:08x}",
            0, 1
        );
        self.bytes(header.as_bytes())?;
        self.bytes(name.as_bytes())?;
        self.bytes(&[0])?;
        self.pad()
    }

    fn pad(&mut self) -> Result<()> {
        let padding = self.written.next_multiple_of(4) - self.written;
        self.bytes(&[0; 4][..padding])
    }

    fn bytes(&mut self, bytes: &[u8]) -> Result<()> {
        self.written += bytes.len();
        self.out.write_all(bytes).context("cannot write the archive")
    }
}
