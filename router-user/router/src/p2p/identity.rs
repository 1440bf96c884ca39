//! The node's Ed25519 key and its file: one line of text, the base64 of libp2p's protobuf encoding of the key pair.

use std::{
    fs,
    io::{self, Read},
    os::unix::fs::{MetadataExt, fchown},
    path::{Path, PathBuf},
};

use base64::{Engine, engine::general_purpose::STANDARD};
use libp2p::identity::{KeyType, Keypair};

use super::file_draft::{FileDraft, sync_directory};
use super::regular_file;

/// Longest key file in bytes. A key file has about 100 bytes, so a longer file is none.
const MAX_FILE_BYTES: u64 = 4096;

/// Why a key file could not be made or read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum IdentityError {
    /// The file to be made exists already.
    #[error("{} exists and is not overwritten; remove it first, or choose another file", path.display())]
    Exists {
        /// The file.
        path: PathBuf,
    },
    /// The directory of the file to be made does not exist.
    #[error("the directory of {} does not exist; create it first", path.display())]
    NoDirectory {
        /// The file.
        path: PathBuf,
    },
    /// The file to be read does not exist.
    #[error("no key file {}; make one with `stream-router keygen --out {}`", path.display(), path.display())]
    Missing {
        /// The file.
        path: PathBuf,
    },
    /// Other users than the owner may read or write the file.
    #[error("{} has mode {mode:04o}, so others than its owner can use it; run `chmod 600 {}`", path.display(), path.display())]
    Exposed {
        /// The file.
        path: PathBuf,
        /// The permission bits of the file.
        mode: u32,
    },
    /// The file does not hold an Ed25519 key pair.
    #[error("{} is not a key file: {reason}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong with the file.
        reason: &'static str,
    },
    /// The system refused an operation.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The operation.
        action: &'static str,
        /// The error of the system.
        source: io::Error,
    },
}

/// Makes a new identity and writes it to `path` with mode 0600.
///
/// The file appears whole or not at all. It belongs to us, or, if we are root, to the owner of its directory: a node that
/// runs as a user of its own can read what an administrator has made for it.
///
/// # Errors
///
/// When the file exists, its directory does not, or the system refuses.
pub fn generate(path: &Path) -> Result<Keypair, IdentityError> {
    let io = |action| {
        move |source| IdentityError::Io {
            path: path.to_owned(),
            action,
            source,
        }
    };
    let directory = match path.parent() {
        Some(parent) if parent.as_os_str().is_empty() => Path::new("."),
        Some(parent) => parent,
        None => {
            return Err(IdentityError::Exists {
                path: path.to_owned(),
            });
        }
    };
    if !directory.is_dir() {
        return Err(IdentityError::NoDirectory {
            path: path.to_owned(),
        });
    }
    if path.symlink_metadata().is_ok() {
        return Err(IdentityError::Exists {
            path: path.to_owned(),
        });
    }

    let keypair = Keypair::generate_ed25519();
    let bytes = keypair
        .to_protobuf_encoding()
        .expect("an Ed25519 key pair always encodes");
    let line = STANDARD.encode(bytes) + "\n";

    let mut draft = FileDraft::in_directory(directory, ".stream-router-key-").map_err(io("write beside"))?;
    draft.write(&line).map_err(io("write"))?;
    if nix::unistd::geteuid().is_root() {
        let owner = fs::metadata(directory).map_err(io("look at the directory of"))?;
        fchown(draft.file(), Some(owner.uid()), Some(owner.gid())).map_err(io("give away"))?;
    }
    // Never replaces a file that appeared in the meantime.
    draft.place(path).map_err(|refused| match refused.kind() {
        io::ErrorKind::AlreadyExists => IdentityError::Exists {
            path: path.to_owned(),
        },
        _ => io("create")(refused),
    })?;
    sync_directory(directory).map_err(io("sync the directory of"))?;
    Ok(keypair)
}

