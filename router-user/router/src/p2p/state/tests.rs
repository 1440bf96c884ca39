use std::{
    task::{Context, Waker},
    time::UNIX_EPOCH,
};

use super::{super::found::FoundBy, *};

fn address(port: u16) -> Multiaddr {
    format!("/ip4/192.0.2.1/tcp/{port}").parse().expect("an address")
}

fn connected(
    state: &NetworkState,
    id: usize,
    peer: PeerId,
    direction: ConnectionDirection,
    since_s: u64,
) -> ConnectionId {
    let connection = ConnectionId::new_unchecked(id);
    let since = UNIX_EPOCH + Duration::from_secs(since_s);
    state.insert_connection(connection, entry(peer, id, direction, since));
    connection
}

fn entry(peer: PeerId, id: usize, direction: ConnectionDirection, since: SystemTime) -> ConnectionEntry {
    let (requests, _no_task) = mpsc::channel(1);
    ConnectionEntry {
        peer,
        address: address(id as u16),
        direction,
        transport: TransportKind::Tcp,
        since,
        rtt: None,
        runtime: Handle::current(),
        opener: StreamOpener {
            requests,
            slots: Arc::default(),
        },
        inbound_slots: Arc::default(),
        life: Arc::default(),
        is_proven: true,
        is_leaving: false,
        is_silent: false,
        is_dark: false,
        is_punched: false,
        is_from_listening_port: false,
        uplink: UplinkId::FIRST,
        is_of_uplink: false,
        losses: Arc::default(),
    }
}

#[tokio::test]
async fn another_connection_goes_where_the_oldest_dialled_one_leads() {
    let (peer, other) = (PeerId::random(), PeerId::random());
    let state = NetworkState::new(PeerId::random(), [peer, other], Uplinks::default());
    connected(&state, 1, peer, ConnectionDirection::Inbound, 1);
    connected(&state, 2, peer, ConnectionDirection::Outbound, 3);
    let oldest = connected(&state, 3, peer, ConnectionDirection::Outbound, 2);
    connected(&state, 4, other, ConnectionDirection::Inbound, 0);

    assert_eq!(
        state.n_connections((peer, UplinkId::FIRST), TransportKind::Tcp),
        (3, 2)
    );
    assert_eq!(state.dialled_over_tcp(peer), Some(address(3)));
    assert_eq!(state.dialled_over_tcp(other), None);

    state.remove_connection(oldest);

    assert_eq!(
        state.n_connections((peer, UplinkId::FIRST), TransportKind::Tcp),
        (2, 1)
    );
    assert_eq!(state.dialled_over_tcp(peer), Some(address(2)));
}

#[tokio::test]
async fn a_peer_that_was_reached_over_tcp_is_dialled_there_while_it_is_connected_over_tcp() {
    let peer = PeerId::random();
    let state = NetworkState::new(PeerId::random(), [peer], Uplinks::default());
    let dialled = connected(&state, 1, peer, ConnectionDirection::Outbound, 1);
    let accepted = connected(&state, 2, peer, ConnectionDirection::Inbound, 2);

    state.remove_connection(dialled);
    assert_eq!(state.dialled_over_tcp(peer), Some(address(1)));

    state.remove_connection(accepted);
    assert_eq!(state.dialled_over_tcp(peer), None);
}

/// Returns how many of these connections are doubted, and doubts them no more.
pub(in crate::p2p) fn n_doubted(state: &NetworkState, connections: &[ConnectionId]) -> usize {
    let cx = Context::from_waker(Waker::noop());
    let doubted = connections
        .iter()
        .filter(|id| state.life(**id).poll_wake(false, &cx).is_some());
    doubted.count()
}

/// Connects a peer by a connection of each of these ages.
pub(in crate::p2p) fn connected_since(
    state: &NetworkState,
    peer: PeerId,
    ages: &[Duration],
) -> Vec<ConnectionId> {
    let now = SystemTime::now();
    let connections = ages.iter().enumerate().map(|(id, age)| {
        let connection = ConnectionId::new_unchecked(id);
        // A life is made as the handshake begins.
        let life = state.life(connection);
        let mut entry = entry(peer, id, ConnectionDirection::Outbound, now - *age);
        entry.life = life;
        state.insert_connection(connection, entry);
        connection
    });
    connections.collect()
}

#[tokio::test]
async fn a_new_connection_casts_doubt_on_older_ones_and_none_that_came_up_with_it() {
    let peer = PeerId::random();
    let state = NetworkState::new(PeerId::random(), [peer], Uplinks::default());
    let second = Duration::from_secs(1);
    let connections = connected_since(&state, peer, &[60 * second, 6 * second, 2 * second, second / 2]);
    let new = connections[3];

    state.doubt_others(peer, new, second);
    assert_eq!(n_doubted(&state, &connections[..2]), 2);
    assert_eq!(n_doubted(&state, &connections), 0);

    state.doubt_others(peer, new, 10 * second);
    assert_eq!(
        n_doubted(&state, &connections[1..]),
        0,
        "it took longer than they are old"
    );
    assert_eq!(n_doubted(&state, &connections), 1);
}

