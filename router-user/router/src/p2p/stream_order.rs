//! The order of a peer's streams: of each lane one is read at a time, and none before those that were opened earlier.
//!
//! A peer opens the streams of a lane one after another, also on different connections, which are read on different
//! threads. A stream whose connection was lost can still hold packets here when the next one comes. So the next one
//! waits until the earlier one has ended for its reader: it was read to its end, failed, or was dropped. It waits for a
//! bounded time, after which the earlier one is cut: its reader gets an error instead of more bytes. The next one begins
//! even then only when that reader has come back, as it may be dealing with what it has read before.

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
use tokio::time::{Instant, Sleep, sleep};

use super::{limits::MAX_CONNECTIONS_PER_PEER, state::NetworkState};
use crate::egress::lane_stream::{LaneId, LaneStream};

/// The longest that a stream waits for those before it. In this time a connection that is dead was found to be.
const MAX_WAIT: Duration = Duration::from_secs(5);

/// The longest that a stream waits for one that was closed before it and has not been seen here: its connection was
/// lost before anything of it came, or is late.
const UNSEEN_WAIT: Duration = Duration::from_secs(1);

/// How long nothing may come on a stream that was lost on the other side while the next one waits for it. A stream with
/// something to read is read in far less, unless the machine has no time for it.
const QUIET: Duration = Duration::from_millis(250);

/// Runs of a peer whose lanes are remembered: as many as it can have connections, each of another process.
const MAX_RUNS: usize = MAX_CONNECTIONS_PER_PEER;

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
    network: Arc<NetworkState>,
    /// The run that last opened a stream is the last.
    runs: Mutex<Vec<Run>>,
}

#[derive(Default)]
struct Run {
    run: u64,
    lanes: BTreeMap<u16, OpenStreams>,
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
    stream: LaneStream,
    turn: Arc<Turn>,
    since: Instant,
    next_look: Option<Pin<Box<Sleep>>>,
}

/// A stream that cannot be where it says that it is: the number was there before, or one above it has begun; or there
/// are streams of too many runs.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("the stream comes after its time")]
pub(super) struct OutOfOrder;

impl StreamOrder {
    pub(super) fn new(network: Arc<NetworkState>) -> Self {
        Self {
            network,
            runs: Mutex::default(),
        }
    }

    /// Gives a stream its place, if there is one.
    pub(super) fn place(self: &Arc<Self>, stream: LaneStream) -> Result<StreamPlace, OutOfOrder> {
        let mut runs = self.runs();
        let open = open_streams(&mut runs, stream.lane).ok_or(OutOfOrder)?;
        if stream.number <= open.begun || open.streams.contains_key(&stream.number) {
            return Err(OutOfOrder);
        }
        let turn = Arc::new(Turn {
            state: AtomicU8::new(WAITING),
            after_loss: stream.after_loss,
            active: AtomicBool::new(true),
            reader: AtomicWaker::new(),
        });
        open.streams.insert(stream.number, Arc::clone(&turn));
        open.advance();
        Ok(StreamPlace {
            order: Arc::clone(self),
            stream,
            turn,
            since: Instant::now(),
            next_look: None,
        })
    }

    fn runs(&self) -> MutexGuard<'_, Vec<Run>> {
        self.runs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Looks after a stream that has waited for so long.
    fn look(&self, stream: LaneStream, waited: Duration) {
        let mut runs = self.runs();
        let Some(open) = open_streams(&mut runs, stream.lane) else {
            return;
        };
        let is_over = waited >= MAX_WAIT || stream.after_loss && open.is_quiet_before(stream.number);
        let n_cut = if is_over {
            open.cut_before(stream.number)
        } else {
            0
        };
        if waited >= UNSEEN_WAIT && open.streams.keys().next() == Some(&stream.number) {
            open.begin_first();
        }
        open.advance();
        self.network.counters.lane_streams_cut.fetch_add(n_cut, Relaxed);
    }

    /// Ends a stream: its reader is done with what it has read.
    fn end(&self, stream: LaneStream, turn: &Arc<Turn>) {
        let mut runs = self.runs();
        let run = runs.iter_mut().find(|run| run.run == stream.lane.run);
        let Some(open) = run.and_then(|run| run.lanes.get_mut(&stream.lane.index)) else {
            return;
        };
        if open
            .streams
            .get(&stream.number)
            .is_some_and(|other| Arc::ptr_eq(other, turn))
        {
            open.streams.remove(&stream.number);
            open.advance();
        }
    }
}

/// Returns the open streams of a lane. Makes room for its run, or returns `None` if there is none.
fn open_streams(runs: &mut Vec<Run>, lane: LaneId) -> Option<&mut OpenStreams> {
    let known = runs.iter().position(|run| run.run == lane.run);
    let run = match known {
        Some(at) => runs.remove(at),
        None => {
            if runs.len() >= MAX_RUNS {
                let oldest_ended = runs.iter().position(Run::has_ended)?;
                runs.remove(oldest_ended);
            }
            Run {
                run: lane.run,
                lanes: BTreeMap::new(),
            }
        }
    };
    runs.push(run);
    Some(runs.last_mut()?.lanes.entry(lane.index).or_default())
}

impl Run {
    fn has_ended(&self) -> bool {
        self.lanes.values().all(|open| open.streams.is_empty())
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
            (Some(turn), None) => turn.state.load(Relaxed) == FOLLOWED && !turn.active.swap(false, Relaxed),
            _ => false,
        }
    }

    /// Cuts all streams before this number. Returns how many were not cut before.
    fn cut_before(&mut self, number: u64) -> u64 {
        let mut n_cut = 0;
        let mut unread = Vec::new();
        for (before, turn) in self.streams.range(..number) {
            match turn.state.swap(CUT, Release) {
                CUT => continue,
                // Nobody has anything of it.
                WAITING => unread.push(*before),
                _ => {}
            }
            n_cut += 1;
            turn.reader.wake();
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
            self.order.look(self.stream, self.since.elapsed());
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
        self.order.end(self.stream, &self.turn);
    }
}

impl Drop for StreamPlace {
    fn drop(&mut self) {
        self.end();
    }
}

impl std::fmt::Debug for StreamPlace {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("StreamPlace").field(&self.stream).finish()
    }
}

#[cfg(test)]
mod tests;
