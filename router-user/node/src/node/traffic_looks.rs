//! Looks at what has gone to and come from each peer again and again, for what is told of the last minute.

use std::sync::Arc;
use std::time::Instant;

use tokio::time::{MissedTickBehavior, interval};

use super::peers::LivePeers;
use super::recent_traffic::PERIOD;

/// Looks at the counts of every peer; does not return.
pub(super) async fn run(peers: Arc<LivePeers>) {
    let mut ticks = interval(PERIOD);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let now = Instant::now();
        for configured in peers.load().all() {
            let traffic = &configured.peer.traffic;
            traffic.recent.record(now, traffic.bytes());
        }
    }
}
