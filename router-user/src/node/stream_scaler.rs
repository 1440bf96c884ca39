//! Adds and retires the streams to each peer as its throughput asks.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use futures::future::join_all;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until, timeout};
use tracing::{debug, info};

use super::peers::{Peer, PeerTable};
use crate::config::StreamsConfig;
use crate::control::Wish;
use crate::engine::scaler::{ScalerConfig, Scaling};
use crate::p2p::NetworkHandle;

/// How long more streams wait for more connections; then they share those that stand.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// Decides for every peer.
pub(super) struct StreamScaler {
    peers: Arc<PeerTable>,
    network: NetworkHandle,
    /// Most connections to a peer.
    n_connections: u32,
    scaler: ScalerConfig,
    interval: Duration,
    /// Frames per second that one stream is good for.
    threshold: f64,
    /// A stream without a frame for so long has no live flow.
    idle_after: Duration,
    /// What each peer's lanes had been offered, at the last decision.
    at_decision: Vec<u64>,
    /// What each lane had been offered, at the last look for idle ones.
    at_look: Vec<Vec<u64>>,
}

impl StreamScaler {
    /// `flow_ttl` is the time to live of a flow's stream.
    pub(super) fn new(
        peers: Arc<PeerTable>,
        network: NetworkHandle,
        n_connections: u32,
        config: &StreamsConfig,
        flow_ttl: Duration,
    ) -> Self {
        let n_peers = peers.all().len();
        Self {
            peers,
            network,
            n_connections,
            scaler: config.scaling().scaler,
            interval: config.scaling().interval,
            threshold: config.throughput_threshold().into(),
            // The flow cache forgets a little late.
            idle_after: flow_ttl + flow_ttl / 8,
            at_decision: vec![0; n_peers],
            at_look: vec![Vec::new(); n_peers],
        }
    }

    /// Runs for ever.
    pub(super) async fn run(mut self, mut wishes: mpsc::Receiver<Wish>) {
        let mut decided = Instant::now();
        let mut next_look = decided + self.idle_after;
        loop {
            tokio::select! {
                Some(wish) = wishes.recv() => self.handle_wish(wish).await,
                () = sleep_until(decided + self.interval) => {
                    let now = Instant::now();
                    self.decide(now - decided).await;
                    decided = now;
                }
                () = sleep_until(next_look) => {
                    self.close_idle();
                    next_look = Instant::now() + self.idle_after;
                }
            }
        }
    }

    async fn decide(&mut self, elapsed: Duration) {
        let mut changed = Vec::new();
        for (peer, before) in self.peers.all().iter().zip(&mut self.at_decision) {
            let lanes = peer.streams.lanes().iter();
            let offered = lanes.map(|lane| lane.n_offered.load(Relaxed)).sum::<u64>();
            let rate = (offered - std::mem::replace(before, offered)) as f64 / elapsed.as_secs_f64();
            let n_active = peer.streams.n_active();
            let wanted = match self.scaler.decide(n_active, rate / self.threshold) {
                Scaling::Keep => continue,
                Scaling::Up => n_active + 1,
                Scaling::Down => n_active - 1,
            };
            info!(peer = %peer.id, rate_fps = rate, n_streams = wanted, "streams scaled");
            changed.push((peer, wanted));
        }
        join_all(
            changed
                .into_iter()
                .map(|(peer, wanted)| self.set_active(peer, wanted)),
        )
        .await;
    }

    /// Has a peer's first `n` streams take new flows, once there are connections for them: a stream in use stays where
    /// it is.
    async fn set_active(&self, peer: &Peer, n: u32) {
        let mut n_connections = peer.n_connections.subscribe();
        let (stand, wanted) = (*n_connections.borrow(), n.min(self.n_connections));
        let mut dialled = false;
        for _ in stand..wanted {
            dialled = stand > 0 && self.network.dial_another(peer.id).await;
        }
        if dialled {
            let enough = n_connections.wait_for(|stand| *stand >= wanted);
            if timeout(CONNECT_TIMEOUT, enough).await.is_err() {
                debug!(peer = %peer.id, wanted, "more streams share the connections that stand");
            }
        }
        peer.streams.set_active(n);
    }

    /// Has the retired streams closed that had no frame since the last look.
    fn close_idle(&mut self) {
        for (peer, before) in self.peers.all().iter().zip(&mut self.at_look) {
            let n_active = peer.streams.n_active() as usize;
            let lanes = peer.streams.lanes();
            let offered: Vec<_> = lanes.iter().map(|lane| lane.n_offered.load(Relaxed)).collect();
            for (index, lane) in lanes.iter().enumerate().skip(n_active) {
                if lane.open.load(Relaxed) && before.get(index) == offered.get(index) {
                    debug!(peer = %peer.id, stream = index, "closing an idle stream");
                    lane.close.notify_one();
                }
            }
            *before = offered;
        }
    }

    async fn handle_wish(&self, wish: Wish) {
        let (min, max) = (self.scaler.min, self.scaler.max);
        let outcome = if (min..=max).contains(&wish.n_active) {
            let peers = self.peers.all().iter();
            join_all(peers.map(|peer| self.set_active(peer, wish.n_active))).await;
            Ok(())
        } else {
            Err(format!(
                "{} is outside streams.min_per_peer to streams.max_per_peer, {min} to {max}",
                wish.n_active
            ))
        };
        // Whoever asked may have gone.
        let _ = wish.reply.send(outcome);
    }
}
