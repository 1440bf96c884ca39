//! Changes of the host's addresses, after which connections may lead nowhere.

use std::{fmt, future::pending, time::Duration};

use futures::StreamExt;
use if_watch::tokio::IfWatcher;
use tokio::time::Instant;

/// Time from a change to what follows: most changes are several, as an address is replaced.
const SETTLE: Duration = Duration::from_millis(50);

/// The least time between two times that something follows.
const SPACING: Duration = Duration::from_secs(1);

/// The changes of the host's addresses.
pub(super) struct HostChanges {
    /// `None` if the kernel does not tell.
    watcher: Option<IfWatcher>,
    due: Option<Instant>,
    last: Option<Instant>,
}

impl HostChanges {
    /// Watches the host of the current network namespace.
    pub(super) fn new() -> Self {
        let watcher = IfWatcher::new();
        if let Err(error) = &watcher {
            tracing::warn!(%error, "cannot watch the addresses of the host; a lost one is noticed later");
        }
        Self {
            watcher: watcher.ok(),
            due: None,
            last: None,
        }
    }

    /// Waits for the next change.
    pub(super) async fn next(&mut self) {
        let Some(watcher) = &mut self.watcher else {
            return pending().await;
        };
        if let Some(Ok(_)) = watcher.next().await {
            return;
        }
        tracing::warn!("the addresses of the host are watched no more; a lost one is noticed later");
        self.watcher = None;
    }

    /// Plans what follows from a change.
    pub(super) fn handle_change(&mut self, now: Instant) {
        let earliest = self.last.map_or(now, |last| last + SPACING);
        self.due.get_or_insert(earliest.max(now + SETTLE));
    }

    /// Returns when [`HostChanges::take_due`] has to be called next.
    pub(super) fn poll_due(&self) -> Option<Instant> {
        self.due
    }

    /// Says whether the time has come, once.
    pub(super) fn take_due(&mut self, now: Instant) -> bool {
        if self.due.is_none_or(|due| due > now) {
            return false;
        }
        self.due = None;
        self.last = Some(now);
        true
    }
}

impl fmt::Debug for HostChanges {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HostChanges")
            .field("due", &self.due)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_in_a_row_have_one_effect() {
        let start = Instant::now();
        let mut changes = HostChanges {
            watcher: None,
            due: None,
            last: None,
        };
        assert!(!changes.take_due(start));

        changes.handle_change(start);
        changes.handle_change(start + SETTLE / 2);
        assert_eq!(changes.poll_due(), Some(start + SETTLE));
        assert!(!changes.take_due(start));
        assert!(changes.take_due(start + SETTLE));
        assert!(!changes.take_due(start + SETTLE));

        changes.handle_change(start + SETTLE * 2);
        assert_eq!(changes.poll_due(), Some(start + SETTLE + SPACING));
    }
}
