//! Metrics, health and the status page: HTTP on a TCP socket, for programs and browsers; read-only without a token.
#![doc = include_str!("metrics/METRICS.md")]

mod access;
mod collect;
mod family;
mod guard;
mod health;
mod history;
mod page;
mod plain_text;
mod process;
mod routes;
mod server;
#[cfg(test)]
mod tests;
mod token;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use prometheus_client::registry::Registry;
use tokio::sync::mpsc;

use crate::control::{ReloadRequest, Source};
pub use access::Access;
pub use health::{CheckState, Health, HealthCheck};
pub use history::{History, Sample};
pub use server::MetricsServer;
pub use token::{Token, TokenError};

/// The sources of what the server shows.
#[derive(Clone)]
pub struct MetricsSources {
    /// The node.
    pub source: Arc<dyn Source>,
    /// Returns whether the node works. It must not block.
    pub health: Arc<dyn Fn() -> Health + Send + Sync>,
    /// Which token lets clients change something.
    pub access: Access,
    /// Who takes requests to read the configuration file again, if there is one.
    pub reloads: Option<mpsc::Sender<ReloadRequest>>,
    /// Number of flows that the connection table has room for.
    pub max_flows: u32,
    /// Metrics that other parts keep, under their complete names.
    pub others: Arc<Registry>,
}

/// Why metrics cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum MetricsError {
    /// The address cannot be listened on.
    #[error("cannot listen on {address}; give this node another metrics.listen")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// The token cannot be had.
    #[error("nobody can be let in by metrics.token_file")]
    Token(#[from] TokenError),
    /// The system gives no thread.
    #[error("cannot start the thread that serves metrics")]
    Thread(#[source] io::Error),
}
