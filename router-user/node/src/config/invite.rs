//! An invite: what another node must know of this one, as one string.
//!
//! `sr`, the version `1`, and base64url without padding of: length of the peer id and the id; number of addresses, and
//! of each its kind, IP address and port; number of prefixes, and of each its family, length and the bytes it needs;
//! the first 4 bytes of the SHA-256 sum of `sr1` and all before. The invite to a node that has a name is of version `2`:
//! before the sum, which is then one of `sr2`, stand the length of the name and the name. That to a node which relays for its
//! peers ends likewise, and is of version `4`; without a name the length is 0. Each invite has one form only.

mod error;
mod format;
mod reader;
#[cfg(test)]
mod tests;

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ipnet::IpNet;
use libp2p::multiaddr::Protocol;
use libp2p::{Multiaddr, PeerId};
use sha2::{Digest, Sha256};

use super::address::{NETWORK_ALLOWED, dial_address, has_zone, ip_of, peer_network};
use super::name::check_name;
pub use error::InviteError;
use format::{
    CHECKSUM_LEN, FAMILY_V4, FAMILY_V6, KIND_DNS, KIND_DNS4, KIND_DNSADDR, KIND_QUIC, KIND_TLS, KIND_V6,
    MAGIC, MAX_ADDRESSES, MAX_CHARS, MAX_PREFIXES, VERSION, VERSION_DNS, VERSION_NAMED, VERSION_RELAY,
};
use reader::Reader;

/// A node as another one needs it for a `[[peer]]` section. It authenticates nothing: who can change it on its way can
/// put another peer in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Invite {
    id: PeerId,
    name: Option<String>,
    addresses: Vec<Multiaddr>,
    allowed_ips: Vec<IpNet>,
    relays: bool,
}

impl Invite {
    /// Makes an invite to the node `id`, which is dialled at `addresses`, if any, and has `allowed_ips` behind it.
    ///
    /// # Errors
    /// A peer cannot have one of the addresses or prefixes, one is there twice, there are too many, or there is no
    /// prefix.
    pub fn new(id: PeerId, addresses: Vec<Multiaddr>, allowed_ips: Vec<IpNet>) -> Result<Self, InviteError> {
        let wrong = |wrong: String| InviteError::Content { wrong };
        if addresses.len() > MAX_ADDRESSES {
            let n = addresses.len();
            return Err(wrong(format!(
                "it has {n} addresses, and {MAX_ADDRESSES} is the most; choose"
            )));
        }
        if allowed_ips.is_empty() || allowed_ips.len() > MAX_PREFIXES {
            let n = allowed_ips.len();
            return Err(wrong(format!(
                "it has {n} prefixes; 1 to {MAX_PREFIXES} are allowed"
            )));
        }
        let mut plain = Vec::with_capacity(addresses.len());
        for address in addresses {
            let address = dial_address(&address.to_string(), Some(id)).map_err(wrong)?;
            if has_zone(&address) {
                return Err(wrong(format!(
                    "{address} names an interface of one host, and means nothing on another"
                )));
            }
            if plain.contains(&address) {
                return Err(wrong(format!("{address} is there twice")));
            }
            plain.push(address);
        }
        for (at, net) in allowed_ips.iter().enumerate() {
            peer_network(&net.to_string()).map_err(wrong)?;
            if allowed_ips.iter().skip(at + 1).any(|other| other == net) {
                return Err(wrong(format!("{net} is there twice")));
            }
        }
        Ok(Self {
            id,
            name: None,
            addresses: plain,
            allowed_ips,
            relays: false,
        })
    }

    /// Returns the invite with other prefixes.
    ///
    /// # Errors
    /// Fails as [`Invite::new`] does.
    pub fn with_allowed_ips(self, allowed_ips: Vec<IpNet>) -> Result<Self, InviteError> {
        let invite = Self::new(self.id, self.addresses, allowed_ips)?;
        Ok(Self {
            name: self.name,
            relays: self.relays,
            ..invite
        })
    }

