//! The streams of one connection, and what the peer's records do to them.

use std::{
    collections::{BTreeMap, VecDeque},
    task::Waker,
};

use super::{
    MAX_STREAMS, Violation,
    header::{Kind, StreamId},
    window::{MOST_LENT, ReceiveWindow, SendCredit},
};

/// All streams that somebody here holds.
#[derive(Debug)]
pub(super) struct Streams {
    table: BTreeMap<StreamId, StreamState>,
    /// Streams that the peer has opened, and that nobody has taken.
    inbound: VecDeque<StreamId>,
    /// Number of the next stream of this side, or `None` once there is none.
    next_own: Option<StreamId>,
    /// The lowest number that the peer may use next.
    next_peer: Option<StreamId>,
    /// Bytes by which windows have grown.
    n_lent: u32,
}

/// What is known of one stream.
#[derive(Debug, Default)]
pub(super) struct StreamState {
    /// Bytes that have come and are not read.
    pub(super) unread: VecDeque<u8>,
    pub(super) window: ReceiveWindow,
    pub(super) reader: Option<Waker>,
    /// Whether the peer sends no more.
    pub(super) has_ended: bool,
    pub(super) credit: SendCredit,
    pub(super) writer: Option<Waker>,
    /// Whether this side sends no more.
    pub(super) is_closed: bool,
    /// Whether the peer has dropped it.
    pub(super) is_reset: bool,
}

impl Streams {
    /// Makes the streams of a dialler or a listener.
    pub(super) fn new(is_dialler: bool) -> Self {
        let (own, peer) = if is_dialler { (0, 1) } else { (1, 0) };
        Self {
            table: BTreeMap::new(),
            inbound: VecDeque::new(),
            next_own: Some(StreamId(own)),
            next_peer: Some(StreamId(peer)),
            n_lent: 0,
        }
    }

    /// Makes a stream of this side, if there is room for one.
    pub(super) fn open(&mut self) -> Option<StreamId> {
        if self.table.len() >= MAX_STREAMS {
            return None;
        }
        let stream = self.next_own?;
        self.next_own = stream.next();
        self.table.insert(stream, StreamState::default());
        Some(stream)
    }

    /// Returns a stream that the peer has opened.
    pub(super) fn next_inbound(&mut self) -> Option<StreamId> {
        self.inbound.pop_front()
    }

    pub(super) fn get_mut(&mut self, stream: StreamId) -> Option<&mut StreamState> {
        self.table.get_mut(&stream)
    }

    /// Forgets a stream that nobody here holds any more. Returns whether the peer has to be told.
    pub(super) fn remove(&mut self, stream: StreamId) -> bool {
        let Some(state) = self.table.remove(&stream) else {
            return false;
        };
        self.n_lent -= state.window.n_lent();
        !(state.is_reset || state.has_ended && state.is_closed)
    }

    /// Takes what a record brings.
    ///
    /// # Errors
    /// The peer breaks a rule.
    pub(super) fn handle(&mut self, stream: StreamId, kind: Kind, content: &[u8]) -> Result<(), Violation> {
        let Some(state) = self.table.get_mut(&stream) else {
            return self.handle_absent(stream, kind);
        };
        if state.is_reset {
            return Err(Violation::Over);
        }
        match kind {
            Kind::Open => return Err(Violation::Number),
            Kind::Data | Kind::End if state.has_ended => return Err(Violation::Over),
            Kind::Data => {
                state.window.handle_data(content.len())?;
                state.unread.extend(content);
                wake(&mut state.reader);
            }
            Kind::End => {
                state.has_ended = true;
                wake(&mut state.reader);
            }
            Kind::Reset => {
                state.is_reset = true;
                wake(&mut state.reader);
                wake(&mut state.writer);
            }
            Kind::Credit => {
                let n = content.try_into().map_err(|_error| Violation::Content)?;
                state.credit.handle_grant(u32::from_le_bytes(n))?;
                wake(&mut state.writer);
            }
            Kind::Blocked => state.window.handle_blocked(),
        }
        Ok(())
    }

    /// Takes a record of a stream that is not in the table: it begins, or is over on this side.
    fn handle_absent(&mut self, stream: StreamId, kind: Kind) -> Result<(), Violation> {
        let is_peers = self.next_peer.is_none_or(|next| stream.is_of_side(next));
        let next = if is_peers { self.next_peer } else { self.next_own };
        let was_open = next.is_none_or(|next| stream < next);
        match kind {
            Kind::Open if !is_peers || was_open => Err(Violation::Number),
            Kind::Open if self.table.len() >= MAX_STREAMS => Err(Violation::Streams),
            Kind::Open => {
                self.next_peer = stream.next();
                self.table.insert(stream, StreamState::default());
                self.inbound.push_back(stream);
                Ok(())
            }
            // It was dropped here, which the peer does not know yet.
            _ if was_open => Ok(()),
            _ => Err(Violation::Number),
        }
    }

