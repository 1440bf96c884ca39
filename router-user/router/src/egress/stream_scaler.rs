//! How many streams each peer has: follows how many frames each of them carries.
//!
//! A stream that is retired gets no new flows, keeps those it has, and closes once it was idle for longer than a flow is
//! remembered.

use std::collections::HashMap;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use futures::future::join_all;
use libp2p_identity::PeerId;
use tracing::{debug, info};

use super::lanes::PeerLanes;
use stream_router_engine::scaler::{ScalerConfig, Scaling};

/// A peer whose streams are scaled.
pub trait ScaledPeer {
    /// Returns the number under which the peer's figures are kept; no two peers have the same at a time.
    fn index(&self) -> u32;

    /// Returns the peer's identity, for the log.
    fn id(&self) -> PeerId;

    /// Returns the lanes of the peer's streams.
    fn lanes(&self) -> &PeerLanes;

    /// Returns the fewest streams that the peer is to have, if the bounds allow so many: those by which all ways to it are used.
    fn n_least(&self) -> u32 {
        1
    }

    /// Makes ready for `n` active streams, as far as that can be done in a bounded time.
    fn prepare(&self, n: u32) -> impl Future<Output = ()> + Send;
}

/// Decides for every peer.
#[derive(Debug)]
pub struct StreamScaler {
    config: ScalerConfig,
    /// Frames per second that one stream is good for.
    threshold_fps: f64,
    /// What each peer's lanes had been offered at the last decision, if anything.
    at_decision: HashMap<u32, u64>,
    /// What each lane had been offered at the last look for idle ones, of the peers that had some to look at.
    at_look: HashMap<u32, Vec<u64>>,
}

impl StreamScaler {
    /// Makes a scaler that has seen nothing; one stream is good for `threshold_fps` frames per second.
    pub fn new(config: ScalerConfig, threshold_fps: u32) -> Self {
        Self {
            config,
            threshold_fps: threshold_fps.into(),
            at_decision: HashMap::new(),
            at_look: HashMap::new(),
        }
    }

    /// Returns the bounds and thresholds.
    pub fn config(&self) -> ScalerConfig {
        self.config
    }

    /// Adds or retires a stream of each peer whose rate over `elapsed`, since the last decision, asks for it.
    pub async fn decide(&mut self, peers: &[impl ScaledPeer], elapsed: Duration) {
        let before = std::mem::take(&mut self.at_decision);
        let mut changes = Vec::new();
        for peer in peers {
            let (offered, lanes) = (peer.lanes().n_offered(), peer.lanes());
            // Most peers of a large mesh have sent nothing ever.
            if offered > 0 {
                self.at_decision.insert(peer.index(), offered);
            }
            // A new peer had nothing before; one that has the index of another may have had more.
            let before = before.get(&peer.index()).copied().unwrap_or(0);
            let rate_fps = offered.saturating_sub(before) as f64 / elapsed.as_secs_f64();
            let n_active = lanes.n_active();
            let config = self.config_of(peer);
            let wanted = match config.decide(n_active, rate_fps / self.threshold_fps) {
                Scaling::Keep => continue,
                Scaling::Up => n_active + 1,
                Scaling::Down => n_active - 1,
            };
            info!(peer = %peer.id(), rate_fps, n_streams = wanted, "streams scaled");
            changes.push(set_active(peer, wanted));
        }
        join_all(changes).await;
    }

    /// Decides by these limits from now on, and brings every peer within them at once.
    pub async fn set_config(&mut self, config: ScalerConfig, threshold_fps: u32, peers: &[impl ScaledPeer]) {
        self.config = config;
        self.threshold_fps = threshold_fps.into();
        let outside = peers.iter().filter_map(|peer| {
            let n_active = peer.lanes().n_active();
            let wanted = n_active.clamp(self.config_of(peer).min, config.max);
            (wanted != n_active).then(|| set_active(peer, wanted))
        });
        join_all(outside).await;
    }

