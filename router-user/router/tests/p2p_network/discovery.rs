//! Peers that are found, and records that are not believed.

use std::{
    io::ErrorKind,
    net::{IpAddr, Ipv4Addr, TcpListener, UdpSocket},
    time::SystemTime,
};

use futures::StreamExt;
use ipnet::IpNet;
use libp2p::{
    Swarm, SwarmBuilder,
    kad::{
        self, Quorum, Record, RecordKey,
        store::{MemoryStore, MemoryStoreConfig},
    },
    noise,
    swarm::SwarmEvent,
    tcp, yamux,
};
use tokio::{
    sync::{mpsc, oneshot},
    task::JoinHandle,
    time::timeout,
};

use super::support::{LIMIT, Node, Setup, address, in_own_network, until, with_netlink};
use stream_router::{
    discovery::{DhtDiscovery, MdnsDiscovery, PeerDiscovery, TrustedOwners},
    p2p::{
        Announcement, DHT_PROTOCOL, DhtConfig, DiscoveryConfig, FoundBy, Keypair, LookupError,
        MAX_ANNOUNCEMENT_BYTES, Multiaddr, PeerId,
    },
};

/// Gives the loopback device addresses that other hosts could have.
async fn with_addresses(last_bytes: impl IntoIterator<Item = u8>) {
    with_netlink(async |netlink| {
        for byte in last_bytes {
            let added = netlink.address().add(1, host(byte), 32).execute().await;
            added.expect("add an address");
        }
    })
    .await;
}

fn host(last_byte: u8) -> IpAddr {
    Ipv4Addr::new(192, 0, 2, last_byte).into()
}

fn listen_at(last_byte: u8) -> String {
    format!("/ip4/192.0.2.{last_byte}/tcp/4001")
}

fn dht(networks: &[&str]) -> DiscoveryConfig {
    let networks = networks.iter().map(|net| net.parse().expect("a network"));
    DiscoveryConfig {
        dht: Some(DhtConfig {
            networks: networks.collect(),
            announce: Vec::new(),
        }),
        ..DiscoveryConfig::default()
    }
}

fn is_connected(node: &Node, peer: PeerId) -> bool {
    let snapshot = node.handle.snapshot();
    let known = snapshot.peers.iter().find(|known| known.peer == peer);
    known.is_some_and(|known| !known.connections.is_empty())
}

#[test]
fn two_nodes_that_know_only_a_third_find_each_other_and_their_claims() {
    in_own_network(|| async {
        with_addresses(1..=3).await;
        let [a, b, c] = [(); 3].map(|()| Keypair::generate_ed25519());
        let [a_id, b_id, c_id] = [&a, &b, &c].map(|key| key.public().to_peer_id());
        let at_b = [address(&listen_at(2))];
        let hub = Setup::new(&b).listen(&listen_at(2)).discovery(dht(&[]));
        let hub = hub.peer(a_id, &[]).peer(c_id, &[]).start();
        let start = |key: &Keypair, byte: u8, other: PeerId, network: &str| {
            let setup = Setup::new(key)
                .listen(&listen_at(byte))
                .discovery(dht(&[network]));
            setup.peer(b_id, &at_b).peer(other, &[]).start()
        };
        let a = start(&a, 1, c_id, "10.42.0.1/32");
        let c = start(&c, 3, a_id, "10.42.0.3/32");

        until("a and c are connected", || {
            is_connected(&a, c_id) && is_connected(&c, a_id)
        })
        .await;

        // The one that found the other first has connected, which the other then needs no more.
        let found = |node: &Node, peer: PeerId| {
            let peers = node.handle.snapshot().peers.into_iter();
            peers
                .filter(|known| known.peer == peer)
                .flat_map(|known| known.found)
                .collect::<Vec<_>>()
        };
        let (by_a, by_c) = (found(&a, c_id), found(&c, a_id));
        assert!(by_a.len() + by_c.len() > 0, "neither has found the other");
        for (found, byte) in [(by_a, 3), (by_c, 1)] {
            for found in found {
                assert_eq!(
                    (found.address, found.by),
                    (address(&listen_at(byte)), FoundBy::Dht)
                );
            }
        }

        let pool: IpNet = "10.42.0.0/24".parse().expect("a network");
        let trusted = TrustedOwners::new([(pool, c_id)]);
        let owner = |discovery: DhtDiscovery, address: [u8; 4]| async move {
            let asked = discovery.find_peer(address.into()).await;
            asked.expect("an answer").peer
        };
        let discovery = DhtDiscovery::new(a.handle.clone(), trusted.clone());
        assert_eq!(owner(discovery.clone(), [10, 42, 0, 3]).await, Some(c_id));
        assert_eq!(
            owner(discovery.clone(), [10, 42, 0, 4]).await,
            None,
            "not claimed"
        );
        assert_eq!(owner(discovery, [10, 43, 0, 3]).await, None, "not c's to claim");
        let nobody = DhtDiscovery::new(a.handle.clone(), TrustedOwners::default());
        assert_eq!(owner(nobody, [10, 42, 0, 3]).await, None, "c is not trusted");
        let local = MdnsDiscovery::new(a.handle.clone(), trusted);
        let local = local.find_peer([10, 42, 0, 3].into()).await;
        assert_eq!(
            local.expect("an answer").peer,
            None,
            "not seen on the local network"
        );

        for node in [a, hub, c] {
            assert_eq!(node.handle.snapshot().counters.records_refused, 0);
            node.stop().await;
        }
    });
}

