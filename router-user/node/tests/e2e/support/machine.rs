//! Which tests run beside each other on a machine of few processors.
//!
//! Every test begins with one of these two, and keeps what it gets to its end. What loads every processor, or judges
//! what a loaded machine cannot keep, has the machine for itself. The others share it, more than there are processors,
//! as they wait most of the time.
//!
//! They take turns: those that share go on until all threads wait for the machine alone, and those then follow one
//! another. So it is emptied rarely.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// Most tests that share the machine at a time.
const MAX_SHARERS: usize = 4;

static MACHINE: Mutex<Machine> = Mutex::new(Machine::new());
static HAS_CHANGED: Condvar = Condvar::new();

/// Who has the machine, and who waits for it.
struct Machine {
    n_sharers: usize,
    n_sharers_waiting: usize,
    is_taken: bool,
    n_alone_waiting: usize,
    /// Whether those that want it alone have their turn.
    is_turn_of_alone: bool,
}

impl Machine {
    const fn new() -> Self {
        Self {
            n_sharers: 0,
            n_sharers_waiting: 0,
            is_taken: false,
            n_alone_waiting: 0,
            is_turn_of_alone: false,
        }
    }

    fn has_room(&self) -> bool {
        let is_turn_of_others = self.is_turn_of_alone && self.n_alone_waiting > 0;
        !self.is_taken && !is_turn_of_others && self.n_sharers < MAX_SHARERS
    }

    fn is_free(&self) -> bool {
        let is_turn_of_others = !self.is_turn_of_alone && self.n_sharers_waiting > 0;
        !self.is_taken && !is_turn_of_others && self.n_sharers == 0
    }
}

/// A part of the machine, or all of it, until it is dropped.
#[must_use]
pub(crate) struct Share {
    is_whole: bool,
}

impl Drop for Share {
    fn drop(&mut self) {
        let mut machine = lock();
        match self.is_whole {
            true => machine.is_taken = false,
            false => machine.n_sharers -= 1,
        }
        HAS_CHANGED.notify_all();
    }
}

/// Waits until the machine is shared and has room.
pub(crate) fn shared() -> Share {
    let mut machine = lock();
    machine.n_sharers_waiting += 1;
    let mut machine = wait_until(machine, Machine::has_room);
    machine.n_sharers_waiting -= 1;
    machine.n_sharers += 1;
    machine.is_turn_of_alone = false;
    Share { is_whole: false }
}

/// Waits until no other test runs, and keeps others waiting.
pub(crate) fn alone() -> Share {
    let mut machine = lock();
    machine.n_alone_waiting += 1;
    let mut machine = wait_until(machine, Machine::is_free);
    machine.n_alone_waiting -= 1;
    machine.is_taken = true;
    machine.is_turn_of_alone = true;
    Share { is_whole: true }
}

fn lock() -> MutexGuard<'static, Machine> {
    MACHINE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn wait_until(
    machine: MutexGuard<'static, Machine>,
    may_go: impl Fn(&Machine) -> bool,
) -> MutexGuard<'static, Machine> {
    HAS_CHANGED
        .wait_while(machine, |machine| !may_go(machine))
        .unwrap_or_else(PoisonError::into_inner)
}
