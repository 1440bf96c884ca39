//! Peers that go away and come back.

use std::{fs::File, net::Ipv4Addr, os::fd::AsRawFd, time::Duration};

use futures::{AsyncReadExt, AsyncWriteExt, TryStreamExt};
use nix::sys::socket::{getsockopt, sockopt::TcpMaxSeg};
use rtnetlink::{LinkUnspec, LinkVeth};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{mpsc, oneshot},
    time::timeout,
};

use super::support::{LIMIT, Node, Setup, address, connected_pair, in_own_network, with_netlink};
use stream_router::p2p::{ConnectionId, Keypair, NetworkEvent, PeerSnapshot};

const TCP: &str = "/ip4/127.0.0.1/tcp/0";

/// In this time a peer that is away is dialled at least once at each of two addresses.
const TWO_ROUNDS: Duration = Duration::from_secs(2);

/// Attempts at an address that may hang at once.
const MAX_HANGING: u64 = 5;

fn n_failed(node: &Node) -> u64 {
    node.handle.snapshot().counters.dial_failures
}

#[test]
fn restarted_peer_is_found_again() {
    in_own_network(|| async {
        let (near, far) = (Keypair::generate_ed25519(), Keypair::generate_ed25519());
        let near_id = near.public().to_peer_id();
        let mut listener = Setup::new(&far).listen(TCP).peer(near_id, &[]).start();
        let address = listener.listening().await;
        let mut node = Setup::new(&near)
            .peer(listener.id, std::slice::from_ref(&address))
            .start();
        let (_, first) = node.connected().await;

        listener.stop().await;
        assert_eq!(node.disconnected().await, first);
        node.until(|state| state.peers[0].last_dial_error.is_some()).await;

        let mut listener = Setup::new(&far)
            .listen(&address.to_string())
            .peer(near_id, &[])
            .start();
        listener.listening().await;
        let n_failed_before = n_failed(&node);
        let (_, second) = node.connected().await;
        // One attempt was under way; the next one was made after.
        assert!(n_failed(&node) <= n_failed_before + 1);
        let mut stream = node.handle.open_stream(second).await.expect("open");
        stream.write_all(b"again").await.expect("write");
        let mut bytes = [0; 5];
        listener
            .arrival()
            .await
            .stream
            .read_exact(&mut bytes)
            .await
            .expect("read");
        assert_eq!(&bytes, b"again");
        assert_eq!(node.handle.snapshot().peers[0].last_dial_error, None);
        node.stop().await;
        listener.stop().await;
    });
}

#[test]
fn a_host_that_accepts_and_says_nothing_is_tried_with_segments_of_each_size() {
    in_own_network(|| async {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
        let port = listener.local_addr().expect("an address").port();
        let silent = Keypair::generate_ed25519().public().to_peer_id();
        let at = address(&format!("/ip4/127.0.0.1/tcp/{port}"));
        let node = Setup::new(&Keypair::generate_ed25519())
            .peer(silent, &[at])
            .start();

        let (mut sizes, mut accepted) = (Vec::new(), Vec::new());
        while sizes.len() < 4 {
            let attempt = timeout(LIMIT, listener.accept()).await.expect("an attempt");
            let (stream, _) = attempt.expect("accept");
            let size = getsockopt(&stream, TcpMaxSeg).expect("the size of segments");
            if sizes.last() != Some(&size) {
                sizes.push(size);
            }
            accepted.push(stream);
        }

        // Each segment has 12 bytes of options.
        assert!(sizes[0] > 1220, "{sizes:?}");
        assert_eq!(sizes[1..], [1208, 524, sizes[0]]);
        node.until(|state| {
            let error = state.peers[0].last_dial_error.as_deref();
            error.is_some_and(|error| error.contains("took longer than"))
        })
        .await;
        node.stop().await;
    });
}

#[test]
fn closed_connection_is_replaced() {
    in_own_network(|| async {
        let (mut near, far, connection) = connected_pair(TCP).await;
        near.handle.close_connection(connection).await;
        assert_eq!(near.disconnected().await, connection);
        let (_, next) = near.connected().await;
        assert_ne!(next, connection);
        near.stop().await;
        far.stop().await;
    });
}

