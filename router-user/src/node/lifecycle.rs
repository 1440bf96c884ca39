//! A node from start to stop, and the order of both.

use std::sync::Arc;
use std::time::{Duration, Instant};

use libp2p::PeerId;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::connections::Connections;
use super::counters::Counters;
use super::data_thread::DataThread;
use super::error::NodeError;
use super::forwarder::Forwarder;
use super::peers::PeerTable;
use super::receiver::Receivers;
use super::status::StatusSource;
use super::{uncaptured, worker};
use crate::config::Config;
use crate::control::server::ControlServer;
use crate::device::rate_limit::RateLimit;
use crate::device::tun::{Tun, TunConfig};
use crate::kernel::object::{Kernel, KernelConfig};
use crate::p2p::identity;
use crate::p2p::swarm::{Network, NetworkConfig, NetworkHandle};

/// Workers of a node; each has a ring.
const N_WORKERS: u32 = 8;

/// How long a stopping node tries to deliver what it has accepted.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(2);

/// A running node. Dropping it takes everything down at once; [`Node::stop`] delivers first.
pub struct Node {
    // Dropped in this order: no way in, then the tasks, then what they use.
    control: ControlServer,
    status: Arc<StatusSource>,
    network: NetworkHandle,
    stop_workers: CancellationToken,
    finish_senders: CancellationToken,
    workers: JoinSet<()>,
    connections: JoinSet<()>,
    _data_thread: DataThread,
    kernel: Arc<Kernel>,
    _tun: Arc<Tun>,
}

impl Node {
    /// Brings everything up, or nothing.
    ///
    /// # Errors
    /// [`NodeError`] says which part could not be had and what to do; what had been made is gone again.
    pub async fn start(config: &Config) -> Result<Self, NodeError> {
        todo!()
    }
}
