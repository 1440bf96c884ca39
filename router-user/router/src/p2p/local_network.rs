//! mDNS within bounds, which finds the peers on the local network.
//!
//! Every host there can claim any number of peers and addresses, and libp2p's behaviour remembers them all for as long as
//! the host says. When it knows too many, it is thrown away, and a new one begins after a pause.

use std::{
    collections::HashSet,
    future::Future,
    io,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use libp2p::{
    Multiaddr, PeerId,
    core::{Endpoint, transport::ListenerId, transport::PortUse},
    mdns,
    swarm::{
        ConnectionDenied, ConnectionId, FromSwarm, ListenAddresses, NetworkBehaviour, NewListenAddr,
        THandler, THandlerInEvent, THandlerOutEvent, ToSwarm, dummy,
    },
};
use tokio::time::{Sleep, sleep};

/// Addresses that may be known at a time, of all libp2p programs on the local network.
const MAX_KNOWN: usize = 1024;

/// Time without mDNS after more addresses than [`MAX_KNOWN`] were claimed.
const PAUSE: Duration = Duration::from_secs(60);

/// How long other nodes may remember this one. Nodes ask three times as often.
const TTL: Duration = Duration::from_secs(180);
const QUERY_INTERVAL: Duration = Duration::from_secs(60);

/// A change of what is known of the local network.
#[derive(Debug)]
pub(super) enum LocalEvent {
    /// Peers are at these addresses, which end in their ids.
    Seen(Vec<(PeerId, Multiaddr)>),
    /// Peers have not said for long that they are at these addresses.
    Unseen(Vec<(PeerId, Multiaddr)>),
    /// All that was known is forgotten.
    Forgotten,
}

/// The behaviour that listens to mDNS, and answers with the addresses that the swarm listens on.
pub(super) struct LocalNetwork {
    local_peer: PeerId,
    listening: ListenAddresses,
    seen: HashSet<(PeerId, Multiaddr)>,
    state: MdnsState,
}

enum MdnsState {
    On(Box<mdns::tokio::Behaviour>),
    Paused(Pin<Box<Sleep>>),
}

impl LocalNetwork {
    /// Starts mDNS. The function must be called within a tokio runtime.
    pub(super) fn new(local_peer: PeerId) -> io::Result<Self> {
        Ok(Self {
            local_peer,
            listening: ListenAddresses::default(),
            seen: HashSet::new(),
            state: MdnsState::On(Box::new(start(local_peer)?)),
        })
    }

    /// Returns the addresses of a peer, in pairs as in [`LocalEvent::Seen`].
    pub(super) fn known(&self, peer: PeerId) -> Vec<(PeerId, Multiaddr)> {
        self.seen
            .iter()
            .filter(|(known, _)| *known == peer)
            .cloned()
            .collect()
    }

    fn pause(&mut self) {
        tracing::warn!(
            most = MAX_KNOWN,
            pause = ?PAUSE,
            "the local network claims too many libp2p addresses; mDNS pauses"
        );
        self.seen.clear();
        self.state = MdnsState::Paused(Box::pin(sleep(PAUSE)));
    }

    fn resume(&mut self) {
        self.state = match start(self.local_peer) {
            Ok(mut mdns) => {
                for addr in self.listening.iter() {
                    let listener_id = ListenerId::next();
                    mdns.on_swarm_event(FromSwarm::NewListenAddr(NewListenAddr { listener_id, addr }));
                }
                MdnsState::On(Box::new(mdns))
            }
            Err(error) => {
                tracing::warn!(%error, pause = ?PAUSE, "cannot start mDNS again");
                MdnsState::Paused(Box::pin(sleep(PAUSE)))
            }
        };
    }
}

fn start(local_peer: PeerId) -> io::Result<mdns::tokio::Behaviour> {
    let config = mdns::Config {
        ttl: TTL,
        query_interval: QUERY_INTERVAL,
        enable_ipv6: false,
    };
    mdns::tokio::Behaviour::new(config, local_peer)
}

impl NetworkBehaviour for LocalNetwork {
    type ConnectionHandler = dummy::ConnectionHandler;
    type ToSwarm = LocalEvent;

    fn handle_established_inbound_connection(
        &mut self,
        _connection: ConnectionId,
        _peer: PeerId,
        _local: &Multiaddr,
        _remote: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(dummy::ConnectionHandler)
    }

    fn handle_established_outbound_connection(
        &mut self,
        _connection: ConnectionId,
        _peer: PeerId,
        _address: &Multiaddr,
        _role: Endpoint,
        _port: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(dummy::ConnectionHandler)
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        self.listening.on_swarm_event(&event);
        if let MdnsState::On(mdns) = &mut self.state {
            mdns.on_swarm_event(event);
        }
    }

    fn on_connection_handler_event(
        &mut self,
        _peer: PeerId,
        _connection: ConnectionId,
        event: THandlerOutEvent<Self>,
    ) {
        match event {}
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<ToSwarm<LocalEvent, THandlerInEvent<Self>>> {
        loop {
            let event = match &mut self.state {
                MdnsState::Paused(over) => {
                    if over.as_mut().poll(cx).is_pending() {
                        return Poll::Pending;
                    }
                    self.resume();
                    continue;
                }
                MdnsState::On(mdns) if mdns.discovered_nodes().len() > MAX_KNOWN => {
                    self.pause();
                    LocalEvent::Forgotten
                }
                MdnsState::On(mdns) => match mdns.poll(cx) {
                    Poll::Ready(ToSwarm::GenerateEvent(mdns::Event::Discovered(seen))) => {
                        self.seen.extend(seen.iter().cloned());
                        LocalEvent::Seen(seen)
                    }
                    Poll::Ready(ToSwarm::GenerateEvent(mdns::Event::Expired(unseen))) => {
                        self.seen.retain(|known| !unseen.contains(known));
                        LocalEvent::Unseen(unseen)
                    }
                    // Other behaviours have no use for the addresses of strangers.
                    Poll::Ready(_) => continue,
                    Poll::Pending => return Poll::Pending,
                },
            };
            return Poll::Ready(ToSwarm::GenerateEvent(event));
        }
    }
}