#[test]
fn a_record_that_is_not_its_peers_own_is_refused_and_given_to_nobody() {
    in_own_network(|| async {
        with_addresses(1..=2).await;
        let [keeper, forger, reader, victim, stranger] = [(); 5].map(|()| Keypair::generate_ed25519());
        let id = |key: &Keypair| key.public().to_peer_id();
        let setup = Setup::new(&keeper).listen(&listen_at(1)).discovery(dht(&[]));
        let setup = [&forger, &reader, &victim]
            .into_iter()
            .fold(setup, |setup, key| setup.peer(id(key), &[]));
        let mut keeper = setup.start();
        let at_keeper = [address(&listen_at(1))];
        let reader = Setup::new(&reader).discovery(dht(&[]));
        let mut reader = reader.peer(keeper.id, &at_keeper).start();
        reader.connected().await;
        keeper.connected().await;
        let forger_id = id(&forger);
        let stock = StockKad::start(&forger, at_keeper[0].clone()).await;
        until("the forger is connected", || is_connected(&keeper, forger_id)).await;

        let sign = |key: &Keypair, sequence, networks: &[IpNet]| {
            let now = SystemTime::now();
            Announcement::sign(key, sequence, &[], networks, now).expect("sign")
        };
        let everything: Vec<IpNet> = vec!["0.0.0.0/0".parse().expect("a network")];
        let refused = [
            (key_of(id(&victim)), b"garbage".to_vec()),
            (key_of(id(&victim)), vec![0; MAX_ANNOUNCEMENT_BYTES + 1]),
            (key_of(id(&victim)), sign(&forger, 1, &everything)),
            (key_of(id(&stranger)), sign(&stranger, 1, &everything)),
            (key_of(keeper.id), sign(&forger, 1, &everything)),
            (
                RecordKey::from(b"something else".to_vec()),
                b"free storage".to_vec(),
            ),
        ];
        let n_refused = refused.len() as u64;
        for (key, value) in refused {
            stock.put(keeper.id, key, value).await;
        }
        stock
            .put(keeper.id, key_of(forger_id), sign(&forger, 7, &everything))
            .await;
        stock
            .put(keeper.id, key_of(forger_id), sign(&forger, 6, &[]))
            .await;
        keeper
            .until(|state| state.counters.records_refused == n_refused)
            .await;

        let ask = |peer| reader.handle.find_announcement(peer);
        assert_eq!(ask(id(&victim)).await.expect("an answer"), None);
        assert_eq!(ask(id(&stranger)).await.expect("an answer"), None);
        let own = ask(forger_id)
            .await
            .expect("an answer")
            .expect("its own record is kept");
        assert_eq!((own.sequence, own.networks), (7, everything));
        assert_eq!(reader.handle.snapshot().counters.records_refused, 0);
        keeper.stop().await;
        reader.stop().await;
    });
}

#[test]
fn nobody_is_dialled_on_the_word_of_another() {
    in_own_network(|| async {
        with_addresses([1, 9]).await;
        let (ours, gossip) = (Keypair::generate_ed25519(), Keypair::generate_ed25519());
        let (gossip_id, absent) = (gossip.public().to_peer_id(), PeerId::random());
        let setup = Setup::new(&ours).listen(&listen_at(1)).discovery(dht(&[]));
        let node = setup.peer(gossip_id, &[]).peer(absent, &[]).start();
        let bait = TcpListener::bind((host(9), 4001)).expect("bind");
        bait.set_nonblocking(true)
            .expect("a listener that does not block");
        let stock = StockKad::start(&gossip, address(&listen_at(1))).await;
        for peer in [absent, PeerId::random()] {
            stock.tell_of(peer, address(&listen_at(9))).await;
        }
        until("the gossip is connected", || is_connected(&node, gossip_id)).await;

        for peer in [absent, PeerId::random()] {
            let answer = node.handle.find_announcement(peer).await;
            assert_eq!(answer.expect("an answer"), None);
        }

        let dialled = bait.accept().map(|(_, from)| from);
        assert_eq!(dialled.map_err(|error| error.kind()), Err(ErrorKind::WouldBlock));
        assert_eq!(node.handle.snapshot().counters.dial_failures, 0);
        node.stop().await;
    });
}

