//! The workers of a node: how many there are follows how full their rings are.
//!
//! Everything that changes slots happens in one task, between two steps through the connection table.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::data_thread::Runtimes;
use super::error::NodeError;
use super::forwarder::Forwarder;
use super::gateways::Gateways;
use super::worker::{self, Meter};
use crate::config::{ConnectionsConfig, StreamRouterConfig, WorkersConfig};
use crate::control::Wish;
use crate::kernel::{ConnectionTable, Kernel, KernelError, Reading, RingConsumer, RingGauge, STEP_ENTRIES};
use stream_router_engine::scaler::{ScalerConfig, Scaling};
use stream_router_engine::worker_set::{WorkerCandidate, WorkerSet};

/// How often the fill of the rings is looked at.
const SAMPLE_INTERVAL: Duration = Duration::from_millis(100);

/// What there is to see of the workers that have a ring, by number.
#[derive(Debug, Default)]
pub(super) struct WorkerBoard(Mutex<BTreeMap<u32, WorkerView>>);

/// One worker as others see it.
#[derive(Clone, Debug)]
pub(super) struct WorkerView {
    /// Whether it takes new flows.
    pub(super) active: bool,
    /// How full its ring is.
    pub(super) gauge: RingGauge,
    /// What it has done.
    pub(super) meter: Arc<Meter>,
    /// Sockets that it drains.
    pub(super) n_sockets: u32,
    /// Live flows of it when the connection table was last read.
    pub(super) n_flows: u32,
}

impl WorkerBoard {
    /// Every worker that has a ring, by number.
    pub(super) fn views(&self) -> BTreeMap<u32, WorkerView> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn replace(&self, views: BTreeMap<u32, WorkerView>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = views;
    }
}

struct Running {
    stop: CancellationToken,
    gauge: RingGauge,
    meter: Arc<Meter>,
    n_sockets: u32,
    n_flows: u32,
}

/// The workers, their rings and slots, and the connection table that says which worker still has flows.
pub(super) struct WorkerPool {
    kernel: Arc<Kernel>,
    scaler: ScalerConfig,
    scale_interval: Duration,
    cleanup_interval: Duration,
    step_interval: Duration,
    table: ConnectionTable,
    set: WorkerSet,
    /// Rings of workers that are not started.
    rings: Vec<(u32, RingConsumer)>,
    gateways: Gateways,
    running: BTreeMap<u32, Running>,
    tasks: JoinSet<(u32, io::Result<()>)>,
    runtimes: Runtimes,
    new_forwarder: Box<dyn Fn() -> Forwarder + Send>,
    board: Arc<WorkerBoard>,
    load: f64,
    n_samples: u32,
}

impl WorkerPool {
    /// Makes the rings of the initial workers and gives them the slots, so that packets may come.
    ///
    /// # Errors
    /// A ring cannot be made, or the slots cannot be written.
    pub(super) fn new(
        kernel: Arc<Kernel>,
        workers: &WorkersConfig,
        connections: &ConnectionsConfig,
        runtimes: Runtimes,
        new_forwarder: Box<dyn Fn() -> Forwarder + Send>,
        board: Arc<WorkerBoard>,
    ) -> Result<Self, KernelError> {
        let mut pool = Self {
            table: kernel.connection_table(connections.ttl())?,
            kernel,
            scaler: workers.scaling().scaler,
            scale_interval: workers.scaling().interval,
            cleanup_interval: connections.cleanup_interval(),
            step_interval: step_interval(connections),
            set: WorkerSet::new(workers.initial()),
            rings: Vec::new(),
            gateways: Gateways::default(),
            running: BTreeMap::new(),
            tasks: JoinSet::new(),
            runtimes,
            new_forwarder,
            board,
            load: 0.0,
            n_samples: 0,
        };
        for worker in 0..workers.initial() {
            pool.rings.push((worker, pool.kernel.open_ring(worker)?));
        }
        pool.kernel.write_slots(pool.set.slots().iter())?;
        Ok(pool)
    }

