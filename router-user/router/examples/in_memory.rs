//! Packets into a pool whose streams end in memory: `cargo run -p stream-router --example in_memory`.
#![expect(clippy::print_stdout, reason = "an example shows what it does")]

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;
use std::{future, io};

use anyhow::{Result, ensure};
use futures::AsyncWrite;
use futures::future::BoxFuture;

use stream_router::discovery::StaticDiscovery;
use stream_router::{PeerId, PoolError, StreamPool, StreamRouter, StreamRouterConfig};

/// Bytes that each peer got.
#[derive(Clone, Default)]
struct Memory(Arc<Mutex<BTreeMap<PeerId, usize>>>);

struct MemoryStream {
    memory: Memory,
    peer: PeerId,
}

impl StreamPool for Memory {
    type Stream = MemoryStream;

    fn open(&self, peer: PeerId) -> BoxFuture<'_, Result<MemoryStream, PoolError>> {
        println!("opening a stream to {peer}");
        let memory = self.clone();
        Box::pin(future::ready(Ok(MemoryStream { memory, peer })))
    }

    fn list(&self, _: PeerId) -> Vec<String> {
        Vec::new()
    }
}

impl AsyncWrite for MemoryStream {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let mut memory = self.memory.0.lock().unwrap_or_else(PoisonError::into_inner);
        *memory.entry(self.peer).or_default() += bytes.len();
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// "hello" in UDP, from a port of 10.0.0.1 to port 9 of 10.0.0.2; checksums are left out.
fn datagram(port: u16) -> Vec<u8> {
    let ip = [0x45, 0, 0, 33, 0, 0, 0, 0, 64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2];
    let udp = [0, 9, 0, 13, 0, 0];
    [&ip[..], &port.to_be_bytes(), &udp, b"hello"].concat()
}

#[tokio::main]
async fn main() -> Result<()> {
    let memory = Memory::default();
    let peer = PeerId::random();
    let discovery = StaticDiscovery::new([("0.0.0.0/0".parse()?, peer)]);
    let router = StreamRouter::new(StreamRouterConfig::default(), memory.clone(), discovery);

    router.resolve([10, 0, 0, 2].into()).await?;
    for port in 1..=100 {
        router.dispatch_packet(&datagram(port))?;
    }

    let report = router.shutdown(Duration::from_secs(10)).await;
    let memory = memory.0.lock().unwrap_or_else(PoisonError::into_inner);
    let n_bytes = memory.get(&peer).copied().unwrap_or_default();
    println!("{} packets in {n_bytes} bytes of frames", report.n_written);
    // 16 bytes before each packet of 33.
    ensure!(
        report.closed && n_bytes == 100 * (16 + 33),
        "all of them: {report:?}"
    );
    Ok(())
}
