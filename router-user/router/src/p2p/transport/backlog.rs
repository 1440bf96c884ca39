//! What a TCP connection holds unsent: in the kernel, and between its streams and the kernel.
//!
//! Both are bounded by what the socket sends in a moment, so that packets wait where they can still be passed or
//! dropped: in front of the stream. What the kernel has sent and nobody has acknowledged is for its congestion control,
//! and beside that bounded so that a queue of the path stays short.

use std::{
    io,
    os::fd::AsFd,
    sync::{Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
    time::{Duration, Instant},
};

use super::tcp_info::ConnectionInfo;
use nix::{libc, setsockopt_impl, sockopt_impl, sys::socket::setsockopt};
use stream_router_engine::{delay_window::DelayWindow, unsent_limit::UnsentLimit};

/// Writes up to this size pass others when streams have to wait: pings, and what opens a stream.
const SMALL_BYTES: usize = 128;

/// Time between two looks at a socket that is fast, or that waits for acknowledgements.
const LOOK_INTERVAL: Duration = Duration::from_millis(10);

/// Bytes in flight above which nobody looks before each write.
const MUCH_IN_FLIGHT: u64 = 16 * 1024 * 1024;

/// Bytes of a usual segment.
const SEGMENT_BYTES: u16 = 1448;

sockopt_impl!(
    /// The unsent bytes from which on a socket is not writable.
    TcpNotsentLowat,
    SetOnly,
    libc::IPPROTO_TCP,
    libc::TCP_NOTSENT_LOWAT,
    u32
);

/// What one connection holds unsent. Its socket and its streams share it; all of them run on one thread.
#[derive(Debug, Default)]
pub(super) struct Backlog(Mutex<State>);

#[derive(Debug)]
struct State {
    limit: UnsentLimit,
    window: DelayWindow,
    /// Bytes that were acknowledged at the last look.
    n_acked: u64,
    /// Whether the window was all that held the socket back at the last look.
    is_window_full: bool,
    /// Bytes that the socket got.
    n_written: u64,
    looked: Option<Instant>,
    /// Bytes that streams gave since all of them last were in the socket.
    n_given: usize,
    /// Streams that wait for room.
    waiting: Vec<Waker>,
    /// Whether the handshake is over, and the connection is not being closed.
    is_secured: bool,
    /// Whether the connection may have several paths.
    is_multipath: bool,
}

impl Default for State {
    fn default() -> Self {
        Self {
            limit: UnsentLimit::default(),
            window: DelayWindow::new(SEGMENT_BYTES),
            n_acked: 0,
            is_window_full: false,
            n_written: 0,
            looked: None,
            n_given: 0,
            waiting: Vec::new(),
            is_secured: false,
            is_multipath: false,
        }
    }
}

/// What is known of a socket at one time.
#[derive(Clone, Copy)]
struct Look {
    n_unsent: usize,
    n_acked: u64,
    rtt: Duration,
}

/// What a socket may be given.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Room {
    /// So many bytes.
    Bytes(usize),
    /// Nothing before this time is over.
    After(Duration),
}

impl Backlog {
    /// Sets the limit of the kernel's own, for paths on which the time between two looks is too long.
    pub(super) fn limit_socket(socket: &impl AsFd) -> io::Result<()> {
        let most = u32::try_from(UnsentLimit::MOST).unwrap_or(u32::MAX);
        Ok(setsockopt(socket, TcpNotsentLowat, &most)?)
    }

    /// Creates the backlog of a connection that may have several paths or not.
    pub(super) fn new(is_multipath: bool) -> Self {
        Self(Mutex::new(State {
            is_multipath,
            ..State::default()
        }))
    }

    /// Returns the backlog of a fast socket.
    #[cfg(test)]
    pub(super) fn unbounded() -> Self {
        let state = State {
            limit: UnsentLimit::unbounded(),
            ..State::default()
        };
        Self(Mutex::new(state))
    }

