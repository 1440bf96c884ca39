//! `stream-router peer`: adds, changes and removes peers in the configuration.

use clap::{Args, Subcommand};
use libp2p::PeerId;

use super::outcome::{Outcome, print};
use super::reload;
use super::request::wait;
use super::which::WhichFile;
use crate::config::Config;
use crate::control::{ControlError, reload as ask_reload};
use crate::node::peer_files::{self, Changed, PeerFields};

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
        /// Its name, its id, or an end of the id of 4 characters or more
        #[arg(id = "configured", value_name = "PEER")]
        peer: String,
        #[command(flatten)]
        fields: PeerFields,
    },
    /// Remove a peer from the file that it is in
    Remove {
        #[command(flatten)]
        whose: Whose,
        /// Its name, its id, or an end of the id of 4 characters or more
        #[arg(id = "configured", value_name = "PEER")]
        peer: String,
    },
}

/// Whose peers they are.
#[derive(Debug, Args)]
pub(super) struct Whose {
    #[command(flatten)]
    pub(super) which: WhichFile,
    /// Leave the running node alone: it goes on with the peers that it has
    #[arg(long)]
    no_reload: bool,
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
    let added = peer_files::add(&whose.which.path()?, id, fields)?;
    print(format_args!(
        "added in {}:\n\n{}",
        added.file.display(),
        added.what
    ))?;
    whose.reload(&added.config)
}

fn set(whose: &Whose, peer: &str, fields: &PeerFields) -> Outcome {
    whose.done("changed", peer_files::set(&whose.which.path()?, peer, fields)?)
}

fn remove(whose: &Whose, peer: &str) -> Outcome {
    whose.done("removed", peer_files::remove(&whose.which.path()?, peer)?)
}

impl Whose {
    fn done(&self, what: &str, changed: Changed) -> Outcome {
        print(format_args!(
            "{what} {} in {}",
            changed.what,
            changed.file.display()
        ))?;
        self.reload(&changed.config)
    }

    /// Gives the configuration to the node, if it runs.
    pub(super) fn reload(&self, config: &Config) -> Outcome {
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
