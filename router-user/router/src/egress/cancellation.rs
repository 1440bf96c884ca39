//! Tells tasks that it is time to end.

use tokio::sync::watch;
use tokio::task::JoinHandle;

/// Cancelled once, for all its clones and for good.
#[derive(Clone, Debug, Default)]
pub struct CancellationToken(watch::Sender<bool>);

impl CancellationToken {
    /// A token that is not cancelled yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Cancels it.
    pub fn cancel(&self) {
        self.0.send_replace(true);
    }

    /// Says whether it is cancelled.
    pub fn is_cancelled(&self) -> bool {
        *self.0.borrow()
    }

    /// Waits until it is cancelled.
    pub async fn cancelled(&self) {
        let waited = self
            .0
            .subscribe()
            .wait_for(|cancelled| *cancelled)
            .await
            .map(drop);
        debug_assert!(waited.is_ok(), "this very token can still be cancelled");
    }
}

/// A task that is aborted when this is dropped.
#[derive(Debug)]
pub(crate) struct AbortOnDrop<T>(pub(crate) JoinHandle<T>);

impl<T> Drop for AbortOnDrop<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn all_that_wait_before_or_after_see_that_it_is_cancelled() {
        let token = CancellationToken::new();
        let waiting = tokio::spawn({
            let token = token.clone();
            async move { token.cancelled().await }
        });
        tokio::task::yield_now().await;
        assert!(!token.is_cancelled() && !waiting.is_finished());

        token.clone().cancel();

        waiting.await.unwrap();
        token.cancelled().await;
        assert!(token.is_cancelled());
    }
}