#[tokio::test]
async fn a_stall_casts_doubt_on_all_at_the_host_and_what_is_older_than_its_cause_is_found() {
    let (peer, other) = (PeerId::random(), PeerId::random());
    let state = NetworkState::new(PeerId::random(), [peer, other], Uplinks::default());
    let second = Duration::from_secs(1);
    let connections = connected_since(&state, peer, &[60 * second, 6 * second, 2 * second]);
    let elsewhere = ConnectionId::new_unchecked(9);
    let mut entry = entry(other, 9, ConnectionDirection::Inbound, UNIX_EPOCH);
    entry.address = "/ip4/192.0.2.9/tcp/1".parse().expect("an address");
    entry.life = state.life(elsewhere);
    state.insert_connection(elsewhere, entry);

    assert_eq!(
        state.doubt_host([192, 0, 2, 1].into(), Doubt::Stall),
        [(peer, UplinkId::FIRST)].into()
    );
    assert_eq!(n_doubted(&state, &connections), 3);
    assert_eq!(n_doubted(&state, &[elsewhere]), 0);

    let moved = "/ip4/192.0.2.8/tcp/1".parse().expect("an address");
    state.handle_moved(connections[0], &moved);
    assert_eq!(n_doubted(&state, &connections), 2);
    state.handle_moved(connections[0], &address(0));

    // What is dark stands in nobody's way until the peer answers there.
    let rank = |_: Lead, _: &Multiaddr, _: ConnectionDirection| 0;
    let of_peer = |state: &NetworkState| {
        let standing = state.standing(rank, |_| 0);
        let of_peer = standing
            .iter()
            .find(|(id, ..)| *id == peer)
            .map(|(.., of_peer)| of_peer.len());
        (
            state.n_connections((peer, UplinkId::FIRST), TransportKind::Tcp).1,
            of_peer,
        )
    };
    assert_eq!(of_peer(&state), (0, Some(0)));
    for connection in &connections {
        state.set_rtt(*connection, second);
    }
    assert_eq!(of_peer(&state).1, Some(connections.len()));

    assert_eq!(state.older_over_tcp(connections[2], 4 * second), connections[..2]);
    assert_eq!(state.older_over_tcp(connections[2], 600 * second), []);
    assert_eq!(state.older_over_tcp(elsewhere, Duration::ZERO), []);
}

#[test]
fn the_last_failure_at_each_address_is_kept_until_the_peer_is_reached() {
    let peer = PeerId::random();
    let state = NetworkState::new(peer, [peer], Uplinks::default());
    let failed = || state.snapshot().peers[0].failed.clone();
    for port in 1..=MAX_FAILED as u16 + 1 {
        state.set_dial_error(peer, Some(address(port)), "refused".to_owned(), false);
    }

    state.set_dial_error(peer, Some(address(3)), "timed out".to_owned(), false);
    state.set_dial_error(peer, None, "lost".to_owned(), false);

    let kept = failed();
    assert_eq!(kept.len(), MAX_FAILED);
    let told = |failed: &FailedDial| (failed.address.clone(), failed.error.clone());
    assert_eq!(told(&kept[0]), (address(2), "refused".to_owned()));
    assert_eq!(told(&kept[MAX_FAILED - 1]), (address(3), "timed out".to_owned()));
    state.clear_dial_error(peer, TransportKind::Relay);
    assert_eq!(failed().len(), MAX_FAILED, "no direct way is known");
    state.clear_dial_error(peer, TransportKind::Tcp);
    assert_eq!(failed(), []);
}

#[test]
fn a_peer_that_stays_keeps_what_is_known_of_it_and_one_that_comes_back_does_not() {
    let (stays, goes) = (PeerId::random(), PeerId::random());
    let state = NetworkState::new(PeerId::random(), [stays, goes], Uplinks::default());
    let found = vec![FoundAddress {
        address: address(1),
        by: FoundBy::Mdns,
    }];
    for peer in [stays, goes] {
        state.set_dial_error(peer, None, "refused".to_owned(), false);
        state.set_found(peer, found.clone());
    }

    state.set_peers([stays]);
    state.set_peers([goes, stays]);

    let known = state.snapshot().peers.into_iter();
    let known: Vec<_> = known
        .map(|peer| (peer.peer, peer.last_dial_error, peer.found))
        .collect();
    assert_eq!(
        known,
        [
            (goes, None, Vec::new()),
            (stays, Some("refused".to_owned()), found)
        ]
    );
}