#[test]
fn a_question_that_nobody_can_answer_is_an_error() {
    in_own_network(|| async {
        let ours = Keypair::generate_ed25519();
        let off = Setup::new(&ours).start();
        let alone = Setup::new(&ours).discovery(dht(&[])).start();

        let asked = off.handle.find_announcement(PeerId::random()).await;
        assert!(matches!(asked, Err(LookupError::Off)), "{asked:?}");
        let asked = alone.handle.find_announcement(PeerId::random()).await;
        assert!(matches!(asked, Err(LookupError::NotConnected)), "{asked:?}");
        let trusted = TrustedOwners::new([("0.0.0.0/0".parse().expect("a network"), PeerId::random())]);
        let discovery = DhtDiscovery::new(alone.handle.clone(), trusted);
        assert!(discovery.find_peer([10, 0, 0, 1].into()).await.is_err());

        let handle = alone.handle.clone();
        off.stop().await;
        alone.stop().await;
        let asked = handle.find_announcement(PeerId::random()).await;
        assert!(matches!(asked, Err(LookupError::Ended)), "{asked:?}");
    });
}

#[test]
fn peers_on_the_local_network_are_found_unless_their_address_is_inside_the_tunnel() {
    in_own_network(|| async {
        with_addresses(1..=2).await;
        let [a, b] = [(); 2].map(|()| Keypair::generate_ed25519());
        let [a_id, b_id] = [&a, &b].map(|key| key.public().to_peer_id());
        let mdns = |is_inner: fn(IpAddr) -> bool| DiscoveryConfig {
            mdns: true,
            is_inner: std::sync::Arc::new(is_inner),
            ..DiscoveryConfig::default()
        };
        // The second has the first's address for one of the tunnel's, and so waits for it to dial.
        let second = Setup::new(&b)
            .listen(&listen_at(2))
            .discovery(mdns(|ip| ip == host(1)));
        let second = second.peer(a_id, &[]).start();
        let first = Setup::new(&a).listen(&listen_at(1)).discovery(mdns(|_| false));
        let first = first.peer(b_id, &[]).start();

        until("they are connected", || {
            is_connected(&first, b_id) && is_connected(&second, a_id)
        })
        .await;

        let found = &first.handle.snapshot().peers[0].found;
        assert_eq!(found.len(), 1, "{found:?}");
        assert_eq!(
            (&found[0].address, found[0].by),
            (&address(&listen_at(2)), FoundBy::Mdns)
        );
        assert_eq!(second.handle.snapshot().peers[0].found, []);
        first.stop().await;
        second.stop().await;
    });
}

#[test]
fn a_local_network_that_claims_too_much_is_forgotten() {
    in_own_network(|| async {
        with_addresses([1, 9]).await;
        let victim = PeerId::random();
        let discovery = DiscoveryConfig {
            mdns: true,
            ..DiscoveryConfig::default()
        };
        let setup = Setup::new(&Keypair::generate_ed25519()).listen(&listen_at(1));
        let node = setup.discovery(discovery).peer(victim, &[]).start();
        let found = || node.handle.snapshot().peers[0].found.clone();
        let socket = UdpSocket::bind((host(9), 0)).expect("bind");
        let claim = |peer: PeerId, ports: std::ops::Range<u16>| {
            let texts = ports.map(|port| format!("dnsaddr=/ip4/192.0.2.9/tcp/{port}/p2p/{peer}"));
            let sent = socket.send_to(&mdns_answer(texts), ("224.0.0.251", 5353));
            sent.expect("send");
        };

        until("some of the claimed addresses are found", || {
            claim(victim, 1000..1020);
            !found().is_empty()
        })
        .await;
        assert_eq!(found().len(), 8, "not all of them");
        let mut n_claimed = 0;
        until("everything is forgotten", || {
            n_claimed += 1;
            claim(PeerId::random(), 1000..1020);
            found().is_empty()
        })
        .await;

        assert!(n_claimed * 20 > 900, "{n_claimed} answers");
        node.stop().await;
    });
}

