//! Asks the node again and again.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, watch};
use tokio::time::{sleep, timeout};

use super::model::NodeSample;
use crate::control::{ControlError, FlowQuery, Resource, fetch};

/// Shortest time between two requests, however often the settings change.
const MIN_INTERVAL: Duration = Duration::from_millis(250);

/// Share of the time, as its reciprocal, that the node may spend on reading its whole table for flows.
const FLOW_SHARE: u32 = 20;

/// How often the node is asked, and for what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct PollSettings {
    /// Time between two requests.
    pub(super) interval: Duration,
    /// Whether the node is not asked at all.
    pub(super) paused: bool,
    /// Which flows are asked for, if any.
    pub(super) flows: Option<FlowQuery>,
}

/// Asks one node for everything that the view shows.
#[derive(Debug)]
pub(super) struct Poller {
    socket: PathBuf,
    start: Instant,
    pace: FlowInterval,
}

/// The time from which flows may be asked for again.
#[derive(Debug, Default)]
struct FlowInterval {
    query: Option<FlowQuery>,
    not_before: Duration,
}

impl Poller {
    /// Makes a poller whose time begins at `start`.
    pub(super) fn new(socket: &Path, start: Instant) -> Self {
        Self {
            socket: socket.to_owned(),
            start,
            pace: FlowInterval::default(),
        }
    }

    /// Asks until the receiver of the answers is gone.
    pub(super) async fn run(
        mut self,
        mut changes: watch::Receiver<PollSettings>,
        answers: mpsc::Sender<Result<NodeSample, ControlError>>,
    ) {
        let mut asked = Instant::now();
        loop {
            let settings = changes.borrow_and_update().clone();
            if wait(&mut changes, asked, &settings).await.is_err() {
                return;
            }
            let settings = changes.borrow_and_update().clone();
            if settings.paused {
                continue;
            }
            asked = Instant::now();
            let answer = self.ask(settings.flows).await;
            if answers.send(answer).await.is_err() {
                return;
            }
        }
    }

    /// Asks once. Flows are left out when it is too early for them.
    pub(super) async fn ask(&mut self, flows: Option<FlowQuery>) -> Result<NodeSample, ControlError> {
        let status = self.fetch("").await?;
        let peers = self.fetch("").await?;
        let at = self.start.elapsed();
        let workers = self.fetch("").await?;
        let streams = self.fetch("").await?;
        let counters = self.fetch("").await?;
        let flows = match flows.filter(|query| self.pace.allows(query, at)) {
            Some(query) => {
                let asked = self.start.elapsed();
                let flows = self.fetch(&query.query()).await?;
                self.pace.took(query, asked, self.start.elapsed());
                Some(flows)
            }
            None => None,
        };
        Ok(NodeSample {
            at,
            status,
            peers,
            workers,
            streams,
            counters,
            flows,
        })
    }

    async fn fetch<R: Resource>(&self, query: &str) -> Result<R, ControlError> {
        fetch(&self.socket, query).await
    }
}

/// Waits until it is time for the next request, or the settings change.
///
/// # Errors
/// The view is gone.
async fn wait(
    changes: &mut watch::Receiver<PollSettings>,
    asked: Instant,
    settings: &PollSettings,
) -> Result<(), watch::error::RecvError> {
    sleep(MIN_INTERVAL.saturating_sub(asked.elapsed())).await;
    if settings.paused {
        return changes.changed().await;
    }
    let left = settings.interval.saturating_sub(asked.elapsed());
    // The time that ran out is no error.
    timeout(left, changes.changed()).await.unwrap_or(Ok(()))
}

impl FlowInterval {
    fn allows(&self, query: &FlowQuery, now: Duration) -> bool {
        now >= self.not_before || self.query.as_ref() != Some(query)
    }

    fn took(&mut self, query: FlowQuery, from: Duration, to: Duration) {
        self.query = Some(query);
        self.not_before = to + to.saturating_sub(from) * (FLOW_SHARE - 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flows_that_take_long_are_asked_for_seldom() {
        let ms = Duration::from_millis;
        let mut pace = FlowInterval::default();
        let query = FlowQuery::default();
        assert!(pace.allows(&query, ms(0)));

        pace.took(query.clone(), ms(1000), ms(1100));

        assert!(!pace.allows(&query, ms(2999)));
        assert!(pace.allows(&query, ms(3000)));
        let other = FlowQuery { limit: 1, ..query };
        assert!(pace.allows(&other, ms(1100)));
    }
}
