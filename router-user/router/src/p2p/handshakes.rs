//! The inbound connections in their handshake. TCP and QUIC have places of their own, so that neither can take the
//! other's.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    net::IpAddr,
    pin::pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError, atomic::Ordering::Relaxed},
    time::Duration,
};

use libp2p::PeerId;
use tokio::{sync::oneshot, time::Instant};

use stream_router_engine::{
    handshake_room::{Entered, HandshakeRoom, HostNetwork, PlaceId, Progress},
    log_rate_limit::LogRateLimit,
};

use super::{
    address::{TransportKind, ip_of},
    config::PeerConfig,
    counters::LiveNetworkCounters,
    instances::Instances,
};

/// Networks of each peer that are remembered because it has come from there.
const SEEN_NETWORKS: usize = 4;

/// Time between two warnings of one kind.
const WARNING_INTERVAL: Duration = Duration::from_secs(60);

/// The inbound connections in their handshake.
#[derive(Debug)]
pub(super) struct Handshakes {
    /// Which starts of peers' nodes have shown themselves in a handshake.
    pub(super) instances: Arc<Instances>,
    state: Mutex<State>,
    pub(super) counters: Arc<LiveNetworkCounters>,
}

#[derive(Debug, Default)]
struct State {
    tcp: Room,
    quic: Room,
    peers: HashMap<PeerId, PeerNetworks>,
    /// The networks of all peers.
    known: HashSet<HostNetwork>,
}

#[derive(Debug, Default)]
struct Room {
    places: HandshakeRoom,
    /// Dropped when the connection has to leave its place.
    holders: HashMap<PlaceId, oneshot::Sender<()>>,
    displacements: LogRateLimit,
    validations: LogRateLimit,
}

/// Where a configured peer comes from.
#[derive(Debug, Default)]
struct PeerNetworks {
    configured: Vec<HostNetwork>,
    /// The latest comes last.
    seen: VecDeque<HostNetwork>,
}

/// The place of an inbound connection in its handshake, which is free once this is dropped.
#[derive(Debug)]
pub(super) struct Place {
    handshakes: Arc<Handshakes>,
    transport: TransportKind,
    place: PlaceId,
    displaced: Option<oneshot::Receiver<()>>,
}

/// A handshake that was given up because newer ones needed its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the handshake gave way to newer ones")]
pub(super) struct GaveWay;

impl Handshakes {
    pub(super) fn new(counters: Arc<LiveNetworkCounters>) -> Self {
        Self {
            instances: Arc::new(Instances::new(Arc::clone(&counters))),
            state: Mutex::default(),
            counters,
        }
    }

