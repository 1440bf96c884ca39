//! Nodes that reach each other through a relay.

use super::support::{Node, Setup, content, exchange, in_own_network};
use stream_router::p2p::{
    Keypair, Multiaddr, NetworkSnapshot, PeerConfig, PeerId, RelayConfig, ServeConfig, TransportKind,
};

const LENGTH: usize = 8 * 1024 * 1024;
const TCP: &str = "/ip4/127.0.0.1/tcp/0";
const QUIC: &str = "/ip4/127.0.0.1/udp/0/quic-v1";

/// A relay, and two nodes that listen nowhere.
struct Three {
    relay: Node,
    relay_at: Multiaddr,
    near: Node,
    far: Node,
}

pub(super) fn via(relay: PeerId) -> RelayConfig {
    RelayConfig {
        via: vec![relay],
        serve: None,
    }
}

fn serving(serve: ServeConfig) -> RelayConfig {
    RelayConfig {
        via: Vec::new(),
        serve: Some(serve),
    }
}

async fn three(listen: &str, serve: ServeConfig) -> Three {
    let keypairs = [(); 3].map(|()| Keypair::generate_ed25519());
    let [relay_id, near_id, far_id] = keypairs.each_ref().map(|keypair| keypair.public().to_peer_id());
    let mut relay = Setup::new(&keypairs[0])
        .listen(listen)
        .peer(near_id, &[])
        .peer(far_id, &[])
        .relay(serving(serve))
        .start();
    let relay_at = relay.listening().await;
    let member = |keypair: &Keypair, other| {
        Setup::new(keypair)
            .peer(relay_id, std::slice::from_ref(&relay_at))
            .peer(other, &[])
            .relay(via(relay_id))
            .start()
    };
    let (near, far) = (member(&keypairs[1], far_id), member(&keypairs[2], near_id));
    Three {
        relay,
        relay_at,
        near,
        far,
    }
}

/// Says whether a peer is connected over such transports only.
pub(super) fn is_over(snapshot: &NetworkSnapshot, peer: PeerId, transport: TransportKind) -> bool {
    let peer = snapshot.peers.iter().find(|known| known.peer == peer);
    let connections = peer.map_or(&[][..], |peer| &peer.connections);
    !connections.is_empty() && connections.iter().all(|one| one.transport == transport)
}

/// Sends much both ways on a stream between two nodes.
pub(super) async fn talk(near: &Node, far: &mut Node) {
    let peers = near.handle.snapshot().peers;
    let to = peers
        .iter()
        .find(|peer| peer.peer == far.id)
        .expect("it is configured");
    let connection = to.connections.first().expect("it is connected").connection;
    let stream = near.handle.open_stream(connection).await.expect("open");
    let (to_far, to_near) = (content(1, LENGTH), content(2, LENGTH));
    let answer = async {
        let arrival = far.arrival().await;
        exchange(arrival.stream, to_near.clone()).await
    };
    let (at_near, at_far) = tokio::join!(exchange(stream, to_far.clone()), answer);
    assert!(at_near == to_near && at_far == to_far);
}

async fn reach_each_other(listen: &str) {
    let Three {
        relay, near, mut far, ..
    } = three(listen, ServeConfig::default()).await;
    near.until(|snapshot| is_over(snapshot, far.id, TransportKind::Relay))
        .await;
    far.until(|snapshot| is_over(snapshot, near.id, TransportKind::Relay))
        .await;

    talk(&near, &mut far).await;

    let counters = relay.handle.snapshot().counters;
    assert_eq!(counters.reservations_given, 2);
    assert!(counters.circuits_relayed >= 1, "{counters:?}");
    for node in [near, far, relay] {
        node.stop().await;
    }
}

#[test]
fn two_nodes_that_listen_nowhere_reach_each_other_through_a_relay_over_tcp() {
    in_own_network(|| reach_each_other(TCP));
}

#[test]
fn two_nodes_that_listen_nowhere_reach_each_other_through_a_relay_over_quic() {
    in_own_network(|| reach_each_other(QUIC));
}

#[test]
fn a_direct_way_takes_the_place_of_a_relayed_one() {
    in_own_network(async || {
        let Three {
            relay,
            relay_at,
            near,
            mut far,
        } = three(TCP, ServeConfig::default()).await;
        near.until(|snapshot| is_over(snapshot, far.id, TransportKind::Relay))
            .await;

        let keypair = Keypair::generate_ed25519();
        let id = keypair.public().to_peer_id();
        let mut third = Setup::new(&keypair)
            .listen(TCP)
            .peer(relay.id, std::slice::from_ref(&relay_at))
            .peer(near.id, &[])
            .relay(via(relay.id))
            .start();
        let third_at = third.listening().await;
        let peers = |addresses: Vec<Multiaddr>| {
            vec![
                PeerConfig::new(relay.id, vec![relay_at.clone()]),
                PeerConfig::new(far.id, Vec::new()),
                PeerConfig::new(id, addresses),
            ]
        };
        let of_relay = [near.id, far.id, id].map(|peer| PeerConfig::new(peer, Vec::new()));
        relay
            .handle
            .set_peers(of_relay.into())
            .await
            .expect("the relay takes peers");
        near.handle
            .set_peers(peers(Vec::new()))
            .await
            .expect("the node takes peers");
        near.until(|snapshot| is_over(snapshot, id, TransportKind::Relay))
            .await;
        talk(&near, &mut third).await;

        near.handle
            .set_peers(peers(vec![third_at]))
            .await
            .expect("the node takes peers");
        near.until(|snapshot| is_over(snapshot, id, TransportKind::Tcp))
            .await;
        talk(&near, &mut third).await;

        talk(&near, &mut far).await;
        for node in [near, far, third, relay] {
            node.stop().await;
        }
    });
}

