//! Adds, changes and removes peers in the files of a configuration, each replaced whole or not at all, and only if the
//! configuration is right afterwards.

mod fields;
mod place;
mod replacement;
mod section;

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};

use toml_edit::TomlError;

use crate::config::{Config, ConfigError, DropIn};
pub(crate) use fields::PeerFields;
use place::{Named, PeerPlace};
pub(crate) use place::{PlaceError, written_peers};
use replacement::{DRAFT, failed};
pub(crate) use replacement::{Replacement, ReplacementError};
use section::{Section, new_section};
use stream_router::p2p::file_draft::{FileDraft, sync_directory};
use stream_router::p2p::{PeerId, identity};

/// Why a change was not made.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ChangeError {
    /// The configuration would be wrong, or nothing would change.
    #[error(transparent)]
    Peer(#[from] PeerError),
    /// The peer has no section.
    #[error(transparent)]
    Place(#[from] PlaceError),
    /// The configuration cannot be read, or is wrong as it is.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The node would be its own peer.
    #[error(transparent)]
    Own(#[from] OwnPeer),
    /// A file is no TOML.
    #[error(transparent)]
    Syntax(#[from] TomlError),
    /// A file cannot be replaced.
    #[error(transparent)]
    Replacement(#[from] ReplacementError),
}

impl ChangeError {
    /// Returns whether what was asked for, or what is configured, is wrong.
    pub(crate) fn is_usage(&self) -> bool {
        match self {
            Self::Syntax(_) => false,
            Self::Replacement(error) => matches!(error, ReplacementError::Unreadable(_)),
            _ => true,
        }
    }
}

/// A change that was made.
#[derive(Debug)]
pub(crate) struct Changed {
    /// The file in which.
    pub(crate) file: PathBuf,
    /// Name and id of the peer, or the text of a new file.
    pub(crate) what: String,
    /// What the configuration says now.
    pub(crate) config: Config,
}

/// Why the peers stay as they are.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PeerError {
    /// The configuration would be wrong.
    #[error("the configuration would be wrong, so nothing was written:\n{problems}")]
    Wrong {
        /// With every problem.
        problems: ConfigError,
    },
    /// Nothing is said.
    #[error("nothing to set: name a field, such as --comment; `stream-router peer set --help` lists them")]
    NothingToSet,
    /// The file of the new peer is there.
    #[error("{} is there already; remove it, or give the peer another name with --as", path.display())]
    IsThere {
        /// The file.
        path: PathBuf,
    },
}

/// The node is its own peer.
#[derive(Debug, thiserror::Error)]
#[error("peer {id} is this node itself, by its key; remove its [[peer]] section")]
pub(crate) struct OwnPeer {
    /// The id of both.
    id: PeerId,
}

/// Adds a peer in a file of its own beside the main file.
///
/// # Errors
/// The configuration would be wrong, or the file cannot be written; nothing has changed then.
pub(crate) fn add(main: &Path, id: PeerId, fields: &PeerFields) -> Result<Changed, ChangeError> {
    // Whoever changes the peers claims the main file, whichever file they are in.
    let claim = Replacement::begin(main)?;
    let directory = DropIn::directory(main);
    let name = fields.name().map_or_else(|| id.to_string(), str::to_owned);
    let path = directory.join(format!("{name}.toml"));
    let mut drop_ins = DropIn::all_of(main)?;
    if drop_ins.iter().any(|drop_in| drop_in.path() == path) {
        return Err(PeerError::IsThere { path }.into());
    }
    let new = DropIn::new(path.clone(), new_section(id, fields));
    drop_ins.push(new.clone());
    let config = checked(claim.text(), main, &drop_ins)?;
    make_directory(&directory)?;
    write_new(main, &new)?;
    Ok(Changed {
        file: path,
        what: new.text().trim_end().to_owned(),
        config,
    })
}

/// Sets fields of a peer in the file that it is in.
///
/// # Errors
/// Fails as [`add`] does, and if there is no such peer or nothing to set.
pub(crate) fn set(main: &Path, peer: &str, fields: &PeerFields) -> Result<Changed, ChangeError> {
    if fields.is_empty() {
        return Err(PeerError::NothingToSet.into());
    }
    change(main, peer, |section| section.set(fields))
}

/// Removes a peer from the file that it is in.
///
/// # Errors
/// Fails as [`add`] does, and if there is no such peer.
pub(crate) fn remove(main: &Path, peer: &str) -> Result<Changed, ChangeError> {
    change(main, peer, Section::remove)
}

/// Returns the node's own id, as far as its key can be read, unless it is a peer's too.
///
/// # Errors
/// It is a peer's.
pub(crate) fn not_its_own_peer(config: &Config) -> Result<Option<PeerId>, OwnPeer> {
    // The key may be another user's to read.
    let own = identity::load(config.node().key()).ok();
    let own = own.map(|keypair| keypair.public().to_peer_id());
    match config.peers().iter().find(|peer| Some(peer.id()) == own) {
        Some(peer) => Err(OwnPeer { id: peer.id() }),
        None => Ok(own),
    }
}

fn change(main: &Path, peer: &str, change: impl FnOnce(&mut Section)) -> Result<Changed, ChangeError> {
    let claim = Replacement::begin(main)?;
    let mut drop_ins = DropIn::all_of(main)?;
    let Named { place, called } = place::find(claim.text(), &drop_ins, main, peer)?;
    let (file, config) = match place {
        PeerPlace::Main { index } => {
            let text = Section::change(claim.text(), index, change)?.text();
            let config = checked(&text, main, &drop_ins)?;
            claim.finish(&text)?;
            (main.to_owned(), config)
        }
        PeerPlace::DropIn { at, index } => {
            let before = drop_ins.remove(at);
            let path = before.path().to_owned();
            let changed = Section::change(before.text(), index, change)?;
            let text = changed.text();
            if !changed.is_empty() {
                drop_ins.insert(at, DropIn::new(path.clone(), text.clone()));
            }
            let config = checked(claim.text(), main, &drop_ins)?;
            let replacement = Replacement::begin(&path)?;
            if replacement.text() != before.text() {
                return Err(ReplacementError::Changed { path }.into());
            }
            match changed.is_empty() {
                true => remove_file(&path)?,
                false => replacement.finish(&text)?,
            }
            (path, config)
        }
    };
    Ok(Changed {
        file,
        what: called,
        config,
    })
}

fn checked(text: &str, main: &Path, drop_ins: &[DropIn]) -> Result<Config, ChangeError> {
    let config =
        Config::parse_with(text, main, drop_ins).map_err(|problems| PeerError::Wrong { problems })?;
    not_its_own_peer(&config)?;
    Ok(config)
}

/// Makes the directory of drop-ins, if there is none. The node, which is another user, has to read it.
fn make_directory(directory: &Path) -> Result<(), ReplacementError> {
    match fs::create_dir(directory) {
        // Whatever the umask is.
        Ok(()) => fs::set_permissions(directory, Permissions::from_mode(0o755))
            .map_err(failed("set the mode of", directory)),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(failed("make", directory)(error)),
    }
}

/// Writes a drop-in that is not there. Who reads the main file can read it.
fn write_new(main: &Path, new: &DropIn) -> Result<(), ReplacementError> {
    let path = new.path();
    let directory = path.parent().unwrap_or(Path::new("/"));
    let mut draft = FileDraft::in_directory(directory, DRAFT).map_err(failed("write beside", path))?;
    let meta = fs::metadata(main).map_err(failed("look at", main))?;
    let own = draft.file().metadata().map_err(failed("look at", path))?;
    if (meta.uid(), meta.gid()) != (own.uid(), own.gid()) {
        // A node that is no root keeps its own file, with the group of the main file, or for everybody.
        let given = fchown(draft.file(), Some(meta.uid()), Some(meta.gid()));
        let given = given.or_else(|_refused| fchown(draft.file(), None, Some(meta.gid())));
        if let Err(refused) = given
            && meta.mode() & 0o004 == 0
        {
            return Err(failed("set the owner of", path)(refused));
        }
    }
    draft
        .file()
        .set_permissions(Permissions::from_mode(meta.mode() & 0o666))
        .map_err(failed("set the mode of", path))?;
    draft.write(new.text()).map_err(failed("write beside", path))?;
    draft.place(path).map_err(failed("write", path))?;
    sync_directory(directory).map_err(failed("sync", directory))
}

fn remove_file(path: &Path) -> Result<(), ReplacementError> {
    fs::remove_file(path).map_err(failed("remove", path))?;
    let directory = path.parent().unwrap_or(Path::new("/"));
    sync_directory(directory).map_err(failed("sync", directory))
}