/// Reads the identity in `path`.
///
/// # Errors
///
/// Returns an error if the file is missing, usable by others than its owner, or does not hold an Ed25519 key pair.
pub fn load(path: &Path) -> Result<Keypair, IdentityError> {
    let io = |action| {
        move |source| IdentityError::Io {
            path: path.to_owned(),
            action,
            source,
        }
    };
    let malformed = |reason| IdentityError::Malformed {
        path: path.to_owned(),
        reason,
    };

    let file = regular_file::open(path).map_err(|source| match source.kind() {
        io::ErrorKind::NotFound => IdentityError::Missing {
            path: path.to_owned(),
        },
        io::ErrorKind::InvalidInput => malformed("not a regular file"),
        _ => io("open")(source),
    })?;
    let metadata = file.metadata().map_err(io("inspect"))?;
    let mode = metadata.mode() & 0o7777;
    if mode & 0o077 != 0 {
        return Err(IdentityError::Exposed {
            path: path.to_owned(),
            mode,
        });
    }
    if metadata.len() > MAX_FILE_BYTES {
        return Err(malformed("it is too long"));
    }
    let mut bytes = Vec::new();
    file.take(MAX_FILE_BYTES)
        .read_to_end(&mut bytes)
        .map_err(io("read"))?;

    let encoded = STANDARD.decode(bytes.trim_ascii());
    let encoded = encoded.map_err(|_not_base64| malformed("it is not one line of base64"))?;
    let keypair = Keypair::from_protobuf_encoding(&encoded);
    let keypair = keypair.map_err(|_not_a_key| malformed("the base64 does not hold a libp2p key pair"))?;
    if keypair.key_type() != KeyType::Ed25519 {
        return Err(malformed("the key is not an Ed25519 key"));
    }
    Ok(keypair)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn generated_key_is_private_and_loads_as_the_same_peer() {
        let directory = Directory::new();
        let path = directory.0.join("identity.key");

        let made = generate(&path).expect("generate");
        let read = load(&path).expect("load");

        assert_eq!(made.public().to_peer_id(), read.public().to_peer_id());
        assert_eq!(fs::metadata(&path).expect("metadata").mode() & 0o7777, 0o600);
        assert_eq!(
            fs::read_dir(&directory.0).expect("read_dir").count(),
            1,
            "no temporary file is left"
        );
    }

    /// Needs root, as only root can give a directory away.
    #[test]
    fn key_that_root_makes_belongs_to_the_owner_of_its_directory() {
        const NOBODY: u32 = 65_534;
        let directory = Directory::new();
        std::os::unix::fs::chown(&directory.0, Some(NOBODY), Some(NOBODY)).expect("chown");
        let path = directory.0.join("identity.key");

        generate(&path).expect("generate");

        let metadata = fs::metadata(&path).expect("metadata");
        assert_eq!((metadata.uid(), metadata.gid()), (NOBODY, NOBODY));
        assert_eq!(metadata.mode() & 0o7777, 0o600);
    }

    #[test]
    fn existing_file_is_not_overwritten() {
        let directory = Directory::new();
        let path = directory.0.join("identity.key");
        fs::write(&path, "precious").expect("write");

        let error = generate(&path).expect_err("refuses");

        assert!(matches!(error, IdentityError::Exists { .. }), "{error}");
        assert_eq!(fs::read_to_string(&path).expect("read"), "precious");
        assert_eq!(fs::read_dir(&directory.0).expect("read_dir").count(), 1);
    }

    #[test]
    fn dangling_link_is_not_followed_when_generating() {
        let directory = Directory::new();
        let path = directory.0.join("identity.key");
        std::os::unix::fs::symlink(directory.0.join("elsewhere"), &path).expect("symlink");

        assert!(matches!(generate(&path), Err(IdentityError::Exists { .. })));
        assert!(!directory.0.join("elsewhere").exists());
    }

    #[test]
    fn missing_directory_is_named() {
        let directory = Directory::new();
        let error = generate(&directory.0.join("absent/identity.key")).expect_err("no directory");
        assert!(matches!(error, IdentityError::NoDirectory { .. }), "{error}");
    }

    #[test]
    fn missing_file_says_how_to_make_one() {
        let directory = Directory::new();
        let error = load(&directory.0.join("identity.key")).expect_err("missing");
        assert!(error.to_string().contains("keygen"), "{error}");
    }

    #[test]
    fn file_readable_by_others_is_refused() {
        let directory = Directory::new();
        let path = directory.0.join("identity.key");
        generate(&path).expect("generate");
        for mode in [0o640, 0o604, 0o620, 0o601] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("chmod");
            let error = load(&path).expect_err("exposed");
            assert!(
                matches!(error, IdentityError::Exposed { mode: found, .. } if found == mode),
                "{error}"
            );
        }
    }

    #[test]
    fn malformed_files_are_refused_without_showing_their_content() {
        let directory = Directory::new();
        let path = directory.0.join("identity.key");
        let mut good = Keypair::generate_ed25519()
            .to_protobuf_encoding()
            .expect("encode");
        good.truncate(20);
        for content in [
            String::new(),
            "not base64!".to_owned(),
            STANDARD.encode(good),
            "A".repeat(8192),
        ] {
            fs::write(&path, &content).expect("write");
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("chmod");
            let error = load(&path).expect_err("malformed");
            assert!(matches!(error, IdentityError::Malformed { .. }), "{error}");
            assert!(content.is_empty() || !error.to_string().contains(&content));
        }
    }

    struct Directory(PathBuf);

    impl Directory {
        fn new() -> Self {
            let name = format!("stream-router-identity-{:016x}", rand::random::<u64>());
            let path = std::env::temp_dir().join(name);
            fs::create_dir(&path).expect("create a directory");
            Self(path)
        }
    }

    impl Drop for Directory {
        fn drop(&mut self) {
            fs::remove_dir_all(&self.0).expect("remove the directory");
        }
    }
}
