//! One task that keeps the time of flows, cleans their cache a shard at a time, and scales workers and streams.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use thiserror::Error;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};
use tracing::warn;

use super::peer::{PlacedPeer, RouterPeer};
use super::worker;
use super::{ScaleRequest, Shared};
use crate::egress::cancellation::CancellationToken;
use crate::egress::stream_scaler::StreamScaler;
use crate::egress::worker_scaler::{WorkerScaler, Workers};
use router_common::slots::MAX_WORKERS;
use stream_router_engine::causes::with_sources;
use stream_router_engine::slots::SlotChange;

/// How often the fill of the queues is looked at.
const SAMPLE_INTERVAL: Duration = Duration::from_millis(100);

pub(super) struct Manager {
    shared: Arc<Shared>,
    workers: RouterWorkers,
    worker_scaler: WorkerScaler,
    stream_scaler: StreamScaler,
    next_shard: usize,
    /// Live flows of each worker, as far as this reading has come.
    n_flows: [u64; MAX_WORKERS as usize],
}

/// The worker tasks, and the inboxes that they take packets from.
struct RouterWorkers {
    shared: Arc<Shared>,
    tasks: JoinSet<()>,
}

#[derive(Debug, Error)]
#[error("worker {worker} has not ended yet")]
struct StillRunning {
    worker: u32,
}

impl Workers for RouterWorkers {
    type Error = StillRunning;

    fn fill(&self, worker: u32) -> Option<f64> {
        Some(self.shared.inbox(worker)?.queue.fill())
    }

    fn start(&mut self, worker: u32) -> Result<(), StillRunning> {
        let Some(inbox) = self.shared.inbox_or_new(worker) else {
            return Err(StillRunning { worker });
        };
        if inbox.has_worker.swap(true, Relaxed) {
            return Err(StillRunning { worker });
        }
        inbox.queue.open();
        self.tasks.spawn(worker::run(self.shared.clone(), inbox));
        Ok(())
    }

    fn stop(&mut self, worker: u32) {
        if let Some(inbox) = self.shared.inbox(worker) {
            inbox.close();
        }
    }

    fn write_slots(&mut self, changes: Vec<SlotChange>) -> Result<(), StillRunning> {
        for SlotChange { slot, worker } in changes {
            if let Some(slot) = self.shared.slots.get(slot as usize) {
                slot.store(worker as u8, Relaxed);
            }
        }
        Ok(())
    }
}