    /// Brings every peer to the fewest streams that it is to have, if it has less.
    pub async fn raise(&self, peers: &[impl ScaledPeer]) {
        let below = peers.iter().filter_map(|peer| {
            let least = self.config_of(peer).min;
            (peer.lanes().n_active() < least).then(|| set_active(peer, least))
        });
        join_all(below).await;
    }

    /// Returns the bounds of a peer.
    fn config_of(&self, peer: &impl ScaledPeer) -> ScalerConfig {
        let ScalerConfig { min, max, .. } = self.config;
        ScalerConfig {
            min: peer.n_least().min(max).max(min),
            ..self.config
        }
    }

    /// Lets `n` streams to every peer take new flows, until the next decision.
    pub async fn scale_to(&self, n: u32, peers: &[impl ScaledPeer]) {
        join_all(peers.iter().map(|peer| set_active(peer, n))).await;
    }

    /// Closes each retired stream that had no frame since the last look.
    pub fn close_idle(&mut self, peers: &[impl ScaledPeer]) {
        let before = std::mem::take(&mut self.at_look);
        for peer in peers {
            let lanes = peer.lanes();
            let mut retired = lanes.all().iter().skip(lanes.n_active() as usize);
            if !retired.any(|lane| lane.open.load(Relaxed)) {
                continue;
            }
            let before = before.get(&peer.index()).map_or(&[][..], Vec::as_slice);
            let offered: Vec<_> = lanes
                .all()
                .iter()
                .map(|lane| lane.n_offered.load(Relaxed))
                .collect();
            for (stream, lane) in lanes.all().iter().enumerate().skip(lanes.n_active() as usize) {
                if lane.open.load(Relaxed) && before.get(stream) == offered.get(stream) {
                    debug!(peer = %peer.id(), stream, "closing an idle stream");
                    lane.close.notify_one();
                }
            }
            self.at_look.insert(peer.index(), offered);
        }
    }
}

