//! What a network needs to know.

use std::{collections::HashSet, fmt, net::IpAddr, num::NonZeroU32, sync::Arc, time::Duration};

use ipnet::IpNet;
use libp2p::{Multiaddr, PeerId, identity::Keypair};

use super::{
    address::{AddressError, TransportKind, check_peer_address},
    circuit::Circuit,
    error::StartError,
    inbound::{InboundStreams, Placement},
    tcp_config::TcpConfig,
    uplink::UplinkConfig,
};

/// What a network needs to know.
#[derive(Clone)]
pub struct NetworkConfig {
    /// The identity of this node.
    pub keypair: Keypair,
    /// Addresses to listen on; may be none.
    pub listen: Vec<Multiaddr>,
    /// The peers that may connect, and are connected to.
    pub peers: Vec<PeerConfig>,
    /// The runtime of each connection.
    pub placement: Placement,
    /// The receiver of the streams that peers open.
    pub inbound: Arc<dyn InboundStreams>,
    /// The mark of the packets of connections; by default none.
    pub dscp: Dscp,
    /// The mark of every socket of the network for the host's routing rules (`SO_MARK`), listening ones too; by default
    /// none. It needs `CAP_NET_ADMIN`.
    pub fwmark: Option<NonZeroU32>,
    /// How TCP connections are made.
    pub tcp: TcpConfig,
    /// The ways by which connections leave the host, at most [`MAX_UPLINKS`](super::MAX_UPLINKS); by default none, which leaves it
    /// to the host's routes.
    pub uplinks: Vec<UplinkConfig>,
    /// The longest time between two pings on a connection that carries nothing; at least 1 s.
    pub keepalive: Duration,
    /// The time without packets after which a connection that this node has dialled to a peer on demand is closed.
    pub idle_time: Duration,
    /// How addresses of peers are found beyond those configured.
    pub discovery: DiscoveryConfig,
    /// Which relays this node uses, and whether it is one.
    pub relay: RelayConfig,
    /// Whether direct connections are agreed on with peers that are connected through a relay, and peers are told where this
    /// node sees them.
    pub punch: bool,
}

impl NetworkConfig {
    /// What [`NetworkConfig::keepalive`] usually is: firewalls and NAT remember a connection for longer.
    pub const DEFAULT_KEEPALIVE: Duration = Duration::from_secs(25);

    /// What [`NetworkConfig::idle_time`] usually is.
    pub const DEFAULT_IDLE_TIME: Duration = Duration::from_secs(5 * 60);
}

/// A differentiated services code point (RFC 2474), by which networks tell packets apart that want another treatment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Dscp(u8);

impl Dscp {
    /// The largest code point.
    pub const MAX: u8 = 63;

    /// Returns a code point, or `None` if there is none of this number.
    pub fn new(number: u8) -> Option<Self> {
        (number <= Self::MAX).then_some(Self(number))
    }

    /// Returns the byte of an IP header that holds it, without the two bits of ECN.
    pub(super) fn traffic_class(self) -> u8 {
        self.0 << 2
    }
}

/// How addresses of configured peers are found; by default not at all.
///
/// Found addresses are dialled after the configured ones, and the node that answers has to prove that it is the peer.
/// No other node gets a connection.
#[derive(Clone)]
pub struct DiscoveryConfig {
    /// Whether peers are looked for by mDNS on the local network (IPv4).
    pub mdns: bool,
    /// What this node says of itself in a DHT among the peers; `None` leaves the DHT off.
    pub dht: Option<DhtConfig>,
    /// The transport of those found addresses of a peer that are dialled first.
    pub prefer: TransportKind,
    /// Says whether an IP address is inside the tunnel: such an address is neither dialled nor announced.
    pub is_inner: Arc<dyn Fn(IpAddr) -> bool + Send + Sync>,
}

impl Default for DiscoveryConfig {
    fn default() -> Self {
        Self {
            mdns: false,
            dht: None,
            prefer: TransportKind::Tcp,
            is_inner: Arc::new(|_| false),
        }
    }
}

impl fmt::Debug for DiscoveryConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DiscoveryConfig")
            .field("mdns", &self.mdns)
            .field("dht", &self.dht)
            .field("prefer", &self.prefer)
            .finish_non_exhaustive()
    }
}

/// What this node says of itself in the DHT.
#[derive(Clone, Debug, Default)]
pub struct DhtConfig {
    /// Networks that this node says are behind it.
    pub networks: Vec<IpNet>,
    /// Addresses at which this node says it is reached; if there are none, it says those that it listens on.
    pub announce: Vec<Multiaddr>,
}

/// Which relays a node uses, and whether it is one.
#[derive(Clone, Debug, Default)]
pub struct RelayConfig {
    /// The peers through which this node is reached, and reaches others when no address of theirs answers; at most
    /// [`RelayConfig::MAX_VIA`].
    pub via: Vec<PeerId>,
    /// The bounds of what this node relays for its peers; `None` if it relays nothing.
    pub serve: Option<ServeConfig>,
}

