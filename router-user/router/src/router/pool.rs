//! Where a router's streams come from.

use std::error::Error;
use std::fmt;

use futures::future::BoxFuture;
use futures::{AsyncWrite, AsyncWriteExt};
use libp2p_identity::PeerId;

use crate::egress::lane_stream::LaneStream;

/// Opens, closes and lists streams to peers.
///
/// A stream is reliable and in order, and carries what the router writes to that one peer: frames, as
/// [`receive::Decoder`](crate::receive::Decoder) reads them. The router holds each of its streams itself and writes to it
/// from one task. It asks for another when one fails, and waits longer each time that fails too.
pub trait StreamPool: Send + Sync + 'static {
    /// A stream that is open. Dropping it without [`StreamPool::close`] means that it failed.
    type Stream: AsyncWrite + Send + Unpin + 'static;

    /// Opens another stream to `peer`.
    ///
    /// # Errors
    /// There is none to be had now.
    fn open(&self, peer: PeerId) -> BoxFuture<'_, Result<Self::Stream, PoolError>>;

    /// Opens another stream to `peer`, which is `place` among those of its lane.
    ///
    /// The router calls this one. All packets of a flow go through one lane, so a pool that tells the other side the
    /// `place` lets it read a lane's streams one after the other, and keep the order of a flow when a stream is lost that
    /// was not read to its end. Without that, as [`StreamPool::open`] alone does it, a receiver has to read a stream to
    /// its end, or leave it, before it reads one that was opened later.
    ///
    /// # Errors
    /// There is none to be had now.
    fn open_in_lane(
        &self,
        peer: PeerId,
        place: LaneStream,
    ) -> BoxFuture<'_, Result<Self::Stream, PoolError>> {
        let _ = place;
        self.open(peer)
    }

    /// Closes a stream to `peer` of which nothing more is needed; all that was written is to arrive.
    ///
    /// # Errors
    /// It is not known to have arrived.
    fn close(&self, peer: PeerId, mut stream: Self::Stream) -> BoxFuture<'_, Result<(), PoolError>> {
        let _ = peer;
        Box::pin(async move { stream.close().await.map_err(PoolError::new) })
    }

    /// Returns the streams to `peer` that are open, each by a name to show; other users' streams among them.
    fn list(&self, peer: PeerId) -> Vec<String>;
}

/// Why a [`StreamPool`] could not do what was asked.
#[derive(Debug)]
pub struct PoolError(Box<dyn Error + Send + Sync>);

impl PoolError {
    /// Makes an error with this cause.
    pub fn new(cause: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self(cause.into())
    }
}

impl fmt::Display for PoolError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the pool has no stream")
    }
}

impl Error for PoolError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(self.0.as_ref())
    }
}
