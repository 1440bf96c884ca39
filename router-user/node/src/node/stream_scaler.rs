//! Adds and retires the streams to each peer as its throughput asks.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use futures::future::join_all;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until, timeout};
use tracing::{debug, info};

use super::peers::{LivePeers, Peer};
use crate::config::{StreamRouterConfig, StreamsConfig};
use crate::control::Wish;
use stream_router::p2p::NetworkHandle;
use stream_router_engine::flow_cache::FlowCache;
use stream_router_engine::route_table::PeerIndex;
use stream_router_engine::scaler::{ScalerConfig, Scaling};

/// How long more streams wait for more connections; then they share those that stand.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// Decides for every peer.
pub(super) struct StreamScaler {
    peers: Arc<LivePeers>,
    network: NetworkHandle,
    flows: Arc<FlowCache>,
    /// Most connections to a peer.
    n_connections: u32,
    scaler: ScalerConfig,
    interval: Duration,
    /// Frames per second that one stream is good for.
    threshold: f64,
    /// What each peer's lanes had been offered, at the last decision.
    at_decision: HashMap<PeerIndex, u64>,
    /// What each lane had been offered, at the last look for idle ones.
    at_look: HashMap<PeerIndex, Vec<u64>>,
}

impl StreamScaler {
    /// `flows` says how long a flow keeps its stream.
    pub(super) fn new(
        peers: Arc<LivePeers>,
        network: NetworkHandle,
        flows: Arc<FlowCache>,
        n_connections: u32,
        config: &StreamsConfig,
    ) -> Self {
        Self {
            peers,
            network,
            flows,
            n_connections,
            scaler: config.scaling().scaler,
            interval: config.scaling().interval,
            threshold: config.throughput_threshold().into(),
            at_decision: HashMap::new(),
            at_look: HashMap::new(),
        }
    }

    /// Runs for ever, by `limits` as they change.
    pub(super) async fn run(
        mut self,
        mut wishes: mpsc::Receiver<Wish>,
        mut limits: watch::Receiver<StreamRouterConfig>,
    ) {
        let mut decided = Instant::now();
        let mut next_look = decided + self.flows.forgets_within();
        loop {
            tokio::select! {
                Some(wish) = wishes.recv() => self.handle_wish(wish).await,
                Ok(()) = limits.changed() => {
                    let config = limits.borrow_and_update().streams().clone();
                    self.set_limits(&config).await;
                }
                () = sleep_until(decided + self.interval) => {
                    let now = Instant::now();
                    self.decide(now - decided).await;
                    decided = now;
                }
                () = sleep_until(next_look) => {
                    self.close_idle();
                    next_look = Instant::now() + self.flows.forgets_within();
                }
            }
        }
    }

    /// Decides by these limits from now on, and has every peer keep to them at once.
    async fn set_limits(&mut self, config: &StreamsConfig) {
        self.scaler = config.scaling().scaler;
        self.interval = config.scaling().interval;
        self.threshold = config.throughput_threshold().into();
        let peers = self.peers.load_full();
        let outside = peers.all().iter().filter_map(|configured| {
            let n_active = configured.peer.streams.n_active();
            let wanted = n_active.clamp(self.scaler.min, self.scaler.max);
            (wanted != n_active).then(|| self.set_active(&configured.peer, wanted))
        });
        join_all(outside).await;
    }

    async fn decide(&mut self, elapsed: Duration) {
        let peers = self.peers.load_full();
        let before = std::mem::take(&mut self.at_decision);
        let mut changed = Vec::new();
        for peer in peers.all().iter().map(|configured| &configured.peer) {
            let lanes = peer.streams.lanes().iter();
            let offered = lanes.map(|lane| lane.n_offered.load(Relaxed)).sum::<u64>();
            self.at_decision.insert(peer.index, offered);
            // A new peer had nothing before; one that has the index of another may have had more.
            let before = before.get(&peer.index).copied().unwrap_or(0);
            let rate = offered.saturating_sub(before) as f64 / elapsed.as_secs_f64();
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
        let peers = self.peers.load_full();
        let before = std::mem::take(&mut self.at_look);
        for peer in peers.all().iter().map(|configured| &configured.peer) {
            let before = before.get(&peer.index).map_or(&[][..], Vec::as_slice);
            let n_active = peer.streams.n_active() as usize;
            let lanes = peer.streams.lanes();
            let offered: Vec<_> = lanes.iter().map(|lane| lane.n_offered.load(Relaxed)).collect();
            for (index, lane) in lanes.iter().enumerate().skip(n_active) {
                if lane.open.load(Relaxed) && before.get(index) == offered.get(index) {
                    debug!(peer = %peer.id, stream = index, "closing an idle stream");
                    lane.close.notify_one();
                }
            }
            self.at_look.insert(peer.index, offered);
        }
    }

    async fn handle_wish(&self, wish: Wish) {
        let (min, max) = (self.scaler.min, self.scaler.max);
        let outcome = if (min..=max).contains(&wish.n_active) {
            let peers = self.peers.load_full();
            let peers = peers.all().iter().map(|configured| &configured.peer);
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
