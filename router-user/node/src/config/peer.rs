//! A `[[peer]]` section.

use std::num::NonZeroU32;

use ipnet::IpNet;
use libp2p::identity::PublicKey;
use libp2p::{Multiaddr, PeerId};

use super::address::{DIAL_ALLOWED, NETWORK_ALLOWED, peer_address, peer_network};
use super::name::read_name;
use super::problem::{Located, Place, Problems};
use super::reader::Table;
use super::transport::TransportSection;
use stream_router::p2p::ConnectMode;

const ID_ALLOWED: &str = "a peer id as `stream-router id` prints it, such as \"12D3KooW...\"";

/// The least rate in bytes per second: a large packet of 64 KiB takes 8 s.
pub(super) const LEAST_RATE: u32 = 8000;

const COMMENT_ALLOWED: &str = "a line of up to 256 characters";

/// Longest comment.
const MAX_COMMENT_CHARS: usize = 256;

const CONNECT_ALLOWED: &str = "\"always\" or \"on-demand\"";

/// Most peers that are always connected unless the file says otherwise. With more of them a node is one of a large mesh, of
/// which it talks to few at a time.
const MAX_ALWAYS: usize = 32;

/// A peer: who it is, where it is, what is behind it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerSection {
    id: PeerId,
    name: Option<String>,
    addresses: Vec<Multiaddr>,
    allowed_ips: Vec<IpNet>,
    rate: Option<NonZeroU32>,
    overrides: bool,
    connect: ConnectMode,
    comment: Option<String>,
}

impl PeerSection {
    /// Returns the identity of the peer.
    pub fn id(&self) -> PeerId {
        self.id
    }

    /// Returns the name of the peer, if it has one.
    pub fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }

    /// Returns the addresses to dial the peer at, without its id, the preferred transport's first; empty when only the
    /// peer dials.
    pub fn addresses(&self) -> &[Multiaddr] {
        &self.addresses
    }

    /// Returns the networks behind the peer, at least one: what is sent to it and what it may send from.
    pub fn allowed_ips(&self) -> &[IpNet] {
        &self.allowed_ips
    }

    /// Returns the most bytes per second that are sent to the peer, if there is a limit.
    pub fn rate(&self) -> Option<NonZeroU32> {
        self.rate
    }

    /// Returns whether the peer's networks go before routes of the host to the same addresses.
    pub fn overrides(&self) -> bool {
        self.overrides
    }

    /// Returns when the peer is connected: by default always, or on demand if there are more than 32 peers.
    pub fn connect(&self) -> ConnectMode {
        self.connect
    }

    /// Returns what the file says of the peer to people, if it does.
    pub fn comment(&self) -> Option<&str> {
        self.comment.as_deref()
    }
}

/// The section as read, with the places that later checks name.
pub(super) struct RawPeer {
    pub(super) id: Option<Located<PeerId>>,
    pub(super) name: Option<Located<String>>,
    pub(super) addresses: Vec<Multiaddr>,
    pub(super) allowed_ips: Vec<Located<IpNet>>,
    rate: Option<NonZeroU32>,
    pub(super) overrides: bool,
    connect: Option<ConnectMode>,
    comment: Option<String>,
    /// Whether the node has the peer at all.
    pub(super) enabled: bool,
    /// Addresses listed, the wrong ones too.
    pub(super) n_addresses_listed: usize,
    /// Place of the section.
    pub(super) place: Place,
}

impl RawPeer {
    pub(super) fn read(mut table: Table<'_>, problems: &mut Problems) -> Self {
        let id = id(&mut table, problems);
        let place = table.place().clone();
        let listed = table
            .strings("addresses", DIAL_ALLOWED, problems)
            .unwrap_or_default();
        let n_addresses_listed = listed.len();
        let addresses = addresses(listed, id.as_ref().map(|id| id.value), problems);
        let mut allowed_ips = Vec::new();
        for Located { place, value } in table.some_strings("allowed_ips", NETWORK_ALLOWED, problems) {
            match peer_network(&value) {
                Ok(net) => allowed_ips.push(Located { place, value: net }),
                Err(wrong) => problems.add(&place, wrong, NETWORK_ALLOWED),
            }
        }
        let rate = table.integer("rate", LEAST_RATE..=u32::MAX, problems);
        let overrides = table.boolean("override", problems).unwrap_or(false);
        let connect = connect(&mut table, problems);
        let name = read_name(&mut table, problems);
        let enabled = table.boolean("enabled", problems).unwrap_or(true);
        let comment = comment(&mut table, problems);
        table.finish(problems);
        Self {
            id,
            name,
            addresses,
            allowed_ips,
            rate: rate.and_then(|rate| NonZeroU32::new(rate.value)),
            overrides,
            connect,
            comment,
            enabled,
            n_addresses_listed,
            place,
        }
    }

