//! Tells whether the node's threads still run their tasks.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use tokio::runtime::Handle;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval};

const INTERVAL: Duration = Duration::from_secs(1);

/// Silence after which a thread counts as stuck: many times the delay of a thread under load.
const SILENT_AFTER: Duration = Duration::from_secs(5);

/// A task on each thread that notes the time. The tasks end on drop.
#[derive(Debug)]
pub(super) struct Heartbeats {
    start: Instant,
    beats: Vec<ThreadHeartbeat>,
    _tasks: JoinSet<()>,
}

#[derive(Debug)]
struct ThreadHeartbeat {
    thread: String,
    /// Time of the last beat, in milliseconds after the start.
    last_ms: Arc<AtomicU64>,
}

impl Heartbeats {
    /// Starts a task on the runtime of each named thread.
    pub(super) fn start(threads: impl IntoIterator<Item = (String, Handle)>) -> Self {
        let start = Instant::now();
        let mut tasks = JoinSet::new();
        let beats = threads.into_iter().map(|(thread, runtime)| {
            let last_ms = Arc::new(AtomicU64::new(0));
            let noted = last_ms.clone();
            let beat = async move {
                let mut ticks = interval(INTERVAL);
                ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
                loop {
                    ticks.tick().await;
                    noted.store(start.elapsed().as_millis() as u64, Relaxed);
                }
            };
            tasks.spawn_on(beat, &runtime);
            ThreadHeartbeat { thread, last_ms }
        });
        let beats = beats.collect();
        Self {
            start,
            beats,
            _tasks: tasks,
        }
    }

    /// Returns how many threads there are.
    pub(super) fn n_threads(&self) -> usize {
        self.beats.len()
    }

    /// Returns the threads that have been silent for too long at `now`, and for how long.
    pub(super) fn silent(&self, now: Instant) -> impl Iterator<Item = (&str, Duration)> {
        let passed = now.saturating_duration_since(self.start);
        let silence = move |beat: &ThreadHeartbeat| {
            passed.saturating_sub(Duration::from_millis(beat.last_ms.load(Relaxed)))
        };
        let beats = self
            .beats
            .iter()
            .map(move |beat| (beat.thread.as_str(), silence(beat)));
        beats.filter(|(_, silence)| *silence > SILENT_AFTER)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_that_stands_still_is_named() {
        let runtime = || {
            tokio::runtime::Builder::new_current_thread()
                .enable_time()
                .build()
                .expect("a runtime")
        };
        let (alive, still) = (runtime(), runtime());

        let beats = Heartbeats::start([
            ("alive".to_owned(), alive.handle().clone()),
            ("still".to_owned(), still.handle().clone()),
        ]);
        let soon = beats.start + SILENT_AFTER;
        let late = soon + Duration::from_millis(1);
        let silent = || beats.silent(late).map(|(thread, _)| thread).collect::<Vec<_>>();
        alive.block_on(async {
            for _ in 0..1000 {
                if silent().len() < 2 {
                    break;
                }
                // It beats while it is driven.
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        });

        assert_eq!(beats.silent(soon).count(), 0);
        assert_eq!(silent(), ["still"]);
        assert_eq!(beats.n_threads(), 2);
    }
}
