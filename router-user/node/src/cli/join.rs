//! `stream-router join`

use std::path::{Path, PathBuf};

use clap::Args;
use ipnet::IpNet;
use libp2p::PeerId;

use super::outcome::{Outcome, print};
use super::which::WhichFile;
use crate::config::{Config, ConfigError, DEFAULT_CONTROL_SOCKET, DropIn, Invite, parse_name, parse_network};
use crate::node::peer_files::Replacement;
use stream_router::p2p::{identity, regular_file};

/// Which node joins which.
#[derive(Debug, Args)]
pub(super) struct JoinArguments {
    #[command(flatten)]
    which: WhichFile,
    /// Prefixes behind the other node, instead of those in the invite
    #[arg(long, value_name = "PREFIX,...", value_delimiter = ',', value_parser = parse_network)]
    allowed_ips: Vec<IpNet>,
    /// Name of the other node here, instead of the one in the invite
    #[arg(long = "as", value_name = "NAME", value_parser = parse_name)]
    called: Option<String>,
    /// Print the section, and write nothing
    #[arg(long)]
    dry_run: bool,
    /// What `stream-router invite` printed on the other node
    invite: String,
}

/// Why an invite does not fit a configuration.
#[derive(Debug, thiserror::Error)]
pub(super) enum JoinError {
    /// It is to this node.
    #[error(
        "this is an invite to this node itself; give it to the other node, and take the other node's here"
    )]
    Own,
    /// Its node is there.
    #[error("{id} is a peer in {} already; change its [[peer]] section by hand", file.display())]
    AlreadyPeer {
        /// The node.
        id: PeerId,
        /// The configuration.
        file: PathBuf,
    },
    /// The configuration would be wrong.
    #[error("with the peer at its end the configuration would be wrong, so nothing was written:\n{problems}")]
    Conflict {
        /// With every problem.
        problems: ConfigError,
    },
}

/// Adds the node of an invite to a configuration file.
pub(super) fn join(arguments: JoinArguments) -> Outcome {
    let file = &arguments.which.path()?;
    let mut invite: Invite = arguments.invite.trim().parse()?;
    if !arguments.allowed_ips.is_empty() {
        invite = invite.with_allowed_ips(arguments.allowed_ips)?;
    }
    if let Some(name) = arguments.called {
        invite = invite.with_name(name)?;
    }
    if arguments.dry_run {
        let text = regular_file::read_to_string(file).map_err(|source| ConfigError::Read {
            path: file.clone(),
            source,
        })?;
        joined(&text, file, &invite)?;
        return print(invite.section().trim_end());
    }
    let replacement = Replacement::begin(file)?;
    let (text, config) = joined(replacement.text(), file, &invite)?;
    replacement.finish(&text)?;
    print(what_now(file, &config, &invite))
}

/// Returns the text of the configuration with the peer, and what it says.
fn joined(text: &str, file: &Path, invite: &Invite) -> Result<(String, Config), Box<dyn std::error::Error>> {
    let drop_ins = DropIn::all_of(file)?;
    let config = Config::parse_with(text, file, &drop_ins)?;
    let own = identity::load(config.node().key())?.public().to_peer_id();
    let joined = joined_text(text, invite);
    if invite.id() == own {
        return Err(Box::new(JoinError::Own));
    }
    if config.peers().iter().any(|peer| peer.id() == invite.id()) {
        return Err(Box::new(JoinError::AlreadyPeer {
            id: invite.id(),
            file: file.to_owned(),
        }));
    }
    match Config::parse_with(&joined, file, &drop_ins) {
        Ok(config) => Ok((joined, config)),
        Err(problems) => Err(Box::new(JoinError::Conflict { problems })),
    }
}

fn joined_text(text: &str, invite: &Invite) -> String {
    let end = if text.is_empty() || text.ends_with('\n') {
        ""
    } else {
        "\n"
    };
    format!("{text}{end}\n{}", invite.section())
}

fn what_now(file: &Path, config: &Config, invite: &Invite) -> String {
    let file = file.display();
    let control = config.node().control();
    let socket = if control == Path::new(DEFAULT_CONTROL_SOCKET) {
        String::new()
    } else {
        format!(" --socket {}", control.display())
    };
    format!(
        "added to {file}:\n\n{}\n\
         A running node takes it with: stream-router reload{socket}\n\
         The other node needs an invite to this one: stream-router invite --config {file}",
        invite.section()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_section_stands_behind_a_text_that_does_not_end_its_line() {
        let id = PeerId::random();
        let invite = Invite::new(id, Vec::new(), vec!["10.42.0.2/32".parse().unwrap()]).unwrap();
        let text = "[device]\naddresses = [\"10.42.0.1/24\"] # mine";

        let joined = joined_text(text, &invite);

        assert!(joined.starts_with(&format!("{text}\n\n[[peer]]\n")), "{joined}");
        let config = Config::parse(&joined, Path::new("sr.toml")).unwrap();
        assert_eq!(config.peers()[0].id(), id);
    }
}
