//! `stream-router invite`

use std::net::IpAddr;
use std::path::PathBuf;

use clap::Args;
use ipnet::IpNet;
use libp2p::multiaddr::Protocol;
use libp2p::{Multiaddr, PeerId};

use super::outcome::{Outcome, print};
use super::request::wait;
use super::units::called;
use super::which::WhichFile;
use crate::config::{Config, Invite, parse_name, parse_network};
use crate::control::{ControlError, Status, fetch};
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
    let config = Config::load(&arguments.which.path())?;
    let id = identity::load(config.node().key())?.public().to_peer_id();
    let allowed_ips = if arguments.allowed_ips.is_empty() {
        own_prefixes(&config)
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
    let mut invite = Invite::new(id, addresses, allowed_ips)?;
    let name = arguments
        .called
        .or_else(|| config.node().name().map(str::to_owned));
    if let Some(name) = name {
        invite = invite.with_name(name)?;
    }
    eprint!("{}", summary(&invite));
    print(invite)
}

fn summary(invite: &Invite) -> String {
    let dialled = match invite.addresses() {
        [] => "nowhere, so it has to dial".to_owned(),
        addresses => listed(addresses),
    };
    format!(
        "an invite to {}\n  dialled at  {dialled}\n  allowed     {}\n\
         It is no secret, but who changes it on its way puts another peer in: send it over a channel that you trust.\n",
        called(invite.name(), &invite.id()),
        listed(invite.allowed_ips())
    )
}

fn listed<T: ToString>(all: &[T]) -> String {
    all.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// Returns the device's own addresses, each as a prefix of its full length.
fn own_prefixes(config: &Config) -> Vec<IpNet> {
    let addresses = config.device().addresses().iter();
    addresses.map(|net| IpNet::from(net.addr())).collect()
}

/// Returns the addresses at which the node listens: those of the running node, or of the configuration if it names them
/// all.
fn listened_at(config: &Config, id: PeerId) -> Result<Vec<Multiaddr>, Box<dyn std::error::Error>> {
    let configured = config.node().listen();
    if configured.is_empty() {
        return Ok(Vec::new());
    }
    let socket = config.node().control();
    let listen = match wait(fetch::<Status>(socket, "")) {
        Ok(status) if status.peer_id != id.to_string() => {
            return Err(Box::new(AddressesError::OtherNode {
                socket: socket.to_owned(),
                running: status.peer_id,
                configured: id,
            }));
        }
        Ok(status) => status
            .listen
            .iter()
            .map(|text| text.parse())
            .collect::<Result<Vec<Multiaddr>, _>>()?,
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
            configured.to_vec()
        }
        Err(error) => return Err(error),
    };
    let inner: Vec<IpAddr> = config.device().addresses().iter().map(IpNet::addr).collect();
    let mut listen: Vec<Multiaddr> = listen
        .into_iter()
        .filter(|address| is_for_others(address, &inner))
        .collect();
    // The swarm has them in no order.
    listen.sort_by_key(ToString::to_string);
    if listen.is_empty() {
        return Err(Box::new(AddressesError::None));
    }
    Ok(listen)
}

fn ip(address: &Multiaddr) -> Option<IpAddr> {
    address.iter().find_map(|protocol| match protocol {
        Protocol::Ip4(ip) => Some(IpAddr::V4(ip)),
        Protocol::Ip6(ip) => Some(IpAddr::V6(ip)),
        _ => None,
    })
}

/// Returns whether only a running node knows the address or the port.
fn is_open(address: &Multiaddr) -> bool {
    let any_port = |protocol| matches!(protocol, Protocol::Tcp(0) | Protocol::Udp(0));
    ip(address).is_none_or(|ip| ip.is_unspecified()) || address.iter().any(any_port)
}

/// Returns whether others can dial the address. One inside the VPN is reached through the very connection that is to be
/// made; a link-local one means nothing without its interface.
fn is_for_others(address: &Multiaddr, inner: &[IpAddr]) -> bool {
    ip(address).is_some_and(|ip| {
        let link_local = match ip {
            IpAddr::V4(ip) => ip.is_link_local(),
            IpAddr::V6(ip) => ip.is_unicast_link_local(),
        };
        !ip.is_loopback() && !ip.is_unspecified() && !link_local && !inner.contains(&ip)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> Multiaddr {
        text.parse().unwrap()
    }

    #[test]
    fn only_what_others_can_dial_is_for_them() {
        let inner = ["10.42.0.1".parse().unwrap(), "fd42::1".parse().unwrap()];
        for (text, expected) in [
            ("/ip4/192.0.2.1/tcp/4001", true),
            ("/ip6/2001:db8::1/udp/4001/quic-v1", true),
            ("/ip4/127.0.0.1/tcp/4001", false),
            ("/ip6/::1/tcp/4001", false),
            ("/ip6/fe80::1/tcp/4001", false),
            ("/ip4/169.254.0.1/tcp/4001", false),
            ("/ip4/10.42.0.1/tcp/4001", false),
            ("/ip6/fd42::1/tcp/4001", false),
            ("/ip4/0.0.0.0/tcp/4001", false),
        ] {
            assert_eq!(is_for_others(&address(text), &inner), expected, "{text}");
        }
    }

    #[test]
    fn what_only_a_running_node_knows_is_open() {
        for (text, expected) in [
            ("/ip4/0.0.0.0/tcp/4001", true),
            ("/ip6/::/udp/4001/quic-v1", true),
            ("/ip4/192.0.2.1/tcp/0", true),
            ("/ip4/192.0.2.1/udp/0/quic-v1", true),
            ("/ip4/192.0.2.1/udp/4001/quic-v1", false),
        ] {
            assert_eq!(is_open(&address(text)), expected, "{text}");
        }
    }
}
