//! Packets per second through `dispatch_packet` into a pool that keeps nothing, beside a router of one channel per worker.
//!
//! Every packet is 64 bytes. Both routers refuse what their workers do not get to; counted is what was taken and what the
//! dispatcher did in all. An allocator that counts says what a packet costs of memory.
#![expect(clippy::print_stdout, reason = "a benchmark prints its figures")]
#![expect(unsafe_code, reason = "an allocator that counts")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::collections::HashMap;
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, RwLock};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use futures::AsyncWriteExt;
use futures::future::BoxFuture;
use tokio::runtime::Runtime;
use tokio::sync::mpsc;

use stream_router::receive::parse;
use stream_router::{
    Answer, DiscoveryError, PeerDiscovery, PeerId, PoolError, StreamPool, StreamRouter, StreamRouterConfig,
};

const PACKET_LEN: usize = 64;
const N_FLOWS: u16 = 256;
const MEASURED: Duration = Duration::from_millis(250);
/// Rounds of each, one after the other; the median counts.
const N_ROUNDS: usize = 7;
const N_WORKERS: usize = 8;
const QUEUE_PACKETS: usize = 1000;
const BATCH: usize = 64;

struct Counting;

static N_ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

// SAFETY: each call is passed on to the system's allocator as it is.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        N_ALLOCATIONS.fetch_add(1, Relaxed);
        // SAFETY: the caller keeps the contract of this very function.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller keeps the contract of this very function.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        N_ALLOCATIONS.fetch_add(1, Relaxed);
        // SAFETY: the caller keeps the contract of this very function.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

struct Null;

impl StreamPool for Null {
    type Stream = futures::io::Sink;

    fn open(&self, _: PeerId) -> BoxFuture<'_, Result<Self::Stream, PoolError>> {
        Box::pin(async { Ok(futures::io::sink()) })
    }

    fn list(&self, _: PeerId) -> Vec<String> {
        Vec::new()
    }
}

struct OnePeer(PeerId);

impl PeerDiscovery for OnePeer {
    fn find_peer(&self, _: IpAddr) -> BoxFuture<'_, Result<Answer, DiscoveryError>> {
        Box::pin(async { Ok(self.0.into()) })
    }
}

/// A packet with the index of its owner.
type Owned = (usize, Vec<u8>);

/// What one would write first: a map behind a lock, a copy of each packet, a channel to each worker by hash.
#[derive(Clone)]
struct Naive {
    owners: Arc<RwLock<HashMap<IpAddr, usize>>>,
    hasher: RandomState,
    workers: Arc<Vec<mpsc::Sender<Owned>>>,
}

impl Naive {
    fn new(destination: IpAddr) -> Self {
        let worker = |_| {
            let (sender, mut packets) = mpsc::channel::<Owned>(QUEUE_PACKETS);
            tokio::spawn(async move {
                let mut stream = futures::io::sink();
                while let Some((_owner, packet)) = packets.recv().await {
                    if stream.write_all(&packet).await.is_err() {
                        return;
                    }
                }
            });
            sender
        };
        Self {
            owners: Arc::new(RwLock::new(HashMap::from([(destination, 0)]))),
            hasher: RandomState::new(),
            workers: Arc::new((0..N_WORKERS).map(worker).collect()),
        }
    }

    fn dispatch(&self, packet: &[u8]) -> bool {
        let Ok(parsed) = parse(packet, packet.len() as u32) else {
            return false;
        };
        let [.., a, b, c, d] = parsed.key.destination;
        let destination = IpAddr::from([a, b, c, d]);
        let owner = self
            .owners
            .read()
            .ok()
            .and_then(|owners| owners.get(&destination).copied());
        let worker = self
            .workers
            .get(self.hasher.hash_one(parsed.key) as usize % N_WORKERS);
        let (Some(owner), Some(worker)) = (owner, worker) else {
            return false;
        };
        worker.try_send((owner, packet.to_vec())).is_ok()
    }
}

/// Packets per second, in all and taken, and allocations for each that was taken.
#[derive(Clone, Copy, Default)]
struct Figures {
    offered: f64,
    taken: f64,
    allocations: f64,
}

