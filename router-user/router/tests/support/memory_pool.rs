//! Streams that end in memory, and packets that say where they belong.
#![allow(dead_code, reason = "each test uses its part")]

#[path = "wait.rs"]
pub(crate) mod wait;

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, Waker};
use std::time::Duration;
use std::{future, io};

use etherparse::PacketBuilder;
use futures::AsyncWrite;
use futures::future::BoxFuture;

use stream_router::receive::Decoder;
use stream_router::{Answer, DiscoveryError, PeerDiscovery, PeerId, PoolError, StreamPool};

/// Longer than anything takes that works.
pub(crate) const LIMIT: Duration = Duration::from_secs(60);

/// Remembers every packet in the order of writes, over all streams.
#[derive(Clone, Default)]
pub(crate) struct MemoryPool(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    received: Vec<Received>,
    open: HashMap<PeerId, usize>,
    n_opened: usize,
    stalled: Option<PeerId>,
    wakers: Vec<Waker>,
    n_failing: u32,
    discards: bool,
}

/// A packet that came out of a stream.
#[derive(Clone, Debug)]
pub(crate) struct Received {
    pub(crate) peer: PeerId,
    pub(crate) stream: usize,
    pub(crate) packet: Vec<u8>,
}

impl MemoryPool {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().expect("nobody panics with it")
    }

    pub(crate) fn received(&self) -> Vec<Received> {
        self.state().received.clone()
    }

    pub(crate) fn n_opened(&self) -> usize {
        self.state().n_opened
    }

    /// Makes streams to `peer` take nothing, or all streams take everything again.
    pub(crate) fn stall(&self, peer: Option<PeerId>) {
        let mut state = self.state();
        state.stalled = peer;
        state.wakers.drain(..).for_each(Waker::wake);
    }

    /// Remembers no packets from now on.
    pub(crate) fn discard(&self) {
        self.state().discards = true;
    }

    /// Makes the next `n` opens fail.
    pub(crate) fn fail(&self, n: u32) {
        self.state().n_failing = n;
    }
}

impl StreamPool for MemoryPool {
    type Stream = MemoryStream;

    fn open(&self, peer: PeerId) -> BoxFuture<'_, Result<MemoryStream, PoolError>> {
        let mut state = self.state();
        if state.n_failing > 0 {
            state.n_failing -= 1;
            return Box::pin(future::ready(Err(PoolError::new("no stream today"))));
        }
        let stream = state.n_opened;
        state.n_opened += 1;
        *state.open.entry(peer).or_default() += 1;
        drop(state);
        Box::pin(future::ready(Ok(MemoryStream {
            pool: self.clone(),
            peer,
            stream,
            decoder: Decoder::default(),
        })))
    }

    fn list(&self, peer: PeerId) -> Vec<String> {
        let n = self.state().open.get(&peer).copied().unwrap_or_default();
        (0..n).map(|n| format!("memory {n}")).collect()
    }
}

pub(crate) struct MemoryStream {
    pool: MemoryPool,
    peer: PeerId,
    stream: usize,
    decoder: Decoder,
}

impl AsyncWrite for MemoryStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        let mut state = this.pool.state();
        if state.stalled == Some(this.peer) {
            state.wakers.push(context.waker().clone());
            return Poll::Pending;
        }
        let space = this.decoder.space();
        let n = space.len().min(bytes.len());
        space[..n].copy_from_slice(&bytes[..n]);
        this.decoder.handle_read(n);
        for frame in this.decoder.frames() {
            let frame = frame.expect("frames");
            if !state.discards {
                state.received.push(Received {
                    peer: this.peer,
                    stream: this.stream,
                    packet: frame.packet().to_vec(),
                });
            }
        }
        Poll::Ready(Ok(n))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(match self.decoder.pending() {
            0 => Ok(()),
            n => Err(io::Error::other(format!("{n} bytes of a frame at the end"))),
        })
    }
}

impl Drop for MemoryStream {
    fn drop(&mut self) {
        if let Some(n) = self.pool.state().open.get_mut(&self.peer) {
            *n -= 1;
        }
    }
}

/// 10.0.N.0/24 is the Nth peer's, 10.1.0.0/16 nobody's, and nothing can be learned of the rest.
#[derive(Clone)]
pub(crate) struct Peers {
    pub(crate) ids: Vec<PeerId>,
    pub(crate) asked: Arc<Mutex<Vec<IpAddr>>>,
}

impl Peers {
    pub(crate) fn new(n: usize) -> Self {
        Self {
            ids: (0..n).map(|_| PeerId::random()).collect(),
            asked: Arc::default(),
        }
    }

    pub(crate) fn n_asked(&self) -> usize {
        self.asked.lock().expect("nobody panics with it").len()
    }
}

impl PeerDiscovery for Peers {
    fn find_peer(&self, destination: IpAddr) -> BoxFuture<'_, Result<Answer, DiscoveryError>> {
        self.asked
            .lock()
            .expect("nobody panics with it")
            .push(destination);
        let answer = match destination {
            IpAddr::V4(address) => match address.octets() {
                [10, 0, n, _] => Ok(self.ids.get(usize::from(n)).copied().into()),
                [10, 1, ..] => Ok(Answer::nobody()),
                _ => Err(DiscoveryError::new("the registry is down")),
            },
            IpAddr::V6(_) => Err(DiscoveryError::new("the registry is down")),
        };
        Box::pin(future::ready(answer))
    }
}

pub(crate) fn address(peer: u8) -> IpAddr {
    Ipv4Addr::new(10, 0, peer, 1).into()
}

/// The packet of this number of a flow to a peer.
pub(crate) fn packet(peer: u8, flow: u16, number: u32) -> Vec<u8> {
    packet_to([10, 0, peer, 1], flow, number)
}

pub(crate) fn packet_to(destination: [u8; 4], flow: u16, number: u32) -> Vec<u8> {
    let payload = [&flow.to_be_bytes()[..], &number.to_be_bytes()].concat();
    let mut packet = Vec::new();
    PacketBuilder::ipv4([10, 9, 0, 1], destination, 64)
        .udp(1024 + flow, 9)
        .write(&mut packet, &payload)
        .expect("a packet");
    packet
}

/// The numbers of each flow's packets, in the order in which they came.
pub(crate) fn by_flow(received: &[Received]) -> HashMap<(PeerId, u16), Vec<u32>> {
    let mut flows = HashMap::<_, Vec<u32>>::new();
    for Received { peer, packet, .. } in received {
        let payload = &packet[28..];
        let flow = u16::from_be_bytes(payload[..2].try_into().expect("2 bytes"));
        let number = u32::from_be_bytes(payload[2..6].try_into().expect("4 bytes"));
        flows.entry((*peer, flow)).or_default().push(number);
    }
    flows
}

/// Waits until `done`, which nothing but progress decides.
pub(crate) async fn until(what: &str, done: impl FnMut() -> bool) {
    wait::until(what, LIMIT, done).await;
}
