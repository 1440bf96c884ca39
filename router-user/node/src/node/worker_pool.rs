//! The workers of a node: how many there are follows how full their rings are.
//!
//! Everything that changes slots happens in one task, between two steps through the connection table.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, debug_span, warn};

use super::data_path::DataPath;
use super::data_thread::Runtimes;
use super::error::NodeError;
use super::forwarder::Forwarder;
use super::gateways::Gateways;
use super::stream_scaler::check_request;
use super::worker::{self, Meter};
use crate::config::{ConnectionsConfig, StreamRouterConfig, WorkersConfig};
use crate::control::ScaleRequest;
use crate::kernel::{FlowTable, Kernel, KernelError, Reading, RingConsumer, RingGauge, STEP_ENTRIES};
use stream_router::egress::worker_scaler::{WorkerScaler, Workers};
use stream_router_engine::slots::SlotChange;

/// How often the fill of the rings is looked at.
const LEAST_SAMPLE_INTERVAL: Duration = Duration::from_millis(100);

/// How often the queues are looked at for a decision on the number of workers, where that is not too often.
const N_SAMPLES: u32 = 20;

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
    /// Returns every worker that has a ring, by number.
    pub(super) fn views(&self) -> BTreeMap<u32, WorkerView> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn replace(&self, views: BTreeMap<u32, WorkerView>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = views;
    }
}

/// A worker that has a ring.
struct RunningWorker {
    stop: CancellationToken,
    gauge: RingGauge,
    meter: Arc<Meter>,
    n_sockets: u32,
    n_flows: u32,
}

/// The workers, their rings and slots, and the connection table that says which worker still has flows.
pub(super) struct WorkerPool {
    workers: RingWorkers,
    scaler: WorkerScaler,
    scale_interval: Duration,
    cleanup_interval: Duration,
    step_interval: Duration,
    table: FlowTable,
    /// Rings of workers that are not started.
    rings: Vec<(u32, RingConsumer)>,
    board: Arc<WorkerBoard>,
}

/// The worker tasks and what each drains.
struct RingWorkers {
    kernel: Arc<Kernel>,
    gateways: Arc<Gateways>,
    running: BTreeMap<u32, RunningWorker>,
    /// Each ends when it is told to, which may be after another has begun under its number, or when it fails.
    tasks: JoinSet<io::Result<()>>,
    runtimes: Runtimes,
    data_path: DataPath,
}

impl RingWorkers {
    fn spawn(&mut self, worker: u32, ring: RingConsumer) -> Result<(), NodeError> {
        let (sockets, later) = self.gateways.add_worker(&self.kernel, worker)?;
        let running = RunningWorker {
            stop: CancellationToken::new(),
            gauge: ring.gauge(),
            meter: Arc::default(),
            n_sockets: sockets.len() as u32,
            n_flows: 0,
        };
        let (meter, stop) = (running.meter.clone(), running.stop.clone());
        let forwarder = Forwarder::new(&self.data_path);
        let busy_poll = self.data_path.busy_poll;
        let work = worker::run(ring, sockets, later, forwarder, meter, busy_poll, stop);
        let work = work.instrument(debug_span!("worker", worker));
        self.tasks.spawn_on(work, self.runtimes.of(worker));
        self.running.insert(worker, running);
        Ok(())
    }
}

impl Workers for RingWorkers {
    type Error = NodeError;

    fn fill(&self, worker: u32) -> Option<f64> {
        Some(self.running.get(&worker)?.gauge.fill())
    }

    fn start(&mut self, worker: u32) -> Result<(), NodeError> {
        let ring = self.kernel.rings.open(worker)?;
        self.spawn(worker, ring)
    }

    fn stop(&mut self, worker: u32) {
        if let Err(error) = self.kernel.rings.close(worker) {
            warn!(
                error = &error as &dyn std::error::Error,
                worker, "cannot close a ring"
            );
        }
        self.gateways.remove_worker(worker);
        if let Some(running) = self.running.remove(&worker) {
            running.stop.cancel();
        }
    }

