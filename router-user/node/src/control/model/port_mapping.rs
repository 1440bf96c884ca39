//! What a router before the node forwards to it.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Whether a router forwards ports to the node.
#[derive(Clone, Debug, Default, Serialize, Deserialize, PartialEq)]
pub struct PortMappingStatus {
    /// What is the case.
    pub state: PortMappingState,
    /// The router that was asked last.
    pub gateway: Option<String>,
    /// What is the matter, or how it is known; `None` if there is nothing to say.
    pub detail: Option<String>,
    /// What is forwarded.
    pub mapped: Vec<MappedPort>,
    /// What kind of NAT is before the node, and how that is known; `None` if no relay sees it.
    pub nat: Option<String>,
}

/// What is the case with the ports of a node.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum PortMappingState {
    /// Nobody is asked, as the configuration has it.
    #[default]
    Off,
    /// A router is being asked, or nobody has been yet.
    Asking,
    /// The host has a public address of its own, and nobody is asked.
    Public,
    /// There is no IPv4 default route with a router in the main table, or the node does not listen on the way there.
    NoGateway,
    /// The router answers by none of the protocols.
    Unanswered,
    /// The router forwards nothing.
    Refused,
    /// The router is itself behind a NAT, so that what it forwards leads nowhere.
    DoubleNat,
    /// The router forwards.
    Mapped,
}

impl PortMappingState {
    /// Every state.
    pub const ALL: [Self; 8] = [
        Self::Off,
        Self::Asking,
        Self::Public,
        Self::NoGateway,
        Self::Unanswered,
        Self::Refused,
        Self::DoubleNat,
        Self::Mapped,
    ];

    /// Its name, as in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Asking => "asking",
            Self::Public => "public",
            Self::NoGateway => "no_gateway",
            Self::Unanswered => "unanswered",
            Self::Refused => "refused",
            Self::DoubleNat => "double_nat",
            Self::Mapped => "mapped",
        }
    }
}

/// A port that a router forwards.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
pub struct MappedPort {
    /// The multiaddress at which others dial.
    pub address: String,
    /// The port of the node to which it leads.
    pub port: u16,
    /// How the router was asked: `PCP`, `NAT-PMP` or `UPnP`.
    pub protocol: String,
    /// Seconds until the router forgets it, unless it is asked again, which it is at half of its time; `None` if it does not
    /// forget.
    pub expires_in_seconds: Option<f64>,
}

impl fmt::Display for PortMappingStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let gateway = self.gateway.as_deref().unwrap_or("no gateway");
        match self.state {
            PortMappingState::Off => f.write_str("off (transport.port_mapping)")?,
            PortMappingState::Asking => f.write_str("being asked for")?,
            PortMappingState::Public => f.write_str("not needed")?,
            PortMappingState::NoGateway => f.write_str("none")?,
            PortMappingState::Unanswered => write!(f, "none: {gateway} does not answer")?,
            PortMappingState::Refused => write!(f, "none: {gateway} refuses")?,
            PortMappingState::DoubleNat => write!(f, "none: {gateway} is behind a NAT itself")?,
            PortMappingState::Mapped => {
                for (at, mapped) in self.mapped.iter().enumerate() {
                    let comma = if at == 0 { "" } else { ", " };
                    write!(f, "{comma}{} by {}", mapped.address, mapped.protocol)?;
                    if let Some(seconds) = mapped.expires_in_seconds {
                        write!(f, " for {seconds:.0} s")?;
                    }
                }
                write!(f, " from {gateway}")?;
            }
        }
        match &self.detail {
            Some(detail) => write!(f, " ({detail})"),
            None => Ok(()),
        }
    }
}
