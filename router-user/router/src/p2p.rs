//! The node on the network: identity, transports, connections to configured peers, and streams on a chosen connection.
//!
//! 1. [`identity`] holds the Ed25519 key; its public half is the peer id.
//! 2. The transport brings up connections: TCP with TLS 1.3 or Noise and yamux, and QUIC. All of it speaks stock libp2p
//!    on the wire; what differs is how bytes are batched and on which thread they are handled.
//! 3. The behaviour admits configured peers only, and opens and accepts streams of [`IP_PROTOCOL`].
//! 4. The addresses of configured peers can be found, too, on the local network and in a DHT ([`DiscoveryConfig`]); whom
//!    it leads to has to prove that it is the peer.
//! 5. [`Network`] drives it: listens, redials absent peers, pings present ones, reports [`NetworkEvent`]s.
//!
//! Connections run side by side, each as one task on the runtime its [`Placement`] names. Streams of one connection
//! share that task. Bytes of one stream stay in order.

mod address;
mod announcement;
mod behaviour;
mod connections;
mod dht;
mod driver;
mod found;
mod handle;
pub mod identity;
mod local_network;
mod network;
mod port;
mod redial;
mod stream;
mod transport;

pub use address::{AddressError, TransportKind, check_address};
pub use announcement::{
    Announcement, AnnouncementError, MAX_ANNOUNCED_ADDRESSES, MAX_ANNOUNCED_NETWORKS, MAX_ANNOUNCEMENT_BYTES,
};
pub use behaviour::{InboundStreams, Placement};
pub use connections::{ConnectionSnapshot, Counters, Direction, PeerSnapshot, Snapshot};
pub use dht::DHT_PROTOCOL;
pub use found::{FoundAddress, FoundBy};
pub use handle::{LookupError, NetworkHandle, OpenError};
pub use libp2p::swarm::ConnectionId;
pub use libp2p::{Multiaddr, PeerId, identity::Keypair};
pub use network::{
    DhtConfig, DiscoveryConfig, Network, NetworkConfig, NetworkDriver, NetworkEvent, PeerConfig, StartError,
};
pub use stream::DataStream;
pub use transport::TransportError;

use std::time::Duration;

/// Name and version of the protocol that carries IP packets in frames.
pub const IP_PROTOCOL: libp2p::StreamProtocol = libp2p::StreamProtocol::new("/stream-router/ip/1");

/// Most connections one peer may have at a time, in both directions together.
pub const MAX_CONNECTIONS_PER_PEER: usize = 8;

/// Most streams of [`IP_PROTOCOL`] one side may have open on one connection.
pub const MAX_STREAMS_PER_SIDE: usize = 32;

/// How long opening a stream may take.
pub const OPEN_TIMEOUT: Duration = Duration::from_secs(5);

/// After how long without any answer a connection counts as dead.
const DEAD_AFTER: Duration = Duration::from_secs(5);
