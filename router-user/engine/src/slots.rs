//! The slot table, which leads from a flow hash to a slot to a worker. It changes as little as possible when workers come
//! and go.

use router_common::slots::{self, MAX_WORKERS, SLOT_COUNT};

/// A slot and the worker that it belongs to now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SlotChange {
    /// The slot.
    pub slot: u32,
    /// The worker that the slot belongs to from now on.
    pub worker: u32,
}

/// The worker that each slot belongs to. The shares of any two workers differ by one slot at most.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SlotTable {
    workers: Vec<u32>,
    /// How many slots each worker has; `None` for one that takes no part.
    shares: Vec<Option<u32>>,
}

impl SlotTable {
    /// Gives all slots to the workers below `n_workers`, in turn.
    ///
    /// # Panics
    /// Panics with no worker, and with more than [`MAX_WORKERS`].
    pub fn new(n_workers: u32) -> Self {
        assert!(
            (1..=MAX_WORKERS).contains(&n_workers),
            "1 to {MAX_WORKERS} workers"
        );
        let workers: Vec<u32> = (0..SLOT_COUNT)
            .map(|slot| slots::worker(slot, n_workers))
            .collect();
        let mut shares = vec![None; MAX_WORKERS as usize];
        for worker in &workers {
            *shares[*worker as usize].get_or_insert(0) += 1;
        }
        Self { workers, shares }
    }

    /// Returns every slot with its worker.
    pub fn iter(&self) -> impl Iterator<Item = SlotChange> {
        (0..).zip(&self.workers).map(|(slot, worker)| SlotChange {
            slot,
            worker: *worker,
        })
    }

    /// Gives `worker` its share of the slots: one after the other from the worker that has most of them. With n workers
    /// afterwards, at most one n-th of the slots moves, and none of them between the others. Returns the moved slots.
    pub(crate) fn add(&mut self, worker: u32) -> Vec<SlotChange> {
        let n_others = self.shares.iter().flatten().count() as u32;
        match self.shares.get_mut(worker as usize) {
            Some(share @ None) => *share = Some(0),
            _ => return Vec::new(),
        }
        let mut changes = Vec::new();
        for _ in 0..SLOT_COUNT / (n_others + 1) {
            let Some(from) = self.most_loaded() else { break };
            let Some(slot) = self.workers.iter().rposition(|owner| *owner == from) else {
                break;
            };
            changes.push(self.reassign(slot, worker));
        }
        changes
    }

    /// Spreads the slots of `worker` over the others, each to the worker that has fewest. Returns the moved slots, none
    /// if `worker` is the last one, which stays.
    pub(crate) fn remove(&mut self, worker: u32) -> Vec<SlotChange> {
        let n_workers = self.shares.iter().flatten().count();
        match self.shares.get_mut(worker as usize) {
            Some(share @ Some(_)) if n_workers > 1 => *share = None,
            _ => return Vec::new(),
        }
        let mut changes = Vec::new();
        for slot in 0..self.workers.len() {
            if self.workers[slot] == worker
                && let Some(to) = self.least_loaded()
            {
                changes.push(self.reassign(slot, to));
            }
        }
        changes
    }

    fn reassign(&mut self, slot: usize, worker: u32) -> SlotChange {
        let before = std::mem::replace(&mut self.workers[slot], worker);
        for (who, more) in [(before, false), (worker, true)] {
            if let Some(Some(share)) = self.shares.get_mut(who as usize) {
                *share = if more { *share + 1 } else { *share - 1 };
            }
        }
        SlotChange {
            slot: slot as u32,
            worker,
        }
    }

    fn most_loaded(&self) -> Option<u32> {
        let shares = (0..)
            .zip(&self.shares)
            .filter_map(|(worker, share)| Some((worker, (*share)?)));
        shares.max_by_key(|(_, share)| *share).map(|(worker, _)| worker)
    }

    fn least_loaded(&self) -> Option<u32> {
        let shares = (0..)
            .zip(&self.shares)
            .filter_map(|(worker, share)| Some((worker, (*share)?)));
        shares.min_by_key(|(_, share)| *share).map(|(worker, _)| worker)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn shares(table: &SlotTable) -> BTreeMap<u32, usize> {
        let mut shares = BTreeMap::new();
        for SlotChange { worker, .. } in table.iter() {
            *shares.entry(worker).or_default() += 1;
        }
        shares
    }

    #[test]
    fn a_ninth_worker_takes_one_ninth_and_nobody_else_moves() {
        let mut table = SlotTable::new(8);
        let before = table.clone();

        let changes = table.add(8);

        assert_eq!(changes.len(), 1024 / 9);
        assert!(changes.iter().all(|change| change.worker == 8));
        let moved = before
            .iter()
            .zip(table.iter())
            .filter(|(old, new)| old != new)
            .count();
        assert_eq!(moved, changes.len());
    }

    #[test]
    fn a_worker_that_leaves_gives_away_its_own_slots_only() {
        let mut table = SlotTable::new(8);
        let before = table.clone();

        let changes = table.remove(3);

        assert_eq!(changes.len(), 128);
        for (old, new) in before.iter().zip(table.iter()) {
            assert_eq!(old != new, old.worker == 3);
        }
    }

    #[test]
    fn the_last_worker_stays() {
        let mut table = SlotTable::new(1);

        assert_eq!(table.remove(0), []);
        assert_eq!(shares(&table), BTreeMap::from([(0, 1024)]));
    }

    proptest! {
        /// The model is the rule itself: what may change, and that shares stay even.
        #[test]
        fn any_sequence_keeps_shares_even_and_moves_the_least(
            first in 1..=MAX_WORKERS,
            steps in prop::collection::vec((any::<bool>(), 0..MAX_WORKERS), 0..40),
        ) {
            let mut table = SlotTable::new(first);
            let mut model: BTreeMap<u32, u32> = table.iter().map(|entry| (entry.slot, entry.worker)).collect();
            let mut active: std::collections::BTreeSet<u32> = (0..first).collect();
            for (add, worker) in steps {
                let changes = if add { table.add(worker) } else { table.remove(worker) };
                if add {
                    let fresh = active.insert(worker);
                    let at_most = if fresh { SLOT_COUNT as usize / active.len() } else { 0 };
                    prop_assert!(changes.len() <= at_most);
                    prop_assert!(changes.iter().all(|change| change.worker == worker));
                } else {
                    let gone = active.len() > 1 && active.remove(&worker);
                    let owned = model.values().filter(|owner| **owner == worker).count();
                    prop_assert_eq!(changes.len(), if gone { owned } else { 0 });
                    prop_assert!(changes.iter().all(|change| model[&change.slot] == worker));
                }
                for change in changes {
                    model.insert(change.slot, change.worker);
                }
                let now: BTreeMap<u32, u32> = table.iter().map(|entry| (entry.slot, entry.worker)).collect();
                prop_assert_eq!(&now, &model);
                let shares = shares(&table);
                prop_assert!(shares.keys().eq(active.iter()));
                let (least, most) = (shares.values().min().unwrap(), shares.values().max().unwrap());
                prop_assert!(most - least <= 1, "{:?}", shares);
            }
        }
    }
}
