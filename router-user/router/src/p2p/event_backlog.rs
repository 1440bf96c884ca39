//! The events that wait for their receiver.

use std::collections::VecDeque;

use tokio::{
    sync::mpsc,
    time::{Instant, timeout_at},
};

use super::event::NetworkEvent;

/// Events that may wait for room in the channel before the swarm has to wait, too.
const MAX_BACKLOG: usize = 256;

/// The way of events to their receiver, in order.
#[derive(Debug)]
pub(super) struct EventBacklog {
    waiting: VecDeque<NetworkEvent>,
    events: mpsc::Sender<NetworkEvent>,
}

impl EventBacklog {
    pub(super) fn new(events: mpsc::Sender<NetworkEvent>) -> Self {
        Self {
            waiting: VecDeque::new(),
            events,
        }
    }

    /// Adds an event, which is never lost while the receiver lives.
    pub(super) fn push(&mut self, event: NetworkEvent) {
        self.waiting.push_back(event);
    }

    /// Adds an event that is left out if the receiver is behind.
    pub(super) fn push_if_idle(&mut self, event: NetworkEvent) {
        if self.waiting.is_empty() {
            self.waiting.push_back(event);
        }
    }

    /// Says whether the swarm may add events. One step of it may add several.
    pub(super) fn has_room(&self) -> bool {
        self.waiting.len() < MAX_BACKLOG
    }

    /// Says whether no event waits.
    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Waits for room in the channel and passes the oldest event on. Discards all events when the receiver is gone.
    ///
    /// No event is lost when the future is dropped.
    pub(super) async fn forward(&mut self) {
        match self.events.reserve().await {
            Ok(room) => {
                if let Some(event) = self.waiting.pop_front() {
                    room.send(event);
                }
            }
            Err(_closed) => self.waiting.clear(),
        }
    }

    /// Passes on the events that the receiver takes until `deadline`.
    pub(super) async fn drain(mut self, deadline: Instant) {
        while !self.is_empty() {
            if timeout_at(deadline, self.forward()).await.is_err() {
                break;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use futures::FutureExt;
    use libp2p::{PeerId, swarm::ConnectionId};

    use super::*;

    fn rtt(ms: u64) -> NetworkEvent {
        NetworkEvent::Rtt {
            peer: PeerId::random(),
            connection: ConnectionId::new_unchecked(1),
            rtt: Duration::from_millis(ms),
        }
    }

    fn received(events: &mut mpsc::Receiver<NetworkEvent>) -> Vec<u64> {
        let mut received = Vec::new();
        while let Ok(NetworkEvent::Rtt { rtt, .. }) = events.try_recv() {
            received.push(rtt.as_millis() as u64);
        }
        received
    }

    #[test]
    fn events_arrive_in_order_and_none_is_lost_while_the_channel_is_full() {
        let (sender, mut events) = mpsc::channel(1);
        let mut backlog = EventBacklog::new(sender);
        for ms in 1..=3 {
            backlog.push(rtt(ms));
        }

        backlog.forward().now_or_never().expect("there is room");
        assert_eq!(backlog.forward().now_or_never(), None, "the channel is full");
        assert_eq!(received(&mut events), [1]);
        backlog.forward().now_or_never().expect("there is room");
        assert_eq!(received(&mut events), [2]);
        backlog.forward().now_or_never().expect("there is room");
        assert_eq!(received(&mut events), [3]);
        assert!(backlog.is_empty());
    }

    #[test]
    fn what_may_be_left_out_is_left_out_while_others_wait() {
        let (sender, mut events) = mpsc::channel(8);
        let mut backlog = EventBacklog::new(sender);

        backlog.push_if_idle(rtt(1));
        backlog.push_if_idle(rtt(2));
        backlog.forward().now_or_never().expect("there is room");
        backlog.push_if_idle(rtt(3));
        backlog.forward().now_or_never().expect("there is room");

        assert_eq!(received(&mut events), [1, 3]);
    }

    #[test]
    fn the_swarm_has_to_wait_when_the_backlog_is_full() {
        let (sender, _events) = mpsc::channel(1);
        let mut backlog = EventBacklog::new(sender);
        let n_pushed = (0..).take_while(|ms| {
            let has_room = backlog.has_room();
            backlog.push(rtt(*ms));
            has_room
        });
        assert_eq!(n_pushed.count(), MAX_BACKLOG);
    }

    #[test]
    fn events_are_discarded_when_their_receiver_is_gone() {
        let (sender, events) = mpsc::channel(1);
        drop(events);
        let mut backlog = EventBacklog::new(sender);
        backlog.push(rtt(1));
        backlog.push(rtt(2));

        backlog.forward().now_or_never().expect("nobody is waited for");

        assert!(backlog.is_empty());
    }
}