    /// Starts the initial workers, each with its sockets at `gateways`.
    ///
    /// # Errors
    /// A socket cannot be opened.
    pub(super) fn start(&mut self, gateways: Gateways) -> Result<(), NodeError> {
        self.gateways = gateways;
        for (worker, ring) in std::mem::take(&mut self.rings) {
            self.spawn(worker, ring)?;
        }
        self.publish();
        Ok(())
    }

    /// Scales and cleans until `stop`, by `limits` as they change, then drains every ring to its end.
    ///
    /// # Errors
    /// A worker has failed.
    pub(super) async fn run(
        mut self,
        mut requests: mpsc::Receiver<Wish>,
        mut limits: watch::Receiver<StreamRouterConfig>,
        stop: CancellationToken,
    ) -> io::Result<()> {
        let mut sample = interval(SAMPLE_INTERVAL);
        sample.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut next_decision = Instant::now() + self.scale_interval;
        let mut next_reading = Instant::now() + self.cleanup_interval;
        let mut next_step = next_reading;
        loop {
            tokio::select! {
                () = stop.cancelled() => break,
                Some(request) = requests.recv() => self.handle_request(request),
                Ok(()) = limits.changed() => {
                    let config = limits.borrow_and_update().clone();
                    self.set_limits(&config);
                    let now = Instant::now();
                    next_decision = next_decision.min(now + self.scale_interval);
                    next_reading = next_reading.min(now + self.cleanup_interval);
                    next_step = next_step.min(next_reading);
                }
                _ = sample.tick() => self.sample(),
                () = sleep_until(next_decision) => {
                    self.decide();
                    next_decision = Instant::now() + self.scale_interval;
                }
                () = sleep_until(next_step) => {
                    next_step = Instant::now() + self.step_interval;
                    if self.step() {
                        next_step = next_step.max(next_reading);
                        next_reading = next_step + self.cleanup_interval;
                    }
                }
                Some(ended) = self.tasks.join_next() => self.handle_ended(ended.map_err(io::Error::other)?)?,
            }
        }
        // Nothing new comes in; what the rings and sockets hold goes out.
        drop(std::mem::take(&mut self.gateways));
        for running in self.running.values() {
            running.stop.cancel();
        }
        while let Some(ended) = self.tasks.join_next().await {
            ended.map_err(io::Error::other)?.1?;
        }
        Ok(())
    }

    /// Scales and cleans by these limits from now on, and keeps to them at once.
    fn set_limits(&mut self, config: &StreamRouterConfig) {
        let (workers, connections) = (config.workers(), config.connections());
        self.scaler = workers.scaling().scaler;
        self.scale_interval = workers.scaling().interval;
        self.cleanup_interval = connections.cleanup_interval();
        // The size of the table stays what it was made with.
        self.step_interval = step_interval(connections);
        self.table.set_ttl(connections.ttl());
        let n_active = self.set.active().count() as u32;
        let outcome = self.scale_to(n_active.clamp(self.scaler.min, self.scaler.max));
        if let Err(error) = outcome {
            warn!(
                error = &error as &dyn std::error::Error,
                "cannot scale the workers to their new bounds"
            );
        }
        self.publish();
    }

    fn spawn(&mut self, worker: u32, ring: RingConsumer) -> Result<(), NodeError> {
        let sockets = self.gateways.open_sockets(&self.kernel, worker)?;
        let running = Running {
            stop: CancellationToken::new(),
            gauge: ring.gauge(),
            meter: Arc::default(),
            n_sockets: sockets.len() as u32,
            n_flows: 0,
        };
        let (meter, stop) = (running.meter.clone(), running.stop.clone());
        let work = worker::run(ring, sockets, (self.new_forwarder)(), meter, stop);
        self.tasks
            .spawn_on(async move { (worker, work.await) }, self.runtimes.of(worker));
        self.running.insert(worker, running);
        Ok(())
    }

    /// One more worker.
    fn grow(&mut self) -> Result<(), NodeError> {
        let Some(WorkerCandidate { worker, needs_ring }) = self.set.candidate() else {
            return Ok(());
        };
        if needs_ring {
            let ring = self.kernel.open_ring(worker)?;
            self.spawn(worker, ring)?;
        }
        self.kernel.write_slots(self.set.activate(worker))?;
        debug!(worker, fresh = needs_ring, "worker is active");
        Ok(())
    }

