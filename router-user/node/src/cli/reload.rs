//! `stream-router reload`

use std::fmt::Write as _;
use std::path::PathBuf;

use clap::Args;

use super::outcome::{Outcome, print};
use super::request::{RequestArguments, wait};
use super::units::called;
use crate::config::Config;
use crate::control::{ControlError, Reload, reload as ask_reload};

/// Which node reads its file again.
#[derive(Debug, Args)]
pub(super) struct ReloadArguments {
    #[command(flatten)]
    request: RequestArguments,
    /// Configuration file of the node: looked at first, and the node that it describes is asked
    #[arg(long, value_name = "FILE", conflicts_with_all = ["socket", "instance"])]
    config: Option<PathBuf>,
}

/// Makes the node read its configuration file again, and prints the outcome.
pub(super) fn reload(ReloadArguments { request, config }: &ReloadArguments) -> Outcome {
    let socket = match config {
        // A file that is wrong may not even say where the node is.
        Some(file) => Config::load(file)?.node().control().to_owned(),
        None => request.which.socket()?,
    };
    let outcome = wait(ask_reload(&socket));
    match outcome {
        Ok((_, json)) if request.json => print(json.trim_end()),
        Ok((reload, _)) => print(lines(&reload).trim_end()),
        Err(error) => {
            if request.json
                && let Some(ControlError::BadConfiguration { problems }) = error.downcast_ref()
            {
                print(serde_json::to_string_pretty(problems)?)?;
            }
            Err(error)
        }
    }
}

/// Returns what has changed, in lines.
pub(super) fn lines(reload: &Reload) -> String {
    let mut text = String::new();
    let peers = [
        ("added", &reload.peers_added),
        ("removed", &reload.peers_removed),
        ("changed", &reload.peers_changed),
    ];
    for (what, peers) in peers {
        for peer in peers {
            // Writing to a string does not fail.
            let mut names = reload.peer_names.iter();
            let named = names.find(|named| named.id == *peer);
            let name = named.map(|named| named.name.as_str());
            let _ = writeln!(text, "peer {what}: {}", called(name, peer));
        }
    }
    for (what, fields) in [
        ("applied", &reload.applied),
        ("needs a restart", &reload.needs_restart),
    ] {
        if !fields.is_empty() {
            let _ = writeln!(text, "{what}: {}", fields.join(", "));
        }
    }
    for note in &reload.notes {
        let _ = writeln!(text, "note: {note}");
    }
    if text.is_empty() {
        let _ = writeln!(text, "{}: nothing has changed", reload.file);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::PeerName;

    #[test]
    fn every_change_is_named_and_so_is_none() {
        let mut reload = Reload {
            file: "/etc/stream-router.toml".to_owned(),
            ..Reload::default()
        };
        assert_eq!(lines(&reload), "/etc/stream-router.toml: nothing has changed\n");

        reload.peers_added = vec!["a".to_owned()];
        reload.peers_removed = vec!["b".to_owned()];
        reload.peers_changed = vec!["c".to_owned()];
        reload.peer_names = vec![PeerName {
            id: "b".to_owned(),
            name: "rome".to_owned(),
        }];
        reload.applied = vec!["workers.max".to_owned(), "log.level".to_owned()];
        reload.needs_restart = vec!["device.mtu".to_owned()];
        reload.notes = vec!["RUST_LOG".to_owned()];
        assert_eq!(
            lines(&reload),
            "peer added: a\npeer removed: rome (b)\npeer changed: c\napplied: workers.max, log.level\nneeds a restart: \
             device.mtu\nnote: RUST_LOG\n"
        );
    }
}
