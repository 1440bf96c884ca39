//! Why a node does not start.

use std::io;

use thiserror::Error;

use crate::metrics::MetricsError;
use stream_router::p2p::StartError;

/// Why a node does not start. What was made before the error is removed again.
#[derive(Debug, Error)]
pub enum NodeError {
    /// The identity file cannot be used.
    #[error("cannot use the identity")]
    Identity(#[from] stream_router::p2p::identity::IdentityError),
    /// A peer section carries this node's own id.
    #[error("peer {id} is this node itself; remove its [[peer]] section")]
    OwnPeer {
        /// The id of both.
        id: libp2p::PeerId,
    },
    /// The process lacks capabilities.
    #[error(
        "this process lacks {missing}; run it as root, or as the service stream-router, whose unit gives what it needs"
    )]
    Privileges {
        /// Names of the missing capabilities, and what each is for.
        missing: String,
    },
    /// Networks of peers are the host's own.
    #[error("cannot route the networks of peers to the device")]
    RouteConflicts(#[from] super::route_conflicts::RouteConflicts),
    /// The TUN device, its addresses or its routes cannot be set up.
    #[error("cannot set up the device")]
    Device(#[from] crate::device::DeviceError),
    /// The device is not where it was made.
    #[error("cannot go on")]
    DeviceLost(#[from] super::host::DeviceLost),
    /// The host cannot serve as an exit.
    #[error("cannot serve as an exit (exit.serve)")]
    Exit(#[from] crate::device::NftError),
    /// The eBPF programs or their maps cannot be set up.
    #[error("cannot set up the kernel side")]
    Kernel(#[from] crate::kernel::KernelError),
    /// A gateway's interface is not there.
    #[error(
        "there is no interface {interface}, which a [[gateway]] section names; `ip link` lists those there are"
    )]
    NoGateway {
        /// Name of the interface.
        interface: String,
    },
    /// A gateway's interface carries no Ethernet frames.
    #[error("the interface {interface}, which a [[gateway]] section names, is no Ethernet interface")]
    NotEthernet {
        /// Name of the interface.
        interface: String,
    },
    /// There are more peers than a node can have.
    #[error(transparent)]
    NoRoom(#[from] super::peer_registry::NoRoom),
    /// The network cannot be started.
    #[error("cannot start the network")]
    Network(#[source] StartError),
    /// The control socket cannot be opened.
    #[error("cannot open the control socket")]
    Control(#[from] crate::control::ControlError),
    /// Metrics and the status page cannot be served.
    #[error("cannot serve metrics")]
    Metrics(#[from] MetricsError),
    /// Nothing can be sent to a collector.
    #[error("cannot send metrics and spans to a collector (otlp.endpoint)")]
    Export(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The password of the proxy cannot be had.
    #[error("no peer can be dialled with transport.proxy_password_file")]
    ProxyPassword(#[from] super::proxy_password::ProxyPasswordError),
    /// The system gives no thread, signal handler or descriptor.
    #[error("cannot {action}")]
    System {
        /// What was tried.
        action: &'static str,
        /// What the system said.
        source: io::Error,
    },
}

/// A node that is its own peer is told so wherever it comes to light.
impl From<StartError> for NodeError {
    fn from(error: StartError) -> Self {
        match error {
            StartError::OwnPeer { peer } => Self::OwnPeer { id: peer },
            error => Self::Network(error),
        }
    }
}

impl NodeError {
    /// Returns whether it stays so until a person mends it, however often the node is started.
    pub(crate) fn is_for_good(&self) -> bool {
        match self {
            Self::Identity(_)
            | Self::OwnPeer { .. }
            | Self::Privileges { .. }
            | Self::ProxyPassword(_)
            | Self::NoGateway { .. }
            | Self::NotEthernet { .. } => true,
            Self::Metrics(error) => matches!(error, MetricsError::Token(_)),
            Self::Network(error) => matches!(error, StartError::Address(_)),
            _ => false,
        }
    }
}
