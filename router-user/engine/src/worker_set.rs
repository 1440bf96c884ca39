//! The set of workers: which are active, which are retired, and when a retired one may go.
//!
//! A live flow never changes its worker: a worker that retires gets no new flows, but keeps its own until they are idle.
//! It may go once the flow table has been read from end to end twice without meeting a live flow of it: the first
//! reading may have missed a flow that began while the slots changed.

use router_common::slots::MAX_WORKERS;

use super::slots::{SlotChange, SlotTable};

/// Readings of the whole flow table without a live flow of a retired worker before it may go.
const QUIET_READINGS: u8 = 2;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum WorkerState {
    Unused,
    Active,
    Retired { n_quiet: u8 },
}

/// The worker that is to be activated next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WorkerCandidate {
    /// The worker.
    pub worker: u32,
    /// Whether the worker needs a ring. A retired worker still has one.
    pub needs_ring: bool,
}

/// The workers of a node with their slots.
#[derive(Clone, Debug)]
pub struct WorkerSet {
    states: Vec<WorkerState>,
    slots: SlotTable,
}

impl WorkerSet {
    /// Creates a set in which the workers below `n_workers` are active.
    ///
    /// # Panics
    /// Panics with no worker, and with more than [`MAX_WORKERS`].
    pub fn new(n_workers: u32) -> Self {
        let state = |worker| {
            if worker < n_workers {
                WorkerState::Active
            } else {
                WorkerState::Unused
            }
        };
        Self {
            states: (0..MAX_WORKERS).map(state).collect(),
            slots: SlotTable::new(n_workers),
        }
    }

    /// Returns the slots of the workers.
    pub fn slots(&self) -> &SlotTable {
        &self.slots
    }

    /// Returns the workers that take new flows.
    pub fn active(&self) -> impl Iterator<Item = u32> {
        self.in_state(|state| *state == WorkerState::Active)
    }

    /// Returns the workers that only keep the flows they have.
    pub fn retired(&self) -> impl Iterator<Item = u32> {
        self.in_state(|state| matches!(state, WorkerState::Retired { .. }))
    }

    /// Returns the worker to activate next, a retired one if there is one, or `None` if all are active.
    pub fn candidate(&self) -> Option<WorkerCandidate> {
        let retired = self.retired().next();
        let worker = retired.or_else(|| self.in_state(|state| *state == WorkerState::Unused).next())?;
        Some(WorkerCandidate {
            worker,
            needs_ring: retired.is_none(),
        })
    }

    /// Activates `worker`, which has a ring by now. Returns the slots that it gets.
    pub fn activate(&mut self, worker: u32) -> Vec<SlotChange> {
        if let Some(state) = self.states.get_mut(worker as usize) {
            *state = WorkerState::Active;
        }
        self.slots.add(worker)
    }

    /// Retires the newest worker. Returns it and its former slots with their new workers, or `None` if it is the last
    /// active one.
    pub fn shrink(&mut self) -> Option<(u32, Vec<SlotChange>)> {
        let worker = self.active().last()?;
        if self.active().count() == 1 {
            return None;
        }
        self.states[worker as usize] = WorkerState::Retired { n_quiet: 0 };
        Some((worker, self.slots.remove(worker)))
    }

    /// Records a reading of the whole flow table; `has_flows` says of which workers it found live flows. Returns the
    /// retired workers that may go and are unused from now on.
    pub fn handle_reading(&mut self, has_flows: impl Fn(u32) -> bool) -> Vec<u32> {
        let mut gone = Vec::new();
        for (worker, state) in (0..).zip(&mut self.states) {
            let WorkerState::Retired { n_quiet } = state else {
                continue;
            };
            *n_quiet = if has_flows(worker) { 0 } else { *n_quiet + 1 };
            if *n_quiet >= QUIET_READINGS {
                *state = WorkerState::Unused;
                gone.push(worker);
            }
        }
        gone
    }

    fn in_state(&self, wanted: impl Fn(&WorkerState) -> bool) -> impl Iterator<Item = u32> {
        (0..)
            .zip(&self.states)
            .filter_map(move |(worker, state)| wanted(state).then_some(worker))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn active(set: &WorkerSet) -> Vec<u32> {
        set.active().collect()
    }

    #[test]
    fn a_retired_worker_goes_after_two_quiet_readings() {
        let mut set = WorkerSet::new(4);
        let (worker, changes) = set.shrink().unwrap();
        assert_eq!((worker, changes.len()), (3, 256));

        assert!(set.handle_reading(|_| false).is_empty());
        assert!(set.handle_reading(|worker| worker == 3).is_empty());
        assert!(set.handle_reading(|_| false).is_empty());
        assert_eq!(set.handle_reading(|_| false), [3]);
        assert!(set.handle_reading(|_| false).is_empty());
    }

    #[test]
    fn a_retired_worker_comes_back_with_its_ring() {
        let mut set = WorkerSet::new(4);
        set.shrink().unwrap();

        let back = set.candidate().unwrap();

        assert_eq!((back.worker, back.needs_ring), (3, false));
        assert_eq!(set.activate(3).len(), 256);
        let next = set.candidate().unwrap();
        assert_eq!((next.worker, next.needs_ring), (4, true));
    }

    #[test]
    fn neither_the_last_worker_goes_nor_comes_one_too_many() {
        assert_eq!(WorkerSet::new(1).shrink(), None);
        assert_eq!(WorkerSet::new(MAX_WORKERS).candidate(), None);
    }

    #[derive(Clone, Debug)]
    enum Step {
        Grow,
        Shrink,
        Read,
        Flow(u32),
        Idle(u32),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            1 => Just(Step::Grow),
            1 => Just(Step::Shrink),
            2 => Just(Step::Read),
            3 => (0..1024_u32).prop_map(Step::Flow),
            2 => (0..1024_u32).prop_map(Step::Idle),
        ]
    }

    proptest! {
        /// The model keeps each live flow at the worker its slot had when it began, and the rings that exist.
        #[test]
        fn no_live_flow_ever_loses_its_worker(steps in prop::collection::vec(step(), 0..200)) {
            let mut set = WorkerSet::new(4);
            let mut slots: BTreeMap<u32, u32> = set.slots().iter().map(|entry| (entry.slot, entry.worker)).collect();
            let mut rings: std::collections::BTreeSet<u32> = (0..4).collect();
            let mut flows: BTreeMap<u32, u32> = BTreeMap::new();
            for step in steps {
                match step {
                    Step::Grow => {
                        if let Some(WorkerCandidate { worker, needs_ring }) = set.candidate() {
                            prop_assert_eq!(rings.insert(worker), needs_ring);
                            slots.extend(set.activate(worker).iter().map(|change| (change.slot, change.worker)));
                        }
                    }
                    Step::Shrink => {
                        if let Some((_, changes)) = set.shrink() {
                            slots.extend(changes.iter().map(|change| (change.slot, change.worker)));
                        }
                    }
                    Step::Read => {
                        for gone in set.handle_reading(|worker| flows.values().any(|owner| *owner == worker)) {
                            prop_assert!(rings.remove(&gone));
                        }
                    }
                    Step::Flow(slot) => {
                        flows.entry(slot).or_insert(slots[&slot]);
                    }
                    Step::Idle(slot) => {
                        flows.remove(&slot);
                    }
                }
                prop_assert!(flows.values().all(|worker| rings.contains(worker)), "a live flow has no ring");
                prop_assert!(slots.values().all(|worker| active(&set).contains(worker)));
            }
        }
    }
}