/// Lets the first `n` streams take new flows once the peer is ready for them: a stream in use stays where it is.
async fn set_active(peer: &impl ScaledPeer, n: u32) {
    peer.prepare(n).await;
    peer.lanes().set_active(n);
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::task::Context;

    use futures::FutureExt;
    use futures::task::noop_waker;

    use super::*;
    use stream_router_engine::queue::QueueLimits;

    const CONFIG: ScalerConfig = ScalerConfig {
        min: 1,
        max: 4,
        scale_up: 0.8,
        scale_down: 0.3,
    };
    const SECOND: Duration = Duration::from_secs(1);

    struct FakePeer {
        id: PeerId,
        lanes: PeerLanes,
        prepared: Mutex<Vec<u32>>,
        ready: bool,
        n_least: u32,
    }

    impl FakePeer {
        fn new() -> Self {
            let limits = QueueLimits {
                pressure_at: 1000,
                relief_at: 500,
                full_at: 2000,
                aqm: false,
            };
            Self {
                id: PeerId::random(),
                lanes: PeerLanes::new(4, 1, limits, Box::new(|_| ())),
                prepared: Mutex::default(),
                ready: true,
                n_least: 1,
            }
        }

        fn offer(&self, stream: usize, n_frames: u64) {
            self.lanes.all()[stream].n_offered.fetch_add(n_frames, Relaxed);
        }
    }

    impl ScaledPeer for FakePeer {
        fn index(&self) -> u32 {
            7
        }

        fn id(&self) -> PeerId {
            self.id
        }

        fn lanes(&self) -> &PeerLanes {
            &self.lanes
        }

        fn n_least(&self) -> u32 {
            self.n_least
        }

        async fn prepare(&self, n: u32) {
            self.prepared.lock().unwrap().push(n);
            if !self.ready {
                std::future::pending::<()>().await;
            }
        }
    }

    fn now<T>(future: impl Future<Output = T>) -> T {
        future.now_or_never().expect("nothing to wait for")
    }

    fn asked_to_close(peer: &FakePeer, stream: usize) -> bool {
        let mut notified = std::pin::pin!(peer.lanes.all()[stream].close.notified());
        let waker = noop_waker();
        notified
            .as_mut()
            .poll(&mut Context::from_waker(&waker))
            .is_ready()
    }

    #[test]
    fn a_peer_has_a_stream_for_each_way_to_it_as_far_as_the_bounds_allow() {
        let (mut scaler, mut peers) = (StreamScaler::new(CONFIG, 1000), [FakePeer::new()]);
        for (n_least, n_active) in [(1, 1), (2, 2), (9, 4)] {
            peers[0].n_least = n_least;
            now(scaler.raise(&peers));
            now(scaler.decide(&peers, SECOND));
            assert_eq!(peers[0].lanes.n_active(), n_active);
        }
        peers[0].n_least = 1;
        now(scaler.decide(&peers, SECOND));
        assert_eq!(peers[0].lanes.n_active(), 3, "one of the ways is gone");
    }

    #[test]
    fn a_stream_is_added_at_the_threshold_and_retired_below_the_lower_one() {
        let (mut scaler, peers) = (StreamScaler::new(CONFIG, 1000), [FakePeer::new()]);
        for (n_frames, n_active) in [(799, 1), (800, 2), (1600, 3), (1000, 3), (700, 2), (0, 1), (0, 1)] {
            peers[0].offer(0, n_frames);
            now(scaler.decide(&peers, SECOND));
            assert_eq!(
                peers[0].lanes.n_active(),
                n_active,
                "after {n_frames} frames in a second"
            );
        }
        assert_eq!(*peers[0].prepared.lock().unwrap(), [2, 3, 2, 1]);
    }

    #[test]
    fn a_stream_takes_no_flows_before_the_peer_is_ready_for_it() {
        let mut peer = FakePeer::new();
        peer.ready = false;
        let (mut scaler, peers) = (StreamScaler::new(CONFIG, 1000), [peer]);
        peers[0].offer(0, 5000);

        assert!(scaler.decide(&peers, SECOND).now_or_never().is_none());

        assert_eq!(*peers[0].prepared.lock().unwrap(), [2]);
        assert_eq!(peers[0].lanes.n_active(), 1);
    }

    #[test]
    fn a_peer_that_has_anothers_index_is_not_credited_with_its_frames() {
        let mut scaler = StreamScaler::new(CONFIG, 1000);
        let first = [FakePeer::new()];
        first[0].offer(0, 700);
        now(scaler.decide(&first, SECOND));

        let second = [FakePeer::new()];
        second[0].offer(0, 100);
        now(scaler.decide(&second, SECOND));

        assert_eq!(second[0].lanes.n_active(), 1);
    }

    #[test]
    fn new_bounds_hold_at_once_and_a_request_until_the_next_decision() {
        let (mut scaler, peers) = (StreamScaler::new(CONFIG, 1000), [FakePeer::new()]);
        now(scaler.set_config(ScalerConfig { min: 3, ..CONFIG }, 1000, &peers));
        assert_eq!(peers[0].lanes.n_active(), 3);

        now(scaler.scale_to(4, &peers));
        assert_eq!(peers[0].lanes.n_active(), 4);
        now(scaler.decide(&peers, SECOND));
        assert_eq!(peers[0].lanes.n_active(), 3);
    }

    #[test]
    fn a_retired_stream_closes_once_it_had_no_frame_between_two_looks() {
        let (mut scaler, peers) = (StreamScaler::new(CONFIG, 1000), [FakePeer::new()]);
        let lanes = &peers[0].lanes;
        let _open: Vec<_> = lanes.all().iter().map(|lane| lane.mark_open()).collect();
        lanes.set_active(2);
        scaler.close_idle(&peers);
        assert!(
            !asked_to_close(&peers[0], 2),
            "at the first look nothing is known"
        );
        peers[0].offer(2, 1);

        scaler.close_idle(&peers);

        assert!(!asked_to_close(&peers[0], 1), "it is active");
        assert!(!asked_to_close(&peers[0], 2), "it had a frame");
        assert!(asked_to_close(&peers[0], 3));
    }
}
