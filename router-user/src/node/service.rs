//! What the service manager that started the node is told (sd_notify(3)): ready, how it goes, alive, stopping.
//!
//! A node is alive while the main thread and every data thread take up new work.

use std::time::Duration;

use sd_notify::NotifyState;
use tokio::runtime::Handle;
use tokio::task::JoinHandle;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout_at};
use tracing::warn;

use super::data_thread::Runtimes;
use crate::p2p::NetworkHandle;

/// Between two looks at the node, if the watchdog does not ask for more.
const PERIOD: Duration = Duration::from_secs(10);

/// Signs of life within the time that the watchdog allows: one may be late without harm.
const N_SIGNS: u32 = 3;

/// Tells the service manager how it goes, until it is dropped.
#[derive(Debug)]
pub(super) struct Service {
    reporter: Option<JoinHandle<()>>,
}

impl Service {
    /// Says that the node is up, and from then on how many peers are connected and that its threads live.
    ///
    /// # Panics
    /// Outside the main runtime.
    pub(super) fn ready(runtimes: &Runtimes, network: NetworkHandle) -> Self {
        let summary = summary(&network);
        tell(&[NotifyState::Ready, NotifyState::Status(&summary)]);
        let watchdog = sd_notify::watchdog_enabled();
        let managed = watchdog.is_some() || std::env::var_os("NOTIFY_SOCKET").is_some();
        let reporter = Reporter {
            watchdog,
            threads: Threads::new(runtimes),
            network,
            said: summary,
        };
        Self {
            reporter: managed.then(|| tokio::spawn(reporter.run())),
        }
    }

    /// Says that the node stops.
    pub(super) fn stopping(self) {
        tell(&[NotifyState::Stopping, NotifyState::Status("stopping")]);
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        if let Some(reporter) = &self.reporter {
            reporter.abort();
        }
    }
}

struct Reporter {
    watchdog: Option<Duration>,
    threads: Threads,
    network: NetworkHandle,
    said: String,
}

impl Reporter {
    async fn run(mut self) {
        // A period of 0 would panic; a watchdog of less than a few microseconds is met by nobody.
        let period = self.watchdog.map_or(PERIOD, |limit| limit / N_SIGNS);
        let period = period.clamp(Duration::from_millis(1), PERIOD);
        let mut ticks = interval(period);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            if self.watchdog.is_some() {
                let silent = self.threads.silent(Instant::now() + period).await;
                if silent.is_empty() {
                    tell(&[NotifyState::Watchdog]);
                } else {
                    warn!(threads = ?silent, "threads do not answer; the service manager will restart the node");
                }
            }
            let summary = summary(&self.network);
            if summary != self.said {
                tell(&[NotifyState::Status(&summary)]);
                self.said = summary;
            }
        }
    }
}

fn summary(network: &NetworkHandle) -> String {
    let peers = network.snapshot().peers;
    let n_connected = peers.iter().filter(|peer| !peer.connections.is_empty()).count();
    format!("{n_connected} of {} peers connected", peers.len())
}

/// Asks the data threads for a sign of life. One that has not answered is asked nothing more.
struct Threads(Vec<Thread>);

struct Thread {
    name: String,
    handle: Handle,
    question: Option<JoinHandle<()>>,
}

impl Threads {
    fn new(runtimes: &Runtimes) -> Self {
        let thread = |(number, name)| Thread {
            name,
            handle: runtimes.of(number).clone(),
            question: None,
        };
        Self((0..).zip(runtimes.names()).map(thread).collect())
    }

    /// The threads that do not answer before `deadline`.
    async fn silent(&mut self, deadline: Instant) -> Vec<&str> {
        for thread in &mut self.0 {
            let handle = &thread.handle;
            thread.question.get_or_insert_with(|| handle.spawn(async {}));
        }
        let mut silent = Vec::new();
        for thread in &mut self.0 {
            let Some(question) = &mut thread.question else {
                continue;
            };
            match timeout_at(deadline, question).await {
                Ok(Ok(())) => thread.question = None,
                // One that was cancelled is a thread that has ended; both are no sign of life.
                Ok(Err(_)) | Err(_) => silent.push(thread.name.as_str()),
            }
        }
        silent
    }
}

fn tell(states: &[NotifyState<'_>]) {
    // Nothing happens without a service manager.
    if let Err(error) = sd_notify::notify(states) {
        warn!(%error, "cannot tell the service manager how the node is; NOTIFY_SOCKET says where it listens");
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::sync_channel;

    use super::*;
    use crate::node::data_thread::DataThreads;

    const SOON: Duration = Duration::from_millis(50);
    const LIMIT: Duration = Duration::from_secs(10);

    #[tokio::test]
    async fn a_thread_that_is_stuck_is_named_until_it_goes_on() {
        let data_threads = DataThreads::start(1).unwrap();
        let mut threads = Threads::new(&data_threads.runtimes());
        assert!(threads.silent(Instant::now() + LIMIT).await.is_empty());
        let (release, held) = sync_channel::<()>(0);
        let (stuck, is_stuck) = tokio::sync::oneshot::channel();
        data_threads.first().spawn(async move {
            stuck.send(()).unwrap();
            let _released = held.recv();
        });
        is_stuck.await.unwrap();

        let first = threads.silent(Instant::now() + SOON).await.join(" ");
        let second = threads.silent(Instant::now() + SOON).await.join(" ");
        drop(release);
        let third = threads.silent(Instant::now() + LIMIT).await.join(" ");

        assert_eq!([&*first, &*second, &*third], ["sr-data-0", "sr-data-0", ""]);
    }

    #[tokio::test]
    async fn a_thread_that_has_ended_gives_no_sign_of_life() {
        let data_threads = DataThreads::start(1).unwrap();
        let mut threads = Threads::new(&data_threads.runtimes());
        drop(data_threads);

        assert_eq!(threads.silent(Instant::now() + LIMIT).await, ["sr-data-0"]);
    }
}
