//! A file that is written beside its place, and takes it whole or not at all.

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;

use tempfile::{Builder, NamedTempFile};

/// The draft of a file, with mode 0600. It is removed unless it takes its place.
#[derive(Debug)]
pub struct FileDraft(NamedTempFile);

impl FileDraft {
    /// Makes an empty draft in `directory`, with a name of its own behind `prefix`.
    ///
    /// # Errors
    /// The system refuses.
    pub fn in_directory(directory: &Path, prefix: &str) -> io::Result<Self> {
        Builder::new().prefix(prefix).tempfile_in(directory).map(Self)
    }

    /// Makes an empty draft with just this name, which keeps others from making it as long as the draft is there.
    ///
    /// # Errors
    /// It is there already, or the system refuses.
    pub fn at(path: &Path) -> io::Result<Self> {
        let directory = path.parent().unwrap_or(Path::new("/"));
        let name = path.file_name().unwrap_or_default();
        let draft = Builder::new().prefix(name).rand_bytes(0).tempfile_in(directory);
        draft.map(Self)
    }

    /// Returns the file, to set its owner and mode.
    pub fn file(&self) -> &File {
        self.0.as_file()
    }

    /// Writes the whole text, and waits until the disk has it.
    ///
    /// # Errors
    /// The system refuses.
    pub fn write(&mut self, text: &str) -> io::Result<()> {
        self.0.write_all(text.as_bytes())?;
        self.0.as_file().sync_all()
    }

    /// Puts the draft at `path`, in the same directory, where nothing may be.
    ///
    /// # Errors
    /// Something is there, or the system refuses; the draft is removed.
    pub fn place(self, path: &Path) -> io::Result<()> {
        self.0.persist_noclobber(path)?;
        Ok(())
    }

    /// Puts the draft at `path`, in the same directory, in place of the file that is there.
    ///
    /// # Errors
    /// The system refuses; the draft is removed.
    pub fn replace(self, path: &Path) -> io::Result<()> {
        self.0.persist(path)?;
        Ok(())
    }
}

/// Waits until the disk knows which files `directory` holds.
///
/// # Errors
/// The system refuses.
pub fn sync_directory(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}
