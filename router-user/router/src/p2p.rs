//! The peer-to-peer network: identity, transports, connections to configured peers, and streams on a chosen connection.
//!
//! 1. [`identity`] holds the Ed25519 key; its public half is the peer id.
//! 2. The transport brings up connections: TCP with TLS 1.3 or Noise, and QUIC. All of it speaks stock libp2p on the wire
//!    to stock peers; with its own kind, streams over TLS on TCP have no multiplexer of their own.
//! 3. The behaviour admits configured peers only, and opens and accepts streams of [`IP_PROTOCOL`].
//! 4. The addresses of configured peers can be found, too, on the local network and in a DHT ([`DiscoveryConfig`]); the
//!    node that answers at one has to prove that it is the peer.
//! 5. [`Network`] joins all of it: it listens, dials absent peers, pings present ones and reports [`NetworkEvent`]s.
//!
//! Connections run side by side, each as one task on the runtime its [`Placement`] names. Streams of one connection
//! share that task. Bytes of one stream stay in order.

mod address;
mod address_discovery;
mod announcement;
mod behaviour;
mod circuit;
mod config;
mod counters;
mod departure;
mod dht;
mod dial_error;
mod driver;
mod duplicates;
mod error;
mod event;
mod event_backlog;
#[doc(hidden)]
pub mod file_draft;
mod found;
mod handle;
mod handshakes;
mod host_addresses;
mod host_changes;
pub mod identity;
mod idle_watch;
mod inbound;
mod instances;
mod keepalive;
mod length_delimited;
mod life;
mod limits;
mod listener_log;
mod local_network;
mod losses;
mod names;
mod network;
mod next_connection;
mod node_behaviour;
mod peer_connections;
mod preamble;
mod punch;
mod reach;
mod redial;
mod redial_book;
pub mod regular_file;
mod relay_server;
mod reservations;
mod snapshot;
mod spare_connections;
mod state;
mod stream;
mod stream_order;
mod stream_slots;
mod tcp_config;
mod transport;
mod uplink;

pub use libp2p::swarm::ConnectionId;
pub use libp2p::{Multiaddr, PeerId, identity::Keypair};

pub use address::{AddressError, TransportKind};
pub use announcement::{Announcement, AnnouncementError, MAX_ANNOUNCED_ADDRESSES, MAX_ANNOUNCEMENT_BYTES};
pub use config::{
    ConnectMode, DhtConfig, DiscoveryConfig, Dscp, NetworkConfig, PeerConfig, RelayConfig, RelayRates,
    ServeConfig,
};
pub use counters::NetworkCounters;
pub use departure::LEAVE_PROTOCOL;
pub use dht::DHT_PROTOCOL;
pub use duplicates::DUPLICATE_PROTOCOL;
pub use error::{LookupError, OpenError, StartError};
pub use event::NetworkEvent;
pub use found::{FoundAddress, FoundBy};
pub use handle::{MAX_MAPPED_ADDRESSES, NetworkHandle};
pub use inbound::{InboundStreams, Placement};
pub use limits::{MAX_CONNECTIONS_PER_PEER, MAX_STREAMS_PER_SIDE, MAX_UPLINKS};
pub use names::is_dns_name;
pub use network::{Network, NetworkDriver};
pub use punch::PUNCH_PROTOCOL;
pub use reach::{FailedDial, FailedPunch, ReachSnapshot, RelaySnapshot, ServedSnapshot};
pub use snapshot::{ConnectionDirection, ConnectionSnapshot, NetworkSnapshot, PeerSnapshot};
pub use stream::{DataStream, IP_PROTOCOL, LANE_PROTOCOL};
pub use tcp_config::{
    CongestionControl, MAX_PROXY_PASSWORD, ProxyConfig, ProxyConfigError, ProxyExemption, TcpConfig,
};
pub use transport::TransportError;
pub use uplink::{UplinkBy, UplinkConfig, Way};
