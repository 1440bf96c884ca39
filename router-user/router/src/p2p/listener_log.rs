//! The rate-limited log of what strangers can provoke at the listeners.

use std::time::Duration;

use tokio::time::Instant;

use stream_router_engine::log_rate_limit::LogRateLimit;

/// Time between two warnings of one kind.
const WARNING_INTERVAL: Duration = Duration::from_secs(60);

/// Decides which warnings about listeners are worth the operator's time.
#[derive(Debug, Default)]
pub(super) struct ListenerLog {
    refusals: LogRateLimit,
    errors: LogRateLimit,
}

impl ListenerLog {
    /// Says whether to warn of a refused connection. Returns how many warnings were left out before.
    pub(super) fn refusal_due(&mut self, now: Instant) -> Option<u64> {
        self.refusals.due(now.into_std(), WARNING_INTERVAL)
    }

    /// Says whether to warn of a listener's error. Returns how many warnings were left out before.
    pub(super) fn error_due(&mut self, now: Instant) -> Option<u64> {
        self.errors.due(now.into_std(), WARNING_INTERVAL)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_of_warning_has_an_interval_of_its_own() {
        let start = Instant::now();
        let mut log = ListenerLog::default();

        assert_eq!(log.refusal_due(start), Some(0));
        assert_eq!(log.refusal_due(start), None);
        assert_eq!(log.error_due(start), Some(0));
        assert_eq!(log.refusal_due(start + WARNING_INTERVAL), Some(1));
        assert_eq!(log.error_due(start + WARNING_INTERVAL), Some(0));
    }
}