    /// Returns the invite with this name of the node.
    ///
    /// # Errors
    /// The name is none.
    pub fn with_name(self, name: String) -> Result<Self, InviteError> {
        check_name(&name).map_err(|wrong| InviteError::Content { wrong })?;
        Ok(Self {
            name: Some(name),
            ..self
        })
    }

    /// Returns the invite with the word whether the node relays for its peers.
    #[must_use]
    pub fn with_relaying(self, relays: bool) -> Self {
        Self { relays, ..self }
    }

    /// Returns whether the node relays for its peers.
    pub fn relays(&self) -> bool {
        self.relays
    }

    /// Returns the name of the node, if it has one.
    pub fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }

    /// Returns the id of the node.
    pub fn id(&self) -> PeerId {
        self.id
    }

    /// Returns the addresses at which the node is dialled; empty if it dials the others.
    pub fn addresses(&self) -> &[Multiaddr] {
        &self.addresses
    }

    /// Returns the prefixes behind the node.
    pub fn allowed_ips(&self) -> &[IpNet] {
        &self.allowed_ips
    }

    /// Returns the `[[peer]]` section of a configuration that makes the node a peer.
    pub fn section(&self) -> String {
        let texts = |texts: Vec<String>| format!("{texts:?}");
        let name = self.name.as_ref();
        format!(
            "[[peer]]\n{}id = \"{}\"\naddresses = {}\nallowed_ips = {}\n",
            name.map_or_else(String::new, |name| format!("name = \"{name}\"\n")),
            self.id,
            texts(self.addresses.iter().map(ToString::to_string).collect()),
            texts(self.allowed_ips.iter().map(ToString::to_string).collect()),
        )
    }

    fn version(&self) -> char {
        match self.name {
            _ if self.relays => VERSION_RELAY,
            _ if self.addresses.iter().any(|address| ip_of(address).is_none()) => VERSION_DNS,
            None => VERSION,
            Some(_) => VERSION_NAMED,
        }
    }

    fn bytes(&self) -> Vec<u8> {
        let id = self.id.to_bytes();
        // `new` and `with_name` bound each of the four.
        let mut bytes = vec![id.len() as u8];
        bytes.extend(id);
        bytes.push(self.addresses.len() as u8);
        for address in &self.addresses {
            put_address(address, &mut bytes);
        }
        bytes.push(self.allowed_ips.len() as u8);
        for net in &self.allowed_ips {
            put_prefix(net, &mut bytes);
        }
        match &self.name {
            Some(name) => put_text(name, &mut bytes),
            None if matches!(self.version(), VERSION_DNS | VERSION_RELAY) => put_text("", &mut bytes),
            None => {}
        }
        bytes
    }
}

impl fmt::Display for Invite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (version, mut bytes) = (self.version(), self.bytes());
        let checksum = checksum(version, &bytes);
        bytes.extend(checksum);
        write!(f, "{MAGIC}{version}{}", URL_SAFE_NO_PAD.encode(bytes))
    }
}

impl FromStr for Invite {
    type Err = InviteError;

    fn from_str(text: &str) -> Result<Self, InviteError> {
        let mut rest = text.strip_prefix(MAGIC).ok_or(InviteError::NoInvite)?.chars();
        let version = match rest.next() {
            Some(version @ (VERSION | VERSION_NAMED | VERSION_DNS | VERSION_RELAY)) => version,
            Some(version) if version.is_ascii_alphanumeric() => return Err(InviteError::Version { version }),
            _ => return Err(InviteError::NoInvite),
        };
        if text.len() > MAX_CHARS {
            return Err(InviteError::TooLong { n_bytes: text.len() });
        }
        let strange = |c: char| !(c.is_ascii_alphanumeric() || c == '-' || c == '_');
        if let Some(at) = text.chars().position(strange) {
            return Err(InviteError::Character { place: at + 1 });
        }
        let decoded = URL_SAFE_NO_PAD.decode(rest.as_str());
        let bytes = decoded.map_err(|_cut| InviteError::Damaged)?;
        let at = bytes
            .len()
            .checked_sub(CHECKSUM_LEN)
            .ok_or(InviteError::Damaged)?;
        let (content, sum) = bytes.split_at(at);
        if checksum(version, content) != sum {
            return Err(InviteError::Damaged);
        }
        let invite = read(version, content)?;
        if invite.bytes() != content {
            return Err(InviteError::Content {
                wrong: "it is not in its one form".to_owned(),
            });
        }
        Ok(invite)
    }
}

