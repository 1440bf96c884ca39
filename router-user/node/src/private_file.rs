//! Files with secrets, which their owner alone may use.

use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use stream_router::p2p::regular_file;

/// Why the secret of a file cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum PrivateFileError {
    /// The file cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Other users than the owner may read or write the file.
    #[error("{} has mode {mode:04o}, so others than its owner can use it; run `chmod 600 {}`", path.display(), path.display())]
    Exposed {
        /// The file.
        path: PathBuf,
        /// The permission bits of the file.
        mode: u32,
    },
}

/// Reads a file that its owner alone may use, up to one byte more than `max_bytes`, which shows that it is too long.
///
/// # Errors
/// The file cannot be read, or others can use it.
pub(crate) fn read(path: &Path, max_bytes: usize) -> Result<Vec<u8>, PrivateFileError> {
    let failed = |source| PrivateFileError::Read {
        path: path.to_owned(),
        source,
    };
    let file = regular_file::open(path).map_err(failed)?;
    let mode = file.metadata().map_err(failed)?.mode() & 0o7777;
    if mode & 0o077 != 0 {
        return Err(PrivateFileError::Exposed {
            path: path.to_owned(),
            mode,
        });
    }
    let mut bytes = Vec::new();
    file.take(max_bytes as u64 + 1)
        .read_to_end(&mut bytes)
        .map_err(failed)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use xtask::lab::ScratchDir;

    #[test]
    fn what_others_can_use_or_is_not_there_is_refused_and_what_is_too_long_shows() {
        let directory = ScratchDir::unique("private-file").unwrap();
        let path = directory.path().join("secret");
        fs::write(&path, "0123456789").unwrap();
        for mode in [0o640, 0o604, 0o620, 0o601] {
            fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
            let refused = read(&path, 10).unwrap_err();
            assert!(
                matches!(refused, PrivateFileError::Exposed { .. }),
                "{mode:o} {refused}"
            );
            assert!(refused.to_string().contains("chmod 600"), "{refused}");
        }
        for mode in [0o600, 0o400] {
            fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
            assert_eq!(read(&path, 10).unwrap(), b"0123456789");
            assert_eq!(read(&path, 8).unwrap().len(), 9);
        }
        let missing = read(Path::new("/nonexistent/secret"), 10).unwrap_err();
        assert!(missing.to_string().contains("/nonexistent/secret"), "{missing}");
    }
}
