//! The rate at which the lanes of a peer together give batches to their streams.

use std::num::NonZeroU32;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;
use tokio::time::{Instant, sleep};

use stream_router_engine::token_bucket::ByteBucket;

/// The token bucket of one peer, which its senders wait for.
pub struct Pacer {
    bucket: Mutex<ByteBucket>,
    /// Whether there is a rate: the senders of a peer without one take no lock.
    limits: AtomicBool,
    changed: Notify,
}

impl Pacer {
    /// Makes a pacer that lets everything through.
    pub fn unlimited() -> Self {
        Self {
            bucket: Mutex::new(ByteBucket::new(None, Instant::now().into_std())),
            limits: AtomicBool::new(false),
            changed: Notify::new(),
        }
    }

    /// Sets the bytes per second, or lets everything through.
    pub fn set_rate(&self, rate: Option<NonZeroU32>) {
        self.limits.store(rate.is_some(), Relaxed);
        self.bucket().set_rate(rate, Instant::now().into_std());
        self.changed.notify_waiters();
    }

    /// Returns the bytes per second, if there is a limit.
    pub fn rate(&self) -> Option<NonZeroU32> {
        // Without a lock where there is none.
        self.limits.load(Relaxed).then(|| self.bucket().rate())?
    }

    /// Waits until the next batch may leave.
    pub(crate) async fn ready(&self) {
        while self.limits.load(Relaxed) {
            let changed = self.changed.notified();
            let Some(wait) = self.bucket().wait(Instant::now().into_std()) else {
                return;
            };
            tokio::select! {
                () = sleep(wait) => {}
                () = changed => {}
            }
        }
    }

    /// Counts a batch that leaves.
    pub(crate) fn take(&self, n_bytes: usize) {
        if self.limits.load(Relaxed) {
            self.bucket().take(n_bytes, Instant::now().into_std());
        }
    }

    fn bucket(&self) -> MutexGuard<'_, ByteBucket> {
        self.bucket.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use super::*;

    /// Lets `n` batches of 1000 bytes through, each as soon as it may.
    async fn send(pacer: &Pacer, n: usize) {
        for _ in 0..n {
            pacer.ready().await;
            pacer.take(1000);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn senders_share_the_rate() {
        let pacer = Arc::new(Pacer::unlimited());
        pacer.set_rate(NonZeroU32::new(10_000));
        let start = Instant::now();

        let senders: Vec<_> = (0..4)
            .map(|_| {
                let pacer = Arc::clone(&pacer);
                tokio::spawn(async move { send(&pacer, 25).await })
            })
            .collect();
        for sender in senders {
            sender.await.unwrap();
        }

        let took = start.elapsed();
        assert!((9.5..=10.5).contains(&took.as_secs_f64()), "{took:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_sender_that_waits_hears_of_another_rate() {
        let pacer = Pacer::unlimited();
        pacer.set_rate(NonZeroU32::new(1));
        pacer.take(1_000_000);
        let start = Instant::now();

        let faster = async {
            sleep(Duration::from_secs(1)).await;
            pacer.set_rate(None);
        };
        tokio::join!(send(&pacer, 1), faster);

        assert_eq!(start.elapsed(), Duration::from_secs(1));
        assert_eq!(pacer.rate(), None);
    }
}