/// Dispatches `packets` over and over from `n_threads` threads; `dispatch` says how many of a batch were taken.
fn measure(n_threads: usize, packets: &[Vec<u8>], dispatch: impl Fn(&[Vec<u8>]) -> usize + Sync) -> Figures {
    let (n_offered, n_taken, stop) = (AtomicU64::new(0), AtomicU64::new(0), AtomicBool::new(false));
    let start = Instant::now();
    let before = N_ALLOCATIONS.load(Relaxed);
    std::thread::scope(|scope| {
        for thread in 0..n_threads {
            let (dispatch, n_offered, n_taken, stop) = (&dispatch, &n_offered, &n_taken, &stop);
            scope.spawn(move || {
                let (mut offered, mut taken) = (0, 0);
                // Each thread has flows of its own.
                let own = packets.chunks(BATCH).skip(thread).step_by(n_threads).cycle();
                for batch in own {
                    taken += dispatch(batch) as u64;
                    offered += batch.len() as u64;
                    if stop.load(Relaxed) {
                        break;
                    }
                }
                n_offered.fetch_add(offered, Relaxed);
                n_taken.fetch_add(taken, Relaxed);
            });
        }
        std::thread::sleep(MEASURED);
        stop.store(true, Relaxed);
    });
    let seconds = start.elapsed().as_secs_f64();
    let n_allocations = N_ALLOCATIONS.load(Relaxed) - before;
    let n_taken = n_taken.into_inner() as f64;
    Figures {
        offered: n_offered.into_inner() as f64 / seconds,
        taken: n_taken / seconds,
        allocations: n_allocations as f64 / n_taken.max(1.0),
    }
}

fn median(mut rounds: Vec<Figures>) -> Figures {
    rounds.sort_by(|a, b| a.taken.total_cmp(&b.taken));
    rounds.get(rounds.len() / 2).copied().unwrap_or_default()
}

/// Zeros in UDP, from a port of 10.0.0.1 to port 9 of 10.0.0.2; checksums are left out.
fn datagram(port: u16) -> Vec<u8> {
    let ip = [
        0x45,
        0,
        0,
        PACKET_LEN as u8,
        0,
        0,
        0,
        0,
        64,
        17,
        0,
        0,
        10,
        0,
        0,
        1,
        10,
        0,
        0,
        2,
    ];
    let udp = [0, 9, 0, PACKET_LEN as u8 - 20, 0, 0];
    let mut packet = [&ip[..], &port.to_be_bytes(), &udp].concat();
    packet.resize(PACKET_LEN, 0);
    packet
}

fn main() -> Result<()> {
    let destination = IpAddr::from([10, 0, 0, 2]);
    let mut packets = Vec::new();
    for port in 0..N_FLOWS {
        packets.push(datagram(1024 + port));
    }
    let runtime = Runtime::new()?;
    let (router, naive) = runtime.block_on(async {
        let config = StreamRouterConfig::default();
        let router = StreamRouter::new(config, Null, OnePeer(PeerId::random()));
        (router, Naive::new(destination))
    });
    runtime.block_on(router.resolve(destination))?;

    println!("threads  router          M/s offered    M/s taken  allocations per packet");
    for n_threads in [1, 2] {
        let mut rounds = [const { Vec::new() }; 3];
        for _ in 0..N_ROUNDS {
            let one_by_one = measure(n_threads, &packets, |batch| {
                batch
                    .iter()
                    .filter(|packet| router.dispatch_packet(packet).is_ok())
                    .count()
            });
            let batches = measure(n_threads, &packets, |batch| {
                router.dispatch_batch(batch.iter().map(Vec::as_slice), |_, _| {})
            });
            let naive = measure(n_threads, &packets, |batch| {
                batch.iter().filter(|packet| naive.dispatch(packet)).count()
            });
            for (rounds, figures) in rounds.iter_mut().zip([one_by_one, batches, naive]) {
                rounds.push(figures);
            }
        }
        let [one_by_one, batches, naive] = rounds.map(median);
        for (name, figures) in [
            ("dispatch_packet", one_by_one),
            ("dispatch_batch", batches),
            ("naive", naive),
        ] {
            println!(
                "{n_threads:7}  {name:15} {:11.2} {:12.2} {:12.4}   {:.2} times the naive one",
                figures.offered / 1e6,
                figures.taken / 1e6,
                figures.allocations,
                figures.taken / naive.taken,
            );
        }
    }
    let stats = router.stats();
    let report = runtime.block_on(router.shutdown(Duration::from_secs(10)));
    ensure!(
        report.closed && report.n_written == stats.n_processed + stats.n_waiting,
        "what was taken was written: {report:?}"
    );
    Ok(())
}