    /// Returns the peer, or `None` when the section has no valid id, which was reported.
    /// There are `n_peers` of them.
    pub(super) fn validated(mut self, transport: &TransportSection, n_peers: usize) -> Option<PeerSection> {
        let by_number = match n_peers <= MAX_ALWAYS {
            true => ConnectMode::Always,
            false => ConnectMode::OnDemand,
        };
        transport.sort(&mut self.addresses);
        Some(PeerSection {
            id: self.id?.value,
            name: self.name.map(|name| name.value),
            addresses: self.addresses,
            allowed_ips: self.allowed_ips.into_iter().map(|net| net.value).collect(),
            rate: self.rate,
            overrides: self.overrides,
            connect: self.connect.unwrap_or(by_number),
            comment: self.comment,
        })
    }
}

/// Reads what is there for people alone.
fn comment(table: &mut Table<'_>, problems: &mut Problems) -> Option<String> {
    let Located { place, value } = table.string("comment", COMMENT_ALLOWED, problems)?;
    if value.chars().any(char::is_control) || value.chars().count() > MAX_COMMENT_CHARS {
        problems.add(&place, "is no line, or too long", COMMENT_ALLOWED);
    }
    Some(value)
}

fn connect(table: &mut Table<'_>, problems: &mut Problems) -> Option<ConnectMode> {
    let values = [
        ("always", ConnectMode::Always),
        ("on-demand", ConnectMode::OnDemand),
    ];
    let words = ("is no time to connect", CONNECT_ALLOWED);
    table.choice("connect", &values, words, problems)
}

fn id(table: &mut Table<'_>, problems: &mut Problems) -> Option<Located<PeerId>> {
    let Located { place, value } = table.required_string("id", ID_ALLOWED, problems)?;
    match value.parse() {
        Ok(id) if is_keyless(&id) => {
            let wrong =
                format!("{value:?} is nobody's id, as it holds no Ed25519 key: is a character mistyped?");
            problems.add(&place, wrong, ID_ALLOWED);
            None
        }
        Ok(id) => Some(Located { place, value: id }),
        Err(error) => {
            problems.add(&place, format!("{value:?} is not a peer id: {error}"), ID_ALLOWED);
            None
        }
    }
}

/// Returns whether an id that is to hold an Ed25519 key holds none. It has no checksum, but of all strings of 32 bytes only
/// half are keys.
fn is_keyless(id: &PeerId) -> bool {
    const IDENTITY_HASH: u64 = 0;
    /// Protocol buffer of a public key: type Ed25519, and 32 bytes.
    const ED25519: [u8; 4] = [8, 1, 18, 32];
    let hash = id.as_ref();
    hash.code() == IDENTITY_HASH
        && hash.digest().starts_with(&ED25519)
        && PublicKey::try_decode_protobuf(hash.digest()).is_err()
}

fn addresses(listed: Vec<Located<String>>, id: Option<PeerId>, problems: &mut Problems) -> Vec<Multiaddr> {
    let mut addresses: Vec<Multiaddr> = Vec::with_capacity(listed.len());
    for Located { place, value } in listed {
        match peer_address(&value, id) {
            Ok(address) if addresses.contains(&address) => {
                problems.add(&place, format!("{value} is listed twice"), "each address once");
            }
            Ok(address) => addresses.push(address),
            Err(wrong) => problems.add(&place, wrong, DIAL_ALLOWED),
        }
    }
    addresses
}
