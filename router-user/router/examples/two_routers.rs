//! Two routers over libp2p on loopback, each with the node's own network as its pool:
//! `cargo run -p stream-router --example two_routers`.
#![expect(clippy::print_stdout, reason = "an example shows what it does")]

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use futures::AsyncReadExt;
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::time::timeout;

use stream_router::discovery::StaticDiscovery;
use stream_router::p2p::{
    ConnectionId, DataStream, DiscoveryConfig, Dscp, InboundStreams, Keypair, Multiaddr, Network,
    NetworkConfig, NetworkEvent, NetworkHandle, PeerConfig, PeerId, RelayConfig, TcpConfig,
};
use stream_router::receive::Decoder;
use stream_router::{StreamRouter, StreamRouterConfig};

const N_PACKETS: u16 = 1000;
const LIMIT: Duration = Duration::from_secs(30);

/// Reads the streams that the peer opens, and counts their packets.
struct Receiver(mpsc::Sender<usize>);

impl InboundStreams for Receiver {
    fn accept(&self, _peer: PeerId, _connection: ConnectionId, mut stream: DataStream) {
        let counted = self.0.clone();
        tokio::spawn(async move {
            let mut decoder = Decoder::default();
            while let Ok(n @ 1..) = stream.read(decoder.space()).await {
                decoder.handle_read(n);
                let n_packets = decoder.frames().map_while(Result::ok).count();
                if counted.send(n_packets).await.is_err() {
                    return;
                }
            }
        });
    }
}

/// One side: its network, its router, and the counts of what arrives.
struct Side {
    network: NetworkHandle,
    router: StreamRouter,
    events: mpsc::Receiver<NetworkEvent>,
    counts: mpsc::Receiver<usize>,
}

fn start(keypair: Keypair, listen: Vec<Multiaddr>, peer: PeerId, addresses: Vec<Multiaddr>) -> Result<Side> {
    let (counted, counts) = mpsc::channel(64);
    let runtime = Handle::current();
    let network = Network::start(NetworkConfig {
        punch: true,
        keypair,
        listen,
        peers: vec![PeerConfig::new(peer, addresses)],
        placement: Arc::new(move |_, _| runtime.clone()),
        inbound: Arc::new(Receiver(counted)),
        dscp: Dscp::default(),
        fwmark: None,
        tcp: TcpConfig::default(),
        uplinks: Vec::new(),
        keepalive: NetworkConfig::DEFAULT_KEEPALIVE,
        idle_time: NetworkConfig::DEFAULT_IDLE_TIME,
        discovery: DiscoveryConfig::default(),
        relay: RelayConfig::default(),
    })?;
    tokio::spawn(network.driver.run());
    // Everything is the other one's.
    let discovery = StaticDiscovery::new([("0.0.0.0/0".parse()?, peer)]);
    let router = StreamRouter::new(StreamRouterConfig::default(), network.handle.clone(), discovery);
    Ok(Side {
        network: network.handle,
        router,
        events: network.events,
        counts,
    })
}

async fn event<T>(side: &mut Side, wanted: impl Fn(NetworkEvent) -> Option<T>) -> Result<T> {
    timeout(LIMIT, async {
        loop {
            let event = side.events.recv().await.context("the network has ended")?;
            if let Some(found) = wanted(event) {
                return Ok(found);
            }
        }
    })
    .await?
}

/// "hello" in UDP, from a port of 10.0.0.`from` to port 9 of 10.0.0.`to`; checksums are left out.
fn datagram(from: u8, to: u8, port: u16) -> Vec<u8> {
    let ip = [
        0x45, 0, 0, 33, 0, 0, 0, 0, 64, 17, 0, 0, 10, 0, 0, from, 10, 0, 0, to,
    ];
    let udp = [0, 9, 0, 13, 0, 0];
    [&ip[..], &port.to_be_bytes(), &udp, b"hello"].concat()
}

#[tokio::main]
async fn main() -> Result<()> {
    let (left_key, right_key) = (Keypair::generate_ed25519(), Keypair::generate_ed25519());
    let (left_id, right_id) = (left_key.public().to_peer_id(), right_key.public().to_peer_id());
    let listen = "/ip4/127.0.0.1/tcp/0".parse()?;
    let mut right = start(right_key, vec![listen], left_id, Vec::new())?;
    let address = event(&mut right, |event| match event {
        NetworkEvent::Listening { address } => Some(address),
        _ => None,
    })
    .await?;
    println!("right listens on {address}");
    let mut left = start(left_key, Vec::new(), right_id, vec![address])?;
    for side in [&mut left, &mut right] {
        event(side, |event| {
            matches!(event, NetworkEvent::Connected { .. }).then_some(())
        })
        .await?;
    }

    for (side, from, to) in [(&left, 1, 2), (&right, 2, 1)] {
        side.router.resolve([10, 0, 0, to].into()).await?;
        for port in 0..N_PACKETS {
            let packet = datagram(from, to, port);
            while side.router.dispatch_packet(&packet).is_err() {
                tokio::task::yield_now().await;
            }
        }
    }
    for (name, side) in [("right", &mut right), ("left", &mut left)] {
        let mut n_packets = 0;
        while n_packets < usize::from(N_PACKETS) {
            n_packets += timeout(LIMIT, side.counts.recv())
                .await?
                .context("no more streams")?;
        }
        println!("{name} got {n_packets} packets");
    }
    for side in [left, right] {
        let report = side.router.shutdown(LIMIT).await;
        ensure!(
            report.undelivered.is_empty(),
            "everything was written: {report:?}"
        );
        side.network.shutdown();
    }
    Ok(())
}
