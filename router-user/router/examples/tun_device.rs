//! Packets from a TUN device, without eBPF, in a network namespace of its own; needs root:
//! `cargo run -p stream-router --example tun_device`.
#![expect(clippy::print_stdout, reason = "an example shows what it does")]

use std::net::{IpAddr, UdpSocket};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use futures::future::BoxFuture;
use nix::sched::{CloneFlags, unshare};
use tokio::runtime::Runtime;

use stream_router::{
    Answer, DiscoveryError, DispatchError, PeerDiscovery, PeerId, PoolError, StreamPool, StreamRouter,
    StreamRouterConfig,
};

const N_PACKETS: u64 = 100;
const OURS: [u8; 4] = [10, 66, 0, 1];
const THEIRS: [u8; 4] = [10, 66, 0, 2];

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

/// One address, of one peer; the device also gets multicast, which is nobody's.
struct OnePeer(PeerId);

impl PeerDiscovery for OnePeer {
    fn find_peer(&self, destination: IpAddr) -> BoxFuture<'_, Result<Answer, DiscoveryError>> {
        let owner = (destination == IpAddr::from(THEIRS)).then_some(self.0);
        Box::pin(async move { Ok(owner.into()) })
    }
}

fn main() -> Result<()> {
    unshare(CloneFlags::CLONE_NEWNET).context("a network namespace of its own needs root")?;
    let mut settings = tun::Configuration::default();
    settings
        .tun_name("example0")
        .address(IpAddr::from(OURS))
        .netmask((255, 255, 255, 0))
        .mtu(1420)
        .up();
    let device = tun::create(&settings).context("cannot make the device")?;

    let runtime = Runtime::new()?;
    let router = {
        let _in_runtime = runtime.enter();
        StreamRouter::new(StreamRouterConfig::default(), Sink, OnePeer(PeerId::random()))
    };
    runtime.block_on(router.resolve(THEIRS.into()))?;

    // An application, as the kernel routes its datagrams to the device.
    let socket = UdpSocket::bind((IpAddr::from(OURS), 4000))?;
    for number in 0..N_PACKETS {
        socket.send_to(&number.to_be_bytes(), (IpAddr::from(THEIRS), 9))?;
    }

    let mut buffer = [0; 65_535];
    let mut n_taken = 0;
    while n_taken < N_PACKETS {
        let len = device.recv(&mut buffer)?;
        match router.dispatch_packet(buffer.get(..len).unwrap_or_default()) {
            Ok(()) => n_taken += 1,
            Err(DispatchError::Resolving { .. } | DispatchError::UnknownPeer { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }

    let report = runtime.block_on(router.shutdown(Duration::from_secs(10)));
    println!("{} packets of the device written", report.n_written);
    ensure!(
        report.closed && report.n_written == N_PACKETS,
        "all of them: {report:?}"
    );
    Ok(())
}
