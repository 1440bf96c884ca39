//! The word that two nodes run with one key, which a peer that both have reached says to each: a node alone cannot know.
//!
//! To say it is to open a stream of [`DUPLICATE_PROTOCOL`], on which two addresses of 16 bytes follow, IPv4 as in IPv6: where
//! the peer sees the node that it tells, and where the other.

use std::{
    collections::{HashMap, VecDeque},
    convert::Infallible,
    fmt, io, iter,
    net::{IpAddr, Ipv6Addr},
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use futures::{AsyncReadExt, AsyncWriteExt, future::BoxFuture};
use libp2p::{
    Multiaddr, PeerId, Stream, StreamProtocol,
    core::{
        Endpoint,
        transport::PortUse,
        upgrade::{InboundUpgrade, OutboundUpgrade, UpgradeInfo},
    },
    swarm::{
        ConnectionDenied, ConnectionHandler, ConnectionHandlerEvent, ConnectionId, FromSwarm,
        NetworkBehaviour, NotifyHandler, SubstreamProtocol, THandler, THandlerInEvent, THandlerOutEvent,
        ToSwarm,
        handler::{ConnectionEvent, FullyNegotiatedInbound},
    },
};
use tokio::{sync::mpsc, time::Instant};

use super::{
    address::ip_of,
    instances::{Duplicate, Instances},
    limits::OPEN_TIMEOUT,
};

/// Name and version of the protocol whose stream says that another node runs with the key of the one that is told.
pub const DUPLICATE_PROTOCOL: StreamProtocol = StreamProtocol::new("/stream-router/duplicate/1");

/// How long connections that come after two nodes were seen are told as well: one of the two may just be coming.
const TELL_LATER: Duration = Duration::from_secs(10);

/// Length of what is said.
const WORD_LEN: usize = 32;

/// Where a node is seen that is told, and where the other one with its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Told {
    pub(super) own: IpAddr,
    pub(super) other: IpAddr,
}

impl Told {
    /// Returns what is said to the one of two nodes that is at `at`.
    fn to(at: IpAddr, duplicate: Duplicate) -> Self {
        let other = match duplicate.one == at {
            true => duplicate.other,
            false => duplicate.one,
        };
        Self { own: at, other }
    }

    fn encode(self) -> [u8; WORD_LEN] {
        let mut word = [0; WORD_LEN];
        for (place, address) in word.chunks_exact_mut(16).zip([self.own, self.other]) {
            let address = match address {
                IpAddr::V4(address) => address.to_ipv6_mapped(),
                IpAddr::V6(address) => address,
            };
            place.copy_from_slice(&address.octets());
        }
        word
    }

    fn decode(word: [u8; WORD_LEN]) -> Self {
        let word = u128_pair(word).map(|bits| IpAddr::from(Ipv6Addr::from_bits(bits)).to_canonical());
        let [own, other] = word;
        Self { own, other }
    }
}

fn u128_pair(word: [u8; WORD_LEN]) -> [u128; 2] {
    let (mut first, mut second) = ([0; 16], [0; 16]);
    first.copy_from_slice(&word[..16]);
    second.copy_from_slice(&word[16..]);
    [first, second].map(u128::from_be_bytes)
}

/// Tells peers of which two nodes were seen, and hears it of this node.
pub(super) struct DuplicatesBehaviour {
    instances: Arc<Instances>,
    seen: mpsc::Receiver<(PeerId, Duplicate)>,
    /// The addresses at which the peers of connections are.
    connections: HashMap<PeerId, HashMap<ConnectionId, IpAddr>>,
    latest: HashMap<PeerId, (Duplicate, Instant)>,
    pending: VecDeque<ToSwarm<Infallible, Told>>,
}

impl DuplicatesBehaviour {
    pub(super) fn new(instances: Arc<Instances>) -> Self {
        Self {
            seen: instances.report_to(),
            instances,
            connections: HashMap::new(),
            latest: HashMap::new(),
            pending: VecDeque::new(),
        }
    }

    fn tell(&mut self, peer: PeerId, connection: ConnectionId, at: IpAddr, duplicate: Duplicate) {
        self.pending.push_back(ToSwarm::NotifyHandler {
            peer_id: peer,
            handler: NotifyHandler::One(connection),
            event: Told::to(at, duplicate),
        });
    }

    fn handle_seen(&mut self, peer: PeerId, duplicate: Duplicate, now: Instant) {
        self.latest.retain(|_, (_, at)| now - *at < TELL_LATER);
        self.latest.insert(peer, (duplicate, now));
        let connections: Vec<_> = self
            .connections
            .get(&peer)
            .into_iter()
            .flatten()
            .map(|(id, at)| (*id, *at))
            .collect();
        for (connection, at) in connections {
            self.tell(peer, connection, at, duplicate);
        }
    }
}

impl NetworkBehaviour for DuplicatesBehaviour {
    type ConnectionHandler = DuplicatesHandler;
    type ToSwarm = Infallible;

    fn handle_established_inbound_connection(
        &mut self,
        _connection: ConnectionId,
        _peer: PeerId,
        _local: &Multiaddr,
        _remote: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(DuplicatesHandler::default())
    }

