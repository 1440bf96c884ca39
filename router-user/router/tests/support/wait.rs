//! Waiting with a limit.
#![allow(dead_code, reason = "each test uses its part")]

use std::fmt;
use std::time::{Duration, Instant};

/// How often a condition is looked at again.
const POLL_INTERVAL: Duration = Duration::from_millis(5);

/// Waits until a condition holds.
pub(crate) async fn until(what: impl fmt::Display, limit: Duration, mut holds: impl FnMut() -> bool) {
    until_async(what, limit, async || holds()).await;
}

/// Waits until a condition holds that it takes a task to look at.
pub(crate) async fn until_async(
    what: impl fmt::Display,
    limit: Duration,
    mut holds: impl AsyncFnMut() -> bool,
) {
    let deadline = Instant::now() + limit;
    while !holds().await {
        assert!(Instant::now() < deadline, "{what}: not within {limit:?}");
        // What is waited for tells nobody.
        tokio::time::sleep(POLL_INTERVAL).await;
    }
}
