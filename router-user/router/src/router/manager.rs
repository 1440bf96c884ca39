//! How many workers there are and how many streams each peer has: one task that keeps the time of flows, cleans their
//! cache a shard at a time, and scales.

use std::cmp::Ordering as Order;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use router_common::slots::MAX_WORKERS;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info};

use super::worker;
use super::{Shared, Wish};
use stream_router_engine::scaler::Scaling;
use stream_router_engine::slots::SlotChange;
use stream_router_engine::worker_set::{WorkerCandidate, WorkerSet};

/// How often the fill of the queues is looked at.
const SAMPLE_INTERVAL: Duration = Duration::from_millis(100);

pub(super) struct Manager {
    shared: Arc<Shared>,
    set: WorkerSet,
    workers: JoinSet<()>,
    load: f64,
    n_samples: u32,
    next_shard: usize,
    /// Live flows of each worker, as far as this reading has come.
    n_flows: [u64; MAX_WORKERS as usize],
    /// What each peer had been offered, at the last decision.
    at_decision: Vec<u64>,
    /// What each lane of each peer had been offered, at the last look for idle ones.
    at_look: Vec<Vec<u64>>,
}

impl Manager {
    /// Starts the initial workers and gives them the slots.
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        let n_initial = shared.config.workers().initial();
        let mut manager = Self {
            set: WorkerSet::new(n_initial),
            workers: JoinSet::new(),
            load: 0.0,
            n_samples: 0,
            next_shard: 0,
            n_flows: [0; MAX_WORKERS as usize],
            at_decision: Vec::new(),
            at_look: Vec::new(),
            shared,
        };
        for worker in 0..n_initial {
            manager.start(worker);
        }
        let slots: Vec<_> = manager.set.slots().iter().collect();
        manager.write_slots(slots);
        manager.publish();
        manager
    }

    /// Runs until `stop`, then has every worker empty its queue and end.
    pub(super) async fn run(mut self, mut wishes: mpsc::Receiver<Wish>, stop: CancellationToken) {
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
                Some(wish) = wishes.recv() => self.handle_wish(wish),
                _ = tick.tick() => self.keep_time(),
                _ = sample.tick() => self.sample(),
                _ = clean.tick() => self.clean(),
                () = sleep_until(next_workers) => {
                    self.decide_workers();
                    next_workers = Instant::now() + workers.scaling().interval;
                }
                () = sleep_until(decided + streams.scaling().interval) => {
                    let now = Instant::now();
                    self.decide_streams(now - decided);
                    decided = now;
                }
                () = sleep_until(next_look) => {
                    self.close_idle_streams();
                    next_look = Instant::now() + idle_after;
                }
            }
        }
        for station in shared.stations() {
            station.close();
        }
        // A worker that panicked has said so itself; there is nothing left to wait for.
        while self.workers.join_next().await.is_some() {}
    }

    fn keep_time(&mut self) {
        let tick = self.shared.workers_of_flows.tick(Instant::now().into_std());
        self.shared.tick.store(tick.to_bits(), Relaxed);
        // Those that have ended.
        while self.workers.try_join_next().is_some() {}
    }

    /// Has a worker take packets from the station; false if the one before has not ended yet.
    fn start(&mut self, worker: u32) -> bool {
        let Some(station) = self.shared.station_or_new(worker) else {
            return false;
        };
        if station.manned.swap(true, Relaxed) {
            return false;
        }
        station.queue.open();
        self.workers.spawn(worker::run(self.shared.clone(), station));
        true
    }

    fn write_slots(&self, changes: Vec<SlotChange>) {
        for SlotChange { slot, worker } in changes {
            if let Some(slot) = self.shared.slots.get(slot as usize) {
                slot.store(worker as u8, Relaxed);
            }
        }
    }

    fn sample(&mut self) {
        let active = self.set.active().filter_map(|worker| self.shared.station(worker));
        self.load += active.map(|station| station.queue.fill()).sum::<f64>();
        self.n_samples += 1;
    }

    fn decide_workers(&mut self) {
        let load = self.load / f64::from(self.n_samples.max(1));
        (self.load, self.n_samples) = (0.0, 0);
        let n_active = self.set.active().count() as u32;
        let scaling = self
            .shared
            .config
            .workers()
            .scaling()
            .scaler
            .decide(n_active, load);
        match scaling {
            Scaling::Keep => return,
            Scaling::Up => self.grow(),
            Scaling::Down => self.shrink(),
        };
        info!(
            ?scaling,
            load,
            n_workers = self.set.active().count(),
            "workers scaled"
        );
        self.publish();
    }

    /// One more worker; says whether there is one.
    fn grow(&mut self) -> bool {
        let Some(WorkerCandidate { worker, needs_ring }) = self.set.candidate() else {
            return false;
        };
        if needs_ring && !self.start(worker) {
            return false;
        }
        let changes = self.set.activate(worker);
        self.write_slots(changes);
        true
    }

    /// One worker less; it keeps its flows until they are idle.
    fn shrink(&mut self) -> bool {
        let Some((worker, changes)) = self.set.shrink() else {
            return false;
        };
        self.write_slots(changes);
        debug!(worker, "worker retires");
        true
    }

    /// One step through the cache of flows.
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
        for worker in self.set.handle_reading(has_flows) {
            if let Some(station) = shared.station(worker) {
                station.close();
            }
            debug!(worker, "worker is gone");
        }
        self.publish();
    }

    fn publish(&self) {
        let (active, retired) = (self.set.active().count(), self.set.retired().count());
        self.shared.n_workers.store(active as u32, Relaxed);
        self.shared.n_retired_workers.store(retired as u32, Relaxed);
    }

    fn decide_streams(&mut self, elapsed: Duration) {
        let config = self.shared.config.streams();
        let peers = self.shared.peers.load();
        self.at_decision.resize(peers.len(), 0);
        for (peer, before) in peers.iter().zip(&mut self.at_decision) {
            let lanes = peer.streams.lanes().iter();
            let offered = lanes.map(|lane| lane.n_offered.load(Relaxed)).sum::<u64>();
            let rate = (offered - std::mem::replace(before, offered)) as f64 / elapsed.as_secs_f64();
            let n_active = peer.streams.n_active();
            let load = rate / f64::from(config.throughput_threshold());
            let wanted = match config.scaling().scaler.decide(n_active, load) {
                Scaling::Keep => continue,
                Scaling::Up => n_active + 1,
                Scaling::Down => n_active - 1,
            };
            peer.streams.set_active(wanted);
            info!(peer = %peer.id, rate_fps = rate, n_streams = wanted, "streams scaled");
        }
    }

    /// Has the retired streams closed that had no packet since the last look.
    fn close_idle_streams(&mut self) {
        let peers = self.shared.peers.load();
        self.at_look.resize(peers.len(), Vec::new());
        for (peer, before) in peers.iter().zip(&mut self.at_look) {
            let lanes = peer.streams.lanes();
            let offered: Vec<_> = lanes.iter().map(|lane| lane.n_offered.load(Relaxed)).collect();
            for (index, lane) in lanes.iter().enumerate().skip(peer.streams.n_active() as usize) {
                if lane.open.load(Relaxed) && before.get(index) == offered.get(index) {
                    lane.close.notify_one();
                }
            }
            *before = offered;
        }
    }

    fn handle_wish(&mut self, wish: Wish) {
        match wish {
            Wish::Workers(n_wanted) => {
                let scaler = self.shared.config.workers().scaling().scaler;
                let n_wanted = n_wanted.clamp(scaler.min, scaler.max);
                loop {
                    let changed = match (self.set.active().count() as u32).cmp(&n_wanted) {
                        Order::Less => self.grow(),
                        Order::Greater => self.shrink(),
                        Order::Equal => false,
                    };
                    if !changed {
                        break;
                    }
                }
                self.publish();
            }
            Wish::Streams(n_wanted) => {
                let scaler = self.shared.config.streams().scaling().scaler;
                for peer in self.shared.peers.load().iter() {
                    peer.streams.set_active(n_wanted.clamp(scaler.min, scaler.max));
                }
            }
        }
    }
}