    /// One worker less; it keeps its flows until they are idle.
    fn shrink(&mut self) -> Result<(), NodeError> {
        let Some((worker, changes)) = self.set.shrink() else {
            return Ok(());
        };
        self.kernel.write_slots(changes)?;
        debug!(worker, "worker retires");
        Ok(())
    }

    fn sample(&mut self) {
        let active = self.set.active().filter_map(|worker| self.running.get(&worker));
        self.load += active.map(|running| running.gauge.fill()).sum::<f64>();
        self.n_samples += 1;
    }

    fn decide(&mut self) {
        let load = self.load / f64::from(self.n_samples.max(1));
        (self.load, self.n_samples) = (0.0, 0);
        let n_active = self.set.active().count() as u32;
        let scaling = self.scaler.decide(n_active, load);
        let done = match scaling {
            Scaling::Keep => return,
            Scaling::Up => self.grow(),
            Scaling::Down => self.shrink(),
        };
        match done {
            Ok(()) => info!(
                ?scaling,
                load,
                n_workers = self.set.active().count(),
                "workers scaled"
            ),
            Err(error) => warn!(
                error = &error as &dyn std::error::Error,
                ?scaling,
                "cannot scale the workers"
            ),
        }
        self.publish();
    }

    fn handle_request(&mut self, request: Wish) {
        let (min, max) = (self.scaler.min, self.scaler.max);
        let outcome = if (min..=max).contains(&request.n_active) {
            self.scale_to(request.n_active).map_err(|error| error.to_string())
        } else {
            Err(format!(
                "{} is outside workers.min to workers.max, {min} to {max}",
                request.n_active
            ))
        };
        self.publish();
        // Whoever asked may have gone.
        let _ = request.reply.send(outcome);
    }

    fn scale_to(&mut self, n_workers: u32) -> Result<(), NodeError> {
        loop {
            match (self.set.active().count() as u32).cmp(&n_workers) {
                std::cmp::Ordering::Less => self.grow()?,
                std::cmp::Ordering::Greater => self.shrink()?,
                std::cmp::Ordering::Equal => return Ok(()),
            }
        }
    }

    /// One step through the connection table; says whether that was its end.
    fn step(&mut self) -> bool {
        match self.table.step() {
            Ok(None) => false,
            Ok(Some(reading)) => {
                self.handle_reading(&reading);
                true
            }
            Err(error) => {
                warn!(
                    error = &error as &dyn std::error::Error,
                    "cannot clean the connection table"
                );
                true
            }
        }
    }

    fn handle_reading(&mut self, reading: &Reading) {
        for worker in self.set.handle_reading(|worker| reading.n_live(worker) > 0) {
            if let Err(error) = self.kernel.close_ring(worker) {
                warn!(
                    error = &error as &dyn std::error::Error,
                    worker, "cannot close a ring"
                );
            }
            if let Some(running) = self.running.remove(&worker) {
                running.stop.cancel();
            }
            debug!(worker, "worker is gone");
        }
        for (worker, running) in &mut self.running {
            running.n_flows = reading.n_live(*worker);
        }
        self.publish();
    }

    fn handle_ended(&self, (worker, outcome): (u32, io::Result<()>)) -> io::Result<()> {
        outcome?;
        // One that is gone was told to end.
        match self.running.contains_key(&worker) {
            true => Err(io::Error::other(format!("worker {worker} has ended"))),
            false => Ok(()),
        }
    }

    fn publish(&self) {
        let active: BTreeSet<_> = self.set.active().collect();
        let view = |(worker, running): (&u32, &Running)| {
            let view = WorkerView {
                active: active.contains(worker),
                gauge: running.gauge.clone(),
                meter: running.meter.clone(),
                n_sockets: running.n_sockets,
                n_flows: running.n_flows,
            };
            (*worker, view)
        };
        self.board.replace(self.running.iter().map(view).collect());
    }
}

/// Time between two steps, so that the whole table is read once in its interval.
fn step_interval(connections: &ConnectionsConfig) -> Duration {
    let n_steps = connections.max_entries().div_ceil(STEP_ENTRIES as u32);
    connections.cleanup_interval() / n_steps.max(1)
}
