//! The order of a peer's streams: of each lane one is read at a time, and none before those that were opened earlier.
//!
//! A peer opens the streams of a lane one after another, also on different connections, which are read on different
//! threads. A stream whose connection was lost can still hold packets here when the next one comes. So the next one
//! waits until the earlier one has ended for its reader: it was read to its end, failed, or was dropped. It waits for a
//! bounded time, after which the earlier one is cut: its reader gets an error instead of more bytes. The next one begins
//! even then only when that reader has come back, as it may be dealing with what it has read before.
//!
//! A stream that waits may do so for one whose connection is dead here and was left there. So all connections of the peer are
//! pinged when it does, which finds that one.
//!
//! A peer that starts anew has other lanes, and a flow may be in another one than before. So the first stream of another
//! run of a peer waits for all that are open of the run before.

use std::{
    collections::BTreeMap,
    io,
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{
            AtomicBool, AtomicU8,
            Ordering::{Acquire, Relaxed, Release},
        },
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use futures::task::AtomicWaker;
use libp2p::PeerId;
use tokio::time::{Instant, Sleep, sleep};

use super::{
    limits::{MAX_CONNECTIONS_PER_PEER, MAX_STREAMS_PER_SIDE},
    preamble::Preamble,
    state::NetworkState,
};
use crate::egress::lane_stream::{LaneId, LaneStream};

/// The longest that a stream waits for those before it. In this time a connection that is dead was found to be.
const MAX_WAIT: Duration = Duration::from_secs(5);

/// The longest that a stream waits for one that was closed before it and has not been seen here: its connection was
/// lost before anything of it came, or is late.
const UNSEEN_WAIT: Duration = Duration::from_secs(1);

/// How long nothing may come on a stream that was lost on the other side while the next one waits for it. A stream with
/// something to read is read in far less, unless the machine has no time for it.
const QUIET: Duration = Duration::from_millis(100);

/// The shortest time between two doubts that streams which wait cast on the connections of their peer: so often they are pinged
/// while packets cross them.
const DOUBT_INTERVAL: Duration = Duration::from_secs(1);

/// Runs of a peer that are remembered: as many as it can have connections, each of another process.
const MAX_RUNS: usize = MAX_CONNECTIONS_PER_PEER;

/// Lanes of a run that are remembered: as many as it can have streams open.
const MAX_LANES: usize = MAX_CONNECTIONS_PER_PEER * MAX_STREAMS_PER_SIDE;

/// The stream waits for others. See [`Turn::state`].
const WAITING: u8 = 0;
/// The stream is read, and no other waits for it.
const READING: u8 = 1;
/// The stream is read, and another waits for it.
const FOLLOWED: u8 = 2;
/// The stream is not to be read any more.
const CUT: u8 = 3;

/// The streams of one peer that are open, and what is remembered of its lanes.
pub(super) struct StreamOrder {
    peer: PeerId,
    network: Arc<NetworkState>,
    runs: Mutex<Runs>,
    /// When a stream that waits last cast doubt on the peer's connections.
    doubted: Mutex<Option<Instant>>,
}

/// The runs of the peer; the present one is the last.
#[derive(Default)]
struct Runs(Vec<Run>);

#[derive(Default)]
struct Run {
    run: u64,
    lanes: BTreeMap<LaneId, OpenStreams>,
    /// Streams of other runs that were open when this one became the present one, and still are.
    before: Vec<Arc<Turn>>,
    /// When it was last looked whether anything comes on them.
    looked: Option<Instant>,
}

/// The open streams of a lane, by number. The first is the one that is read.
#[derive(Default)]
struct OpenStreams {
    streams: BTreeMap<u64, Arc<Turn>>,
    /// The highest number that has begun to be read, or 0.
    begun: u64,
}

/// What the reader of a stream shares with those of other streams.
struct Turn {
    /// One of the constants above. Written under the lock of the order. That a stream is read is stored with `Release`,
    /// after the end of the stream before it, and loaded with `Acquire`, so that what readers do is in order.
    state: AtomicU8,
    after_loss: bool,
    /// Whether anything came since the last look of a stream that waits.
    active: AtomicBool,
    reader: AtomicWaker,
}

/// The place of a stream in its lane, until it is dropped.
pub(super) struct StreamPlace {
    order: Arc<StreamOrder>,
    preamble: Preamble,
    turn: Arc<Turn>,
    since: Instant,
    next_look: Option<Pin<Box<Sleep>>>,
}

/// A stream that cannot be where it says that it is: the number was there before, or one above it has begun; its run is
/// over; or there are open streams of too many runs or lanes.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("the stream comes after its time")]
pub(super) struct OutOfOrder;

impl StreamOrder {
    pub(super) fn new(peer: PeerId, network: Arc<NetworkState>) -> Self {
        Self {
            peer,
            network,
            runs: Mutex::default(),
            doubted: Mutex::default(),
        }
    }

    /// Gives a stream its place, if there is one.
    pub(super) fn place(self: &Arc<Self>, preamble: Preamble) -> Result<StreamPlace, OutOfOrder> {
        let LaneStream {
            lane,
            number,
            after_loss,
        } = preamble.stream;
        let mut runs = self.runs();
        let run = runs.present(preamble.run).ok_or(OutOfOrder)?;
        let may_begin = run.before.is_empty();
        let open = run.open_streams(lane).ok_or(OutOfOrder)?;
        if number <= open.begun || open.streams.contains_key(&number) {
            return Err(OutOfOrder);
        }
        let turn = Arc::new(Turn {
            state: AtomicU8::new(WAITING),
            after_loss,
            active: AtomicBool::new(true),
            reader: AtomicWaker::new(),
        });
        open.streams.insert(number, Arc::clone(&turn));
        if may_begin {
            open.advance();
        }
        drop(runs);
        // After a close it comes soon after the end of the one before.
        if after_loss && turn.state.load(Relaxed) == WAITING {
            self.doubt();
        }
        Ok(StreamPlace {
            order: Arc::clone(self),
            preamble,
            turn,
            since: Instant::now(),
            next_look: None,
        })
    }

    fn runs(&self) -> MutexGuard<'_, Runs> {
        self.runs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has the connections of the peer pinged at once, unless that was done just now: what is waited for may be on a dead one.
    fn doubt(&self) {
        let now = Instant::now();
        let mut doubted = self.doubted.lock().unwrap_or_else(PoisonError::into_inner);
        if doubted.is_none_or(|doubted| now.duration_since(doubted) >= DOUBT_INTERVAL) {
            *doubted = Some(now);
            drop(doubted);
            self.network.doubt_peer(self.peer);
        }
    }

    /// Looks after a stream that has waited for so long.
    fn look(&self, preamble: Preamble, waited: Duration) {
        let LaneStream {
            lane,
            number,
            after_loss,
        } = preamble.stream;
        let mut runs = self.runs();
        let Some(at) = runs.0.iter().position(|run| run.run == preamble.run) else {
            return;
        };
        let run = &mut runs.0[at];
        let mut n_cut = 0;
        // Nothing is written any more by a run that is over.
        if waited >= MAX_WAIT || run.is_quiet_before() {
            n_cut += runs.cut_before_run(at);
        }
        let run = &mut runs.0[at];
        if let Some(open) = run.lanes.get_mut(&lane)
            && run.before.is_empty()
        {
            if waited >= MAX_WAIT || after_loss && open.is_quiet_before(number) {
                n_cut += open.cut_before(number);
            }
            if waited >= UNSEEN_WAIT && open.streams.keys().next() == Some(&number) {
                open.begin_first();
            }
            open.advance();
        }
        self.network.counters.lane_streams_cut.fetch_add(n_cut, Relaxed);
    }

    /// Ends a stream: its reader is done with what it has read.
    fn end(&self, preamble: Preamble, turn: &Arc<Turn>) {
        let mut runs = self.runs();
        let LaneStream { lane, number, .. } = preamble.stream;
        for run in &mut runs.0 {
            if run.run == preamble.run
                && let Some(open) = run.lanes.get_mut(&lane)
                && open
                    .streams
                    .get(&number)
                    .is_some_and(|other| Arc::ptr_eq(other, turn))
            {
                open.streams.remove(&number);
                if run.before.is_empty() {
                    open.advance();
                }
            }
            run.forget_before(|other| Arc::ptr_eq(other, turn));
        }
    }
}

impl Runs {
    /// Returns a run that opens a stream, which is the present one from now on. Returns `None` if that is another one,
    /// after this one, and has streams; or if there is no room.
    fn present(&mut self, run: u64) -> Option<&mut Run> {
        let known = self.0.iter().position(|known| known.run == run);
        let is_present = known.is_some_and(|at| at + 1 == self.0.len());
        if !is_present {
            let present_has_streams = self.0.last().is_some_and(|present| !present.has_ended());
            let mut next = match known {
                Some(_) if present_has_streams => return None,
                Some(at) => self.0.remove(at),
                None => Run {
                    run,
                    ..Run::default()
                },
            };
            if self.0.len() >= MAX_RUNS {
                let ended = self.0.iter().position(Run::has_ended)?;
                self.0.remove(ended);
            }
            let open = self.0.iter().flat_map(|run| run.lanes.values());
            next.before = open.flat_map(|open| open.streams.values().cloned()).collect();
            self.0.push(next);
        }
        self.0.last_mut()
    }

    /// Cuts all streams of other runs for which this one waits. Returns how many were not cut before.
    fn cut_before_run(&mut self, at: usize) -> u64 {
        let mut n_cut = 0;
        let mut unread = Vec::new();
        for turn in &self.0[at].before {
            match turn.cut() {
                CUT => continue,
                WAITING => unread.push(Arc::clone(turn)),
                _ => {}
            }
            n_cut += 1;
        }
        let is_unread = |turn: &Arc<Turn>| unread.iter().any(|other| Arc::ptr_eq(other, turn));
        for open in self.0.iter_mut().flat_map(|run| run.lanes.values_mut()) {
            open.streams.retain(|_, turn| !is_unread(turn));
        }
        for run in &mut self.0 {
            run.forget_before(is_unread);
        }
        n_cut
    }
}

impl Run {
    fn has_ended(&self) -> bool {
        self.lanes.values().all(|open| open.streams.is_empty())
    }

    /// Returns the open streams of a lane. Makes room for it, or returns `None` if there is none.
    fn open_streams(&mut self, lane: LaneId) -> Option<&mut OpenStreams> {
        if self.lanes.len() >= MAX_LANES && !self.lanes.contains_key(&lane) {
            let mut lanes = self.lanes.iter();
            let idle = *lanes.find(|(_, open)| open.streams.is_empty())?.0;
            self.lanes.remove(&idle);
        }
        Some(self.lanes.entry(lane).or_default())
    }

    /// Whether the run waits for streams of others, and nothing came on any of them since it was last looked.
    fn is_quiet_before(&mut self) -> bool {
        // All of the run's streams ask, and not at the same time.
        if self.before.is_empty() || self.looked.is_some_and(|looked| looked.elapsed() < QUIET) {
            return false;
        }
        self.looked = Some(Instant::now());
        let n_active = self.before.iter().filter(|turn| !turn.is_quiet()).count();
        n_active == 0
    }

    /// Waits no more for streams that are over. Begins what waited for the last of them.
    fn forget_before(&mut self, is_over: impl Fn(&Arc<Turn>) -> bool) {
        if self.before.is_empty() {
            return;
        }
        self.before.retain(|turn| !is_over(turn));
        if self.before.is_empty() {
            self.lanes.values_mut().for_each(OpenStreams::advance);
        }
    }
}

impl Turn {
    /// Says that the stream is not to be read any more. Returns the state before.
    fn cut(&self) -> u8 {
        let before = self.state.swap(CUT, Release);
        if before != CUT {
            self.reader.wake();
        }
        before
    }

    /// Whether nothing came on the stream since this was last asked.
    fn is_quiet(&self) -> bool {
        if self
            .state
            .compare_exchange(READING, FOLLOWED, Release, Relaxed)
            .is_ok()
        {
            return false;
        }
        !self.active.swap(false, Relaxed)
    }
}

impl OpenStreams {
    /// Begins the first stream if it comes right after the last one, and tells the one that is read whether others wait.
    fn advance(&mut self) {
        let Some((number, first)) = self.streams.first_key_value() else {
            return;
        };
        let is_next = self.begun == 0 || *number == self.begun + 1 || first.after_loss;
        match first.state.load(Relaxed) {
            WAITING if is_next => self.begin_first(),
            READING if self.streams.len() > 1 => first.state.store(FOLLOWED, Release),
            _ => {}
        }
    }

    fn begin_first(&mut self) {
        if let Some((number, first)) = self.streams.first_key_value()
            && first.state.load(Relaxed) == WAITING
        {
            self.begun = *number;
            let is_followed = self.streams.len() > 1;
            first
                .state
                .store(if is_followed { FOLLOWED } else { READING }, Release);
            first.reader.wake();
        }
    }

    /// Whether the stream with this number waits for one alone, on which nothing came since this was last asked.
    fn is_quiet_before(&self, number: u64) -> bool {
        let mut before = self.streams.range(..number).map(|(_, turn)| turn);
        match (before.next(), before.next()) {
            (Some(turn), None) => turn.state.load(Relaxed) == FOLLOWED && turn.is_quiet(),
            _ => false,
        }
    }

    /// Cuts all streams before this number. Returns how many were not cut before.
    fn cut_before(&mut self, number: u64) -> u64 {
        let mut n_cut = 0;
        let mut unread = Vec::new();
        for (before, turn) in self.streams.range(..number) {
            match turn.cut() {
                CUT => continue,
                // Nobody has anything of it.
                WAITING => unread.push(*before),
                _ => {}
            }
            n_cut += 1;
        }
        for before in unread {
            self.streams.remove(&before);
        }
        n_cut
    }
}

impl StreamPlace {
    /// Waits until the stream may be read.
    ///
    /// # Errors
    /// Returns an error once the stream is cut.
    pub(super) fn poll_turn(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.turn.state.load(Acquire) {
            READING | FOLLOWED => Poll::Ready(Ok(())),
            CUT => Poll::Ready(Err(self.handle_cut())),
            _ => self.poll_waiting(cx),
        }
    }

    /// Notes what came of reading the stream into a buffer that was not empty.
    pub(super) fn handle_read(
        &mut self,
        read: Poll<io::Result<usize>>,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        match read {
            Poll::Ready(Ok(1..)) => {
                if self.turn.state.load(Relaxed) == FOLLOWED {
                    self.turn.active.store(true, Relaxed);
                }
            }
            Poll::Ready(Ok(0) | Err(_)) => self.end(),
            Poll::Pending => {
                self.turn.reader.register(cx.waker());
                if self.turn.state.load(Acquire) == CUT {
                    return Poll::Ready(Err(self.handle_cut()));
                }
            }
        }
        read
    }

    fn poll_waiting(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.turn.reader.register(cx.waker());
        loop {
            match self.turn.state.load(Acquire) {
                READING | FOLLOWED => {
                    self.next_look = None;
                    return Poll::Ready(Ok(()));
                }
                CUT => return Poll::Ready(Err(self.handle_cut())),
                _ => {}
            }
            let next_look = self.next_look.get_or_insert_with(|| Box::pin(sleep(QUIET)));
            ready!(next_look.as_mut().poll(cx));
            self.next_look = None;
            self.order.doubt();
            self.order.look(self.preamble, self.since.elapsed());
        }
    }

    fn handle_cut(&mut self) -> io::Error {
        self.end();
        io::Error::new(
            io::ErrorKind::ConnectionAborted,
            "the next stream of the lane has waited for long enough",
        )
    }

    fn end(&self) {
        self.order.end(self.preamble, &self.turn);
    }
}

impl Drop for StreamPlace {
    fn drop(&mut self) {
        self.end();
    }
}

impl std::fmt::Debug for StreamPlace {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("StreamPlace").field(&self.preamble).finish()
    }
}

#[cfg(test)]
mod tests;