#[test]
fn a_running_node_takes_another_relay_and_its_circuits_follow() {
    in_own_network(async || {
        let keypairs = [(); 4].map(|()| Keypair::generate_ed25519());
        let ids = keypairs.each_ref().map(|keypair| keypair.public().to_peer_id());
        let [first_id, second_id, near_id, far_id] = ids;
        let relay = |keypair| {
            Setup::new(keypair)
                .listen(TCP)
                .peer(near_id, &[])
                .peer(far_id, &[])
                .relay(serving(ServeConfig::default()))
                .start()
        };
        let (mut first, mut second) = (relay(&keypairs[0]), relay(&keypairs[1]));
        let (first_at, second_at) = (first.listening().await, second.listening().await);
        let member = |keypair, other, via: &[PeerId]| {
            let config = RelayConfig {
                via: via.to_vec(),
                serve: None,
            };
            Setup::new(keypair)
                .peer(first_id, std::slice::from_ref(&first_at))
                .peer(second_id, std::slice::from_ref(&second_at))
                .peer(other, &[])
                .relay(config)
                .start()
        };
        let near = member(&keypairs[2], far_id, &[first_id]);
        let mut far = member(&keypairs[3], near_id, &[]);
        let set = async |node: &Node, other, via: &[PeerId]| {
            let peers = vec![
                PeerConfig::new(first_id, vec![first_at.clone()]),
                PeerConfig::new(second_id, vec![second_at.clone()]),
                PeerConfig::new(other, Vec::new()),
            ];
            node.handle.set_peers_and_relays(peers, via.to_vec()).await
        };
        near.until(|snapshot| snapshot.reach.relays.first().is_some_and(|relay| relay.is_held))
            .await;
        assert_eq!(first.handle.snapshot().counters.reservations_given, 1);
        assert!(set(&far, near_id, &[far_id]).await.is_err(), "it is no peer");

        set(&far, near_id, &[first_id, second_id])
            .await
            .expect("the node takes relays");

        let through = |snapshot: &NetworkSnapshot, relay: PeerId| {
            let peer = snapshot.peers.iter().find(|known| known.peer == far_id);
            let connections = peer.map_or(&[][..], |peer| &peer.connections);
            let leads = |address: &Multiaddr| address.to_string().starts_with(&format!("/p2p/{relay}/"));
            !connections.is_empty() && connections.iter().all(|one| leads(&one.address))
        };
        near.until(|snapshot| through(snapshot, first_id)).await;
        talk(&near, &mut far).await;

        for (node, other) in [(&near, far_id), (&far, near_id)] {
            set(node, other, &[second_id])
                .await
                .expect("the node takes relays");
        }
        near.until(|snapshot| through(snapshot, second_id)).await;
        talk(&near, &mut far).await;
        let relays = near.handle.reach().relays;
        assert!(
            matches!(&relays[..], [one] if one.relay == second_id && one.is_held),
            "{relays:?}"
        );

        // A circuit that stands stays without any.
        set(&near, far_id, &[]).await.expect("the node takes relays");
        assert!(near.handle.reach().relays.is_empty());
        talk(&near, &mut far).await;
        for node in [near, far, first, second] {
            node.stop().await;
        }
    });
}

#[test]
fn a_relay_that_was_started_anew_is_used_again() {
    in_own_network(async || {
        let keypairs = [(); 3].map(|()| Keypair::generate_ed25519());
        let [relay_id, near_id, far_id] = keypairs.each_ref().map(|keypair| keypair.public().to_peer_id());
        let start = |listen: &str| {
            Setup::new(&keypairs[0])
                .listen(listen)
                .peer(near_id, &[])
                .peer(far_id, &[])
                .relay(serving(ServeConfig::default()))
                .start()
        };
        let mut relay = start(TCP);
        let relay_at = relay.listening().await;
        let member = |keypair: &Keypair, other| {
            let through = format!("{relay_at}/p2p/{relay_id}/p2p-circuit");
            Setup::new(keypair)
                .peer(relay_id, &[])
                .peer(other, &[through.parse().expect("an address")])
                .relay(via(relay_id))
                .start()
        };
        let (near, mut far) = (member(&keypairs[1], far_id), member(&keypairs[2], near_id));
        let is_relayed = |snapshot: &NetworkSnapshot| is_over(snapshot, far_id, TransportKind::Relay);
        near.until(is_relayed).await;

        relay.stop().await;
        near.until(|snapshot| !is_relayed(snapshot)).await;
        let relay = start(&relay_at.to_string());
        near.until(is_relayed).await;

        talk(&near, &mut far).await;
        for node in [near, far, relay] {
            node.stop().await;
        }
    });
}

#[test]
fn a_full_relay_says_so_and_counts_it() {
    in_own_network(async || {
        let none = ServeConfig {
            max_circuits: 0,
            max_circuits_per_peer: 1,
            ..ServeConfig::default()
        };
        let Three { relay, near, far, .. } = three(TCP, none).await;

        relay
            .until(|snapshot| snapshot.counters.circuits_refused > 0)
            .await;
        let says_so = |snapshot: &NetworkSnapshot| {
            let errors = snapshot
                .peers
                .iter()
                .filter_map(|peer| peer.last_dial_error.as_ref());
            errors
                .into_iter()
                .any(|error| error.contains("resource limit exceeded"))
        };
        let told = |node: &Node| says_so(&node.handle.snapshot());
        super::support::until("one of them is told", || told(&near) || told(&far)).await;
        for node in [near, far, relay] {
            node.stop().await;
        }
    });
}
