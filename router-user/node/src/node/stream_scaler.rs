//! Scales the streams to each peer of the node, with connections enough for them.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use libp2p::PeerId;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until, timeout};
use tracing::debug;

use super::data_path::DataPath;
use super::peers::{LivePeers, NodePeer, PeerTable};
use crate::config::{StreamRouterConfig, StreamsConfig};
use crate::control::ScaleRequest;
use crate::spans::Spans;
use stream_router::egress::lanes::PeerLanes;
use stream_router::egress::stream_scaler::{self, ScaledPeer};
use stream_router::p2p::NetworkHandle;
use stream_router_engine::flow_cache::FlowCache;
use stream_router_engine::scaler::ScalerConfig;

/// How long more streams wait for more connections; then they share those that stand.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// How often connections are counted, to replace those that were lost.
const COUNT_INTERVAL: Duration = Duration::from_secs(1);

/// How long a dial has to succeed before there is another: longer than nearly every handshake.
const DIAL_INTERVAL: Duration = Duration::from_secs(5);

/// Decides for every peer.
pub(super) struct StreamScaler {
    peers: Arc<LivePeers>,
    network: NetworkHandle,
    /// Says how long a flow keeps its stream.
    flows: Arc<FlowCache>,
    /// Most connections to a peer.
    n_connections: u32,
    interval: Duration,
    scaler: stream_scaler::StreamScaler,
    lost: LostConnections,
    spans: Spans,
}

impl StreamScaler {
    /// Makes a scaler of the streams to the peers of `data_path`.
    pub(super) fn new(
        data_path: DataPath,
        network: NetworkHandle,
        n_connections: u32,
        config: &StreamsConfig,
        spans: Spans,
    ) -> Self {
        Self {
            peers: data_path.peers,
            network,
            flows: data_path.flows,
            n_connections,
            interval: config.scaling().interval,
            scaler: stream_scaler::StreamScaler::new(config.scaling().scaler, config.throughput_threshold()),
            lost: LostConnections::default(),
            spans,
        }
    }

    /// Runs for ever, by `limits` as they change.
    pub(super) async fn run(
        mut self,
        mut requests: mpsc::Receiver<ScaleRequest>,
        mut limits: watch::Receiver<StreamRouterConfig>,
    ) {
        let mut decided = Instant::now();
        let mut next_look = decided + self.flows.forgets_within();
        let mut next_count = decided + COUNT_INTERVAL;
        loop {
            tokio::select! {
                Some(request) = requests.recv() => self.handle_request(request).await,
                Ok(()) = limits.changed() => {
                    let config = limits.borrow_and_update().streams().clone();
                    self.set_limits(&config).await;
                }
                () = sleep_until(decided + self.interval) => {
                    let (now, table) = (Instant::now(), self.peers.load_full());
                    let peers = connectable(&table, &self.network, self.n_connections, &self.spans);
                    self.scaler.decide(&peers, now - decided).await;
                    decided = now;
                }
                () = sleep_until(next_count) => {
                    self.replace_lost().await;
                    next_count = Instant::now() + COUNT_INTERVAL;
                }
                () = sleep_until(next_look) => {
                    let table = self.peers.load_full();
                    self.scaler.close_idle(&connectable(&table, &self.network, self.n_connections, &self.spans));
                    next_look = Instant::now() + self.flows.forgets_within();
                }
            }
        }
    }

    async fn set_limits(&mut self, config: &StreamsConfig) {
        self.interval = config.scaling().interval;
        let table = self.peers.load_full();
        let peers = connectable(&table, &self.network, self.n_connections, &self.spans);
        let threshold_fps = config.throughput_threshold();
        self.scaler
            .set_config(config.scaling().scaler, threshold_fps, &peers)
            .await;
    }

    /// Dials for every peer that has fewer connections than its streams are to have.
    async fn replace_lost(&mut self) {
        let table = self.peers.load_full();
        let mut peers = connectable(&table, &self.network, self.n_connections, &self.spans);
        // Of those without any, which most of a large mesh are, none is lost.
        peers.retain(|connectable| *connectable.peer.n_connections.borrow() > 0);
        self.scaler.raise(&peers).await;
        for connectable in &peers {
            connectable.want(connectable.peer.lanes.n_active());
        }
        let now = Instant::now();
        for (index, n_missing) in self.lost.due(peers.iter().map(ConnectablePeer::missing), now) {
            let of_index = peers.iter().filter(|connectable| connectable.index() == index);
            for connectable in of_index {
                debug!(peer = %connectable.peer.id, n_missing, "replacing lost connections");
                for _ in 0..n_missing {
                    connectable.dial().await;
                }
            }
        }
    }

