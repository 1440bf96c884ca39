//! Congestion control of a QUIC connection: CUBIC, and a bound on the queue that it may build.

use std::{
    any::Any,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Instant,
};

use quinn::congestion::{Controller, ControllerFactory, ControllerMetrics, CubicConfig};
use quinn_proto::RttEstimator;
use stream_router_engine::delay_window::DelayWindow;

/// Makes the congestion control of each connection.
#[derive(Debug, Default)]
pub(super) struct ShortQueueConfig(Arc<CubicConfig>);

impl ControllerFactory for ShortQueueConfig {
    fn build(self: Arc<Self>, now: Instant, current_mtu: u16) -> Box<dyn Controller> {
        let cubic = Arc::clone(&self.0).build(now, current_mtu);
        let bound = DelayWindow::new(current_mtu);
        Box::new(ShortQueue {
            shown: Arc::new(AtomicU64::new(held(cubic.window(), None))),
            cubic,
            bound,
        })
    }
}

/// The congestion control of one connection.
pub(super) struct ShortQueue {
    cubic: Box<dyn Controller>,
    bound: DelayWindow,
    /// How many bytes the connection is to hold, for its streams.
    shown: Arc<AtomicU64>,
}

/// Bytes beyond a window that are always there to be sent, when an acknowledgement comes.
const LEAST_UNSENT: u64 = 4 * 1024;

/// Most bytes that a connection holds, sent or not, until they are acknowledged.
const MOST_HELD: u64 = 10_000_000;

impl ShortQueue {
    /// Returns where it is shown how many bytes a connection is to hold, sent or not.
    pub(super) fn shown_by(connection: &quinn::Connection) -> Option<Arc<AtomicU64>> {
        let state = connection.congestion_state().into_any();
        Some(state.downcast::<Self>().ok()?.shown)
    }

    fn show(&self) {
        self.shown
            .store(held(self.cubic.window(), self.bound.window()), Relaxed);
    }
}

/// Returns how many bytes a connection holds: what may be in flight, and as much again while no queue stands; then only
/// what is sent until more can come.
fn held(window: u64, bound: Option<u64>) -> u64 {
    let held = match bound {
        Some(bound) if bound < window => bound.saturating_add((bound / 4).max(LEAST_UNSENT)),
        _ => window.saturating_mul(2),
    };
    held.min(MOST_HELD)
}

impl Controller for ShortQueue {
    fn on_sent(&mut self, now: Instant, bytes: u64, last_packet_number: u64) {
        self.cubic.on_sent(now, bytes, last_packet_number);
    }

    fn on_ack(&mut self, now: Instant, sent: Instant, bytes: u64, app_limited: bool, rtt: &RttEstimator) {
        self.bound.handle_ack(sent, bytes, app_limited, now);
        // What the bound has left unused says nothing of a larger window.
        let is_bound = self
            .bound
            .window()
            .is_some_and(|window| window < self.cubic.window());
        self.cubic.on_ack(now, sent, bytes, app_limited || is_bound, rtt);
    }

    fn on_end_acks(
        &mut self,
        now: Instant,
        in_flight: u64,
        app_limited: bool,
        largest_packet_num_acked: Option<u64>,
    ) {
        self.cubic
            .on_end_acks(now, in_flight, app_limited, largest_packet_num_acked);
        self.show();
    }

    fn on_congestion_event(
        &mut self,
        now: Instant,
        sent: Instant,
        is_persistent_congestion: bool,
        lost_bytes: u64,
    ) {
        self.cubic
            .on_congestion_event(now, sent, is_persistent_congestion, lost_bytes);
        self.show();
    }

    fn on_mtu_update(&mut self, new_mtu: u16) {
        self.cubic.on_mtu_update(new_mtu);
        self.bound.set_packet(new_mtu);
    }

    fn window(&self) -> u64 {
        let window = self.cubic.window();
        self.bound.window().map_or(window, |bound| bound.min(window))
    }

    fn metrics(&self) -> ControllerMetrics {
        let mut metrics = self.cubic.metrics();
        metrics.congestion_window = self.window();
        metrics
    }

    fn clone_box(&self) -> Box<dyn Controller> {
        Box::new(Self {
            cubic: self.cubic.clone_box(),
            bound: self.bound.clone(),
            shown: Arc::clone(&self.shown),
        })
    }

    fn initial_window(&self) -> u64 {
        self.cubic.initial_window()
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_holds_little_more_than_may_be_in_flight_once_a_queue_stands() {
        assert_eq!(held(1_000_000, Some(5800)), 5800 + 4096);
        assert_eq!(held(2_000_000, Some(1_000_000)), 1_250_000);
        assert_eq!(held(12_000, Some(1_000_000)), 24_000);
        assert_eq!(held(12_000, None), 24_000);
        assert_eq!(held(u64::MAX, None), MOST_HELD);
    }
}
