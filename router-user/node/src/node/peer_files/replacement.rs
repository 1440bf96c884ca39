//! Replaces a file whole or not at all; mode and owner stay.

use std::fs::{self, File, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};

use crate::config::ConfigError;
use stream_router::p2p::file_draft::{FileDraft, sync_directory};
use stream_router::p2p::regular_file;

/// What the names of drafts begin with.
pub(super) const DRAFT: &str = ".stream-router-draft-";

/// Why a file was not replaced; it is as it was.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReplacementError {
    /// It cannot be read.
    #[error(transparent)]
    Unreadable(#[from] ConfigError),
    /// Somebody else replaces it.
    #[error("another command changes {}; try again", path.display())]
    Busy {
        /// The file.
        path: PathBuf,
    },
    /// It was changed in the meantime.
    #[error("{} was changed in the meantime, so nothing was written; try again", path.display())]
    Changed {
        /// The file.
        path: PathBuf,
    },
    /// The system refused.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// A file that is to be replaced, and a lock on it which keeps others from doing the same.
#[derive(Debug)]
pub(crate) struct Replacement {
    /// Where symbolic links lead to.
    path: PathBuf,
    text: String,
    lock: Flock<File>,
}

impl Replacement {
    /// Claims the file and reads it.
    pub(crate) fn begin(named: &Path) -> Result<Self, ReplacementError> {
        let unreadable = |source| ConfigError::Read {
            path: named.to_owned(),
            source,
        };
        let path = fs::canonicalize(named).map_err(unreadable)?;
        let file = regular_file::open(&path).map_err(unreadable)?;
        let lock = Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(_, error)| match error {
            Errno::EWOULDBLOCK => ReplacementError::Busy { path: path.clone() },
            error => failed("lock", &path)(error.into()),
        })?;
        let (locked, there) = (
            lock.metadata().map_err(unreadable)?,
            fs::metadata(&path).map_err(unreadable)?,
        );
        // Another command may have replaced what was opened before it was locked.
        if (locked.dev(), locked.ino()) != (there.dev(), there.ino()) {
            return Err(ReplacementError::Busy { path });
        }
        let text = regular_file::read_to_string(&path).map_err(unreadable)?;
        Ok(Self { path, text, lock })
    }

    /// Returns what the file holds.
    pub(crate) fn text(&self) -> &str {
        &self.text
    }

    /// Puts `text` in its place.
    pub(crate) fn finish(self, text: &str) -> Result<(), ReplacementError> {
        // Held to the end.
        let Self {
            path,
            text: before,
            lock: _lock,
        } = &self;
        let directory = path.parent().unwrap_or(Path::new("/"));
        let mut draft = FileDraft::in_directory(directory, DRAFT).map_err(failed("write beside", path))?;
        let meta = fs::metadata(path).map_err(failed("look at", path))?;
        let file = draft.file();
        let own = file.metadata().map_err(failed("look at", path))?;
        if (meta.uid(), meta.gid()) != (own.uid(), own.gid()) {
            fchown(file, Some(meta.uid()), Some(meta.gid())).map_err(failed("keep the owner of", path))?;
        }
        // After the owner: a change of owner takes bits of the mode away.
        file.set_permissions(Permissions::from_mode(meta.mode() & 0o7777))
            .map_err(failed("keep the mode of", path))?;
        draft.write(text).map_err(failed("write beside", path))?;
        let now = regular_file::read_to_string(path).map_err(failed("read", path))?;
        if now != *before {
            return Err(ReplacementError::Changed { path: path.clone() });
        }
        draft.replace(path).map_err(failed("replace", path))?;
        sync_directory(directory).map_err(failed("sync", directory))
    }
}

/// Returns what makes an error of the system one of the file.
pub(crate) fn failed(
    action: &'static str,
    path: &Path,
) -> impl FnOnce(io::Error) -> ReplacementError + use<> {
    let path = path.to_owned();
    move |source| ReplacementError::Io { action, path, source }
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;
    use std::os::unix::fs::symlink;

    use super::*;
    use xtask::lab::ScratchDir;

    fn scratch(text: &str) -> (ScratchDir, PathBuf) {
        let directory = ScratchDir::unique("replacement").unwrap();
        let path = directory.path().join("sr.toml");
        fs::write(&path, text).unwrap();
        (directory, path)
    }

    fn names(directory: &ScratchDir) -> Vec<OsString> {
        let entries = fs::read_dir(directory.path()).unwrap();
        let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        names
    }

    #[test]
    fn the_mode_stays_and_a_link_stays_a_link() {
        let (directory, path) = scratch("before");
        fs::set_permissions(&path, Permissions::from_mode(0o640)).unwrap();
        let link = directory.path().join("link.toml");
        symlink("sr.toml", &link).unwrap();

        let replacement = Replacement::begin(&link).unwrap();
        assert_eq!(replacement.text(), "before");
        replacement.finish("after").unwrap();

        assert_eq!(fs::read_to_string(&path).unwrap(), "after");
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o640);
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!(names(&directory), ["link.toml", "sr.toml"]);
    }

    #[test]
    fn a_file_that_was_changed_in_the_meantime_stays_as_it_is() {
        let (directory, path) = scratch("before");
        let replacement = Replacement::begin(&path).unwrap();
        fs::write(&path, "by hand").unwrap();

        let error = replacement.finish("after").unwrap_err();

        assert!(matches!(error, ReplacementError::Changed { .. }), "{error}");
        assert_eq!(fs::read_to_string(&path).unwrap(), "by hand");
        assert_eq!(names(&directory), ["sr.toml"]);
    }

    #[test]
    fn two_at_once_do_not_undo_each_other() {
        let (directory, path) = scratch("before");
        let first = Replacement::begin(&path).unwrap();

        let second = Replacement::begin(&path).unwrap_err();

        assert!(second.to_string().contains("another command"), "{second}");
        first.finish("after").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "after");
        drop(Replacement::begin(&path).unwrap());
        assert_eq!(names(&directory), ["sr.toml"]);
    }
}
