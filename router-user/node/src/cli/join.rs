//! `stream-router join`

use std::path::{Path, PathBuf};

use clap::Args;
use ipnet::IpNet;
use libp2p::PeerId;
use toml_edit::{Array, DocumentMut, Item, Table, TomlError, value};

use super::outcome::{Outcome, print};
use super::peer::Whose;
use crate::config::{Config, ConfigError, DropIn, Invite, parse_name, parse_network};
use crate::node::peer_files::Replacement;
use stream_router::p2p::{RelayConfig, identity, regular_file};

/// Which node joins which.
#[derive(Debug, Args)]
pub(super) struct JoinArguments {
    #[command(flatten)]
    whose: Whose,
    /// Prefixes behind the other node, instead of those in the invite
    #[arg(long, value_name = "PREFIX,...", value_delimiter = ',', value_parser = parse_network)]
    allowed_ips: Vec<IpNet>,
    /// Name of the other node here, instead of the one in the invite
    #[arg(long = "as", value_name = "NAME", value_parser = parse_name)]
    called: Option<String>,
    /// Be reached by its address alone, although the invite says that the other node relays for its peers
    #[arg(long)]
    no_relay: bool,
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

/// A configuration with the node of an invite.
#[derive(Debug)]
struct Joined {
    text: String,
    config: Config,
    /// By what the node is named among the relays, if it has become one of them.
    relay: Option<String>,
}

/// Adds the node of an invite to a configuration file, and gives it to the node if that runs.
pub(super) fn join(arguments: JoinArguments) -> Outcome {
    let file = &arguments.whose.which.path()?;
    let mut invite: Invite = arguments.invite.trim().parse()?;
    if !arguments.allowed_ips.is_empty() {
        invite = invite.with_allowed_ips(arguments.allowed_ips)?;
    }
    if let Some(name) = arguments.called {
        invite = invite.with_name(name)?;
    }
    if arguments.no_relay {
        invite = invite.with_relaying(false);
    }
    if arguments.dry_run {
        let text = regular_file::read_to_string(file).map_err(|source| ConfigError::Read {
            path: file.clone(),
            source,
        })?;
        let relay = joined(&text, file, &invite)?.relay;
        return print(sections(&invite, relay.as_deref()));
    }
    let replacement = Replacement::begin(file)?;
    let Joined { text, config, relay } = joined(replacement.text(), file, &invite)?;
    replacement.finish(&text)?;
    print(format_args!(
        "added to {}:\n\n{}\n\nThe other node needs an invite to this one: stream-router invite --config {0}",
        file.display(),
        sections(&invite, relay.as_deref())
    ))?;
    arguments.whose.reload(&config)
}

/// Returns the configuration with the peer.
fn joined(text: &str, file: &Path, invite: &Invite) -> Result<Joined, Box<dyn std::error::Error>> {
    let drop_ins = DropIn::all_of(file)?;
    let config = Config::parse_with(text, file, &drop_ins)?;
    let own = identity::load(config.node().key())?.public().to_peer_id();
    if invite.id() == own {
        return Err(Box::new(JoinError::Own));
    }
    if config.peers().iter().any(|peer| peer.id() == invite.id()) {
        return Err(Box::new(JoinError::AlreadyPeer {
            id: invite.id(),
            file: file.to_owned(),
        }));
    }
    let mut joined = joined_text(text, invite);
    let relay = becomes_relay(&config, invite).then(|| relay_name(invite));
    if let Some(relay) = &relay {
        joined = with_relay(&joined, relay)?;
    }
    match Config::parse_with(&joined, file, &drop_ins) {
        Ok(config) => Ok(Joined {
            text: joined,
            config,
            relay,
        }),
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

/// Returns whether this node is to be reached through that of the invite: not where it has as many relays as it may, or relays
/// itself, for which it has to be reached as it is.
fn becomes_relay(config: &Config, invite: &Invite) -> bool {
    let own = config.relay();
    invite.relays() && !own.serve() && own.via().len() < RelayConfig::MAX_VIA
}

fn relay_name(invite: &Invite) -> String {
    invite
        .name()
        .map_or_else(|| invite.id().to_string(), str::to_owned)
}

/// Returns the text of a right configuration with one more in `relay.via`; other lines and comments stay.
fn with_relay(text: &str, relay: &str) -> Result<String, TomlError> {
    let mut document: DocumentMut = text.parse()?;
    let section = document
        .entry("relay")
        .or_insert_with(|| Item::Table(Table::new()));
    if let Some(section) = section.as_table_like_mut() {
        let via = section.entry("via").or_insert_with(|| value(Array::new()));
        if let Some(via) = via.as_array_mut() {
            via.push(relay);
        }
    }
    Ok(document.to_string())
}

/// Returns what was added.
fn sections(invite: &Invite, relay: Option<&str>) -> String {
    let relay = relay.map(|relay| format!("\n\n[relay]\nvia = [{relay:?}]"));
    format!("{}{}", invite.section().trim_end(), relay.unwrap_or_default())
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
    #[test]
    fn one_more_relay_stands_behind_those_that_are_there_and_the_rest_stays() {
        for (before, after) in [
            (
                "# mine\n[device]\n",
                "# mine\n[device]\n\n[relay]\nvia = [\"oslo\"]\n",
            ),
            (
                "[relay] # here\nserve = false\n[log]\n",
                "[relay] # here\nserve = false\nvia = [\"oslo\"]\n[log]\n",
            ),
            (
                "[relay]\nvia = [\"rome\"] # there\n",
                "[relay]\nvia = [\"rome\", \"oslo\"] # there\n",
            ),
            ("relay = { via = [] }\n", "relay = { via = [\"oslo\"] }\n"),
        ] {
            assert_eq!(with_relay(before, "oslo").unwrap(), after);
        }
    }

    #[test]
    fn a_node_is_reached_through_one_that_relays_unless_it_relays_itself_or_has_relays_enough() {
        let ids = [PeerId::random(), PeerId::random()];
        let peers = ids.iter().zip(1..).map(|(id, n)| {
            format!("[[peer]]\nid = '{id}'\nname = 'p{n}'\nallowed_ips = ['10.42.1.{n}/32']\n")
        });
        let peers: String = peers.collect();
        let of = |relay: &str| {
            let text = format!("[device]\naddresses = ['10.42.0.1/24']\n{relay}\n{peers}");
            Config::parse(&text, Path::new("sr.toml")).unwrap()
        };
        let invite = Invite::new(
            PeerId::random(),
            Vec::new(),
            vec!["10.42.0.2/32".parse().unwrap()],
        );
        let invite = invite.unwrap();
        let relays = invite.clone().with_relaying(true);

        assert!(!becomes_relay(&of(""), &invite));
        for (relay, expected) in [
            ("", true),
            ("[relay]\nvia = ['p1']", true),
            ("[relay]\nvia = ['p1', 'p2']", false),
            ("[relay]\nserve = true", false),
        ] {
            assert_eq!(becomes_relay(&of(relay), &relays), expected, "{relay}");
        }
    }
}
