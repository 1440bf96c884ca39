//! How many workers there are: follows how full their queues are.
//!
//! A worker that retires gets no new flows, keeps those it has, and ends once the table of flows has twice been read
//! without a live flow of it ([`WorkerSet`]). Everything that changes slots happens in the one task that owns the
//! scaler, between two readings.

use std::cmp::Ordering;
use std::error::Error;

use tracing::{debug, info, warn};

use stream_router_engine::causes::with_sources;
use stream_router_engine::scaler::{ScalerConfig, Scaling};
use stream_router_engine::slots::SlotChange;
use stream_router_engine::worker_set::{WorkerCandidate, WorkerSet};

/// The workers of a front, by number.
pub trait Workers {
    /// Why a worker could not be started or the slots could not be written.
    type Error: Error;

    /// Returns how full the queue of a worker is, from 0 to 1; `None` if it has none.
    fn fill(&self, worker: u32) -> Option<f64>;

    /// Starts a worker that does not run, with an empty queue.
    ///
    /// # Errors
    /// The worker does not run.
    fn start(&mut self, worker: u32) -> Result<(), Self::Error>;

    /// Ends a worker that has no live flows, after it has emptied its queue.
    fn stop(&mut self, worker: u32);

    /// Gives new flows of these slots to these workers.
    ///
    /// # Errors
    /// Some slots may not have changed.
    fn write_slots(&mut self, changes: Vec<SlotChange>) -> Result<(), Self::Error>;
}

/// Decides for one set of workers.
#[derive(Debug)]
pub struct WorkerScaler {
    config: ScalerConfig,
    set: WorkerSet,
    /// Sum of the fills of all active workers over the samples since the last decision.
    load: f64,
    n_samples: u32,
    /// Whether the number has been left as it is, or raised, since the start: until then it only comes down to what the load
    /// takes.
    is_settled: bool,
}

impl WorkerScaler {
    /// Begins with the workers below `n_initial`, all active; they are started by the caller.
    ///
    /// # Panics
    /// With no worker, or with more than there can be.
    pub fn new(n_initial: u32, config: ScalerConfig) -> Self {
        Self {
            config,
            set: WorkerSet::new(n_initial),
            load: 0.0,
            n_samples: 0,
            is_settled: false,
        }
    }

    /// Returns the workers and their slots.
    pub fn set(&self) -> &WorkerSet {
        &self.set
    }

    /// Returns the bounds and thresholds.
    pub fn config(&self) -> ScalerConfig {
        self.config
    }

    /// Returns how many workers take new flows.
    pub fn n_active(&self) -> u32 {
        self.set.active().count() as u32
    }

    /// Looks at how full the queues are.
    pub fn sample(&mut self, workers: &impl Workers) {
        let fills = self.set.active().filter_map(|worker| workers.fill(worker));
        self.load += fills.sum::<f64>();
        self.n_samples += 1;
    }

    /// Starts or retires a worker if the mean of the samples since the last decision asks for it; says whether it tried.
    pub fn decide(&mut self, workers: &mut impl Workers) -> bool {
        let load = self.load / f64::from(self.n_samples.max(1));
        (self.load, self.n_samples) = (0.0, 0);
        let scaling = self.config.decide(self.n_active(), load);
        self.is_settled |= scaling != Scaling::Down;
        let done = match scaling {
            Scaling::Keep => return false,
            Scaling::Up => self.grow(workers),
            Scaling::Down => self.shrink(workers),
        };
        match done {
            Ok(()) if self.is_settled => info!(?scaling, load, n_workers = self.n_active(), "workers scaled"),
            Ok(()) => debug!(?scaling, load, n_workers = self.n_active(), "workers scaled"),
            Err(error) => warn!(error = with_sources(&error), ?scaling, "cannot scale the workers"),
        }
        true
    }

    /// Decides by `config` from now on, and brings the number of workers within its bounds at once.
    pub fn set_config(&mut self, config: ScalerConfig, workers: &mut impl Workers) {
        self.config = config;
        if let Err(error) = self.scale_to(self.n_active().clamp(config.min, config.max), workers) {
            warn!(
                error = with_sources(&error),
                "cannot scale the workers to their new bounds"
            );
        }
    }

    /// Starts or retires workers until `n` are active.
    ///
    /// # Errors
    /// A worker could not be started; the number is as near to `n` as it got.
    pub fn scale_to<W: Workers>(&mut self, n: u32, workers: &mut W) -> Result<(), W::Error> {
        loop {
            let before = self.n_active();
            match before.cmp(&n) {
                Ordering::Less => self.grow(workers)?,
                Ordering::Greater => self.shrink(workers)?,
                Ordering::Equal => return Ok(()),
            }
            if self.n_active() == before {
                // All there can be are active, or the last one is left.
                return Ok(());
            }
        }
    }

    /// Takes note of a reading of the whole table of flows; `has_flows` says which workers it found live flows of. Ends
    /// the workers that may go.
    pub fn handle_reading(&mut self, has_flows: impl Fn(u32) -> bool, workers: &mut impl Workers) {
        for worker in self.set.handle_reading(has_flows) {
            workers.stop(worker);
            debug!(worker, "worker is gone");
        }
    }

