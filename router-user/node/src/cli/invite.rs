//! `stream-router invite`

use std::path::PathBuf;

use clap::Args;
use ipnet::IpNet;
use libp2p::{Multiaddr, PeerId};

use super::outcome::{Outcome, print};
use super::request::wait;
use super::units::called;
use super::which::WhichFile;
use crate::config::{Config, Invite, for_others, is_open, own_prefixes, parse_name, parse_network};
use crate::control::{ControlError, QrCode, Status, fetch};
use stream_router::p2p::identity;

/// The content of the invite.
#[derive(Debug, Args)]
pub(super) struct InviteArguments {
    #[command(flatten)]
    which: WhichFile,
    /// Prefixes behind this node, instead of the addresses of its device
    #[arg(long, value_name = "PREFIX,...", value_delimiter = ',', value_parser = parse_network)]
    allowed_ips: Vec<IpNet>,
    /// Addresses at which others dial this node, instead of those at which it listens
    #[arg(long, value_name = "MULTIADDR,...", value_delimiter = ',')]
    addresses: Vec<Multiaddr>,
    /// Name of this node, instead of node.name
    #[arg(long = "as", value_name = "NAME", value_parser = parse_name)]
    called: Option<String>,
    /// Show it as a QR code too, on standard error
    #[arg(long)]
    qr: bool,
    /// Nobody can dial this node: it dials the others
    #[arg(long, conflicts_with = "addresses")]
    no_addresses: bool,
}

/// Why there is no invite.
#[derive(Debug, thiserror::Error)]
enum AddressesError {
    #[error(
        "no node answers at {}, so the addresses at which it listens are not known; \
         start it, or name where others dial it with --addresses",
        socket.display()
    )]
    NotRunning { socket: PathBuf },
    #[error(
        "the node at {} is {running}, and the key of this configuration is {configured}'s; \
         restart it, or name where others dial it with --addresses",
        socket.display()
    )]
    OtherNode {
        socket: PathBuf,
        running: String,
        configured: PeerId,
    },
    #[error(
        "this node listens at no address that others can dial; \
         name one with --addresses, or say --no-addresses if it is the one that dials"
    )]
    None,
}

/// Prints an invite to this node, and its content to standard error.
pub(super) fn invite(arguments: InviteArguments) -> Outcome {
    let config = Config::load(&arguments.which.path()?)?;
    let id = identity::load(config.node().key())?.public().to_peer_id();
    let allowed_ips = if arguments.allowed_ips.is_empty() {
        own_prefixes(config.device().addresses())
    } else {
        arguments.allowed_ips
    };
    let addresses = if arguments.no_addresses {
        Vec::new()
    } else if arguments.addresses.is_empty() {
        listened_at(&config, id)?
    } else {
        arguments.addresses
    };
    let mut invite = Invite::new(id, addresses, allowed_ips)?.with_relaying(config.relay().serve());
    let name = arguments
        .called
        .or_else(|| config.node().name().map(str::to_owned));
    if let Some(name) = name {
        invite = invite.with_name(name)?;
    }
    eprint!("{}", summary(&invite));
    if arguments.qr
        && let Some(code) = QrCode::of(&invite.to_string())
    {
        eprint!("{}", code.lines());
    }
    print(invite)
}

fn summary(invite: &Invite) -> String {
    let dialled = match invite.addresses() {
        [] => "nowhere, so it has to dial".to_owned(),
        addresses => listed(addresses),
    };
    let relays = match invite.relays() {
        true => "\n  relays      for its peers: who joins is reached through it",
        false => "",
    };
    format!(
        "an invite to {}\n  dialled at  {dialled}\n  allowed     {}{relays}\n\
         It is no secret, but who changes it on its way puts another peer in: send it over a channel that you trust.\n",
        called(invite.name(), &invite.id()),
        listed(invite.allowed_ips())
    )
}

fn listed<T: ToString>(all: &[T]) -> String {
    all.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// Returns the addresses at which the node listens, after those at which a router forwards to it: those of the running node,
/// or of the configuration if it names them all.
fn listened_at(config: &Config, id: PeerId) -> Result<Vec<Multiaddr>, Box<dyn std::error::Error>> {
    let configured = config.node().listen();
    if configured.is_empty() {
        return Ok(Vec::new());
    }
    let socket = config.node().control();
    let (mapped, listen) = match wait(fetch::<Status>(socket, "")) {
        Ok(status) if status.peer_id != id.to_string() => {
            return Err(Box::new(AddressesError::OtherNode {
                socket: socket.to_owned(),
                running: status.peer_id,
                configured: id,
            }));
        }
        Ok(status) => {
            let mapped = status.port_mapping.mapped.iter().map(|mapped| &mapped.address);
            (parsed(mapped)?, parsed(&status.listen)?)
        }
        Err(error)
            if matches!(
                error.downcast_ref::<ControlError>(),
                Some(ControlError::NoNode { .. })
            ) =>
        {
            if configured.iter().any(is_open) {
                return Err(Box::new(AddressesError::NotRunning {
                    socket: socket.to_owned(),
                }));
            }
            (Vec::new(), configured.to_vec())
        }
        Err(error) => return Err(error),
    };
    let listen = for_others(mapped, listen, config.device().addresses());
    if listen.is_empty() {
        return Err(Box::new(AddressesError::None));
    }
    Ok(listen)
}

fn parsed<'a>(
    texts: impl IntoIterator<Item = &'a String>,
) -> Result<Vec<Multiaddr>, libp2p::multiaddr::Error> {
    texts.into_iter().map(|text| text.parse()).collect()
}