    async fn handle_request(&self, request: ScaleRequest) {
        let bounds = self.scaler.config();
        let outcome = check_request(
            request.n_active,
            bounds,
            ["streams.min_per_peer", "streams.max_per_peer"],
        );
        if outcome.is_ok() {
            let table = self.peers.load_full();
            let peers = connectable(&table, &self.network, self.n_connections, &self.spans);
            self.scaler.scale_to(request.n_active, &peers).await;
        }
        // The client may have gone.
        let _ = request.reply.send(outcome);
    }
}

/// Refuses a number outside the bounds, which the configuration calls `fields`.
pub(super) fn check_request(n: u32, bounds: ScalerConfig, fields: [&str; 2]) -> Result<(), String> {
    let ScalerConfig { min, max, .. } = bounds;
    if (min..=max).contains(&n) {
        return Ok(());
    }
    let [field_min, field_max] = fields;
    Err(format!(
        "{n} is outside {field_min} to {field_max}, {min} to {max}"
    ))
}

/// A peer to which more connections can be dialled.
struct ConnectablePeer<'a> {
    peer: &'a NodePeer,
    network: &'a NetworkHandle,
    n_most: u32,
    spans: &'a Spans,
}

impl ConnectablePeer<'_> {
    /// Returns the peer's index, and how many connections are missing beside the first, which others dial.
    fn missing(&self) -> (u32, u32) {
        let n_standing = *self.peer.n_connections.borrow();
        let wanted = self.peer.lanes.n_active().min(self.n_most);
        let n_missing = if n_standing == 0 {
            0
        } else {
            wanted.saturating_sub(n_standing)
        };
        (self.peer.index.0, n_missing)
    }

    /// Has as many connections stand as `n_streams` are spread over.
    fn want(&self, n_streams: u32) {
        let n_wanted = n_streams.min(self.n_most) as usize;
        self.network.want_connections(self.peer.id, n_wanted);
    }

    /// Dials another connection; false if there is no address to dial.
    async fn dial(&self) -> bool {
        self.network.dial_another(self.peer.id).await
    }
}

/// The peers that lack connections, by index: how many, and when they are dialled next.
#[derive(Default)]
struct LostConnections(HashMap<u32, (u32, Instant)>);

impl LostConnections {
    /// Takes how many connections each peer lacks now. Returns those that are due to be dialled: peers that lacked as many
    /// already when this was called before, as they may just be coming.
    fn due(&mut self, missing: impl Iterator<Item = (u32, u32)>, now: Instant) -> Vec<(u32, u32)> {
        let mut before = std::mem::take(&mut self.0);
        let mut due = Vec::new();
        for (index, n_missing) in missing.filter(|(_, n_missing)| *n_missing > 0) {
            let soon = now + COUNT_INTERVAL;
            let next = match before.remove(&index) {
                None => soon,
                Some((_, next)) if next <= now => {
                    due.push((index, n_missing));
                    now + DIAL_INTERVAL
                }
                Some((n_before, next)) if n_missing > n_before => next.min(soon),
                Some((_, next)) => next,
            };
            self.0.insert(index, (n_missing, next));
        }
        due
    }
}

fn connectable<'a>(
    table: &'a PeerTable,
    network: &'a NetworkHandle,
    n_most: u32,
    spans: &'a Spans,
) -> Vec<ConnectablePeer<'a>> {
    let peers = table.all().iter().map(|configured| ConnectablePeer {
        peer: &configured.peer,
        network,
        n_most,
        spans,
    });
    peers.collect()
}

impl ScaledPeer for ConnectablePeer<'_> {
    fn index(&self) -> u32 {
        self.peer.index.0
    }

    fn id(&self) -> PeerId {
        self.peer.id
    }

    fn lanes(&self) -> &PeerLanes {
        &self.peer.lanes
    }

    fn n_least(&self) -> u32 {
        self.peer.n_least_streams.load(Relaxed)
    }

    async fn prepare(&self, n: u32) {
        let mut span = self.spans.begin("streams.scale");
        span.set("stream_router.peer.id", self.peer.id);
        span.set("stream_router.streams", n);
        if !connect(self.peer.n_connections.subscribe(), n.min(self.n_most), || {
            self.dial()
        })
        .await
        {
            debug!(peer = %self.peer.id, n, "more streams share the connections that stand");
        }
    }
}

