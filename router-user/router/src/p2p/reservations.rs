//! The places that this node holds at its relays, at which peers reach it.
//!
//! The stock behaviour renews a reservation while its connection stands, and closes its listener once it is lost: then another
//! one is made as soon as the relay is connected, after a while that grows with every one that fails.

use std::time::Duration;

use libp2p::{PeerId, core::transport::ListenerId};
use tokio::time::Instant;

use super::reach::RelaySnapshot;

/// Time from a lost reservation to the next try, which doubles with every one that fails.
const FIRST_WAIT: Duration = Duration::from_millis(250);

/// The longest that time becomes.
const LONGEST_WAIT: Duration = Duration::from_secs(30);

/// The reservations of this node.
#[derive(Debug)]
pub(super) struct Reservations {
    held: Vec<Reservation>,
    /// Listeners of relays that are none of this node any more, until they are closed.
    given_up: Vec<ListenerId>,
}

#[derive(Debug)]
struct Reservation {
    relay: PeerId,
    /// The listener, from the request on.
    listener: Option<ListenerId>,
    is_held: bool,
    /// Why there was no place the last time, or is none any more.
    last_error: Option<String>,
    wait: Duration,
    due: Instant,
}

impl Reservations {
    pub(super) fn new(relays: Vec<PeerId>, now: Instant) -> Self {
        let reservation = |relay| Reservation::new(relay, now);
        Self {
            held: relays.into_iter().map(reservation).collect(),
            given_up: Vec::new(),
        }
    }

    /// Replaces the relays. Those that stay keep their places. Returns the listeners of the others, which are to be closed.
    pub(super) fn set_relays(&mut self, relays: &[PeerId], now: Instant) -> Vec<ListenerId> {
        let mut before = std::mem::take(&mut self.held);
        for relay in relays {
            let known = before.iter().position(|one| one.relay == *relay);
            let one = known.map(|place| before.swap_remove(place));
            self.held
                .push(one.unwrap_or_else(|| Reservation::new(*relay, now)));
        }
        let gone: Vec<_> = before.into_iter().filter_map(|one| one.listener).collect();
        self.given_up.extend(&gone);
        gone
    }

    /// Returns the relays at which places are taken.
    pub(super) fn relays(&self) -> Vec<PeerId> {
        self.held.iter().map(|reservation| reservation.relay).collect()
    }

    /// Says whether a peer is one of the relays.
    pub(super) fn is_relay(&self, peer: PeerId) -> bool {
        self.held.iter().any(|reservation| reservation.relay == peer)
    }

    /// Returns when [`Reservations::poll_requests`] has to be called next, given which relays are connected.
    pub(super) fn poll_due(&self, is_connected: impl Fn(PeerId) -> bool) -> Option<Instant> {
        let wanted = self
            .held
            .iter()
            .filter(|one| one.listener.is_none() && is_connected(one.relay));
        wanted.map(|one| one.due).min()
    }

    /// Returns the connected relays that are to be asked at `now`.
    pub(super) fn poll_requests(&self, is_connected: impl Fn(PeerId) -> bool, now: Instant) -> Vec<PeerId> {
        let wanted = self
            .held
            .iter()
            .filter(|one| one.listener.is_none() && one.due <= now);
        wanted
            .map(|one| one.relay)
            .filter(|relay| is_connected(*relay))
            .collect()
    }

    /// Records that a relay is asked by this listener.
    pub(super) fn handle_request(&mut self, relay: PeerId, listener: ListenerId) {
        if let Some(one) = self.held.iter_mut().find(|one| one.relay == relay) {
            one.listener = Some(listener);
        }
    }

    /// Records that a relay has given a place. Returns whether it is news.
    pub(super) fn handle_accepted(&mut self, relay: PeerId) -> bool {
        let one = self.held.iter_mut().find(|one| one.relay == relay);
        one.is_some_and(|one| {
            one.wait = FIRST_WAIT;
            one.last_error = None;
            !std::mem::replace(&mut one.is_held, true)
        })
    }

    /// Returns what is known of every relay.
    pub(super) fn snapshot(&self) -> Vec<RelaySnapshot> {
        let one = |one: &Reservation| RelaySnapshot::new(one.relay, one.is_held, one.last_error.clone());
        self.held.iter().map(one).collect()
    }