#[test]
fn peers_that_dial_each_other_at_once_keep_a_connection_and_stay_quiet() {
    in_own_network(|| async {
        let (one, two) = (Keypair::generate_ed25519(), Keypair::generate_ed25519());
        let (one_id, two_id) = (one.public().to_peer_id(), two.public().to_peer_id());
        let (one_at, two_at) = ("/ip4/127.0.0.1/tcp/4001", "/ip4/127.0.0.1/tcp/4002");
        let mut one = Setup::new(&one)
            .listen(one_at)
            .peer(two_id, &[address(two_at)])
            .start();
        let mut two = Setup::new(&two)
            .listen(two_at)
            .peer(one_id, &[address(one_at)])
            .start();
        one.connected().await;
        two.connected().await;

        // Two rounds of redialling later, nothing has been added or dropped for good. Nothing is there to wait for but
        // time.
        tokio::time::sleep(TWO_ROUNDS).await;
        for node in [&one, &two] {
            let measured =
                |peer: &PeerSnapshot| peer.connections.iter().all(|connection| connection.rtt.is_some());
            node.until(|state| measured(&state.peers[0])).await;
        }
        let (a, b) = (one.handle.snapshot(), two.handle.snapshot());
        let counts = (a.peers[0].connections.len(), b.peers[0].connections.len());
        assert!(counts == (1, 1) || counts == (2, 2), "{counts:?}");
        for snapshot in [a, b] {
            assert!(
                snapshot.peers[0]
                    .connections
                    .iter()
                    .all(|connection| connection.rtt.is_some())
            );
        }
        one.stop().await;
        two.stop().await;
    });
}

#[test]
fn traffic_flows_soon_after_the_link_returns() {
    for listen in ["/ip4/192.0.2.2/tcp/4001", "/ip4/192.0.2.2/udp/4001/quic-v1"] {
        let (near, far) = (Keypair::generate_ed25519(), Keypair::generate_ed25519());
        let far_setup = Setup::new(&far)
            .listen(listen)
            .peer(near.public().to_peer_id(), &[]);
        let near_setup = Setup::new(&near).peer(far.public().to_peer_id(), &[address(listen)]);
        let (near_side, far_side) = rendezvous();
        std::thread::scope(|scope| {
            scope.spawn(|| in_own_network(|| serve(far_setup, far_side)));
            in_own_network(|| async move {
                let NearSide {
                    namespace,
                    linked,
                    links,
                } = near_side;
                make_link(namespace.await.expect("the far host runs")).await;
                linked.send(()).expect("the far host waits");

                let mut node = near_setup.start();
                let (_, first) = node.connected().await;
                echo(&node, first).await;

                // Packets vanish, and nobody is told.
                set_far_link(&links, false).await;
                assert_eq!(node.disconnected().await, first);
                // Attempts have hung to their end, and others hang between retransmissions.
                let n_failed_before = n_failed(&node);
                node.until(|state| state.counters.dial_failures >= n_failed_before + 2)
                    .await;
                set_far_link(&links, true).await;
                let n_failed_before = n_failed(&node);
                let (_, second) = node.connected().await;
                echo(&node, second).await;
                // Those that hung may have failed meanwhile; of those that were made after, none.
                let n_failed = n_failed(&node) - n_failed_before;
                assert!(n_failed <= MAX_HANGING, "{listen}: {n_failed}");

                // What hung ends within 4 s, and has not turned into more connections.
                tokio::time::sleep(Duration::from_secs(5)).await;
                assert_eq!(node.handle.snapshot().peers[0].connections.len(), 1);
                node.stop().await;
            });
        });
    }
}

async fn echo(node: &Node, connection: ConnectionId) {
    let mut stream = node.handle.open_stream(connection).await.expect("open");
    stream.write_all(b"echo").await.expect("write");
    let mut bytes = [0; 4];
    timeout(LIMIT, stream.read_exact(&mut bytes))
        .await
        .expect("in time")
        .expect("read");
}

/// The far host: echoes on every stream until the near side is gone.
async fn serve(setup: Setup, side: FarSide) {
    let FarSide {
        namespace,
        linked,
        mut links,
    } = side;
    let own = File::open("/proc/thread-self/ns/net").expect("the namespace of this thread");
    namespace.send(own).expect("the near host waits");
    linked.await.expect("the near host makes the link");
    bring_up(FAR_LINK, Ipv4Addr::new(192, 0, 2, 2)).await;
    let mut node = setup.start();
    loop {
        tokio::select! {
            arrival = node.arrivals.recv() => {
                let stream = arrival.expect("the network runs").stream;
                tokio::spawn(async move {
                    let (reader, mut writer) = stream.split();
                    // It ends in whichever way the stream does.
                    let _ended = futures::io::copy(reader, &mut writer).await;
                });
            }
            link = links.recv() => match link {
                Some((up, done)) => {
                    set_link(FAR_LINK, up).await;
                    done.send(()).expect("the near host waits");
                }
                None => break,
            },
        }
    }
    node.stop().await;
}

const NEAR_LINK: &str = "near0";
const FAR_LINK: &str = "far0";

struct NearSide {
    namespace: oneshot::Receiver<File>,
    linked: oneshot::Sender<()>,
    links: mpsc::Sender<(bool, oneshot::Sender<()>)>,
}

struct FarSide {
    namespace: oneshot::Sender<File>,
    linked: oneshot::Receiver<()>,
    links: mpsc::Receiver<(bool, oneshot::Sender<()>)>,
}

fn rendezvous() -> (NearSide, FarSide) {
    let (namespace_sender, namespace) = oneshot::channel();
    let (linked, linked_receiver) = oneshot::channel();
    let (links, links_receiver) = mpsc::channel(1);
    (
        NearSide {
            namespace,
            linked,
            links,
        },
        FarSide {
            namespace: namespace_sender,
            linked: linked_receiver,
            links: links_receiver,
        },
    )
}

