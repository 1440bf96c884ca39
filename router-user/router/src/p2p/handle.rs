//! The handle with which a program talks to its network.

use std::sync::Arc;

use libp2p::{Multiaddr, PeerId, swarm::ConnectionId};
use tokio::{
    sync::{mpsc, oneshot},
    time::timeout,
};
use tokio_util::sync::CancellationToken;

use super::{
    announcement::Announcement,
    config::{PeerConfig, RelayRates, check_peers, check_relays},
    counters::NetworkCounters,
    error::{LookupError, OpenError, StartError},
    limits::OPEN_TIMEOUT,
    reach::ReachSnapshot,
    snapshot::NetworkSnapshot,
    state::{NetworkState, OpenStreamRequest},
    stream::DataStream,
};
use crate::egress::lane_stream::LaneStream;

/// Most addresses at which routers forward to a node.
pub const MAX_MAPPED_ADDRESSES: usize = 4;

/// A handle on a running network. Cheap to clone; when the last one is dropped the network shuts down.
#[derive(Clone, Debug)]
pub struct NetworkHandle {
    pub(super) state: Arc<NetworkState>,
    pub(super) requests: mpsc::Sender<DriverRequest>,
    pub(super) stop: CancellationToken,
}

/// A request to the driver.
#[derive(Debug)]
pub(super) enum DriverRequest {
    Close(ConnectionId),
    DialAnother(PeerId),
    DialWanted(PeerId),
    /// The peers, the relays if they are to be others, and who waits.
    SetPeers(Vec<PeerConfig>, Option<Vec<PeerId>>, oneshot::Sender<()>),
    SetMapped(Vec<Multiaddr>),
    SetRelayRates(RelayRates),
    FindAnnouncement(PeerId, oneshot::Sender<Result<Option<Announcement>, LookupError>>),
}

impl NetworkHandle {
    /// Returns the id of this node.
    pub fn local_peer(&self) -> PeerId {
        self.state.local_peer
    }

    /// Opens a stream of [`IP_PROTOCOL`](super::IP_PROTOCOL) on a connection. The peer reads it as it comes, whatever
    /// other streams there are.
    ///
    /// Returns when the peer has agreed to the protocol. The peer may still reset the stream afterwards when it has too
    /// many. The stream is best used on the runtime of its connection.
    ///
    /// # Errors
    ///
    /// Returns an error if the connection is gone or full, or the peer refuses or does not answer within
    /// 5 s.
    pub async fn open_stream(&self, connection: ConnectionId) -> Result<DataStream, OpenError> {
        self.open(connection, None).await
    }

    /// Opens a stream of [`LANE_PROTOCOL`](super::LANE_PROTOCOL) on a connection, which is `place` among those of its
    /// lane. The peer reads it after those with a lower number, on whatever connection they are.
    ///
    /// With a peer that knows only [`IP_PROTOCOL`](super::IP_PROTOCOL) it is a stream of that protocol. Otherwise it is as
    /// with [`NetworkHandle::open_stream`].
    ///
    /// # Errors
    /// As those of [`NetworkHandle::open_stream`].
    pub async fn open_stream_in_lane(
        &self,
        connection: ConnectionId,
        place: LaneStream,
    ) -> Result<DataStream, OpenError> {
        self.open(connection, Some(place)).await
    }

