//! Why the network cannot start, open a stream or look a peer up.

use std::io;

use libp2p::{Multiaddr, PeerId};

use super::{
    address::AddressError,
    limits::{LOOKUP_TIMEOUT, MAX_LOOKUPS, MAX_STREAMS_PER_SIDE, OPEN_TIMEOUT},
    stream::IP_PROTOCOL,
    transport::TransportError,
};

/// Why the network cannot start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The transports cannot be set up.
    #[error(transparent)]
    Transport(#[from] TransportError),
    /// An address in the configuration cannot be used.
    #[error(transparent)]
    Address(#[from] AddressError),
    /// A peer is configured twice.
    #[error("peer {peer} is configured twice")]
    DuplicatePeer {
        /// The peer.
        peer: PeerId,
    },
    /// A relay of this node is no configured peer.
    #[error("relay {peer} is no configured peer; add a [[peer]] section for it")]
    UnknownRelay {
        /// The relay.
        peer: PeerId,
    },
    /// There are more relays than a node uses.
    #[error("{n_relays} relays are too many; name at most {max}", max = super::config::RelayConfig::MAX_VIA)]
    TooManyRelays {
        /// How many there are.
        n_relays: usize,
    },
    /// There are more uplinks than a peer has connections for.
    #[error("{n_uplinks} uplinks are too many; name at most {max}", max = super::limits::MAX_UPLINKS)]
    TooManyUplinks {
        /// How many there are.
        n_uplinks: usize,
    },
    /// This node is configured as its own peer.
    #[error("peer {peer} is this node itself")]
    OwnPeer {
        /// The peer.
        peer: PeerId,
    },
    /// The system's interfaces cannot be watched.
    #[error("cannot start mDNS; `mdns = false` in [discovery] does without")]
    Mdns(#[source] io::Error),
    /// An address cannot be listened on.
    #[error("cannot listen on {address}")]
    Listen {
        /// The address.
        address: Multiaddr,
        /// The error of the system.
        source: io::Error,
    },
}

/// Why a stream could not be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The connection is gone, or to be left.
    #[error("the connection is closed")]
    NotConnected,
    /// This node has as many streams on the connection as it may.
    #[error("the connection has {MAX_STREAMS_PER_SIDE} streams of ours already")]
    TooManyStreams,
    /// The peer did not answer in time.
    #[error("the peer did not accept the stream within {OPEN_TIMEOUT:?}")]
    TimedOut,
    /// The peer answered that it does not speak the protocol.
    #[error("the peer does not speak {IP_PROTOCOL}; it needs a version of stream-router that does")]
    Unsupported,
    /// The connection failed while the stream was being opened.
    #[error("the connection failed")]
    Io(#[source] io::Error),
}

/// Why a lookup in the DHT failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LookupError {
    /// The network was started without the DHT.
    #[error("the DHT is off; start the network with it, as `[discovery] dht = true` does")]
    Off,
    /// As many lookups are open as may be at a time.
    #[error("{MAX_LOOKUPS} questions to the DHT are open already")]
    Busy,
    /// No peer is connected that could be asked.
    #[error("no peer is connected that could be asked")]
    NotConnected,
    /// Not every node that was asked answered in time, and none had a record.
    #[error("the DHT did not answer within {LOOKUP_TIMEOUT:?}")]
    TimedOut,
    /// The network was shut down.
    #[error("the network has ended")]
    Ended,
}
