//! How the rest of the node talks to the network.

use std::{io, sync::Arc};

use libp2p::{PeerId, swarm::ConnectionId};
use tokio::{
    sync::{mpsc, oneshot},
    time::timeout,
};
use tokio_util::sync::CancellationToken;

use super::{
    Announcement, DataStream, MAX_STREAMS_PER_SIDE, OPEN_TIMEOUT, PeerConfig, Snapshot, StartError,
    connections::{Connections, OpenRequest},
    dht::{LOOKUP_TIMEOUT, MAX_LOOKUPS},
    network::check_peers,
};

/// Why a stream could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The connection is gone.
    #[error("the connection is closed")]
    NotConnected,
    /// We have as many streams on this connection as we may.
    #[error("the connection has {MAX_STREAMS_PER_SIDE} streams of ours already")]
    TooManyStreams,
    /// The peer did not answer in time.
    #[error("the peer did not accept the stream within {OPEN_TIMEOUT:?}")]
    TimedOut,
    /// The peer answered that it does not speak the protocol.
    #[error(
        "the peer does not speak {}; it needs a version of stream-router that does",
        super::IP_PROTOCOL
    )]
    Unsupported,
    /// The connection failed meanwhile.
    #[error("the connection failed")]
    Io(#[source] io::Error),
}

/// Why the DHT could not be asked.
#[derive(Debug, thiserror::Error)]
pub enum LookupError {
    /// The network was started without it.
    #[error("the DHT is off; start the network with it, as `[discovery] dht = true` does")]
    Off,
    /// As many questions are open as may be.
    #[error("{MAX_LOOKUPS} questions to the DHT are open already")]
    Busy,
    /// No peer is connected that could be asked.
    #[error("no peer is connected that could be asked")]
    Alone,
    /// Not every node that was asked answered in time, and none had a record.
    #[error("the DHT did not answer within {LOOKUP_TIMEOUT:?}")]
    TimedOut,
    /// The network was shut down.
    #[error("the network has ended")]
    Ended,
}

/// A handle on a running network. Cheap to clone; when the last one is dropped the network shuts down.
#[derive(Clone, Debug)]
pub struct NetworkHandle {
    pub(super) connections: Arc<Connections>,
    pub(super) requests: mpsc::Sender<Request>,
    pub(super) stop: CancellationToken,
}

/// What the driver is asked to do.
#[derive(Debug)]
pub(super) enum Request {
    Close(ConnectionId),
    DialAnother(PeerId),
    SetPeers(Vec<PeerConfig>, oneshot::Sender<()>),
    FindAnnouncement(PeerId, oneshot::Sender<Result<Option<Announcement>, LookupError>>),
}

impl NetworkHandle {
    /// Our own id.
    pub fn local_peer(&self) -> PeerId {
        self.connections.local_peer
    }

    /// Opens a stream of [`IP_PROTOCOL`](super::IP_PROTOCOL) on a connection.
    ///
    /// Returns when the peer has agreed to the protocol. It may still reset the stream afterwards when it has too many.
    /// The stream is best used on the runtime of its connection.
    ///
    /// # Errors
    ///
    /// When the connection is gone or full, or the peer refuses or does not answer within [`OPEN_TIMEOUT`].
    pub async fn open_stream(&self, connection: ConnectionId) -> Result<DataStream, OpenError> {
        let opener = self
            .connections
            .opener(connection)
            .ok_or(OpenError::NotConnected)?;
        let slot = opener
            .slots
            .try_acquire_owned()
            .map_err(|_all_taken| OpenError::TooManyStreams)?;
        let (reply, answer) = oneshot::channel();
        let request = OpenRequest { slot, reply };
        opener.requests.try_send(request).map_err(|error| match error {
            mpsc::error::TrySendError::Closed(_) => OpenError::NotConnected,
            mpsc::error::TrySendError::Full(_) => OpenError::TooManyStreams,
        })?;
        match timeout(OPEN_TIMEOUT, answer).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_connection_dropped)) => Err(OpenError::NotConnected),
            Err(_elapsed) => Err(OpenError::TimedOut),
        }
    }

    /// Closes a connection. Its peer is redialled if it was the last one and the peer has addresses.
    ///
    /// Returns when the wish is handed over; the connection is closed when
    /// [`NetworkEvent::Disconnected`](super::NetworkEvent::Disconnected) arrives.
    pub async fn close_connection(&self, connection: ConnectionId) {
        // An error says that the network has ended, and all connections with it.
        let _ended = self.requests.send(Request::Close(connection)).await;
    }

    /// Dials a connected peer once more, at the address of the oldest TCP connection to it that we dialled. Returns
    /// whether there is one; without, nothing happens.
    ///
    /// It is tried once, and [`NetworkEvent::Connected`](super::NetworkEvent::Connected) tells when that succeeded.
    pub async fn dial_another(&self, peer: PeerId) -> bool {
        let reachable = self.connections.dialled_over_tcp(peer).is_some();
        reachable && self.requests.send(Request::DialAnother(peer)).await.is_ok()
    }

    /// Says whether [`NetworkHandle::set_peers`] would take these peers.
    ///
    /// # Errors
    /// The peers contradict themselves.
    pub fn check_peers(&self, peers: &[PeerConfig]) -> Result<(), StartError> {
        check_peers(self.local_peer(), peers).map(drop)
    }

    /// Has these peers from now on, and no others. One that is new is dialled, one that is not among them is
    /// disconnected; one that stays keeps its connections, whatever its addresses are now.
    ///
    /// Returns when that is decided; the events follow.
    ///
    /// # Errors
    /// The peers contradict themselves; nothing has changed then.
    pub async fn set_peers(&self, peers: Vec<PeerConfig>) -> Result<(), StartError> {
        check_peers(self.local_peer(), &peers)?;
        let (reply, done) = oneshot::channel();
        if self.requests.send(Request::SetPeers(peers, reply)).await.is_ok() {
            // An error says that the network has ended, and has no peers any more.
            let _ended = done.await;
        }
        Ok(())
    }

    /// Asks the DHT for what a peer says of itself. The answer is verified to be that peer's; `None` if no node that was
    /// asked has one.
    ///
    /// # Errors
    /// Nobody could be asked, or nobody answered in time.
    pub async fn find_announcement(&self, peer: PeerId) -> Result<Option<Announcement>, LookupError> {
        let (reply, answer) = oneshot::channel();
        let request = Request::FindAnnouncement(peer, reply);
        self.requests
            .send(request)
            .await
            .map_err(|_ended| LookupError::Ended)?;
        answer.await.unwrap_or(Err(LookupError::Ended))
    }

    /// The peers, their connections, and what went wrong so far.
    pub fn snapshot(&self) -> Snapshot {
        self.connections.snapshot()
    }

    /// Tells the network to close everything and end. [`NetworkDriver::run`](super::NetworkDriver::run) returns when
    /// that is done.
    pub fn shutdown(&self) {
        self.stop.cancel();
    }
}