    /// Returns how many bytes the peer is to be allowed on a stream, if it is to be told now.
    pub(super) fn grant(&mut self, stream: StreamId) -> Option<u32> {
        let state = self.table.get_mut(&stream)?;
        if state.has_ended || state.is_reset {
            return None;
        }
        let grant = state
            .window
            .grant(state.unread.is_empty(), MOST_LENT - self.n_lent)?;
        self.n_lent += grant.n_lent;
        Some(grant.n)
    }

    /// Wakes whoever waits for a stream.
    pub(super) fn wake_all(&mut self) {
        for state in self.table.values_mut() {
            wake(&mut state.reader);
            wake(&mut state.writer);
        }
    }
}

/// Wakes whoever waits there.
pub(super) fn wake(waiting: &mut Option<Waker>) {
    if let Some(waker) = waiting.take() {
        waker.wake();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listener() -> Streams {
        Streams::new(false)
    }

    #[test]
    fn streams_of_both_sides_have_numbers_of_their_own() {
        let (mut dialler, mut listener) = (Streams::new(true), listener());

        let opened = [dialler.open(), dialler.open(), listener.open()].map(|id| id.map(|id| id.0));

        assert_eq!(opened, [Some(0), Some(2), Some(1)]);
        for id in [0, 2] {
            assert_eq!(listener.handle(StreamId(id), Kind::Open, &[]), Ok(()));
            assert_eq!(listener.next_inbound(), Some(StreamId(id)));
        }
        assert_eq!(listener.next_inbound(), None);
    }

    #[test]
    fn a_number_is_used_once_and_by_its_side_only() {
        let mut streams = listener();
        assert_eq!(streams.handle(StreamId(4), Kind::Open, &[]), Ok(()));
        let ours = streams.open().expect("room");

        for taken in [StreamId(4), StreamId(2), ours, StreamId(9)] {
            assert_eq!(streams.handle(taken, Kind::Open, &[]), Err(Violation::Number));
        }
        streams.remove(StreamId(4));
        assert_eq!(
            streams.handle(StreamId(4), Kind::Open, &[]),
            Err(Violation::Number)
        );
    }

    #[test]
    fn what_comes_for_a_stream_that_is_dropped_is_ignored_and_for_one_never_opened_refused() {
        let mut streams = listener();
        streams.handle(StreamId(0), Kind::Open, &[]).expect("open");
        assert!(streams.remove(StreamId(0)), "the peer has to be told");

        assert_eq!(streams.handle(StreamId(0), Kind::Data, b"late"), Ok(()));
        assert_eq!(
            streams.handle(StreamId(2), Kind::Data, b"early"),
            Err(Violation::Number)
        );
        assert_eq!(
            streams.handle(StreamId(1), Kind::Credit, &[1, 0, 0, 0]),
            Err(Violation::Number)
        );
    }

    #[test]
    fn a_stream_that_both_sides_have_ended_is_forgotten_without_a_word() {
        let mut streams = listener();
        streams.handle(StreamId(0), Kind::Open, &[]).expect("open");
        streams.handle(StreamId(0), Kind::End, &[]).expect("end");
        streams.get_mut(StreamId(0)).expect("open").is_closed = true;

        assert!(!streams.remove(StreamId(0)));
    }

    #[test]
    fn nothing_follows_the_end_of_a_stream() {
        let mut streams = listener();
        streams.handle(StreamId(0), Kind::Open, &[]).expect("open");
        streams.handle(StreamId(0), Kind::Data, b"x").expect("data");
        streams.handle(StreamId(0), Kind::End, &[]).expect("end");

        for (kind, content) in [(Kind::Data, &b"x"[..]), (Kind::End, &[])] {
            assert_eq!(streams.handle(StreamId(0), kind, content), Err(Violation::Over));
        }
        streams.handle(StreamId(0), Kind::Reset, &[]).expect("reset");
        assert_eq!(
            streams.handle(StreamId(0), Kind::Blocked, &[]),
            Err(Violation::Over)
        );
        let unread = &streams.get_mut(StreamId(0)).expect("held").unread;
        assert_eq!(unread.len(), 1, "what came before is there");
    }

    #[test]
    fn more_streams_than_there_may_be_are_refused() {
        let mut streams = listener();
        for n in 0..MAX_STREAMS as u32 {
            assert_eq!(streams.handle(StreamId(2 * n), Kind::Open, &[]), Ok(()));
        }

        assert_eq!(streams.open(), None);
        let next = StreamId(2 * MAX_STREAMS as u32);
        assert_eq!(streams.handle(next, Kind::Open, &[]), Err(Violation::Streams));
    }

    #[test]
    fn what_windows_have_grown_by_is_bounded_over_all_and_comes_back() {
        let mut streams = listener();
        let mut n_granted = 0;
        for n in 0..4 {
            let id = StreamId(2 * n);
            streams.handle(id, Kind::Open, &[]).expect("open");
            for _ in 0..10 {
                streams.handle(id, Kind::Blocked, &[]).expect("blocked");
                n_granted += streams.grant(id).unwrap_or(0);
            }
        }
        assert_eq!(n_granted, MOST_LENT);

        streams.remove(StreamId(0));
        streams.handle(StreamId(6), Kind::Blocked, &[]).expect("blocked");
        assert!(streams.grant(StreamId(6)).is_some());
    }
}
