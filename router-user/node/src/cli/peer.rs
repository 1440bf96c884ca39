//! `stream-router peer`: adds, changes and removes peers in the configuration.

mod fields;
mod place;
mod section;

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use libp2p::PeerId;

use super::check::not_its_own_peer;
use super::join::replacement::{Replacement, ReplacementError, failed};
use super::outcome::{Outcome, print};
use super::reload;
use super::request::wait;
use super::which::WhichFile;
use crate::config::{Config, ConfigError, DropIn};
use crate::control::{ControlError, reload as ask_reload};
use fields::PeerFields;
use place::{Named, PeerPlace};
pub(super) use place::{PlaceError, written_peers};
use section::{Section, new_section};
use stream_router::p2p::file_draft::{FileDraft, sync_directory};

/// What is to become of the peers.
#[derive(Debug, Subcommand)]
pub(super) enum PeerCommand {
    /// Add a peer, in a file of its own beside the configuration
    Add {
        #[command(flatten)]
        whose: Whose,
        /// Its id, as `stream-router id` prints it there
        id: PeerId,
        #[command(flatten)]
        fields: PeerFields,
    },
    /// Change a peer in the file that it is in; an empty value takes a field away
    Set {
        #[command(flatten)]
        whose: Whose,
        /// Its name, its id, or an end of the id
        #[arg(id = "configured", value_name = "PEER")]
        peer: String,
        #[command(flatten)]
        fields: PeerFields,
    },
    /// Remove a peer from the file that it is in
    Remove {
        #[command(flatten)]
        whose: Whose,
        /// Its name, its id, or an end of the id
        #[arg(id = "configured", value_name = "PEER")]
        peer: String,
    },
}

/// Whose peers they are.
#[derive(Debug, Args)]
pub(super) struct Whose {
    #[command(flatten)]
    which: WhichFile,
    /// Leave the running node alone: it goes on with the peers that it has
    #[arg(long)]
    no_reload: bool,
}

/// Why the peers stay as they are.
#[derive(Debug, thiserror::Error)]
pub(super) enum PeerError {
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

/// Does what is said to the configuration, and gives it to the node if that runs.
pub(super) fn peer(command: PeerCommand) -> Outcome {
    match command {
        PeerCommand::Add { whose, id, fields } => add(&whose, id, &fields),
        PeerCommand::Set { whose, peer, fields } => set(&whose, &peer, &fields),
        PeerCommand::Remove { whose, peer } => remove(&whose, &peer),
    }
}

fn add(whose: &Whose, id: PeerId, fields: &PeerFields) -> Outcome {
    let main = whose.which.path()?;
    // Whoever changes the peers claims the main file, whichever file they are in.
    let claim = Replacement::begin(&main)?;
    let directory = DropIn::directory(&main);
    let name = fields.name().map_or_else(|| id.to_string(), str::to_owned);
    let path = directory.join(format!("{name}.toml"));
    let mut drop_ins = DropIn::all_of(&main)?;
    if drop_ins.iter().any(|drop_in| drop_in.path() == path) {
        return Err(Box::new(PeerError::IsThere { path }));
    }
    let new = DropIn::new(path.clone(), new_section(id, fields));
    drop_ins.push(new.clone());
    let config = checked(claim.text(), &main, &drop_ins)?;
    make_directory(&directory)?;
    write_new(&main, &new)?;
    print(format_args!(
        "added in {}:\n\n{}",
        path.display(),
        new.text().trim_end()
    ))?;
    whose.reload(&config)
}

fn set(whose: &Whose, peer: &str, fields: &PeerFields) -> Outcome {
    if fields.is_empty() {
        return Err(Box::new(PeerError::NothingToSet));
    }
    whose.change(peer, |section| section.set(fields), "changed")
}

fn remove(whose: &Whose, peer: &str) -> Outcome {
    whose.change(peer, Section::remove, "removed")
}

impl Whose {
    /// Changes the file that the peer is in.
    fn change(&self, peer: &str, change: impl FnOnce(&mut Section), done: &str) -> Outcome {
        let main = self.which.path()?;
        let claim = Replacement::begin(&main)?;
        let mut drop_ins = DropIn::all_of(&main)?;
        let Named { place, called } = place::find(claim.text(), &drop_ins, &main, peer)?;
        let (file, config) = match place {
            PeerPlace::Main { index } => {
                let text = Section::change(claim.text(), index, change)?.text();
                let config = checked(&text, &main, &drop_ins)?;
                claim.finish(&text)?;
                (main, config)
            }
            PeerPlace::DropIn { at, index } => {
                let before = drop_ins.remove(at);
                let path = before.path().to_owned();
                let changed = Section::change(before.text(), index, change)?;
                let text = changed.text();
                if !changed.is_empty() {
                    drop_ins.insert(at, DropIn::new(path.clone(), text.clone()));
                }
                let config = checked(claim.text(), &main, &drop_ins)?;
                let replacement = Replacement::begin(&path)?;
                if replacement.text() != before.text() {
                    return Err(Box::new(ReplacementError::Changed { path }));
                }
                match changed.is_empty() {
                    true => remove_file(&path)?,
                    false => replacement.finish(&text)?,
                }
                (path, config)
            }
        };
        print(format_args!("{done} {called} in {}", file.display()))?;
        self.reload(&config)
    }

    /// Gives the configuration to the node, if it runs.
    fn reload(&self, config: &Config) -> Outcome {
        if self.no_reload {
            return Ok(());
        }
        match wait(ask_reload(config.node().control())) {
            Ok((answer, _)) => print(reload::lines(&answer).trim_end()),
            Err(error) => match error.downcast_ref() {
                Some(ControlError::NoNode { .. }) => {
                    print("no node runs with it now: it takes effect with the next start")
                }
                _ => Err(error),
            },
        }
    }
}

fn checked(text: &str, main: &Path, drop_ins: &[DropIn]) -> Result<Config, Box<dyn std::error::Error>> {
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
    let mut draft =
        FileDraft::in_directory(directory, ".stream-router-draft-").map_err(failed("write beside", path))?;
    let meta = fs::metadata(main).map_err(failed("look at", main))?;
    let own = draft.file().metadata().map_err(failed("look at", path))?;
    if (meta.uid(), meta.gid()) != (own.uid(), own.gid()) {
        fchown(draft.file(), Some(meta.uid()), Some(meta.gid())).map_err(failed("set the owner of", path))?;
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
