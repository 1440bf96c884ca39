//! Why a node does not start.

use std::io;

use thiserror::Error;

/// Why a node does not start; what had been made is gone again.
#[derive(Debug, Error)]
pub enum NodeError {
    /// The identity file.
    #[error("cannot use the identity")]
    Identity(#[from] stream_router::p2p::identity::IdentityError),
    /// A peer section carries this node's own id.
    #[error("peer {id} is this node itself; remove its [[peer]] section")]
    OwnPeer {
        /// The id.
        id: libp2p::PeerId,
    },
    /// The process lacks capabilities.
    #[error(
        "this process lacks {missing}; run it as root, or as the service stream-router, whose unit gives what it needs"
    )]
    Privileges {
        /// Which, and what for.
        missing: String,
    },
    /// The TUN device, its addresses or its routes.
    #[error("cannot set up the device")]
    Device(#[from] crate::device::DeviceError),
    /// The eBPF programs and their maps.
    #[error("cannot set up the kernel side")]
    Kernel(#[from] crate::kernel::KernelError),
    /// A gateway's interface is not there.
    #[error(
        "there is no interface {interface}, which a [[gateway]] section names; `ip link` lists those there are"
    )]
    NoGateway {
        /// Its name.
        interface: String,
    },
    /// A gateway's interface carries no Ethernet frames.
    #[error("the interface {interface}, which a [[gateway]] section names, is no Ethernet interface")]
    NotEthernet {
        /// Its name.
        interface: String,
    },
    /// More peers than a node can have.
    #[error(transparent)]
    NoRoom(#[from] super::peer_registry::NoRoom),
    /// Listening for peers.
    #[error("cannot start the network")]
    Network(#[from] stream_router::p2p::StartError),
    /// The control socket.
    #[error("cannot open the control socket")]
    Control(#[from] crate::control::ControlError),
    /// Metrics and the status page.
    #[error("cannot serve metrics")]
    Metrics(#[from] crate::metrics::MetricsError),
    /// A thread, signal handler or descriptor of the system.
    #[error("cannot {action}")]
    System {
        /// What was tried.
        action: &'static str,
        /// What the system said.
        source: io::Error,
    },
}
