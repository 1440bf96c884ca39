//! What threads that send and receive are told to end by.

use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;

/// Closed until it is opened for good.
#[derive(Default)]
pub struct Gate {
    is_open: Mutex<bool>,
    opened: Condvar,
}

impl Gate {
    /// Says whether it is open.
    pub fn is_open(&self) -> bool {
        *self.is_open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until it is open.
    pub fn wait(&self) {
        let is_open = self.is_open.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.opened.wait_while(is_open, |is_open| !*is_open);
        drop(waited.unwrap_or_else(PoisonError::into_inner));
    }

    /// Pauses for so long, but not once it is open; says whether it is.
    pub fn pause(&self, pause: Duration) -> bool {
        let is_open = self.is_open.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self
            .opened
            .wait_timeout_while(is_open, pause, |is_open| !*is_open);
        *waited.unwrap_or_else(PoisonError::into_inner).0
    }

    /// Opens it when what is returned goes out of scope, also by a panic, so that nobody waits for ever.
    pub fn open_on_drop(&self) -> OpenOnDrop<'_> {
        OpenOnDrop(self)
    }

    fn open(&self) {
        *self.is_open.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.opened.notify_all();
    }
}

/// Opens a gate on drop.
pub struct OpenOnDrop<'a>(&'a Gate);

impl Drop for OpenOnDrop<'_> {
    fn drop(&mut self) {
        self.0.open();
    }
}
