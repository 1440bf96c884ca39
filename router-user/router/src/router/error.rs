//! Why a packet was not taken.

use std::net::IpAddr;

use libp2p_identity::PeerId;
use thiserror::Error;

use crate::discovery::DiscoveryError;

/// Why [`StreamRouter::dispatch_packet`](super::StreamRouter::dispatch_packet) did not take a packet. Each has its own
/// counter in [`RouterStats`](super::RouterStats).
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum DispatchError {
    /// It is not one whole IP packet of 20 to 65535 bytes.
    #[error("not one whole IP packet: {reason}")]
    Malformed {
        /// What is wrong with it, as the node's counters name it, such as `bad_total_length`.
        reason: &'static str,
    },
    /// The peer of its destination is being looked for. Dispatch it again when
    /// [`StreamRouter::resolve`](super::StreamRouter::resolve) has returned, or leave that to its sender.
    #[error("the peer of {destination} is being looked for; try again when it is resolved")]
    Resolving {
        /// Where it was to go.
        destination: IpAddr,
    },
    /// Nobody is known to own its destination.
    #[error("{destination} belongs to no known peer")]
    UnknownPeer {
        /// Where it was to go.
        destination: IpAddr,
    },
    /// The discovery could not say whose its destination is, and is not asked again until a second has passed.
    #[error("discovery has failed for {destination}; it is asked again in a second")]
    DiscoveryFailed {
        /// Where it was to go.
        destination: IpAddr,
        /// What went wrong.
        #[source]
        cause: DiscoveryError,
    },
    /// The worker of its flow has as many packets waiting as it may.
    #[error("the queue of worker {worker} is full; send less, or raise workers.queue_size")]
    QueueFull {
        /// Which worker.
        worker: u32,
    },
    /// More waits for its peer than the peer's streams take.
    #[error("the streams to {peer} are behind; send less")]
    PeerBusy {
        /// Which peer.
        peer: PeerId,
    },
    /// The router has been told to shut down.
    #[error("the router is shutting down")]
    ShuttingDown,
}