    /// Says what `socket` may be given now.
    pub(super) fn socket_room(&self, socket: &impl AsFd, now: Instant) -> io::Result<Room> {
        let mut state = self.state();
        let is_fast = state.limit.limit() == UnsentLimit::MOST
            && state.window.window().is_none_or(|window| window > MUCH_IN_FLIGHT);
        let is_fresh = |looked: Instant| now.saturating_duration_since(looked) < LOOK_INTERVAL;
        if is_fast && state.looked.is_some_and(is_fresh) {
            return Ok(Room::Bytes(usize::MAX));
        }
        let info = ConnectionInfo::of(socket, state.is_multipath)?;
        if info.is_unknown() {
            return Ok(Room::Bytes(usize::MAX));
        }
        let look = Look {
            n_unsent: usize::try_from(info.n_unsent()).unwrap_or(usize::MAX),
            n_acked: info.n_acked(state.n_written),
            rtt: Duration::from_micros(info.path.rtt_us.into()),
        };
        Ok(state.room(look, now))
    }

    /// Counts bytes that the socket has got.
    pub(super) fn handle_written(&self, n: usize) {
        self.state().n_written += n as u64;
    }

    /// Takes note that the handshake is over.
    pub(super) fn handle_secured(&self) {
        self.state().is_secured = true;
    }

    /// Takes note that the connection is being closed.
    pub(super) fn handle_closing(&self) {
        self.state().is_secured = false;
    }

    /// Returns how many bytes the socket has got; `None` during the handshake, and once the connection is being closed: how it
    /// fares says nothing of those that stay.
    pub(super) fn n_written(&self) -> Option<u64> {
        let state = self.state();
        state.is_secured.then_some(state.n_written)
    }

    /// Returns how many of the `n` bytes that a stream has may go on their way.
    pub(super) fn poll_stream_room(&self, n: usize, cx: &mut Context<'_>) -> Poll<usize> {
        let mut state = self.state();
        let most = state.stream_limit();
        match most.saturating_sub(state.n_given) {
            0 if n > SMALL_BYTES || state.n_given >= most.saturating_mul(2) => {
                if !state.waiting.iter().any(|waker| waker.will_wake(cx.waker())) {
                    state.waiting.push(cx.waker().clone());
                }
                Poll::Pending
            }
            0 => Poll::Ready(n),
            room => Poll::Ready(n.min(room)),
        }
    }

    /// Counts bytes that a stream has given.
    pub(super) fn handle_given(&self, n: usize) {
        self.state().n_given += n;
    }

    /// Takes note that everything that streams gave is in the socket.
    pub(super) fn handle_drained(&self) {
        let mut state = self.state();
        state.n_given = 0;
        state.waiting.drain(..).for_each(Waker::wake);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn room(&mut self, look: Look, now: Instant) -> Room {
        self.looked = Some(now);
        self.handle_acked(look, now);
        self.limit.handle_look(self.n_written, look.n_unsent, now);
        let in_flight = self.n_written.saturating_sub(look.n_acked);
        let window = self.window.window();
        let left = window.map(|window| window.saturating_sub(in_flight));
        self.is_window_full = left.is_some_and(|left| left < u64::from(SEGMENT_BYTES));
        if self.is_window_full {
            return Room::After(LOOK_INTERVAL.min(look.rtt / 4).max(Duration::from_millis(1)));
        }
        let limit = self.limit.limit();
        let left = left.map_or(usize::MAX, |left| usize::try_from(left).unwrap_or(usize::MAX));
        if limit == UnsentLimit::MOST {
            return Room::Bytes(left);
        }
        // A write is worth its cost once there is room for a packet or two.
        match limit.saturating_sub(look.n_unsent) {
            room if room >= limit / 4 => Room::Bytes(room.min(left)),
            _ => Room::After(self.limit.next_look(look.n_unsent)),
        }
    }

    /// Tells the window what was acknowledged since the last look.
    fn handle_acked(&mut self, look: Look, now: Instant) {
        let n_acked = look.n_acked.saturating_sub(self.n_acked);
        if n_acked > 0
            && let Some(sent) = now.checked_sub(look.rtt)
        {
            self.n_acked = look.n_acked;
            let app_limited = look.n_unsent == 0 && !self.is_window_full;
            self.window.handle_ack(sent, n_acked, app_limited, now);
        }
    }

    /// Returns how many bytes may be between the streams and the socket.
    fn stream_limit(&self) -> usize {
        match self.limit.limit() {
            UnsentLimit::MOST => usize::MAX,
            limit => limit / 2,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Arc,
        atomic::{AtomicU32, Ordering::Relaxed},
    };

    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[derive(Default)]
    struct CountingWaker(AtomicU32);

    impl std::task::Wake for CountingWaker {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Relaxed);
        }
    }