impl Manager {
    /// Starts the initial workers and gives them the slots.
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        let (config, streams) = (shared.config.workers(), shared.config.streams());
        let mut workers = RouterWorkers {
            shared: shared.clone(),
            tasks: JoinSet::new(),
        };
        let worker_scaler = WorkerScaler::new(config.initial(), config.scaling().scaler);
        let started = (0..config.initial()).try_for_each(|worker| workers.start(worker));
        let written = workers.write_slots(worker_scaler.set().slots().iter().collect());
        debug_assert!(started.and(written).is_ok(), "no worker ran before");
        let manager = Self {
            workers,
            worker_scaler,
            stream_scaler: StreamScaler::new(streams.scaling().scaler, streams.throughput_threshold()),
            next_shard: 0,
            n_flows: [0; MAX_WORKERS as usize],
            shared,
        };
        manager.publish();
        manager
    }

    /// Runs until `stop`, then ends every worker once its inbox is empty.
    pub(super) async fn run(mut self, mut requests: mpsc::Receiver<ScaleRequest>, stop: CancellationToken) {
        let shared = self.shared.clone();
        let (workers, streams) = (shared.config.workers(), shared.config.streams());
        let n_shards = shared.workers_of_flows.n_shards() as u32;
        let every = |period| {
            let mut interval = interval(period);
            interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
            interval
        };
        let mut tick = every(shared.workers_of_flows.tick_len());
        let mut sample = every(SAMPLE_INTERVAL);
        let mut clean = every(shared.config.connections().cleanup_interval() / n_shards);
        let mut next_workers = Instant::now() + workers.scaling().interval;
        let mut decided = Instant::now();
        let ttl = shared.config.connections().ttl();
        // The flow cache forgets a little late.
        let idle_after = ttl + ttl / 8;
        let mut next_look = Instant::now() + idle_after;
        loop {
            tokio::select! {
                () = stop.cancelled() => break,
                Some(request) = requests.recv() => self.handle_request(request).await,
                _ = tick.tick() => self.keep_time(),
                _ = sample.tick() => self.worker_scaler.sample(&self.workers),
                _ = clean.tick() => self.clean(),
                () = sleep_until(next_workers) => {
                    if self.worker_scaler.decide(&mut self.workers) {
                        self.publish();
                    }
                    next_workers = Instant::now() + workers.scaling().interval;
                }
                () = sleep_until(decided + streams.scaling().interval) => {
                    let (now, peers) = (Instant::now(), shared.peers.load_full());
                    self.stream_scaler.decide(&placed(&peers), now - decided).await;
                    decided = now;
                }
                () = sleep_until(next_look) => {
                    self.stream_scaler.close_idle(&placed(&shared.peers.load_full()));
                    next_look = Instant::now() + idle_after;
                }
            }
        }
        for inbox in shared.inboxes() {
            inbox.close();
        }
        // A worker that panicked has said so itself; there is nothing left to wait for.
        while self.workers.tasks.join_next().await.is_some() {}
    }

    fn keep_time(&mut self) {
        let tick = self.shared.workers_of_flows.tick(Instant::now().into_std());
        self.shared.tick.store(tick.to_bits(), Relaxed);
        // Takes note of workers that have ended.
        while self.workers.tasks.try_join_next().is_some() {}
    }

    /// Goes one step through the cache of flows.
    fn clean(&mut self) {
        let shared = &self.shared;
        let now = shared.workers_of_flows.tick(Instant::now().into_std());
        let n_flows = &mut self.n_flows;
        shared
            .workers_of_flows
            .clean_shard(self.next_shard, now, |worker| {
                if let Some(n) = n_flows.get_mut(usize::from(worker.0)) {
                    *n += 1;
                }
            });
        let now = shared.streams_of_flows.tick(Instant::now().into_std());
        shared.streams_of_flows.clean_shard(self.next_shard, now, |_| {});
        self.next_shard += 1;
        if self.next_shard < shared.workers_of_flows.n_shards() {
            return;
        }
        self.next_shard = 0;
        let n_flows = std::mem::replace(&mut self.n_flows, [0; MAX_WORKERS as usize]);
        shared.n_flows.store(n_flows.iter().sum(), Relaxed);
        let has_flows = |worker: u32| n_flows.get(worker as usize).is_some_and(|n| *n > 0);
        self.worker_scaler.handle_reading(has_flows, &mut self.workers);
        self.publish();
    }

    fn publish(&self) {
        let n_retired = self.worker_scaler.set().retired().count() as u32;
        self.shared
            .n_workers
            .store(self.worker_scaler.n_active(), Relaxed);
        self.shared.n_retired_workers.store(n_retired, Relaxed);
    }

    async fn handle_request(&mut self, request: ScaleRequest) {
        match request {
            ScaleRequest::Workers(n) => {
                let bounds = self.worker_scaler.config();
                let n = n.clamp(bounds.min, bounds.max);
                if let Err(error) = self.worker_scaler.scale_to(n, &mut self.workers) {
                    warn!(
                        error = with_sources(&error),
                        n_workers = n,
                        "cannot scale the workers as requested"
                    );
                }
                self.publish();
            }
            ScaleRequest::Streams(n) => {
                let bounds = self.stream_scaler.config();
                let peers = self.shared.peers.load_full();
                let n = n.clamp(bounds.min, bounds.max);
                self.stream_scaler.scale_to(n, &placed(&peers)).await;
            }
        }
    }
}

/// Pairs each peer with its place.
fn placed(peers: &[Arc<RouterPeer>]) -> Vec<PlacedPeer<'_>> {
    (0..)
        .zip(peers)
        .map(|(index, peer)| PlacedPeer(index, peer))
        .collect()
}