    /// Sets the configured peers. What is known of those that stay is kept.
    pub(super) fn set_peers<'a>(&self, peers: impl IntoIterator<Item = &'a PeerConfig>) {
        let mut state = self.state();
        let mut before = std::mem::take(&mut state.peers);
        state.peers = peers
            .into_iter()
            .map(|config| {
                let mut networks = before.remove(&config.peer).unwrap_or_default();
                let addresses = config.addresses.iter().filter_map(ip_of);
                networks.configured = addresses.map(HostNetwork::of).collect();
                (config.peer, networks)
            })
            .collect();
        state.know_networks();
    }

    /// Records that a configured peer is connected from `address`, or that its name stands for it.
    pub(super) fn handle_peer_at(&self, peer: PeerId, address: IpAddr) {
        let network = HostNetwork::of(address);
        let mut state = self.state();
        let Some(PeerNetworks { seen, .. }) = state.peers.get_mut(&peer) else {
            return;
        };
        if seen.back() == Some(&network) {
            return;
        }
        seen.retain(|known| *known != network);
        if seen.len() == SEEN_NETWORKS {
            seen.pop_front();
        }
        seen.push_back(network);
        state.know_networks();
    }

    /// Says whether a connection has to show first that it receives what is sent to its address, and counts it if so.
    pub(super) fn wants_validation(&self, transport: TransportKind, address: IpAddr, now: Instant) -> bool {
        let network = HostNetwork::of(address);
        let mut state = self.state();
        let is_known = state.known.contains(&network);
        let room = state.room(transport);
        let wanted = room.places.wants_validation(network, is_known);
        if wanted {
            self.counters.addresses_validated.fetch_add(1, Relaxed);
            if let Some(suppressed) = room.validations.due(now.into_std(), WARNING_INTERVAL) {
                tracing::warn!(
                    %address,
                    suppressed,
                    "many handshakes are begun at once; until there are fewer, each dialler has to answer from its address first",
                );
            }
        }
        wanted
    }

    /// Gives a place to an inbound connection, which another one may have to leave for it.
    pub(super) fn enter(
        self: &Arc<Self>,
        transport: TransportKind,
        address: IpAddr,
        progress: Progress,
        now: Instant,
    ) -> Place {
        let network = HostNetwork::of(address);
        let (holder, gone) = oneshot::channel();
        let mut state = self.state();
        let is_known = state.known.contains(&network);
        let room = state.room(transport);
        let Entered { place, displaced } = room.places.enter(network, is_known, progress);
        room.holders.insert(place, holder);
        if let Some(displaced) = displaced {
            room.holders.remove(&displaced);
            self.counters.handshakes_refused.fetch_add(1, Relaxed);
            if let Some(suppressed) = room.displacements.due(now.into_std(), WARNING_INTERVAL) {
                tracing::warn!(
                    %address,
                    %transport,
                    suppressed,
                    "more inbound connections are in their handshake than there is room for; older ones give way",
                );
            }
        }
        drop(state);
        Place {
            handshakes: Arc::clone(self),
            transport,
            place,
            displaced: Some(gone),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn room(&mut self, transport: TransportKind) -> &mut Room {
        match transport {
            // Circuits have places of their own, and none here.
            TransportKind::Tcp | TransportKind::Relay => &mut self.tcp,
            TransportKind::Quic => &mut self.quic,
        }
    }

    fn know_networks(&mut self) {
        let networks = self.peers.values();
        self.known = networks
            .flat_map(|peer| peer.configured.iter().chain(&peer.seen))
            .copied()
            .collect();
    }
}

impl Place {
    /// Does the work of a handshake, unless it has to give way before it is done.
    pub(super) async fn hold<T, E: From<GaveWay>>(
        mut self,
        work: impl AsyncFnOnce(&Self) -> Result<T, E>,
    ) -> Result<T, E> {
        let displaced = self.displaced.take();
        let gives_way = async {
            match displaced {
                Some(displaced) => drop(displaced.await),
                None => std::future::pending().await,
            }
        };
        let work = pin!(work(&self));
        tokio::select! {
            biased;
            done = work => done,
            () = gives_way => Err(GaveWay.into()),
        }
    }

    /// Records that the peer has begun to speak the protocol.
    pub(super) fn handle_speech(&self) {
        self.handle_progress(Progress::Spoke);
    }

    /// Records that the handshake has failed, so that it is the first of its network to give way.
    pub(super) fn handle_failure(&self) {
        self.handle_progress(Progress::Nothing);
    }

    /// Records that the other side has proved that it is `peer`.
    pub(super) fn handle_peer(&self, peer: PeerId) {
        let is_configured = self.handshakes.state().peers.contains_key(&peer);
        self.handle_progress(match is_configured {
            true => Progress::Proved,
            false => Progress::Nothing,
        });
    }

    fn handle_progress(&self, progress: Progress) {
        let mut state = self.handshakes.state();
        state
            .room(self.transport)
            .places
            .handle_progress(self.place, progress);
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut state = self.handshakes.state();
        let room = state.room(self.transport);
        room.places.leave(self.place);
        room.holders.remove(&self.place);
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use stream_router_engine::handshake_room::{PLACES_PER_NETWORK, STRANGER_PLACES};

    use super::*;

    fn ip(host: u8) -> IpAddr {
        Ipv4Addr::new(192, 0, 2, host).into()
    }

    fn handshakes() -> Arc<Handshakes> {
        Arc::new(Handshakes::new(Arc::default()))
    }

    fn silent(handshakes: &Arc<Handshakes>, transport: TransportKind, host: u8) -> Place {
        handshakes.enter(transport, ip(host), Progress::Nothing, Instant::now())
    }

    fn n_refused(handshakes: &Handshakes) -> u64 {
        handshakes.counters.read().handshakes_refused
    }

    #[tokio::test]
    async fn a_handshake_that_gives_way_ends_and_the_others_go_on() {
        let handshakes = handshakes();
        let oldest = silent(&handshakes, TransportKind::Tcp, 1);
        let rest: Vec<_> = (0..PLACES_PER_NETWORK)
            .map(|_| silent(&handshakes, TransportKind::Tcp, 1))
            .collect();

        let ended = oldest.hold(async |_| std::future::pending::<Result<(), GaveWay>>().await);
        assert_eq!(ended.await, Err(GaveWay));
        for place in rest {
            assert_eq!(place.hold(async |_| Ok::<_, GaveWay>(7)).await, Ok(7));
        }
        assert_eq!(n_refused(&handshakes), 1);
    }

    #[test]
    fn a_place_is_free_once_it_is_dropped() {
        let handshakes = handshakes();
        for _ in 0..10 * PLACES_PER_NETWORK {
            drop(silent(&handshakes, TransportKind::Quic, 1));
        }
        assert_eq!(n_refused(&handshakes), 0);
        let state = handshakes.state();
        assert_eq!((state.quic.places.n_taken(), state.quic.holders.len()), (0, 0));
    }

    #[test]
    fn each_transport_has_its_own_places() {
        let handshakes = handshakes();
        let held: Vec<_> = (0..STRANGER_PLACES as u8)
            .map(|host| silent(&handshakes, TransportKind::Tcp, host))
            .collect();

        let wants = |transport| handshakes.wants_validation(transport, ip(200), Instant::now());
        assert!(wants(TransportKind::Tcp));
        assert!(!wants(TransportKind::Quic));
        let _quic = silent(&handshakes, TransportKind::Quic, 200);
        assert_eq!(n_refused(&handshakes), 0);
        assert_eq!(handshakes.counters.read().addresses_validated, 1);
        drop(held);
    }

    #[test]
    fn networks_of_configured_peers_are_known_where_they_are_configured_and_where_they_came_from() {
        let handshakes = handshakes();
        let (peer, stranger) = (PeerId::random(), PeerId::random());
        let config = |host: u8| {
            let address = format!("/ip4/192.0.2.{host}/tcp/1").parse().expect("an address");
            PeerConfig::new(peer, vec![address])
        };
        handshakes.set_peers(&[config(1)]);
        handshakes.handle_peer_at(stranger, ip(9));
        for host in 2..8 {
            handshakes.handle_peer_at(peer, ip(host));
        }

        let is_known = |host| handshakes.state().known.contains(&HostNetwork::of(ip(host)));
        let known = |range: std::ops::Range<u8>| range.filter(|host| is_known(*host)).collect();
        let is: Vec<u8> = known(0..20);
        assert_eq!(is, [1, 4, 5, 6, 7]);

        handshakes.set_peers(&[config(2)]);
        let is: Vec<u8> = known(0..20);
        assert_eq!(
            is,
            [2, 4, 5, 6, 7],
            "a peer that stays is known where it came from"
        );
        handshakes.set_peers(&[]);
        assert!((0..20).all(|host| !is_known(host)));
    }
}