    fn handle_established_outbound_connection(
        &mut self,
        _connection: ConnectionId,
        _peer: PeerId,
        _address: &Multiaddr,
        _role: Endpoint,
        _port: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(DuplicatesHandler::default())
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        match event {
            FromSwarm::ConnectionEstablished(established) => {
                let (peer, connection) = (established.peer_id, established.connection_id);
                let Some(at) = ip_of(established.endpoint.get_remote_address()) else {
                    return;
                };
                self.connections.entry(peer).or_default().insert(connection, at);
                if let Some((duplicate, seen)) = self.latest.get(&peer).copied()
                    && seen.elapsed() < TELL_LATER
                {
                    self.tell(peer, connection, at, duplicate);
                }
            }
            FromSwarm::ConnectionClosed(closed) => {
                if let Some(connections) = self.connections.get_mut(&closed.peer_id) {
                    connections.remove(&closed.connection_id);
                    if connections.is_empty() {
                        self.connections.remove(&closed.peer_id);
                    }
                }
            }
            _ => {}
        }
    }

    fn on_connection_handler_event(
        &mut self,
        peer: PeerId,
        _connection: ConnectionId,
        told: THandlerOutEvent<Self>,
    ) {
        self.instances.handle_told(peer, told, Instant::now());
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<ToSwarm<Self::ToSwarm, THandlerInEvent<Self>>> {
        while let Poll::Ready(Some((peer, duplicate))) = self.seen.poll_recv(cx) {
            self.handle_seen(peer, duplicate, Instant::now());
        }
        self.pending.pop_front().map_or(Poll::Pending, Poll::Ready)
    }
}

impl fmt::Debug for DuplicatesBehaviour {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DuplicatesBehaviour").finish_non_exhaustive()
    }
}

/// Tells the peer of one connection, and hears it.
#[derive(Debug, Default)]
pub(super) struct DuplicatesHandler {
    to_tell: Option<Told>,
    heard: Option<Told>,
    was_heard: bool,
}

impl ConnectionHandler for DuplicatesHandler {
    type FromBehaviour = Told;
    type ToBehaviour = Told;
    type InboundProtocol = HearUpgrade;
    type OutboundProtocol = TellUpgrade;
    type InboundOpenInfo = ();
    type OutboundOpenInfo = ();

    fn listen_protocol(&self) -> SubstreamProtocol<Self::InboundProtocol> {
        SubstreamProtocol::new(HearUpgrade, ()).with_timeout(OPEN_TIMEOUT)
    }

    fn poll(
        &mut self,
        _cx: &mut Context<'_>,
    ) -> Poll<ConnectionHandlerEvent<Self::OutboundProtocol, (), Told>> {
        if let Some(told) = self.heard.take() {
            return Poll::Ready(ConnectionHandlerEvent::NotifyBehaviour(told));
        }
        if let Some(told) = self.to_tell.take() {
            let protocol = SubstreamProtocol::new(TellUpgrade(told), ()).with_timeout(OPEN_TIMEOUT);
            return Poll::Ready(ConnectionHandlerEvent::OutboundSubstreamRequest { protocol });
        }
        Poll::Pending
    }

    fn on_behaviour_event(&mut self, told: Told) {
        self.to_tell = Some(told);
    }

    fn on_connection_event(
        &mut self,
        event: ConnectionEvent<'_, Self::InboundProtocol, Self::OutboundProtocol>,
    ) {
        // A peer can say it as often as it likes. One that does not know the protocol is not told.
        if let ConnectionEvent::FullyNegotiatedInbound(FullyNegotiatedInbound { protocol: told, .. }) = event
            && !self.was_heard
        {
            self.was_heard = true;
            self.heard = Some(told);
        }
    }
}

/// Says it.
#[derive(Clone, Copy, Debug)]
pub(super) struct TellUpgrade(Told);

/// Hears it.
#[derive(Clone, Copy, Debug)]
pub(super) struct HearUpgrade;

impl UpgradeInfo for TellUpgrade {
    type Info = StreamProtocol;
    type InfoIter = iter::Once<StreamProtocol>;

    fn protocol_info(&self) -> Self::InfoIter {
        iter::once(DUPLICATE_PROTOCOL)
    }
}

impl OutboundUpgrade<Stream> for TellUpgrade {
    type Output = ();
    type Error = io::Error;
    type Future = BoxFuture<'static, io::Result<()>>;

    fn upgrade_outbound(self, mut stream: Stream, _protocol: StreamProtocol) -> Self::Future {
        let word = self.0.encode();
        Box::pin(async move {
            stream.write_all(&word).await?;
            stream.close().await
        })
    }
}

impl UpgradeInfo for HearUpgrade {
    type Info = StreamProtocol;
    type InfoIter = iter::Once<StreamProtocol>;

    fn protocol_info(&self) -> Self::InfoIter {
        iter::once(DUPLICATE_PROTOCOL)
    }
}

impl InboundUpgrade<Stream> for HearUpgrade {
    type Output = Told;
    type Error = io::Error;
    type Future = BoxFuture<'static, io::Result<Told>>;

    fn upgrade_inbound(self, mut stream: Stream, _protocol: StreamProtocol) -> Self::Future {
        Box::pin(async move {
            let mut word = [0; WORD_LEN];
            stream.read_exact(&mut word).await?;
            Ok(Told::decode(word))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn each_of_two_nodes_is_told_where_it_is_and_where_the_other() {
        let duplicate = Duplicate {
            one: ip("192.0.2.1"),
            other: ip("2001:db8::2"),
        };

        let told = |at: &str| Told::to(ip(at), duplicate);

        assert_eq!(told("192.0.2.1").other, duplicate.other);
        assert_eq!(told("2001:db8::2").other, duplicate.one);
        // One of the two by another address.
        assert_eq!(told("192.0.2.9").other, duplicate.one);
        for at in ["192.0.2.1", "2001:db8::2"] {
            assert_eq!(Told::decode(told(at).encode()), told(at));
        }
        assert_eq!(
            &told("192.0.2.1").encode()[..16],
            &[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 255, 255, 192, 0, 2, 1]
        );
    }
}
