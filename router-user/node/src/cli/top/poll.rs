//! Asks the node again and again.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, watch};
use tokio::time::{sleep, timeout};

use super::model::Sample;
use crate::control::{ControlError, FlowQuery, Resource, fetch};

/// However often the view changes its wish, the node is not asked more often.
const MIN_INTERVAL: Duration = Duration::from_millis(250);

/// For flows the node reads its whole table, which takes up to this share of its time.
const FLOW_SHARE: u32 = 20;

/// What the view wants of the node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Wish {
    /// Time between two looks.
    pub(super) interval: Duration,
    /// No looks at all.
    pub(super) paused: bool,
    /// Which flows, if any are looked at.
    pub(super) flows: Option<FlowQuery>,
}

/// Asks one node.
#[derive(Debug)]
pub(super) struct Poller {
    socket: PathBuf,
    start: Instant,
    pace: FlowPace,
}

/// When flows may be asked for.
#[derive(Debug, Default)]
struct FlowPace {
    query: Option<FlowQuery>,
    not_before: Duration,
}

impl Poller {
    /// One whose time begins at `start`.
    pub(super) fn new(socket: &Path, start: Instant) -> Self {
        Self {
            socket: socket.to_owned(),
            start,
            pace: FlowPace::default(),
        }
    }

    /// Asks until nobody wants to know.
    pub(super) async fn run(
        mut self,
        mut wishes: watch::Receiver<Wish>,
        answers: mpsc::Sender<Result<Sample, ControlError>>,
    ) {
        let mut asked = Instant::now();
        loop {
            let wish = wishes.borrow_and_update().clone();
            if wait(&mut wishes, asked, &wish).await.is_err() {
                return;
            }
            let wish = wishes.borrow_and_update().clone();
            if wish.paused {
                continue;
            }
            asked = Instant::now();
            let answer = self.ask(wish.flows).await;
            if answers.send(answer).await.is_err() {
                return;
            }
        }
    }

    /// Asks once. Flows are left out when it is too early for them.
    pub(super) async fn ask(&mut self, flows: Option<FlowQuery>) -> Result<Sample, ControlError> {
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
        Ok(Sample {
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

/// Waits until it is time for the next look, or the wish is another one; an error says that nobody wishes any more.
async fn wait(
    wishes: &mut watch::Receiver<Wish>,
    asked: Instant,
    wish: &Wish,
) -> Result<(), watch::error::RecvError> {
    sleep(MIN_INTERVAL.saturating_sub(asked.elapsed())).await;
    if wish.paused {
        return wishes.changed().await;
    }
    let left = wish.interval.saturating_sub(asked.elapsed());
    // The time that ran out is no error.
    timeout(left, wishes.changed()).await.unwrap_or(Ok(()))
}

impl FlowPace {
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
        let mut pace = FlowPace::default();
        let query = FlowQuery::default();
        assert!(pace.allows(&query, ms(0)));

        pace.took(query.clone(), ms(1000), ms(1100));

        assert!(!pace.allows(&query, ms(2999)));
        assert!(pace.allows(&query, ms(3000)));
        let other = FlowQuery { limit: 1, ..query };
        assert!(pace.allows(&other, ms(1100)));
    }
}