    fn write_slots(&mut self, changes: Vec<SlotChange>) -> Result<(), NodeError> {
        Ok(self.kernel.slots.write(changes)?)
    }
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
        data_path: DataPath,
        board: Arc<WorkerBoard>,
    ) -> Result<Self, KernelError> {
        let scaler = WorkerScaler::new(workers.initial(), workers.scaling().scaler);
        let rings = (0..workers.initial()).map(|worker| Ok((worker, kernel.rings.open(worker)?)));
        let rings = rings.collect::<Result<_, KernelError>>()?;
        kernel.slots.write(scaler.set().slots().iter())?;
        Ok(Self {
            table: kernel.flows.table(connections.ttl())?,
            workers: RingWorkers {
                kernel,
                gateways: Arc::default(),
                running: BTreeMap::new(),
                tasks: JoinSet::new(),
                runtimes,
                data_path,
            },
            scaler,
            scale_interval: workers.scaling().interval,
            cleanup_interval: connections.cleanup_interval(),
            step_interval: step_interval(connections),
            rings,
            board,
        })
    }

    /// Starts the initial workers, each with its sockets at `gateways`.
    ///
    /// # Errors
    /// A socket cannot be opened.
    pub(super) fn start(&mut self, gateways: Arc<Gateways>) -> Result<(), NodeError> {
        self.workers.gateways = gateways;
        for (worker, ring) in std::mem::take(&mut self.rings) {
            self.workers.spawn(worker, ring)?;
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
        mut requests: mpsc::Receiver<ScaleRequest>,
        mut limits: watch::Receiver<StreamRouterConfig>,
        stop: CancellationToken,
    ) -> io::Result<()> {
        let mut sample = samples(self.scale_interval);
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
                    sample = samples(self.scale_interval);
                    let now = Instant::now();
                    next_decision = next_decision.min(now + self.scale_interval);
                    next_reading = next_reading.min(now + self.cleanup_interval);
                    next_step = next_step.min(next_reading);
                }
                _ = sample.tick() => self.scaler.sample(&self.workers),
                () = sleep_until(next_decision) => {
                    if self.scaler.decide(&mut self.workers) {
                        self.publish();
                    }
                    next_decision = Instant::now() + self.scale_interval;
                }
                () = sleep_until(next_step) => {
                    next_step = Instant::now() + self.step_interval;
                    if self.step() {
                        next_step = next_step.max(next_reading);
                        next_reading = next_step + self.cleanup_interval;
                    }
                }
                Some(ended) = self.workers.tasks.join_next() => {
                    ended.map_err(io::Error::other)??;
                }
            }
        }
        // Nothing new comes in; what the rings and sockets hold goes out.
        self.workers.gateways.detach();
        for running in self.workers.running.values() {
            running.stop.cancel();
        }
        while let Some(ended) = self.workers.tasks.join_next().await {
            ended.map_err(io::Error::other)??;
        }
        Ok(())
    }

    /// Scales and cleans by these limits from now on, and keeps to them at once.
    fn set_limits(&mut self, config: &StreamRouterConfig) {
        let (workers, connections) = (config.workers(), config.connections());
        self.scale_interval = workers.scaling().interval;
        self.cleanup_interval = connections.cleanup_interval();
        // The size of the table stays what it was made with.
        self.step_interval = step_interval(connections);
        self.table.set_ttl(connections.ttl());
        self.scaler
            .set_config(workers.scaling().scaler, &mut self.workers);
        self.publish();
    }

    fn handle_request(&mut self, request: ScaleRequest) {
        let n = request.n_active;
        let outcome = check_request(n, self.scaler.config(), ["workers.min", "workers.max"]).and_then(|()| {
            let scaled = self.scaler.scale_to(n, &mut self.workers);
            scaled.map_err(|error| error.to_string())
        });
        self.publish();
        // The client may have gone.
        let _ = request.reply.send(outcome);
    }

    /// Goes one step through the connection table; says whether that was its end.
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
        let has_flows = |worker| reading.n_live(worker) > 0;
        self.scaler.handle_reading(has_flows, &mut self.workers);
        for (worker, running) in &mut self.workers.running {
            running.n_flows = reading.n_live(*worker);
        }
        self.publish();
    }

    fn publish(&self) {
        let active: BTreeSet<_> = self.scaler.set().active().collect();
        let view = |(worker, running): (&u32, &RunningWorker)| {
            let view = WorkerView {
                active: active.contains(worker),
                gauge: running.gauge.clone(),
                meter: running.meter.clone(),
                n_sockets: running.n_sockets,
                n_flows: running.n_flows,
            };
            (*worker, view)
        };
        self.board
            .replace(self.workers.running.iter().map(view).collect());
    }
}

/// Returns when to look at the queues: the machine is woken no more often than the mean of a decision needs.
fn samples(scale_interval: Duration) -> Interval {
    let mut samples = interval((scale_interval / N_SAMPLES).max(LEAST_SAMPLE_INTERVAL));
    samples.set_missed_tick_behavior(MissedTickBehavior::Delay);
    samples
}

/// Returns the time between two steps, so that the whole table is read once in its interval.
fn step_interval(connections: &ConnectionsConfig) -> Duration {
    let n_steps = connections.max_entries().div_ceil(STEP_ENTRIES as u32);
    connections.cleanup_interval() / n_steps.max(1)
}