/// Parses a prefix of a peer.
///
/// # Errors
/// What is wrong with it, and what is allowed.
pub(crate) fn parse_network(text: &str) -> Result<IpNet, String> {
    peer_network(text).map_err(|wrong| format!("{wrong} (allowed: {NETWORK_ALLOWED})"))
}

fn checksum(version: char, content: &[u8]) -> [u8; CHECKSUM_LEN] {
    let mut sum = Sha256::new();
    sum.update(MAGIC);
    sum.update([version as u8]);
    sum.update(content);
    let sum: [u8; 32] = sum.finalize().into();
    let [a, b, c, d, ..] = sum;
    [a, b, c, d]
}

/// Writes an address that `dial_address` made: an IP address or a name, then TCP, perhaps with TLS, or UDP and QUIC.
fn put_address(address: &Multiaddr, bytes: &mut Vec<u8>) {
    let (mut kind, mut host, mut port) = (0, Vec::new(), None);
    for protocol in address {
        match protocol {
            Protocol::Dns(name) => {
                kind |= KIND_DNS;
                put_text(&name, &mut host);
            }
            Protocol::Dns4(name) => {
                kind |= KIND_DNS | KIND_DNS4;
                put_text(&name, &mut host);
            }
            Protocol::Dns6(name) => {
                kind |= KIND_DNS | KIND_V6;
                put_text(&name, &mut host);
            }
            Protocol::Dnsaddr(name) => {
                kind |= KIND_DNS | KIND_DNSADDR;
                put_text(&name, &mut host);
            }
            Protocol::Ip4(v4) => host.extend(v4.octets()),
            Protocol::Ip6(v6) => {
                kind |= KIND_V6;
                host.extend(v6.octets());
            }
            Protocol::Tcp(number) | Protocol::Udp(number) => port = Some(number.to_be_bytes()),
            Protocol::QuicV1 => kind |= KIND_QUIC,
            Protocol::Tls => kind |= KIND_TLS,
            _ => {}
        }
    }
    bytes.push(kind);
    bytes.extend(host);
    bytes.extend(port.into_iter().flatten());
}

/// Writes a text of up to 255 bytes.
fn put_text(text: &str, bytes: &mut Vec<u8>) {
    bytes.push(text.len() as u8);
    bytes.extend(text.as_bytes());
}

fn put_prefix(net: &IpNet, bytes: &mut Vec<u8>) {
    let n_needed = usize::from(net.prefix_len().div_ceil(8));
    let family = if net.addr().is_ipv4() {
        FAMILY_V4
    } else {
        FAMILY_V6
    };
    bytes.extend([family, net.prefix_len()]);
    match net.addr() {
        IpAddr::V4(ip) => bytes.extend(ip.octets().iter().take(n_needed)),
        IpAddr::V6(ip) => bytes.extend(ip.octets().iter().take(n_needed)),
    }
}

fn read(version: char, content: &[u8]) -> Result<Invite, InviteError> {
    let mut reader = Reader::new(content);
    let id = reader.id()?;
    let n_addresses = reader.byte()?;
    let addresses = (0..n_addresses).map(|_| reader.address());
    let addresses = addresses.collect::<Result<_, _>>()?;
    let n_prefixes = reader.byte()?;
    let prefixes = (0..n_prefixes).map(|_| reader.prefix());
    let prefixes = prefixes.collect::<Result<_, _>>()?;
    let name = match version {
        VERSION_NAMED => Some(reader.name()?),
        VERSION_DNS | VERSION_RELAY => Some(reader.name()?).filter(|name| !name.is_empty()),
        _ => None,
    };
    reader.finish()?;
    let invite = Invite::new(id, addresses, prefixes)?.with_relaying(version == VERSION_RELAY);
    match name {
        Some(name) => invite.with_name(name),
        None => Ok(invite),
    }
}
