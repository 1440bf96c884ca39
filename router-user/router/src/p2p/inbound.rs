//! What the embedding program gives connections: a receiver of their streams, and a runtime to run on.

use std::sync::{Arc, Mutex, PoisonError};

use libp2p::{PeerId, swarm::ConnectionId};
use tokio::runtime::Handle;
use tracing::Span;

use super::stream::DataStream;

/// Receives the streams that peers open.
pub trait InboundStreams: Send + Sync {
    /// Takes a stream.
    ///
    /// It is called on the task of the stream's connection, so a task that `tokio::spawn` starts here runs on the
    /// connection's runtime. It must return soon: the connection stands still meanwhile.
    fn accept(&self, peer: PeerId, connection: ConnectionId, stream: DataStream);
}

/// Names the runtime that a new connection of a peer runs on, given the runtimes of the peer's other connections. The
/// runtime must have I/O and time enabled.
pub type Placement = Arc<dyn Fn(PeerId, &[Handle]) -> Handle + Send + Sync>;

/// The place of the swarm's next task, when that is the task of a connection.
///
/// The swarm spawns the task of a connection right after the last behaviour has agreed to the connection, on the same
/// thread.
#[derive(Clone, Default)]
pub(super) struct NextConnectionTask(Arc<Mutex<Option<(Handle, Span)>>>);

impl NextConnectionTask {
    /// Returns the runtime and the span of the next task, or `None` if it is not the task of a connection.
    pub(super) fn take(&self) -> Option<(Handle, Span)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Sets the runtime and the span of the next task.
    pub(super) fn set(&self, runtime: Handle, span: Span) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some((runtime, span));
    }
}
