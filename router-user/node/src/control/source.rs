//! The interface through which the control socket and the metrics server ask the node.

use std::error::Error;

use tokio::sync::{mpsc, oneshot};

use super::{
    CaptureQuery, CaptureStream, CounterList, EventList, FlowList, FlowQuery, InviteStatus, PeerList,
    ReloadRequest, RouteList, Status, StreamList, WorkerList,
};

/// What went to and came from all peers together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TrafficTotals {
    /// Frames sent.
    pub tx_frames: u64,
    /// Bytes of these frames.
    pub tx_bytes: u64,
    /// Frames injected.
    pub rx_frames: u64,
    /// Bytes of these frames.
    pub rx_bytes: u64,
}

/// The source of the answers.
pub trait Source: Send + Sync + 'static {
    /// Returns the node as a whole.
    fn status(&self) -> Status;

    /// Returns every peer.
    fn peers(&self) -> PeerList;

    /// Returns what went to and came from all peers together, without a list of them.
    fn traffic(&self) -> TrafficTotals;

    /// Returns the flows of a query. Reads the kernel's whole table: to be called where blocking is allowed.
    ///
    /// # Errors
    /// The query names a peer that is not there, or the table cannot be read.
    fn flows(&self, query: &FlowQuery) -> Result<FlowList, SourceError>;

    /// Returns every worker.
    fn workers(&self) -> WorkerList;

    /// Returns the invite to the node.
    fn invite(&self) -> InviteStatus;

    /// Returns the last events.
    fn events(&self) -> EventList;

    /// Returns every stream on which the node sends.
    fn streams(&self) -> StreamList;

    /// Returns every counter.
    ///
    /// # Errors
    /// The kernel's counters cannot be read.
    fn counters(&self) -> Result<CounterList, SourceError>;

    /// Returns the kernel's prefix table. To be called where blocking is allowed.
    ///
    /// # Errors
    /// The table cannot be read.
    fn routes(&self) -> Result<RouteList, SourceError>;

    /// Begins a capture; its packets are taken from now on.
    ///
    /// # Errors
    /// The query names a peer that is not there, too many captures run, or there is nothing to capture.
    fn capture(&self, query: &CaptureQuery) -> Result<CaptureStream, SourceError> {
        let _ = query;
        Err(SourceError::Query("no packets pass here".to_owned()))
    }
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// The query makes no sense here.
    #[error("{0}")]
    Query(String),
    /// Too many requests of this kind run at once.
    #[error("{0}")]
    Busy(String),
    /// The data cannot be read.
    #[error("cannot be read")]
    Failed(#[from] Box<dyn Error + Send + Sync>),
}

/// A request for another number of workers, or of streams per peer.
#[derive(Debug)]
pub struct ScaleRequest {
    /// How many shall be active.
    pub n_active: u32,
    /// Told once they are, or why not.
    pub reply: oneshot::Sender<Result<(), String>>,
}

/// Who takes requests.
#[derive(Clone, Debug)]
pub struct ControlRequests {
    /// For another number of workers.
    pub workers: mpsc::Sender<ScaleRequest>,
    /// For another number of streams to each peer.
    pub streams: mpsc::Sender<ScaleRequest>,
    /// To read the configuration file again, if there is one.
    pub reload: Option<mpsc::Sender<ReloadRequest>>,
}
