//! Congestion control of a QUIC connection: that which was chosen, and a bound on the queue that it may build.
//!
//! CUBIC unless another one was named, and it is not told of losses that no queue explains: else it would carry about a tenth
//! where one packet of a thousand is lost and a round trip takes 20 ms.

use std::{
    any::Any,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Instant,
};

use crate::p2p::tcp_config::CongestionControl;
use quinn::congestion::{
    BbrConfig, Controller, ControllerFactory, ControllerMetrics, CubicConfig, NewRenoConfig,
};
use quinn_proto::RttEstimator;
use stream_router_engine::{delay_window::DelayWindow, loss_tolerance::LossTolerance};

/// Bytes that a connection may send before the first acknowledgement (RFC 9002, section 7.2). That of quinn's BBR is so large
/// that a slow path needs seconds for it.
const FIRST_WINDOW: u64 = 14_720;

/// Makes the congestion control of each connection.
pub(super) struct ShortQueueConfig {
    chosen: Arc<dyn ControllerFactory + Send + Sync>,
    bears_loss: bool,
}

impl ShortQueueConfig {
    /// Takes the one that is called as the kernel's is for TCP, where QUIC has it.
    pub(super) fn new(named: Option<&CongestionControl>) -> Self {
        let (chosen, bears_loss): (Arc<dyn ControllerFactory + Send + Sync>, _) =
            match named.map(CongestionControl::name) {
                Some("cubic") => (Arc::new(CubicConfig::default()), false),
                Some("reno") => (Arc::new(NewRenoConfig::default()), false),
                Some("bbr") => {
                    let mut bbr = BbrConfig::default();
                    bbr.initial_window(FIRST_WINDOW);
                    (Arc::new(bbr), false)
                }
                _ => (Arc::new(CubicConfig::default()), true),
            };
        Self { chosen, bears_loss }
    }
}

impl ControllerFactory for ShortQueueConfig {
    fn build(self: Arc<Self>, now: Instant, current_mtu: u16) -> Box<dyn Controller> {
        let chosen = Arc::clone(&self.chosen).build(now, current_mtu);
        Box::new(ShortQueue {
            shown: Arc::new(AtomicU64::new(held(chosen.window(), None))),
            chosen,
            bound: DelayWindow::new(current_mtu),
            tolerance: self.bears_loss.then(|| LossTolerance::new(current_mtu)),
        })
    }
}

/// The congestion control of one connection.
pub(super) struct ShortQueue {
    chosen: Box<dyn Controller>,
    bound: DelayWindow,
    /// Which losses it is not told of.
    tolerance: Option<LossTolerance>,
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
            .store(held(self.chosen.window(), self.bound.window()), Relaxed);
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
        self.chosen.on_sent(now, bytes, last_packet_number);
    }

    fn on_ack(&mut self, now: Instant, sent: Instant, bytes: u64, app_limited: bool, rtt: &RttEstimator) {
        self.bound.handle_ack(sent, bytes, app_limited, now);
        if let Some(tolerance) = &mut self.tolerance {
            tolerance.handle_ack(bytes, rtt.get(), rtt.min(), now);
        }
        // What the bound has left unused says nothing of a larger window, or of the path's rate.
        let is_bound = self
            .bound
            .window()
            .is_some_and(|window| window < self.chosen.window());
        self.chosen.on_ack(now, sent, bytes, app_limited || is_bound, rtt);
    }

    fn on_end_acks(
        &mut self,
        now: Instant,
        in_flight: u64,
        app_limited: bool,
        largest_packet_num_acked: Option<u64>,
    ) {
        self.chosen
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
        let tolerance = self.tolerance.as_mut();
        let counts = tolerance.is_none_or(|tolerance| tolerance.handle_loss(lost_bytes));
        if !counts && !is_persistent_congestion {
            return;
        }
        self.chosen
            .on_congestion_event(now, sent, is_persistent_congestion, lost_bytes);
        self.show();
    }

    fn on_mtu_update(&mut self, new_mtu: u16) {
        self.chosen.on_mtu_update(new_mtu);
        self.bound.set_packet(new_mtu);
        if let Some(tolerance) = &mut self.tolerance {
            tolerance.set_packet(new_mtu);
        }
    }

    fn window(&self) -> u64 {
        let window = self.chosen.window();
        self.bound.window().map_or(window, |bound| bound.min(window))
    }

    fn metrics(&self) -> ControllerMetrics {
        let mut metrics = self.chosen.metrics();
        metrics.congestion_window = self.window();
        metrics
    }

    fn clone_box(&self) -> Box<dyn Controller> {
        Box::new(Self {
            chosen: self.chosen.clone_box(),
            bound: self.bound.clone(),
            tolerance: self.tolerance.clone(),
            shown: Arc::clone(&self.shown),
        })
    }

    fn initial_window(&self) -> u64 {
        self.chosen.initial_window()
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
