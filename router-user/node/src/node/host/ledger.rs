//! Remembers what was changed, and when: what is put back, what only follows, and when the node gives in.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use super::thing::{Level, Thing};

/// Changes of one thing within [`WINDOW`] at which the node gives in.
const MAX_CHANGES: usize = 3;
const WINDOW: Duration = Duration::from_secs(60);

/// How long after a change further ones of the same thing belong to it: whoever removes many pins or addresses takes a
/// while, and may be looked at in the middle.
const ONE_ACT: Duration = Duration::from_millis(250);

/// What was changed. A thing that was never changed has no entry.
#[derive(Debug, Default)]
pub(in crate::node) struct Ledger {
    entries: BTreeMap<Thing, Entry>,
}

#[derive(Debug, Default)]
struct Entry {
    changes: VecDeque<Instant>,
    state: Standing,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Standing {
    #[default]
    Right,
    Wrong,
    Conflict,
}

/// What is to be done about a thing that is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::node) enum Verdict {
    /// It was changed, and is put back.
    Changed,
    /// It was wrong before, or went with what it depends on: it is put back without a word.
    Again,
    /// It has just become a conflict, and is left.
    GivenUp,
    /// It is a conflict, and is left.
    Left,
}

impl Ledger {
    /// Judges what is wrong at `now`; `lowest` is the lowest level at which something is, or was in between.
    pub(in crate::node) fn judge(&mut self, thing: &Thing, lowest: Level, now: Instant) -> Verdict {
        let entry = self.entries.entry(thing.clone()).or_default();
        match entry.state {
            Standing::Conflict => return Verdict::Left,
            Standing::Wrong => return Verdict::Again,
            Standing::Right => entry.state = Standing::Wrong,
        }
        if thing.level() != Level::Alone && thing.level() > lowest {
            return Verdict::Again;
        }
        let since_last = entry
            .changes
            .back()
            .map(|last| now.saturating_duration_since(*last));
        if since_last.is_some_and(|since| since < ONE_ACT) {
            return Verdict::Again;
        }
        while entry
            .changes
            .front()
            .is_some_and(|change| now.saturating_duration_since(*change) >= WINDOW)
        {
            entry.changes.pop_front();
        }
        entry.changes.push_back(now);
        if entry.changes.len() < MAX_CHANGES {
            return Verdict::Changed;
        }
        entry.state = Standing::Conflict;
        Verdict::GivenUp
    }

    /// Notes that the remedy of a thing has been applied: if it is wrong again, it was changed again.
    pub(in crate::node) fn put_back(&mut self, thing: &Thing) {
        if let Some(entry) = self.entries.get_mut(thing) {
            entry.state = Standing::Right;
        }
    }

    /// Notes which things are wrong; all others are right. Returns those that were a conflict until now.
    pub(in crate::node) fn settle(&mut self, is_wrong: impl Fn(&Thing) -> bool, now: Instant) -> Vec<Thing> {
        let mut recovered = Vec::new();
        for (thing, entry) in &mut self.entries {
            if !is_wrong(thing) {
                if entry.state == Standing::Conflict {
                    recovered.push(thing.clone());
                }
                entry.state = Standing::Right;
            }
        }
        let old = |entry: &Entry| {
            entry
                .changes
                .back()
                .is_none_or(|change| now.saturating_duration_since(*change) >= WINDOW)
        };
        self.entries
            .retain(|_, entry| entry.state != Standing::Right || !old(entry));
        recovered
    }

    /// Returns whether a thing is a conflict.
    pub(in crate::node) fn is_conflict(&self, thing: &Thing) -> bool {
        let entry = self.entries.get(thing);
        entry.is_some_and(|entry| entry.state == Standing::Conflict)
    }

    /// Forgets every conflict, so that what is wrong is put back once more.
    pub(in crate::node) fn forgive(&mut self) {
        self.entries.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn put_right(ledger: &mut Ledger, now: Instant) -> Vec<Thing> {
        ledger.settle(|_| false, now)
    }

    #[test]
    fn the_third_change_of_one_thing_within_a_minute_is_left_until_it_is_right() {
        let (mut ledger, start) = (Ledger::default(), Instant::now());
        let change = |ledger: &mut Ledger, seconds| {
            let now = start + SECOND * seconds;
            let verdict = ledger.judge(&Thing::Mtu, Level::Device, now);
            put_right(ledger, now);
            verdict
        };

        assert_eq!(change(&mut ledger, 0), Verdict::Changed);
        assert_eq!(change(&mut ledger, 59), Verdict::Changed);
        // The first is a minute old.
        assert_eq!(change(&mut ledger, 60), Verdict::Changed);
        let now = start + SECOND * 61;
        assert_eq!(ledger.judge(&Thing::Mtu, Level::Device, now), Verdict::GivenUp);
        assert!(ledger.is_conflict(&Thing::Mtu));
        assert_eq!(
            ledger.judge(&Thing::Mtu, Level::Device, now + 600 * SECOND),
            Verdict::Left
        );
        // Another thing is not concerned.
        assert_eq!(ledger.judge(&Thing::Up, Level::Device, now), Verdict::Changed);

        assert_eq!(put_right(&mut ledger, now + 601 * SECOND), [Thing::Mtu]);
        assert!(!ledger.is_conflict(&Thing::Mtu));
        let later = now + 700 * SECOND;
        assert_eq!(ledger.judge(&Thing::Mtu, Level::Device, later), Verdict::Changed);
    }

    #[test]
    fn what_is_still_wrong_or_went_with_something_else_is_no_change() {
        let (mut ledger, now) = (Ledger::default(), Instant::now());
        let local = Thing::Local("10.42.0.1".parse().unwrap());

        for _ in 0..9 {
            // The device was down, and took the route with it.
            assert_eq!(ledger.judge(&local, Level::Device, now), Verdict::Again);
            put_right(&mut ledger, now);
        }
        assert_eq!(ledger.judge(&Thing::Hook, Level::Device, now), Verdict::Changed);
        for _ in 0..9 {
            // It could not be put back yet.
            assert_eq!(ledger.judge(&Thing::Hook, Level::Alone, now), Verdict::Again);
        }
        // It was put back, and is wrong again.
        let mut again = |seconds| {
            ledger.put_back(&Thing::Hook);
            ledger.judge(&Thing::Hook, Level::Alone, now + SECOND * seconds)
        };
        assert_eq!(again(1), Verdict::Changed);
        assert_eq!(again(2), Verdict::GivenUp);

        ledger.forgive();
        assert_eq!(ledger.judge(&Thing::Hook, Level::Alone, now), Verdict::Changed);
    }

    #[test]
    fn what_is_changed_bit_by_bit_counts_once_for_each_act() {
        let (mut ledger, start) = (Ledger::default(), Instant::now());
        let verdicts: Vec<_> = (0..=200)
            .map(|step| {
                let now = start + ONE_ACT * step / 100;
                let verdict = ledger.judge(&Thing::Pins, Level::Alone, now);
                ledger.put_back(&Thing::Pins);
                verdict
            })
            .collect();

        let mut expected = vec![Verdict::Again; 201];
        expected[0] = Verdict::Changed;
        expected[100] = Verdict::Changed;
        expected[200] = Verdict::GivenUp;
        assert_eq!(verdicts, expected);
    }
}
