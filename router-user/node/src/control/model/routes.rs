//! `GET /v1/routes`

use std::fmt;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::Resource;

/// The kernel's prefix table, sorted.
#[derive(Clone, Debug, Default, Serialize, Deserialize, PartialEq, Eq)]
pub struct RouteList {
    /// Entries of the table.
    pub routes: Vec<RouteStatus>,
}

/// One prefix. Of all prefixes that contain an address, the longest decides.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq, Eq)]
pub struct RouteStatus {
    /// The prefix.
    pub prefix: IpNet,
    /// Id of the peer that the prefix belongs to; none for the host's own.
    pub peer: Option<String>,
    /// Name of this peer, if it has one.
    #[serde(default)]
    pub peer_name: Option<String>,
    /// Origin of the prefix.
    pub source: RouteSource,
}

/// Origin of a prefix.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum RouteSource {
    /// The peer's `allowed_ips`.
    AllowedIps,
    /// The host's routes: a network of its own inside a peer's prefix, which a gateway leaves to it.
    Host,
}

impl fmt::Display for RouteSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::AllowedIps => "allowed_ips",
            Self::Host => "host",
        })
    }
}

impl Resource for RouteList {
    const PATH: &'static str = "/v1/routes";
}
