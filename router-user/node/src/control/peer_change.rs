//! Changes of the peers in the configuration of a running node.

use serde::{Deserialize, Serialize};

/// What is to become of the peers in the configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PeerChange {
    /// There is to be another one.
    Add(Box<NewPeer>),
    /// The one that is called so is to go: by its name, its id, an address inside the VPN, or an end of the id.
    Remove(String),
}

/// The body of `POST /v1/peers`: an invite, an id, or both if they agree; what else is said goes before what the invite says.
#[derive(Clone, Debug, Default, Serialize, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields, default)]
pub struct NewPeer {
    /// Invite to the peer.
    pub invite: Option<String>,
    /// Id of the peer.
    pub id: Option<String>,
    /// Name of the peer here.
    pub name: Option<String>,
    /// Prefixes behind the peer.
    pub allowed_ips: Option<Vec<String>>,
    /// Addresses at which the peer is dialled.
    pub addresses: Option<Vec<String>>,
    /// Most bytes per second that are sent to the peer.
    pub rate: Option<u32>,
    /// When the peer is connected.
    pub connect: Option<String>,
    /// Whether the networks of the peer go before networks of the host's own.
    #[serde(rename = "override")]
    pub overrides: Option<bool>,
    /// Whether the node has the peer.
    pub enabled: Option<bool>,
    /// A line for people.
    pub comment: Option<String>,
}
