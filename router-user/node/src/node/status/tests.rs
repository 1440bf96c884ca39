use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::super::peers::{NodePeer, QUEUE_LIMITS};
use super::*;
use stream_router::egress::lanes::PeerLanes;
use stream_router::p2p::{ConnectionId, FailedDial};
use stream_router_engine::route_table::PeerIndex;

/// Makes a peer of a configuration, without a connection, that is dialled.
pub(in crate::node) fn configured(index: u32) -> ConfiguredPeer {
    let lanes = PeerLanes::new(4, 2, QUEUE_LIMITS, Box::new(|_| {}));
    ConfiguredPeer {
        peer: Arc::new(NodePeer::new(PeerIndex(index), PeerId::random(), lanes)),
        name: None,
        comment: None,
        allowed_ips: vec!["10.42.0.2/32".parse().unwrap()],
        addresses: vec!["/ip4/192.0.2.2/tcp/4001".parse().unwrap()],
        on_demand: false,
        rate: None,
    }
}

/// Makes a connection that this node has dialled.
pub(in crate::node) fn connection() -> ConnectionSnapshot {
    connection_at("/ip4/192.0.2.2/tcp/4001", ConnectionDirection::Outbound, 60)
}

pub(super) fn connection_at(
    address: &str,
    direction: ConnectionDirection,
    age_secs: u64,
) -> ConnectionSnapshot {
    let (id, address) = (ConnectionId::new_unchecked(1), address.parse().unwrap());
    let mut connection = ConnectionSnapshot::new(id, address, direction);
    connection.since = SystemTime::now() - Duration::from_secs(age_secs);
    connection.rtt = Some(Duration::from_millis(2));
    connection
}

fn snapshot(configured: &ConfiguredPeer, connections: Vec<ConnectionSnapshot>) -> NetworkSnapshot {
    let mut snapshot = NetworkSnapshot::new(PeerId::random());
    let mut peer = PeerSnapshot::new(configured.peer.id);
    peer.connections = connections;
    peer.last_dial_error = Some("refused".to_owned());
    peer.failed = vec![FailedDial::now(
        "/ip4/192.0.2.2/tcp/4001".parse().unwrap(),
        "refused there".to_owned(),
    )];
    snapshot.peers.push(peer);
    snapshot
}

#[test]
fn a_peer_without_a_connection_is_dialled_or_waited_for() {
    let mut configured = configured(0);
    let snapshot = snapshot(&configured, Vec::new());

    let connecting = peer_status(&configured, snapshot.peers.first());
    let addresses = std::mem::take(&mut configured.addresses);
    let disconnected = peer_status(&configured, snapshot.peers.first());

    configured.addresses = addresses;
    configured.on_demand = true;
    let idle = peer_status(&configured, snapshot.peers.first());
    assert!(configured.peer.absence.want(Instant::now()));
    let wanted = peer_status(&configured, snapshot.peers.first());

    assert_eq!(idle.state, PeerState::Idle);
    assert_eq!(wanted.state, PeerState::Connecting);
    assert_eq!(connecting.state, PeerState::Connecting);
    assert_eq!(disconnected.state, PeerState::Disconnected);
    assert_eq!(connecting.address, None);
    assert_eq!(connecting.handshake_age_seconds, None);
    assert_eq!(connecting.last_dial_error.as_deref(), Some("refused"));
    let [address] = &connecting.addresses[..] else {
        panic!("one address");
    };
    assert_eq!(address.address, "/ip4/192.0.2.2/tcp/4001");
    assert_eq!(address.last_dial_error.as_deref(), Some("refused there"));
    assert!((0.0..60.0).contains(&address.last_dial_error_age_seconds.unwrap()));
    assert_eq!(disconnected.addresses, []);
}

#[test]
fn a_connected_peer_shows_its_oldest_connection_and_the_age_of_the_newest() {
    let configured = configured(0);
    let quic = "/ip4/192.0.2.2/udp/4001/quic-v1";
    let newer = connection_at(quic, ConnectionDirection::Inbound, 10);
    let snapshot = snapshot(&configured, vec![connection(), newer]);

    let before = peer_status(&configured, snapshot.peers.first());
    configured.peer.connected.store(true, Relaxed);
    let status = peer_status(&configured, snapshot.peers.first());

    assert_eq!(before.state, PeerState::Connecting);
    assert_eq!(status.state, PeerState::Connected);
    assert_eq!(status.address.as_deref(), Some("/ip4/192.0.2.2/tcp/4001"));
    assert_eq!(status.transport, Some(control::Transport::Tcp));
    assert_eq!(status.path, Some(control::PeerPath::Direct));
    assert_eq!(status.direction, Some(control::Direction::Outbound));
    assert_eq!(status.rtt_ms, Some(2.0));
    assert_eq!(status.connections, 2);
    let age = status.handshake_age_seconds.unwrap();
    assert!((10.0..40.0).contains(&age), "{age}");
}

#[test]
fn an_invite_says_what_the_status_says_or_why_there_is_none() {
    let mut snapshot = NetworkSnapshot::new(PeerId::random());
    let device = ["10.42.0.1/24".parse().unwrap()];
    let invite =
        |snapshot: &NetworkSnapshot, listens| invite_status(snapshot, Some("rome"), (listens, true), &device);
    snapshot.listening = vec!["/ip4/127.0.0.1/tcp/4001".parse().unwrap()];
    let hidden = invite(&snapshot, true);
    let dialling = invite(&snapshot, false);

    snapshot
        .listening
        .push("/ip4/192.0.2.1/tcp/4001".parse().unwrap());
    let open = invite(&snapshot, true);

    assert_eq!(hidden.invite, None);
    assert!(
        hidden
            .problem
            .unwrap()
            .contains("no address that others can dial")
    );
    assert_eq!(dialling.addresses, [] as [&str; 0]);
    let read: Invite = open.invite.unwrap().parse().unwrap();
    assert_eq!((read.id(), read.name()), (snapshot.local_peer, Some("rome")));
    assert!(read.relays());
    assert_eq!(open.addresses, ["/ip4/192.0.2.1/tcp/4001"]);
    assert_eq!(open.allowed_ips, ["10.42.0.1/32"]);
    assert!(open.qr.unwrap().size > 20 && open.problem.is_none());
    assert!(dialling.invite.unwrap().parse::<Invite>().is_ok());
}

#[test]
fn streams_are_shown_that_take_flows_or_are_open_still() {
    let configured = configured(0);
    let peer = &configured.peer;
    let shown = |connections| {
        let snapshot = snapshot(&configured, connections);
        stream_statuses(&configured, snapshot.peers.first())
            .map(|stream| (stream.index, stream.state, stream.open, stream.transport))
            .collect::<Vec<_>>()
    };
    let tcp = Some(control::Transport::Tcp);

    let closed = (StreamState::Active, false, None);
    assert_eq!(
        shown(vec![connection()]),
        [
            (0, closed.0, closed.1, closed.2),
            (1, closed.0, closed.1, closed.2)
        ]
    );
    peer.lanes.all()[3].open.store(true, Relaxed);
    assert_eq!(shown(vec![connection()])[2], (3, StreamState::Retired, true, tcp));
}
