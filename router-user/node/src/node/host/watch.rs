//! Compares on every change that the kernel tells of, and every few seconds.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use tokio::sync::{Mutex, MutexGuard, Notify};
use tokio::time::{sleep, timeout};

use super::device_lost::DeviceLost;
use super::keeper::Keeper;
use super::report::HostReport;
use crate::device::{HostChange, HostChanges, NetlinkError};

/// Time between two comparisons of which nothing has told. What the kernel does not tell of is put back within it.
const PERIOD: Duration = Duration::from_secs(10);

/// Pause after a change before it is looked at: who changes something changes more.
const SETTLE: Duration = Duration::from_millis(20);

/// Longest pause before a change is looked at, and how many times as long as the last comparison it is: a comparison
/// takes long on a host with very many routes.
const MAX_SETTLE: Duration = Duration::from_millis(500);
const PAUSE_FACTOR: u32 = 20;

/// What the node wants of the host, and who sees to it.
pub(in crate::node) struct Host {
    keeper: Mutex<Keeper>,
    report: Arc<ArcSwap<HostReport>>,
    signals: Arc<Signals>,
    _changes: HostChanges,
}

/// What the kernel has told of.
#[derive(Default)]
struct Signals {
    changed: Notify,
    routes_changed: Notify,
    went_down: AtomicBool,
}

impl Host {
    /// Subscribes to the changes of the host, for the device with this index.
    ///
    /// # Errors
    /// The kernel gives no socket.
    pub(in crate::node) fn watch(keeper: Keeper, device: u32) -> Result<Arc<Self>, NetlinkError> {
        let signals = Arc::new(Signals::default());
        let told = signals.clone();
        let changes = HostChanges::subscribe(move |change| told.handle(change, device))?;
        Ok(Arc::new(Self {
            report: keeper.report(),
            keeper: Mutex::new(keeper),
            signals,
            _changes: changes,
        }))
    }

    /// Waits for a comparison that is under way, and keeps others from beginning: who changes what is wanted holds this.
    pub(in crate::node) async fn keeper(&self) -> MutexGuard<'_, Keeper> {
        self.keeper.lock().await
    }

    /// Returns the outcome of the last comparison.
    pub(in crate::node) fn report(&self) -> Arc<HostReport> {
        self.report.load_full()
    }

    /// Waits until routes of the host have changed since the last call, and the changes pause.
    pub(in crate::node) async fn routes_changed(&self) {
        self.signals.routes_changed.notified().await;
        sleep(SETTLE).await;
    }

    /// Compares for as long as the device is there.
    ///
    /// # Errors
    /// The device is gone.
    pub(in crate::node) async fn run(self: Arc<Self>) -> io::Result<()> {
        let (mut pause, mut period) = (SETTLE, PERIOD);
        loop {
            let is_told = timeout(period, self.signals.changed.notified()).await.is_ok();
            if is_told {
                sleep(pause).await;
            }
            let begun = Instant::now();
            let again = self.compare(is_told).await.map_err(io::Error::other)?;
            period = again.unwrap_or(PERIOD).min(PERIOD);
            pause = (begun.elapsed() * PAUSE_FACTOR).clamp(SETTLE, MAX_SETTLE);
        }
    }

    async fn compare(&self, is_told: bool) -> Result<Option<Duration>, DeviceLost> {
        let mut keeper = self.keeper.lock().await;
        let outcome = match is_told {
            true => {
                keeper
                    .compare(self.signals.went_down.swap(false, Relaxed))
                    .await?
            }
            false => keeper.compare_untold().await?,
        };
        Ok(outcome.again)
    }
}

impl Signals {
    fn handle(&self, change: HostChange, device: u32) {
        match change {
            HostChange::Interface { index, down } => {
                if index == device && down {
                    self.went_down.store(true, Relaxed);
                }
                self.changed.notify_one();
            }
            HostChange::Route { output } => {
                self.routes_changed.notify_one();
                if output.is_none_or(|output| output == device) {
                    self.changed.notify_one();
                }
            }
            HostChange::Other => self.changed.notify_one(),
            HostChange::Anything => {
                self.went_down.store(true, Relaxed);
                self.routes_changed.notify_one();
                self.changed.notify_one();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    const DEVICE: u32 = 7;

    /// Whether a comparison is due after a change, whether networks of the host are to be read, and whether the device may
    /// have been down.
    fn after(change: HostChange) -> (bool, bool, bool) {
        let signals = Signals::default();
        signals.handle(change, DEVICE);
        (
            signals.changed.notified().now_or_never().is_some(),
            signals.routes_changed.notified().now_or_never().is_some(),
            signals.went_down.load(Relaxed),
        )
    }

    #[test]
    fn lost_messages_have_all_compared_at_once_and_others_what_they_are_about() {
        let interface = |index, down| after(HostChange::Interface { index, down });
        let route = |output| after(HostChange::Route { output });

        assert_eq!(after(HostChange::Anything), (true, true, true));
        assert_eq!(after(HostChange::Other), (true, false, false));
        assert_eq!(interface(DEVICE, true), (true, false, true));
        assert_eq!(interface(3, true), (true, false, false));
        assert_eq!(route(Some(DEVICE)), (true, true, false));
        assert_eq!(route(None), (true, true, false));
        // A host may have very many routes of others, which are looked at in their turn.
        assert_eq!(route(Some(3)), (false, true, false));
    }
}