impl RelayConfig {
    /// Most relays that a node uses at a time.
    pub const MAX_VIA: usize = 2;
}

/// The bounds of what a node relays for its peers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServeConfig {
    /// Most circuits at a time.
    pub max_circuits: usize,
    /// Most circuits at a time that begin or end at one peer; at least 1.
    pub max_circuits_per_peer: usize,
    /// The rates of what they carry.
    pub rates: RelayRates,
}

impl Default for ServeConfig {
    fn default() -> Self {
        Self {
            max_circuits: 128,
            max_circuits_per_peer: 16,
            rates: RelayRates::default(),
        }
    }
}

/// The bytes per second that a node relays for its peers, both directions of a circuit together; `None` is no bound.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RelayRates {
    /// Those of all circuits.
    pub all: Option<NonZeroU32>,
    /// Those of all circuits that begin or end at one peer.
    pub per_peer: Option<NonZeroU32>,
}

/// When a peer is connected.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ConnectMode {
    /// The peer is dialled whenever it is absent.
    #[default]
    Always,
    /// The peer is dialled when something is to be sent to it, and a connection that this node has dialled is closed once
    /// nothing has crossed it for [`NetworkConfig::idle_time`].
    OnDemand,
}

/// A peer and its addresses.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct PeerConfig {
    /// The peer's id.
    pub peer: PeerId,
    /// The peer's addresses, the best first; none if the peer dials this node. One that begins with a name stands for all
    /// that the name has, which the system's resolvers are asked for in each round of dialling.
    pub addresses: Vec<Multiaddr>,
    /// When the peer is connected.
    pub connect: ConnectMode,
}

impl PeerConfig {
    /// Makes the configuration of a peer that is dialled at these addresses whenever it is absent.
    pub fn new(peer: PeerId, addresses: Vec<Multiaddr>) -> Self {
        Self {
            peer,
            addresses,
            connect: ConnectMode::default(),
        }
    }
}

/// Checks that `peers` can be the peers of `local_peer`, and returns their ids.
pub(super) fn check_peers(local_peer: PeerId, peers: &[PeerConfig]) -> Result<HashSet<PeerId>, StartError> {
    let mut known = HashSet::new();
    for PeerConfig { peer, .. } in peers {
        if *peer == local_peer {
            return Err(StartError::OwnPeer { peer: *peer });
        }
        if !known.insert(*peer) {
            return Err(StartError::DuplicatePeer { peer: *peer });
        }
    }
    for PeerConfig { peer, addresses, .. } in peers {
        for address in addresses {
            check_peer_address(address, *peer)?;
            if let Some(Circuit { relay, .. }) = Circuit::of(address)
                && !known.contains(&relay)
            {
                let (address, relay) = (address.clone(), Box::new(relay));
                return Err(AddressError::UnknownRelay { address, relay }.into());
            }
        }
    }
    Ok(known)
}

/// Checks that a node can use the relays.
pub(super) fn check_relays(via: &[PeerId], peers: &HashSet<PeerId>) -> Result<(), StartError> {
    if let Some(peer) = via.iter().find(|relay| !peers.contains(relay)) {
        return Err(StartError::UnknownRelay { peer: *peer });
    }
    match via.len() {
        0..=RelayConfig::MAX_VIA => Ok(()),
        n_relays => Err(StartError::TooManyRelays { n_relays }),
    }
}

/// Returns the peers as they are dialled. An address through a relay says only which relay that is: where it is, such an
/// address adds to those of the relay itself, as the driver dials every peer by itself. Relays of this node are dialled
/// always, and lead to every other peer after all else.
pub(super) fn with_relays(mut peers: Vec<PeerConfig>, via: &[PeerId]) -> Vec<PeerConfig> {
    let mut relays_at = Vec::new();
    for PeerConfig {
        peer,
        addresses,
        connect,
    } in &mut peers
    {
        if via.contains(peer) {
            *connect = ConnectMode::Always;
        }
        for address in addresses.iter_mut() {
            if let Some(Circuit { relay, relay_at, .. }) = Circuit::of(address) {
                relays_at.extend(relay_at.map(|at| (relay, at)));
                *address = Circuit::address(relay, *peer);
            }
        }
        let through_relays = via.iter().filter(|relay| *relay != peer);
        for address in through_relays.map(|relay| Circuit::address(*relay, *peer)) {
            if !addresses.contains(&address) {
                addresses.push(address);
            }
        }
    }
    for (relay, at) in relays_at {
        let named = peers.iter_mut().find(|config| config.peer == relay);
        if let Some(config) = named.filter(|config| !config.addresses.contains(&at)) {
            config.addresses.push(at);
        }
    }
    peers
}
