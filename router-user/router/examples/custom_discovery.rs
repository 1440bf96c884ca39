//! A discovery of one's own, a directory that answers slowly, behind one that ships: `cargo run -p stream-router --example custom_discovery`.
#![expect(clippy::print_stdout, reason = "an example shows what it does")]

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use anyhow::{Result, ensure};
use futures::future::BoxFuture;

use stream_router::discovery::{ChainDiscovery, IpNet, StaticDiscovery};
use stream_router::{
    Answer, DiscoveryError, DispatchError, PeerDiscovery, PeerId, PoolError, StreamPool, StreamRouter,
    StreamRouterConfig,
};

/// Who has which /24. A real one would ask a server here.
struct Directory(BTreeMap<[u8; 3], PeerId>);

impl PeerDiscovery for Directory {
    fn find_peer(&self, destination: IpAddr) -> BoxFuture<'_, Result<Answer, DiscoveryError>> {
        Box::pin(async move {
            println!("the directory is asked for {destination}");
            tokio::time::sleep(Duration::from_millis(200)).await;
            match destination {
                IpAddr::V4(address) => {
                    let [a, b, c, _] = address.octets();
                    let network = IpNet::new(destination, 24).map_err(DiscoveryError::new)?;
                    // One answer for the whole /24: no other address of it is asked for.
                    Ok(match self.0.get(&[a, b, c]) {
                        Some(peer) => Answer::network(network, *peer),
                        None => Answer::nobody_in(network),
                    })
                }
                IpAddr::V6(_) => Err(DiscoveryError::new("the directory knows IPv4 only")),
            }
        })
    }
}

struct Sink;

impl StreamPool for Sink {
    type Stream = futures::io::Sink;

    fn open(&self, peer: PeerId) -> BoxFuture<'_, Result<Self::Stream, PoolError>> {
        println!("opening a stream to {peer}");
        Box::pin(async { Ok(futures::io::sink()) })
    }

    fn list(&self, _: PeerId) -> Vec<String> {
        Vec::new()
    }
}

/// An IPv4 header alone, from 10.0.0.1, of a protocol for experiments (RFC 3692).
fn packet_to(destination: [u8; 4]) -> Vec<u8> {
    let header = [0x45, 0, 0, 20, 0, 0, 0, 0, 64, 253, 0, 0, 10, 0, 0, 1];
    [&header[..], &destination].concat()
}

#[tokio::main]
async fn main() -> Result<()> {
    let known = StaticDiscovery::new([("10.0.0.0/24".parse()?, PeerId::random())]);
    let directory = BTreeMap::from([([10, 0, 1], PeerId::random()), ([10, 0, 2], PeerId::random())]);
    // What is known without asking comes first.
    let discovery = ChainDiscovery::new().then(known).then(Directory(directory));
    let router = StreamRouter::new(StreamRouterConfig::default(), Sink, discovery);

    for destination in [
        [10, 0, 0, 7],
        [10, 0, 1, 7],
        [10, 0, 2, 7],
        [10, 0, 2, 8],
        [10, 0, 3, 7],
    ] {
        let packet = packet_to(destination);
        // It never waits for the directory: what is not known yet is an error.
        let mut result = router.dispatch_packet(&packet);
        if let Err(error @ DispatchError::Resolving { destination }) = result {
            println!("{error}");
            let _owner = router.resolve(destination).await;
            result = router.dispatch_packet(&packet);
        }
        match result {
            Ok(()) => println!("{}: taken", Ipv4Addr::from(destination)),
            Err(error) => println!("{error}"),
        }
    }

    let stats = router.stats();
    let report = router.shutdown(Duration::from_secs(10)).await;
    println!(
        "{} lookups, {} packets written",
        stats.n_lookups, report.n_written
    );
    ensure!(
        (stats.n_lookups, report.n_written) == (4, 4),
        "one lookup for each /24"
    );
    ensure!(stats.refused.unknown_peer == 1, "10.0.3.7 is nobody's");
    Ok(())
}