/// Dials until `wanted` connections stand beside the first, which others dial; false if they did not in time.
async fn connect<D: Future<Output = bool>>(
    mut n_connections: watch::Receiver<u32>,
    wanted: u32,
    dial: impl Fn() -> D,
) -> bool {
    let n_standing = *n_connections.borrow();
    if n_standing == 0 {
        return true;
    }
    let mut dialled = false;
    for _ in n_standing..wanted {
        dialled = dial().await;
    }
    let enough = n_connections.wait_for(|n| *n >= wanted);
    !dialled
        || timeout(CONNECT_TIMEOUT, enough)
            .await
            .is_ok_and(|waited| waited.is_ok())
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[test]
    fn a_request_within_the_bounds_is_granted_and_another_refused_with_their_names() {
        let bounds = ScalerConfig {
            min: 2,
            max: 5,
            scale_up: 0.8,
            scale_down: 0.3,
        };
        for n in [2, 5] {
            assert_eq!(check_request(n, bounds, ["workers.min", "workers.max"]), Ok(()));
        }
        for n in [1, 6] {
            assert_eq!(
                check_request(n, bounds, ["workers.min", "workers.max"]),
                Err(format!("{n} is outside workers.min to workers.max, 2 to 5"))
            );
        }
    }

    #[test]
    fn lost_connections_are_dialled_at_the_second_count_and_then_every_five_seconds() {
        let mut lost = LostConnections::default();
        let start = Instant::now();
        let dialled: Vec<_> = (0..30)
            .filter(|seconds| {
                let due = lost.due([(3, 2), (4, 0)].into_iter(), start + COUNT_INTERVAL * *seconds);
                assert!(due.is_empty() || due == [(3, 2)], "{due:?}");
                !due.is_empty()
            })
            .collect();

        assert_eq!(dialled, [1, 6, 11, 16, 21, 26]);
    }

    #[test]
    fn a_peer_that_had_all_its_connections_again_is_dialled_soon_when_it_loses_another() {
        let mut lost = LostConnections::default();
        let start = Instant::now();
        let mut due = |seconds, n_missing| {
            let now = start + COUNT_INTERVAL * seconds;
            lost.due([(3, n_missing)].into_iter(), now)
        };
        assert_eq!((due(0, 1), due(1, 1), due(2, 1)), (vec![], vec![(3, 1)], vec![]));

        assert_eq!(due(3, 0), []);

        assert_eq!((due(4, 2), due(5, 2)), (vec![], vec![(3, 2)]));
        assert_eq!(
            (due(6, 3), due(7, 3)),
            (vec![], vec![(3, 3)]),
            "before those have come"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn as_many_connections_are_dialled_as_are_missing() {
        let (stand, n_connections) = watch::channel(1);
        let n_dialled = Cell::new(0);

        let connected = connect(n_connections, 3, async || {
            n_dialled.set(n_dialled.get() + 1);
            stand.send_modify(|n| *n += 1);
            true
        });

        assert!(connected.await);
        assert_eq!(n_dialled.get(), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn streams_wait_a_second_for_connections_and_then_share_those_that_stand() {
        let (_stand, n_connections) = watch::channel(1);
        let start = Instant::now();

        assert!(!connect(n_connections, 2, async || true).await);

        assert_eq!(start.elapsed(), CONNECT_TIMEOUT);
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_is_dialled_for_a_peer_without_a_connection_or_with_enough() {
        for (n_standing, wanted) in [(0, 3), (3, 3), (4, 2)] {
            let (_stand, n_connections) = watch::channel(n_standing);
            let dial = async || panic!("dialled at {n_standing} of {wanted}");
            assert!(connect(n_connections, wanted, dial).await);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_dial_that_cannot_begin_is_not_waited_for() {
        let (_stand, n_connections) = watch::channel(1);
        let start = Instant::now();

        assert!(connect(n_connections, 2, async || false).await);

        assert_eq!(start.elapsed(), Duration::ZERO);
    }
}