async fn set_far_link(links: &mpsc::Sender<(bool, oneshot::Sender<()>)>, up: bool) {
    let (done, is_done) = oneshot::channel();
    links.send((up, done)).await.expect("the far host runs");
    is_done.await.expect("the far host answers");
}

async fn make_link(far_namespace: File) {
    with_netlink(async |netlink| {
        netlink
            .link()
            .add(LinkVeth::new(NEAR_LINK, FAR_LINK).build())
            .execute()
            .await
            .expect("make a veth pair");
        let away = LinkUnspec::new_with_name(FAR_LINK)
            .setns_by_fd(far_namespace.as_raw_fd())
            .build();
        netlink
            .link()
            .set(away)
            .execute()
            .await
            .expect("give one end away");
    })
    .await;
    bring_up(NEAR_LINK, Ipv4Addr::new(192, 0, 2, 1)).await;
}

async fn bring_up(link: &str, ip: Ipv4Addr) {
    with_netlink(async |netlink| {
        let found = netlink
            .link()
            .get()
            .match_name(link.to_owned())
            .execute()
            .try_next()
            .await;
        let index = found
            .expect("ask for the link")
            .expect("the link is here")
            .header
            .index;
        netlink
            .address()
            .add(index, ip.into(), 30)
            .execute()
            .await
            .expect("add an address");
    })
    .await;
    set_link(link, true).await;
}

async fn set_link(link: &str, up: bool) {
    with_netlink(async |netlink| {
        let message = LinkUnspec::new_with_name(link);
        let message = if up { message.up() } else { message.down() };
        netlink
            .link()
            .set(message.build())
            .execute()
            .await
            .expect("set the link");
    })
    .await;
}

#[test]
fn a_peer_on_demand_is_dialled_once_something_waits_for_it() {
    in_own_network(|| async {
        let (near, far) = (Keypair::generate_ed25519(), Keypair::generate_ed25519());
        let near_id = near.public().to_peer_id();
        let mut far = Setup::new(&far).listen(TCP).peer(near_id, &[]).start();
        let address = far.listening().await;
        let mut near = Setup::new(&near).on_demand(far.id, &[address]).start();
        // Nothing is there to wait for but time.
        tokio::time::sleep(TWO_ROUNDS).await;
        let state = near.handle.snapshot();
        assert!(state.peers[0].connections.is_empty());
        assert_eq!(state.counters.dial_failures, 0);

        near.handle.dial_wanted(far.id).await;

        assert_eq!(near.connected().await.0, far.id);
        assert_eq!(far.connected().await.0, near.id);
        near.stop().await;
        far.stop().await;
    });
}

#[test]
fn a_node_moves_to_the_better_address_once_it_works_and_both_sides_leave_the_worse_one() {
    in_own_network(|| async {
        let (near, far) = (Keypair::generate_ed25519(), Keypair::generate_ed25519());
        let near_id = near.public().to_peer_id();
        let mut far = Setup::new(&far).listen(TCP).peer(near_id, &[]).start();
        let worse = far.listening().await;
        let better = address("/ip4/127.0.0.1/tcp/4009");
        let mut near = Setup::new(&near)
            .peer(far.id, &[better.clone(), worse.clone()])
            .start();
        let (_, first) = near.connected().await;
        let (_, far_first) = far.connected().await;
        let in_use = near.handle.open_stream(first).await.expect("open");

        // Another way to the same node.
        let way = TcpListener::bind("127.0.0.1:4009").await.expect("bind");
        let port = worse.to_string().rsplit('/').next().map(str::to_owned);
        let to = format!("127.0.0.1:{}", port.expect("a port"));
        tokio::spawn(async move {
            while let Ok((mut from, _)) = way.accept().await {
                let mut to = TcpStream::connect(&to).await.expect("connect");
                // It ends as its sides do.
                tokio::spawn(async move { tokio::io::copy_bidirectional(&mut from, &mut to).await });
            }
        });

        for (node, first) in [(&mut near, first), (&mut far, far_first)] {
            let left = async {
                loop {
                    let event = node.events.recv().await.expect("the network runs");
                    if let NetworkEvent::Leaving { connection, .. } = event {
                        return connection;
                    }
                }
            };
            let left = timeout(2 * LIMIT, left).await.expect("the worse one is left");
            assert_eq!(left, first);
        }
        let state = near.handle.snapshot();
        let now_at = state.peers[0].connections[0].address.to_string();
        assert!(now_at.starts_with(&better.to_string()), "{now_at}");
        assert!(state.peers[0].connections[1].is_leaving, "it has a stream");
        drop((in_use, far.arrival().await));
        assert_eq!(near.disconnected().await, first);
        assert_eq!(far.disconnected().await, far_first);
        near.stop().await;
        far.stop().await;
    });
}