    /// Records that a listener has closed. Returns whether its relay is none of this node any more.
    pub(super) fn handle_given_up(&mut self, listener: ListenerId) -> bool {
        let n_before = self.given_up.len();
        self.given_up.retain(|one| *one != listener);
        self.given_up.len() < n_before
    }

    /// Records that a listener has closed, for this reason. Returns its relay, and whether there was a place, if it was one of these.
    pub(super) fn handle_closed(
        &mut self,
        listener: ListenerId,
        error: &str,
        now: Instant,
    ) -> Option<(PeerId, bool)> {
        let one = self.held.iter_mut().find(|one| one.listener == Some(listener))?;
        one.listener = None;
        one.last_error = Some(error.to_owned());
        one.due = now + one.wait;
        one.wait = (one.wait * 2).min(LONGEST_WAIT);
        Some((one.relay, std::mem::take(&mut one.is_held)))
    }
}

impl Reservation {
    fn new(relay: PeerId, now: Instant) -> Self {
        Self {
            relay,
            listener: None,
            is_held: false,
            last_error: None,
            wait: FIRST_WAIT,
            due: now,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_relays_are_asked_at_once_and_those_that_stay_keep_their_places() {
        let (now, [stays, goes, comes]) = (Instant::now(), [(); 3].map(|()| PeerId::random()));
        let mut reservations = Reservations::new(vec![goes, stays], now);
        let [of_gone, of_other] = [goes, stays].map(|relay| {
            let listener = ListenerId::next();
            reservations.handle_request(relay, listener);
            assert!(reservations.handle_accepted(relay));
            listener
        });

        assert_eq!(reservations.set_relays(&[comes, stays], now), [of_gone]);

        assert_eq!(reservations.relays(), [comes, stays]);
        assert_eq!(reservations.poll_requests(|_| true, now), [comes]);
        assert!(!reservations.handle_accepted(stays), "it is held as before");
        assert!(!reservations.handle_given_up(of_other));
        assert!(reservations.handle_given_up(of_gone));
        assert!(!reservations.handle_given_up(of_gone), "it has closed");
        assert_eq!(reservations.handle_closed(of_gone, "", now), None);
        assert!(reservations.set_relays(&[comes, stays], now).is_empty());
    }

    #[test]
    fn a_lost_place_is_taken_again_once_the_relay_is_connected_and_ever_more_rarely_while_it_refuses() {
        let (start, relay) = (Instant::now(), PeerId::random());
        let mut reservations = Reservations::new(vec![relay], start);
        let everybody = |_| true;
        assert_eq!(reservations.poll_due(|_| false), None);
        assert_eq!(reservations.poll_requests(everybody, start), [relay]);

        let mut now = start;
        let mut waits = Vec::new();
        for _ in 0..9 {
            let listener = ListenerId::next();
            reservations.handle_request(relay, listener);
            assert_eq!(reservations.poll_due(everybody), None, "it is asked");
            assert_eq!(
                reservations.handle_closed(listener, "no room", now),
                Some((relay, false))
            );
            let due = reservations.poll_due(everybody).expect("it is asked again");
            assert_eq!(reservations.poll_requests(everybody, now), []);
            waits.push((due - now).as_millis());
            now = due;
        }
        assert_eq!(waits, [250, 500, 1000, 2000, 4000, 8000, 16000, 30000, 30000]);

        let listener = ListenerId::next();
        reservations.handle_request(relay, listener);
        let shown = |reservations: &Reservations| reservations.snapshot().remove(0);
        assert_eq!(
            shown(&reservations),
            RelaySnapshot::new(relay, false, Some("no room".to_owned()))
        );
        assert!(reservations.handle_accepted(relay) && !reservations.handle_accepted(relay));
        assert_eq!(shown(&reservations), RelaySnapshot::new(relay, true, None));
        assert_eq!(
            reservations.handle_closed(ListenerId::next(), "", now),
            None,
            "another's"
        );
        assert_eq!(
            reservations.handle_closed(listener, "no room", now),
            Some((relay, true))
        );
        assert_eq!(reservations.poll_due(everybody), Some(now + FIRST_WAIT));
    }
}
