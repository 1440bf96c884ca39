//! Replaces a file whole or not at all; mode and owner stay.

use std::ffi::OsString;
use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};

use crate::config::ConfigError;
use stream_router::p2p::file_draft::{FileDraft, sync_directory};
use stream_router::p2p::regular_file;

/// Why a file was not replaced; it is as it was.
#[derive(Debug, thiserror::Error)]
pub(in crate::cli) enum ReplacementError {
    /// Somebody else replaces it.
    #[error("{} is there: another command changes the file, or was killed while it did; then remove it", path.display())]
    Busy {
        /// The draft of the other.
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

/// A file that is to be replaced, and a draft beside it which keeps others from doing the same.
#[derive(Debug)]
pub(in crate::cli) struct Replacement {
    /// Where symbolic links lead to.
    path: PathBuf,
    text: String,
    draft: FileDraft,
}

impl Replacement {
    /// Claims the file and reads it.
    pub(in crate::cli) fn begin(named: &Path) -> Result<Self, Box<dyn std::error::Error>> {
        let unreadable = |source| ConfigError::Read {
            path: named.to_owned(),
            source,
        };
        let path = fs::canonicalize(named).map_err(unreadable)?;
        let beside = beside(&path);
        let draft = FileDraft::at(&beside).map_err(|source| match source.kind() {
            io::ErrorKind::AlreadyExists => ReplacementError::Busy { path: beside.clone() },
            _ => failed("write", &beside)(source),
        })?;
        let text = regular_file::read_to_string(&path).map_err(unreadable)?;
        Ok(Self { path, text, draft })
    }

    /// Returns what the file holds.
    pub(in crate::cli) fn text(&self) -> &str {
        &self.text
    }

    /// Puts `text` in its place.
    pub(in crate::cli) fn finish(mut self, text: &str) -> Result<(), ReplacementError> {
        let Self { path, draft, .. } = &mut self;
        let meta = fs::metadata(&path).map_err(failed("look at", path))?;
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
        if now != self.text {
            return Err(ReplacementError::Changed { path: self.path });
        }
        let path = &self.path;
        self.draft.replace(path).map_err(failed("replace", path))?;
        let directory = path.parent().unwrap_or(Path::new("/"));
        sync_directory(directory).map_err(failed("sync", directory))
    }
}

fn beside(path: &Path) -> PathBuf {
    let mut name = OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    name.push(".stream-router-draft");
    path.with_file_name(name)
}

/// Returns what makes an error of the system one of the file.
pub(in crate::cli) fn failed(
    action: &'static str,
    path: &Path,
) -> impl FnOnce(io::Error) -> ReplacementError + use<> {
    let path = path.to_owned();
    move |source| ReplacementError::Io { action, path, source }
}

#[cfg(test)]
mod tests {
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