/// An answer to the question for libp2p nodes on the local network.
fn mdns_answer(texts: impl Iterator<Item = String>) -> Vec<u8> {
    fn name(labels: &[&str]) -> Vec<u8> {
        let labels = labels.iter().flat_map(|label| {
            let length = [label.len() as u8];
            length.into_iter().chain(label.bytes()).collect::<Vec<_>>()
        });
        labels.chain([0]).collect()
    }
    fn record(name: &[u8], kind: u8, data: &[u8]) -> Vec<u8> {
        let ttl_s = [0, 0, 0, 120];
        let length = (data.len() as u16).to_be_bytes();
        [name, &[0, kind, 0, 1], &ttl_s, &length, data].concat()
    }
    let (service, node) = (
        name(&["_p2p", "_udp", "local"]),
        name(&["node", "_p2p", "_udp", "local"]),
    );
    let texts: Vec<_> = texts
        .map(|text| record(&node, 16, &[&[text.len() as u8], text.as_bytes()].concat()))
        .collect();
    let header = [0, 0, 0x84, 0, 0, 0, 0, 1, 0, 0, 0, texts.len() as u8];
    [&header[..], &record(&service, 12, &node), &texts.concat()].concat()
}

/// Where a peer's record is in the DHT, on the wire.
fn key_of(peer: PeerId) -> RecordKey {
    RecordKey::from([&b"/stream-router/announcement/"[..], &peer.to_bytes()].concat())
}

type Kad = kad::Behaviour<MemoryStore>;

type ScaleRequest = Box<dyn FnOnce(&mut Kad) + Send>;

/// A stock libp2p node that speaks nothing but the DHT's protocol, and says there what it likes.
struct StockKad {
    requests: mpsc::Sender<ScaleRequest>,
    task: JoinHandle<()>,
}

impl Drop for StockKad {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl StockKad {
    /// Connects to a node.
    async fn start(keypair: &Keypair, dial: Multiaddr) -> Self {
        let id = keypair.public().to_peer_id();
        let mut config = kad::Config::new(DHT_PROTOCOL);
        config.set_max_packet_size(64 * 1024);
        let store = MemoryStoreConfig {
            max_value_bytes: 64 * 1024,
            ..MemoryStoreConfig::default()
        };
        let store = MemoryStore::with_config(id, store);
        let mut behaviour = kad::Behaviour::with_config(id, store, config);
        behaviour.set_mode(Some(kad::Mode::Server));
        let mut swarm: Swarm<Kad> = SwarmBuilder::with_existing_identity(keypair.clone())
            .with_tokio()
            .with_tcp(tcp::Config::default(), noise::Config::new, yamux::Config::default)
            .expect("a transport")
            .with_behaviour(|_| behaviour)
            .expect("a behaviour")
            .with_swarm_config(|config| config.with_idle_connection_timeout(LIMIT))
            .build();
        swarm.dial(dial).expect("dial");
        let connected = async {
            while !matches!(
                swarm.select_next_some().await,
                SwarmEvent::ConnectionEstablished { .. }
            ) {}
        };
        timeout(LIMIT, connected).await.expect("connected in time");
        let (requests, mut requested) = mpsc::channel::<ScaleRequest>(16);
        let task = tokio::spawn(async move {
            loop {
                tokio::select! {
                    _ = swarm.select_next_some() => {}
                    Some(request) = requested.recv() => request(swarm.behaviour_mut()),
                }
            }
        });
        Self { requests, task }
    }

    async fn request(&self, request: impl FnOnce(&mut Kad) + Send + 'static) {
        let (done, granted) = oneshot::channel();
        let request: ScaleRequest = Box::new(move |kad| {
            request(kad);
            done.send(()).expect("the test waits");
        });
        assert!(self.requests.send(request).await.is_ok(), "the node runs");
        granted.await.expect("the node runs");
    }

    /// Makes a node keep a record.
    async fn put(&self, at: PeerId, key: RecordKey, value: Vec<u8>) {
        self.request(move |kad| {
            kad.put_record_to(Record::new(key, value), [at].into_iter(), Quorum::One);
        })
        .await;
    }

    /// Makes the node refer those that ask for a peer to this address.
    async fn tell_of(&self, peer: PeerId, address: Multiaddr) {
        self.request(move |kad| {
            kad.add_address(&peer, address);
        })
        .await;
    }
}
