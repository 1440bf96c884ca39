//! Tells the service manager that started the node (sd_notify(3)) its state: ready, status, alive, stopping.
//!
//! A node is alive while the main thread and every data thread take up new work.

use std::sync::Arc;
use std::time::{Duration, Instant};

use sd_notify::NotifyState;
use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, interval};
use tracing::warn;

use super::data_thread::Runtimes;
use super::heartbeat::Heartbeats;
use super::peers::{LivePeers, PeerTable};

/// Time between two reports, unless the watchdog asks for more of them.
const PERIOD: Duration = Duration::from_secs(10);

/// Signs of life within the time that the watchdog allows; one may be late without harm.
const N_SIGNS: u32 = 3;

/// Reports the state of the node to the service manager until it is dropped.
#[derive(Debug)]
pub(super) struct Service {
    reporter: Option<JoinHandle<()>>,
}

impl Service {
    /// Reports that the node is up, and from then on how many peers are connected and that its threads are alive.
    ///
    /// # Panics
    /// Outside the main runtime.
    pub(super) fn ready(runtimes: &Runtimes, peers: Arc<LivePeers>) -> Self {
        let summary = summary(&peers.load());
        tell(&[NotifyState::Ready, NotifyState::Status(&summary)]);
        let watchdog = sd_notify::watchdog_enabled();
        let managed = watchdog.is_some() || std::env::var_os("NOTIFY_SOCKET").is_some();
        let reporter = managed.then(|| Reporter {
            watchdog,
            threads: Heartbeats::start(runtimes.named()),
            peers,
            said: summary,
        });
        Self {
            reporter: reporter.map(|reporter| tokio::spawn(reporter.run())),
        }
    }

    /// Reports that the node stops.
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

/// The task that reports. It runs on the main thread: if that hangs, no sign of life is sent.
struct Reporter {
    watchdog: Option<Duration>,
    threads: Heartbeats,
    peers: Arc<LivePeers>,
    said: String,
}

impl Reporter {
    async fn run(mut self) {
        let mut ticks = interval(period(self.watchdog));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            if self.watchdog.is_some() {
                let silent: Vec<_> = self.threads.silent(Instant::now()).collect();
                if silent.is_empty() {
                    tell(&[NotifyState::Watchdog]);
                } else {
                    warn!(threads = ?silent, "threads do not answer; the service manager will restart the node");
                }
            }
            let summary = summary(&self.peers.load());
            if summary != self.said {
                tell(&[NotifyState::Status(&summary)]);
                self.said = summary;
            }
        }
    }
}

/// Returns the time between two reports. It is never 0, which no interval can be.
fn period(watchdog: Option<Duration>) -> Duration {
    let wanted = watchdog.map_or(PERIOD, |limit| limit / N_SIGNS);
    wanted.clamp(Duration::from_millis(1), PERIOD)
}

fn summary(peers: &PeerTable) -> String {
    format!("{} of {} peers connected", peers.n_connected(), peers.all().len())
}

fn tell(states: &[NotifyState<'_>]) {
    // Nothing happens without a service manager.
    if let Err(error) = sd_notify::notify(states) {
        warn!(%error, "cannot tell the service manager how the node is; NOTIFY_SOCKET says where it listens");
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering::Relaxed;

    use super::super::status::tests::configured;
    use super::*;

    #[test]
    fn signs_of_life_come_in_time_and_never_without_pause() {
        let seconds = Duration::from_secs;

        assert_eq!(period(Some(seconds(15))), seconds(5));
        assert_eq!(period(Some(seconds(3600))), PERIOD);
        assert_eq!(period(None), PERIOD);
        assert!(period(Some(Duration::ZERO)) > Duration::ZERO);
    }

    #[test]
    fn the_summary_counts_peers_with_a_connection() {
        let peers = vec![configured(0), configured(1)];
        peers[1].peer.connected.store(true, Relaxed);

        assert_eq!(summary(&PeerTable::new(Vec::new())), "0 of 0 peers connected");
        assert_eq!(summary(&PeerTable::new(peers)), "1 of 2 peers connected");
    }
}