    fn grow<W: Workers>(&mut self, workers: &mut W) -> Result<(), W::Error> {
        let Some(WorkerCandidate { worker, needs_ring }) = self.set.candidate() else {
            return Ok(());
        };
        if needs_ring {
            workers.start(worker)?;
        }
        workers.write_slots(self.set.activate(worker))?;
        debug!(worker, fresh = needs_ring, "worker is active");
        Ok(())
    }

    fn shrink<W: Workers>(&mut self, workers: &mut W) -> Result<(), W::Error> {
        let Some((worker, changes)) = self.set.shrink() else {
            return Ok(());
        };
        workers.write_slots(changes)?;
        debug!(worker, "worker retires");
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};
    use std::io;

    use super::*;

    const CONFIG: ScalerConfig = ScalerConfig {
        min: 2,
        max: 6,
        scale_up: 0.75,
        scale_down: 0.25,
    };

    /// Workers whose queues are as full as a test says.
    #[derive(Default)]
    struct FakeWorkers {
        running: BTreeSet<u32>,
        fill: f64,
        slots: BTreeMap<u32, u32>,
        refuse: bool,
    }

    impl Workers for FakeWorkers {
        type Error = io::Error;

        fn fill(&self, worker: u32) -> Option<f64> {
            self.running.contains(&worker).then_some(self.fill)
        }

        fn start(&mut self, worker: u32) -> io::Result<()> {
            if self.refuse {
                return Err(io::Error::other("no memory"));
            }
            assert!(self.running.insert(worker), "worker {worker} runs");
            Ok(())
        }

        fn stop(&mut self, worker: u32) {
            assert!(self.running.remove(&worker), "worker {worker} does not run");
        }

        fn write_slots(&mut self, changes: Vec<SlotChange>) -> io::Result<()> {
            self.slots
                .extend(changes.iter().map(|change| (change.slot, change.worker)));
            Ok(())
        }
    }

    fn started(n: u32) -> (WorkerScaler, FakeWorkers) {
        let scaler = WorkerScaler::new(n, CONFIG);
        let mut workers = FakeWorkers::default();
        for worker in 0..n {
            workers.start(worker).unwrap();
        }
        workers
            .write_slots(scaler.set().slots().iter().collect())
            .unwrap();
        (scaler, workers)
    }

    fn owners(workers: &FakeWorkers) -> BTreeSet<u32> {
        workers.slots.values().copied().collect()
    }

    #[test]
    fn full_queues_bring_a_worker_which_gets_slots() {
        let (mut scaler, mut workers) = started(2);
        workers.fill = 0.8;
        (0..10).for_each(|_| scaler.sample(&workers));

        assert!(scaler.decide(&mut workers));

        assert_eq!(scaler.n_active(), 3);
        assert_eq!(workers.running, BTreeSet::from([0, 1, 2]));
        assert_eq!(owners(&workers), BTreeSet::from([0, 1, 2]));
    }

    #[test]
    fn the_mean_since_the_last_decision_counts_and_is_then_forgotten() {
        let (mut scaler, mut workers) = started(3);
        workers.fill = 1.0;
        scaler.sample(&workers);
        workers.fill = 0.0;
        scaler.sample(&workers);
        // 0.5 on average: neither threshold.
        assert!(!scaler.decide(&mut workers));
        scaler.sample(&workers);
        assert!(scaler.decide(&mut workers));
        assert_eq!(scaler.n_active(), 2);
    }

    #[test]
    fn a_retired_worker_runs_until_two_readings_find_no_flow_of_it() {
        let (mut scaler, mut workers) = started(4);
        scaler.scale_to(3, &mut workers).unwrap();
        assert_eq!(owners(&workers), BTreeSet::from([0, 1, 2]));
        assert!(workers.running.contains(&3));

        scaler.handle_reading(|worker| worker == 3, &mut workers);
        scaler.handle_reading(|_| false, &mut workers);
        assert!(workers.running.contains(&3));
        scaler.handle_reading(|_| false, &mut workers);
        assert_eq!(workers.running, BTreeSet::from([0, 1, 2]));
    }

    #[test]
    fn a_retired_worker_comes_back_without_a_start() {
        let (mut scaler, mut workers) = started(4);
        scaler.scale_to(3, &mut workers).unwrap();
        scaler.scale_to(4, &mut workers).unwrap();
        assert_eq!(owners(&workers), BTreeSet::from([0, 1, 2, 3]));
    }

    #[test]
    fn a_worker_that_does_not_start_gets_no_slots() {
        let (mut scaler, mut workers) = started(2);
        workers.refuse = true;
        workers.fill = 1.0;
        scaler.sample(&workers);

        assert!(scaler.decide(&mut workers));
        scaler.scale_to(3, &mut workers).unwrap_err();

        assert_eq!(scaler.n_active(), 2);
        assert_eq!(owners(&workers), BTreeSet::from([0, 1]));
    }

    #[test]
    fn new_bounds_hold_at_once() {
        let (mut scaler, mut workers) = started(4);
        scaler.set_config(ScalerConfig { min: 5, ..CONFIG }, &mut workers);
        assert_eq!(scaler.n_active(), 5);
        scaler.set_config(ScalerConfig { max: 2, ..CONFIG }, &mut workers);
        assert_eq!(scaler.n_active(), 2);
    }
}
