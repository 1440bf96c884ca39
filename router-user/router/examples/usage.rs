//! The shortest program that embeds a router: `cargo run -p stream-router --example usage`.
#![expect(clippy::print_stdout, reason = "an example shows what it does")]

use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Result, ensure};
use futures::future::BoxFuture;

use stream_router::{
    Answer, DiscoveryError, DispatchError, PeerDiscovery, PeerId, PoolError, StreamPool, StreamRouter,
    StreamRouterConfig,
};

/// An IPv4 header alone, from 10.0.0.1 to 10.0.0.2, of a protocol for experiments (RFC 3692).
const PACKET_DATA: [u8; 20] = [
    0x45, 0, 0, 20, 0, 0, 0, 0, 64, 253, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2,
];

struct Pool;

impl StreamPool for Pool {
    type Stream = futures::io::Sink;

    fn open(&self, _: PeerId) -> BoxFuture<'_, Result<Self::Stream, PoolError>> {
        Box::pin(async { Ok(futures::io::sink()) })
    }

    fn list(&self, _: PeerId) -> Vec<String> {
        Vec::new()
    }
}

struct Discovery(PeerId);

impl PeerDiscovery for Discovery {
    fn find_peer(&self, _: IpAddr) -> BoxFuture<'_, Result<Answer, DiscoveryError>> {
        Box::pin(async { Ok(self.0.into()) })
    }
}

#[tokio::main]
async fn main() -> Result<()> {
    // Create dependencies
    let stream_pool = Pool;
    let peer_discovery = Discovery(PeerId::random());

    // Create router with default config
    let config = StreamRouterConfig::default();
    let stream_router = StreamRouter::new(config, stream_pool, peer_discovery);

    // Dispatch a packet
    let mut result = stream_router.dispatch_packet(&PACKET_DATA);
    // Handle error
    if let Err(DispatchError::Resolving { destination }) = result {
        println!("the first packet to {destination} waits for its peer");
        stream_router.resolve(destination).await?;
        result = stream_router.dispatch_packet(&PACKET_DATA);
    }
    result?;

    // Write what was taken, and close the streams
    let report = stream_router.shutdown(Duration::from_secs(10)).await;
    println!(
        "written: {}, undelivered: {:?}",
        report.n_written, report.undelivered
    );
    ensure!(report.closed && report.n_written == 1, "the packet is written");
    Ok(())
}
