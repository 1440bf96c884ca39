//! Tells the network which absent peers there are packets for.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::sleep;

use super::peers::LivePeers;
use stream_router::p2p::NetworkHandle;

/// Time between two looks at the peers, however many packets come for them.
const LOOK_INTERVAL: Duration = Duration::from_millis(500);

/// Has the peers dialled that are wanted, each time that `demand` says that there are any.
pub(super) async fn run(peers: Arc<LivePeers>, demand: Arc<Notify>, network: NetworkHandle) -> Infallible {
    loop {
        demand.notified().await;
        let table = peers.load_full();
        for configured in table.all() {
            if configured.peer.absence.take_wanted() {
                network.dial_wanted(configured.peer.id).await;
            }
        }
        sleep(LOOK_INTERVAL).await;
    }
}
