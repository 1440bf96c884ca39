//! Asks a gateway to forward ports, by the first protocol that it answers.

use std::fmt;
use std::net::Ipv4Addr;
use std::num::NonZeroU16;

use crab_nat::pcp::Nonce;
use crab_nat::{PortMapping, PortMappingType};
use futures::future::join_all;
use libp2p::Multiaddr;

use super::datagrams;
use super::terms::{Failure, Outside};
use super::uplink::{Port, Uplink, is_public};
use super::upnp::Upnp;

/// A port that a gateway forwards.
#[derive(Debug)]
pub(super) struct Mapping {
    pub(super) port: Port,
    pub(super) outside: Outside,
    by: By,
}

#[derive(Debug)]
enum By {
    Datagrams(PortMapping),
    Upnp(Upnp),
}

/// What has come of asking a gateway.
#[derive(Debug, Default)]
pub(super) struct Asked {
    pub(super) mappings: Vec<Mapping>,
    /// Why not all that was wanted is among them.
    pub(super) missing: Option<String>,
}

/// Why a gateway forwards nothing.
#[derive(Debug, thiserror::Error)]
pub(super) enum AskError {
    #[error("{0}")]
    Unanswered(String),
    #[error("by {protocol}: {words}")]
    Refused { protocol: Protocol, words: String },
    #[error("by {protocol} it says that its own address outside is {outside}, which is not public")]
    DoubleNat { protocol: Protocol, outside: Ipv4Addr },
}

/// How a gateway is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Protocol {
    Pcp,
    NatPmp,
    Upnp,
}

/// What is asked for, and what makes the answers to it those to this node.
#[derive(Clone, Copy, Debug)]
pub(super) struct Question<'a> {
    pub(super) uplink: &'a Uplink,
    /// By which a gateway knows its own mappings of PCP from those of others. It is the same after a restart of the node,
    /// which so takes over what it has had.
    pub(super) nonce: Nonce,
    /// What is forwarded already, the ports of which are asked for again.
    pub(super) before: &'a [Mapping],
}

impl Question<'_> {
    /// Returns the port that is asked for outside.
    pub(super) fn outside(&self, port: Port) -> NonZeroU16 {
        let before = self.before.iter().find(|mapping| mapping.port == port);
        before.map_or(port.number, |mapping| mapping.outside.port)
    }
}

/// Asks a gateway for all ports: by PCP, which says most, then NAT-PMP, then UPnP. What it forwards already it renews.
///
/// # Errors
/// It forwards none of them.
pub(super) async fn ask(question: Question<'_>, ports: &[Port]) -> Result<Asked, AskError> {
    let (mut silent, mut refused) = (Vec::new(), None);
    for protocol in [Protocol::Pcp, Protocol::NatPmp, Protocol::Upnp] {
        match by(protocol, question, ports).await {
            Err(Failure::Silent(why)) => silent.push(format!("{protocol}: {why}")),
            // What one protocol may not, another may.
            Err(Failure::Refused(words)) => {
                refused.get_or_insert(AskError::Refused { protocol, words });
            }
            Err(Failure::DoubleNat(outside)) => return Err(AskError::DoubleNat { protocol, outside }),
            Ok(asked) => return Ok(asked),
        }
    }
    Err(refused.unwrap_or_else(|| AskError::Unanswered(silent.join("; "))))
}

/// Asks for all ports by one protocol. The first says whether the gateway speaks it.
async fn by(protocol: Protocol, question: Question<'_>, ports: &[Port]) -> Result<Asked, Failure> {
    let outside = match protocol {
        // It says the address with each port, and nothing without.
        Protocol::Pcp => Outsider::Pcp,
        Protocol::NatPmp => Outsider::NatPmp(public(datagrams::outside(question.uplink).await?)?),
        Protocol::Upnp => {
            let upnp = Upnp::find(question.uplink).await?;
            public(upnp.outside())?;
            Outsider::Upnp(upnp)
        }
    };
    let mut asked = Asked::default();
    for port in ports {
        let (uplink, wanted) = (question.uplink, question.outside(*port));
        let mapped = match &outside {
            Outsider::Pcp => datagrams::map_by_pcp(uplink, question.nonce, *port, wanted)
                .await
                .map(|(by, outside)| (By::Datagrams(by), outside)),
            Outsider::NatPmp(ip) => datagrams::map_by_nat_pmp(uplink, *port, wanted, *ip)
                .await
                .map(|(by, outside)| (By::Datagrams(by), outside)),
            Outsider::Upnp(upnp) => {
                let mapped = upnp.map(uplink, *port, wanted).await;
                mapped.map(|outside| (By::Upnp(upnp.clone()), outside))
            }
        };
        match mapped {
            Ok((by, outside)) => {
                let port = *port;
                asked.mappings.push(Mapping { port, outside, by });
                if let Err(failure) = public(outside.ip) {
                    // Nobody would come by them.
                    join_all(asked.mappings.into_iter().map(Mapping::remove)).await;
                    return Err(failure);
                }
            }
            Err(failure) if asked.mappings.is_empty() => return Err(failure),
            Err(failure) => {
                asked.missing = Some(format!("not {port}, by {protocol}: {failure}"));
                break;
            }
        }
    }
    Ok(asked)
}

/// Who is asked, once it is known that a gateway answers.
enum Outsider {
    Pcp,
    /// With the gateway's address outside.
    NatPmp(Ipv4Addr),
    Upnp(Upnp),
}

fn public(ip: Ipv4Addr) -> Result<Ipv4Addr, Failure> {
    match is_public(ip) {
        true => Ok(ip),
        false => Err(Failure::DoubleNat(ip)),
    }
}

impl Mapping {
    /// Returns the address at which others dial.
    pub(super) fn address(&self) -> Multiaddr {
        self.port.transport.address(self.outside.ip, self.outside.port)
    }

    /// Returns the protocol by which it was asked for.
    pub(super) fn protocol(&self) -> Protocol {
        match &self.by {
            By::Datagrams(by) => match by.mapping_type() {
                PortMappingType::NatPmp => Protocol::NatPmp,
                PortMappingType::Pcp { .. } => Protocol::Pcp,
            },
            By::Upnp(_) => Protocol::Upnp,
        }
    }

    /// Gives it back. That a gateway does not answer is no trouble: it forgets it by itself, but for one that never does.
    pub(super) async fn remove(self) {
        let address = self.address();
        let removed = match self.by {
            By::Datagrams(by) => {
                let dropped = by.try_drop().await;
                dropped.map_err(|(failure, _)| failure.to_string())
            }
            By::Upnp(by) => by.remove(self.port, self.outside.port).await,
        };
        match removed {
            Ok(()) => tracing::info!(%address, "the gateway does not forward any more"),
            Err(error) => tracing::warn!(%address, error, "the gateway may forward for some time"),
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Pcp => "PCP",
            Self::NatPmp => "NAT-PMP",
            Self::Upnp => "UPnP",
        })
    }
}