    async fn open(
        &self,
        connection: ConnectionId,
        place: Option<LaneStream>,
    ) -> Result<DataStream, OpenError> {
        let opener = self.state.opener(connection).ok_or(OpenError::NotConnected)?;
        let slot = opener.slots.take()?;
        let (reply, answer) = oneshot::channel();
        let request = OpenStreamRequest { place, slot, reply };
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

    /// Closes a connection. If it was the last one to its peer and the peer has addresses, the peer is dialled again.
    ///
    /// Returns when the request is handed over; the connection is closed when
    /// [`NetworkEvent::Disconnected`](super::NetworkEvent::Disconnected) arrives.
    pub async fn close_connection(&self, connection: ConnectionId) {
        // An error says that the network has ended, and all connections with it.
        let _ended = self.requests.send(DriverRequest::Close(connection)).await;
    }

    /// Dials a connected peer once more, at the address of the oldest TCP connection that this node dialled to it. Returns
    /// whether there is such a connection; if not, nothing happens.
    ///
    /// The peer is dialled once, and [`NetworkEvent::Connected`](super::NetworkEvent::Connected) tells when that succeeded.
    pub async fn dial_another(&self, peer: PeerId) -> bool {
        let reachable = self.state.dialled_over_tcp(peer).is_some();
        if reachable {
            self.state.want_another(peer);
        }
        reachable && self.requests.send(DriverRequest::DialAnother(peer)).await.is_ok()
    }

    /// Says how many connections to a peer are to stand; one, unless it was said or [`NetworkHandle::dial_another`] asked for
    /// more. Those beyond the number that this node has dialled are left a minute after they were made; see
    /// [`NetworkEvent::Leaving`](super::NetworkEvent::Leaving).
    pub fn want_connections(&self, peer: PeerId, n_wanted: usize) {
        self.state.set_wanted(peer, n_wanted);
    }

    /// Says that something waits to be sent to a peer. If the peer is absent it is dialled at once, if that has not just been
    /// done, and about every second for the next 10 s.
    pub async fn dial_wanted(&self, peer: PeerId) {
        // An error says that the network has ended.
        let _ended = self.requests.send(DriverRequest::DialWanted(peer)).await;
    }

    /// Checks that [`NetworkHandle::set_peers`] would take these peers.
    ///
    /// # Errors
    /// Returns an error if the peers contradict each other.
    pub fn check_peers(&self, peers: &[PeerConfig]) -> Result<(), StartError> {
        check_peers(self.local_peer(), peers).map(drop)
    }

    /// Replaces the peers of the network. A new peer is dialled, and a peer that is not among `peers` is disconnected; a
    /// peer that stays keeps its connections, whatever its addresses are now.
    ///
    /// Returns when the new peers are in force; the events follow.
    ///
    /// # Errors
    /// Returns an error if the peers contradict each other; nothing has changed then.
    pub async fn set_peers(&self, peers: Vec<PeerConfig>) -> Result<(), StartError> {
        self.replace(peers, None).await
    }

    /// Replaces the peers of the network, and the relays through which this node is reached ([`RelayConfig::via`](super::RelayConfig::via)). A new relay is
    /// asked for a place as soon as it is connected. Through one that is not among `via` nobody gets in any more; connections that
    /// lead through it stay until there is another way.
    ///
    /// # Errors
    /// Returns an error if the peers contradict each other, or a relay is none of them or one too many; nothing has changed then.
    pub async fn set_peers_and_relays(
        &self,
        peers: Vec<PeerConfig>,
        via: Vec<PeerId>,
    ) -> Result<(), StartError> {
        self.check_peers_and_relays(&peers, &via)?;
        self.replace(peers, Some(via)).await
    }

    /// Checks that [`NetworkHandle::set_peers_and_relays`] would take these peers and relays.
    ///
    /// # Errors
    /// As those of [`NetworkHandle::set_peers_and_relays`].
    pub fn check_peers_and_relays(&self, peers: &[PeerConfig], via: &[PeerId]) -> Result<(), StartError> {
        check_relays(via, &check_peers(self.local_peer(), peers)?)
    }

    async fn replace(&self, peers: Vec<PeerConfig>, via: Option<Vec<PeerId>>) -> Result<(), StartError> {
        check_peers(self.local_peer(), &peers)?;
        let (reply, done) = oneshot::channel();
        if self
            .requests
            .send(DriverRequest::SetPeers(peers, via, reply))
            .await
            .is_ok()
        {
            // An error says that the network has ended, and has no peers any more.
            let _ended = done.await;
        }
        Ok(())
    }

    /// Asks the DHT for what a peer says of itself. The answer is verified to be that peer's. Returns `None` if no node
    /// that was asked has a record of the peer.
    ///
    /// # Errors
    /// Returns an error if no node could be asked, or none answered in time.
    pub async fn find_announcement(&self, peer: PeerId) -> Result<Option<Announcement>, LookupError> {
        let (reply, answer) = oneshot::channel();
        let request = DriverRequest::FindAnnouncement(peer, reply);
        self.requests
            .send(request)
            .await
            .map_err(|_ended| LookupError::Ended)?;
        answer.await.unwrap_or(Err(LookupError::Ended))
    }

    /// Returns the addresses that this node listens on, as [`NetworkHandle::snapshot`] does, without a look at the peers.
    pub fn listening(&self) -> Vec<Multiaddr> {
        self.state.listening()
    }

    /// Says at which addresses routers forward to this node now, in place of what was said before. Peers are told of them:
    /// in the DHT, and before a direct connection. Of more than [`MAX_MAPPED_ADDRESSES`] the first count, and none that
    /// is inside the tunnel or of no use to others.
    pub async fn set_mapped(&self, mut addresses: Vec<Multiaddr>) {
        addresses.truncate(MAX_MAPPED_ADDRESSES);
        // An error says that the network has ended.
        let _ended = self.requests.send(DriverRequest::SetMapped(addresses)).await;
    }

    /// Sets the rates of what this node relays for its peers, also of the circuits that there are.
    pub async fn set_relay_rates(&self, rates: RelayRates) {
        // An error says that the network has ended.
        let _ended = self.requests.send(DriverRequest::SetRelayRates(rates)).await;
    }

    /// Returns the addresses at which routers forward to this node.
    pub fn mapped(&self) -> Vec<Multiaddr> {
        self.state.mapped()
    }

    /// Returns how this node is reached, as [`NetworkHandle::snapshot`] does, without a look at the peers.
    pub fn reach(&self) -> ReachSnapshot {
        self.state.reach()
    }

    /// Returns the counts of what was refused or failed, as [`NetworkHandle::snapshot`] does, without a look at the peers.
    pub fn counters(&self) -> NetworkCounters {
        self.state.counters.read()
    }

    /// Returns the peers, their connections, and the counts of what was refused or failed.
    pub fn snapshot(&self) -> NetworkSnapshot {
        self.state.snapshot()
    }

    /// Tells the network to close all connections and end. [`NetworkDriver::run`](super::NetworkDriver::run) returns when
    /// that is done.
    pub fn shutdown(&self) {
        self.stop.cancel();
    }
}