    /// A socket with so many unsent bytes, of which nothing is acknowledged yet.
    fn unsent(n_unsent: usize) -> Look {
        Look {
            n_unsent,
            n_acked: 0,
            rtt: 20 * MS,
        }
    }

    /// A connection whose socket sends 100 kB/s.
    fn slow() -> Backlog {
        let backlog = Backlog::default();
        {
            let mut state = backlog.state();
            let start = Instant::now();
            state.n_written = 64_000;
            state.room(unsent(64_000), start);
            state.room(unsent(62_000), start + 20 * MS);
        }
        backlog
    }

    #[test]
    fn a_slow_socket_gets_little_and_waits_for_what_it_has_to_be_sent() {
        let backlog = slow();
        let mut state = backlog.state();
        let now = Instant::now() + 21 * MS;

        assert!(matches!(state.room(unsent(62_000), now), Room::After(wait) if wait == 50 * MS));
        assert_eq!(state.room(unsent(1500), now + MS), Room::Bytes(4096 - 1500));
        assert_eq!(
            state.room(unsent(4000), now + MS),
            Room::After(Duration::from_secs_f64(1952.0 / 100_000.0))
        );
    }

    #[test]
    fn a_socket_whose_queue_stands_on_the_path_waits_for_acknowledgements() {
        let mut state = State::default();
        let start = Instant::now();
        let look = |n_acked, rtt_ms| Look {
            n_unsent: 0,
            n_acked,
            rtt: MS * rtt_ms,
        };
        // The path has a round trip of 20 ms, delivers 100 kB/s, and holds 50 kB.
        state.n_written = 1000;
        state.room(look(1000, 20), start);
        state.n_written = 51_000;
        for n in 1..=20 {
            state.room(look(1000 + 2000 * u64::from(n), 500), start + 20 * MS * n);
        }
        let later = start + 1000 * MS;
        state.room(look(43_000, 500), later);

        // 70 ms at its rate.
        let window = state.window.window();
        assert!(
            window.is_some_and(|window| (5000..9000).contains(&window)),
            "{window:?}"
        );
        state.n_written = 43_000 + 20_000;
        assert_eq!(
            state.room(look(43_000, 500), later + MS),
            Room::After(LOOK_INTERVAL)
        );
    }

    #[test]
    fn streams_wait_until_all_that_they_gave_is_in_the_socket_but_small_writes_pass() {
        let backlog = slow();
        let waker = Arc::new(CountingWaker::default());
        let cx_waker = Waker::from(Arc::clone(&waker));
        let mut cx = Context::from_waker(&cx_waker);

        assert_eq!(backlog.poll_stream_room(60_000, &mut cx), Poll::Ready(2048));
        backlog.handle_given(2048);
        assert_eq!(backlog.poll_stream_room(60_000, &mut cx), Poll::Pending);
        assert_eq!(backlog.poll_stream_room(60_000, &mut cx), Poll::Pending);
        for _ in 0..64 {
            assert_eq!(backlog.poll_stream_room(32, &mut cx), Poll::Ready(32));
            backlog.handle_given(32);
        }
        assert_eq!(backlog.poll_stream_room(32, &mut cx), Poll::Pending);

        backlog.handle_drained();

        assert_eq!(waker.0.load(Relaxed), 1);
        assert_eq!(backlog.poll_stream_room(60_000, &mut cx), Poll::Ready(2048));
    }
}
