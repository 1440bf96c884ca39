//! What the task of a connection and its streams do with it.

use std::{
    collections::VecDeque,
    io,
    sync::{Arc, atomic::Ordering::Relaxed},
    task::{Context, Poll, Wake, Waker, ready},
};

use futures::{AsyncRead, AsyncWrite, task::AtomicWaker};
use rustls::AlertDescription;
use tokio::runtime::{Handle, Id};

use super::{
    MuxerError, Violation,
    header::{self, Kind, StreamId, TRAILER},
    streams::{Streams, wake},
    window::FIRST_WINDOW,
};
use crate::p2p::{
    counters::LiveNetworkCounters,
    transport::{
        backlog::Backlog,
        tls::{MAX_CONTENT, OpenedInto, RecordError, TlsConnection},
    },
};
use stream_router_engine::causes::with_sources;

/// Most bytes of a stream in one record.
const MAX_DATA: usize = MAX_CONTENT - TRAILER;

/// Bytes that one reader may take before other tasks of the thread get their turn.
const READ_BYTES: usize = 64 * 1024;

/// Sealed bytes that are given to the socket without a request to do so: about one segmentation offload.
const SEND_BYTES: usize = 64 * 1024;

/// Sealed bytes from which on writers wait for the socket.
const MOST_UNSENT: usize = 128 * 1024;

/// A connection.
pub(super) struct Connection<C> {
    tls: TlsConnection<C>,
    streams: Streams,
    backlog: Arc<Backlog>,
    counters: Arc<LiveNetworkCounters>,
    /// The connection's task, and where it runs.
    task: Option<Waker>,
    runtime: Option<Id>,
    /// Wakes the task, and the reader that takes what comes, when something has come.
    readiness: Arc<Readiness>,
    readiness_waker: Waker,
    /// The stream that data last came for. Its reader looks for more itself.
    busy: Option<StreamId>,
    /// Whether the reader of that stream is about to look. The task leaves it one turn.
    is_reader_due: bool,
    inbound_waker: Option<Waker>,
    /// Writers that wait for the socket.
    writers: Vec<Waker>,
    has_ended: bool,
    /// Why, until the task has heard of it.
    error: Option<MuxerError>,
}

/// Who waits until something has come.
#[derive(Default)]
struct Readiness {
    reader: AtomicWaker,
    task: AtomicWaker,
}

impl Wake for Readiness {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    /// Wakes the reader first, so that it finds what has come where it is.
    fn wake_by_ref(self: &Arc<Self>) {
        self.reader.wake();
        self.task.wake();
    }
}

impl<C: AsyncRead + AsyncWrite + Unpin> Connection<C> {
    pub(super) fn new(
        tls: TlsConnection<C>,
        is_dialler: bool,
        backlog: Arc<Backlog>,
        counters: Arc<LiveNetworkCounters>,
    ) -> Self {
        let readiness = Arc::<Readiness>::default();
        Self {
            tls,
            streams: Streams::new(is_dialler),
            backlog,
            counters,
            task: None,
            runtime: None,
            readiness_waker: Waker::from(Arc::clone(&readiness)),
            readiness,
            busy: None,
            is_reader_due: false,
            inbound_waker: None,
            writers: Vec::new(),
            has_ended: false,
            error: None,
        }
    }

    /// Reads what no reader takes, and sends what is left to be sent. Ready once the connection has ended.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<MuxerError> {
        self.set_task(cx);
        if std::mem::take(&mut self.is_reader_due) {
            cx.waker().wake_by_ref();
        } else {
            self.take_input(cx);
        }
        self.send();
        match self.has_ended {
            true => Poll::Ready(self.error.take().unwrap_or(MuxerError::Closed)),
            false => Poll::Pending,
        }
    }

    pub(super) fn poll_inbound(&mut self, cx: &mut Context<'_>) -> Poll<StreamId> {
        match self.streams.next_inbound() {
            Some(stream) => Poll::Ready(stream),
            None => {
                self.inbound_waker = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }

    pub(super) fn open(&mut self) -> Result<StreamId, MuxerError> {
        let stream = self.streams.open().ok_or(MuxerError::TooManyStreams)?;
        self.seal(stream, Kind::Open, &[]);
        Ok(stream)
    }

    pub(super) fn poll_close(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.set_task(cx);
        self.end(MuxerError::Closed);
        self.backlog.handle_closing();
        self.tls.poll_close(cx)
    }

    /// Ends the connection at once.
    pub(super) fn abandon(&mut self) {
        self.end(MuxerError::Closed);
        self.tls.abandon();
    }

    pub(super) fn poll_read(
        &mut self,
        stream: StreamId,
        cx: &mut Context<'_>,
        target: &mut [u8],
        n_in_turn: &mut usize,
    ) -> Poll<io::Result<usize>> {
        let is_busy = self.busy == Some(stream);
        if is_busy {
            self.is_reader_due = false;
        }
        if *n_in_turn >= READ_BYTES {
            *n_in_turn = 0;
            self.is_reader_due = is_busy;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let mut read = self.poll_unread(stream, cx, target);
        if read.is_pending() && is_busy && self.is_own_runtime() {
            self.readiness.reader.register(cx.waker());
            read = self.poll_receive_into(stream, cx, target);
            if matches!(read, Poll::Ready(Ok(1..))) {
                self.is_reader_due = true;
                if self.tls.has_record() || self.tls.is_input_full() {
                    self.wake_task();
                }
            }
        }
        match &read {
            Poll::Ready(Ok(n)) => *n_in_turn += n,
            _ => *n_in_turn = 0,
        }
        read
    }

    pub(super) fn poll_write(
        &mut self,
        stream: StreamId,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let state = self.streams.get_mut(stream);
        let state = state.filter(|state| !state.is_closed && !state.is_reset);
        let Some(state) = state.filter(|_| !self.has_ended) else {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        };
        if state.credit.n_left() == 0 {
            state.writer = Some(cx.waker().clone());
            if state.credit.asks() {
                self.seal(stream, Kind::Blocked, &[]);
            }
            self.send();
            return Poll::Pending;
        }
        let n_allowed = state.credit.n_left().min(bytes.len());
        let Poll::Ready(n_allowed) = self.backlog.poll_stream_room(n_allowed, cx) else {
            self.send();
            return Poll::Pending;
        };
        if self.tls.n_unsent() >= MOST_UNSENT {
            self.send();
        }
        let room = MOST_UNSENT.saturating_sub(self.tls.n_unsent());
        if room == 0 {
            if !self.writers.iter().any(|writer| writer.will_wake(cx.waker())) {
                self.writers.push(cx.waker().clone());
            }
            return Poll::Pending;
        }
        let n = n_allowed.min(room);
        for content in bytes[..n].chunks(MAX_DATA) {
            self.seal(stream, Kind::Data, content);
        }
        if let Some(state) = self.streams.get_mut(stream) {
            state.credit.handle_sent(n);
        }
        self.backlog.handle_given(n);
        if self.tls.n_unsent() >= SEND_BYTES {
            self.send();
        }
        Poll::Ready(Ok(n))
    }

    /// Gives the socket what it takes. The task sends the rest.
    pub(super) fn flush(&mut self) -> io::Result<()> {
        self.send();
        match self.has_ended {
            true => Err(io::ErrorKind::BrokenPipe.into()),
            false => Ok(()),
        }
    }

    pub(super) fn close_stream(&mut self, stream: StreamId) -> io::Result<()> {
        if let Some(state) = self.streams.get_mut(stream)
            && !state.is_closed
        {
            state.is_closed = true;
            if !state.is_reset {
                self.seal(stream, Kind::End, &[]);
            }
        }
        self.flush()
    }

    pub(super) fn drop_stream(&mut self, stream: StreamId) {
        if self.busy == Some(stream) {
            self.set_busy(None);
        }
        if self.streams.remove(stream) {
            self.seal(stream, Kind::Reset, &[]);
            self.send();
        }
    }

    /// Reads what waits for the reader of a stream, or that nothing follows. Registers the reader if neither.
    fn poll_unread(
        &mut self,
        stream: StreamId,
        cx: &mut Context<'_>,
        target: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let Some(state) = self.streams.get_mut(stream) else {
            return Poll::Ready(Err(io::ErrorKind::NotConnected.into()));
        };
        if !state.unread.is_empty() {
            let n = take(&mut state.unread, target);
            state.window.handle_read(n);
            self.grant(stream);
            return Poll::Ready(Ok(n));
        }
        // As with yamux, a stream that the peer has dropped ends.
        if state.has_ended || state.is_reset {
            return Poll::Ready(Ok(0));
        }
        if self.has_ended {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        match &mut state.reader {
            Some(reader) => reader.clone_from(cx.waker()),
            None => state.reader = Some(cx.waker().clone()),
        }
        Poll::Pending
    }

    /// Opens what comes for a stream, of which nothing waits, where its reader wants it.
    fn poll_receive_into(
        &mut self,
        stream: StreamId,
        cx: &mut Context<'_>,
        target: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let mut n = 0;
        while !self.has_ended && self.is_reading(stream) {
            let room = target.get_mut(n..).unwrap_or_default();
            match self.tls.open_into(room) {
                Ok(OpenedInto::Content(len)) => match self.take_record(stream, &room[..len]) {
                    Ok(len) => n += len,
                    Err(violation) => self.refuse(violation),
                },
                Ok(_) if n > 0 => break,
                Ok(OpenedInto::NoRoom) => drop(self.take_next()),
                Ok(OpenedInto::Nothing) if self.tls.has_ended() => self.end(MuxerError::Closed),
                Ok(OpenedInto::Nothing) => ready!(self.poll_receive()),
                Err(error) => self.end(MuxerError::Failed(error)),
            }
        }
        match n {
            0 => self.poll_unread(stream, cx, target),
            n => {
                self.grant(stream);
                Poll::Ready(Ok(n))
            }
        }
    }

    /// Says whether nothing waits for the reader of a stream, and more may come.
    fn is_reading(&mut self, stream: StreamId) -> bool {
        self.streams
            .get_mut(stream)
            .is_some_and(|state| state.unread.is_empty() && !state.has_ended && !state.is_reset)
    }

    /// Takes a record from the buffer of the reader of `stream`. Returns how much of it is the reader's.
    fn take_record(&mut self, stream: StreamId, record: &[u8]) -> Result<usize, Violation> {
        let (of, kind, content) = header::decode(record)?;
        if of == stream
            && kind == Kind::Data
            && let Some(state) = self.streams.get_mut(stream)
        {
            state.window.handle_data(content.len())?;
            state.window.handle_read(content.len());
            return Ok(content.len());
        }
        self.streams.handle(of, kind, content)?;
        self.handle_taken(of, kind);
        Ok(0)
    }

    /// Takes what has come, up to a portion.
    fn take_input(&mut self, cx: &Context<'_>) {
        let mut n = 0;
        while !self.has_ended {
            if n >= READ_BYTES {
                cx.waker().wake_by_ref();
                return;
            }
            match self.tls.has_record() {
                true => n += self.take_next(),
                false if self.tls.has_ended() => self.end(MuxerError::Closed),
                false if self.poll_receive().is_pending() => return,
                false => {}
            }
        }
    }

    /// Takes the next record, and leaves its content for its reader. Returns how long it was.
    fn take_next(&mut self) -> usize {
        let at = match self.tls.open() {
            Ok(Some(at)) => at,
            Ok(None) => return 0,
            Err(error) => {
                self.end(MuxerError::Failed(error));
                return 0;
            }
        };
        let len = at.len();
        let taken = header::decode(self.tls.content(at)).and_then(|(stream, kind, content)| {
            self.streams.handle(stream, kind, content)?;
            Ok((stream, kind))
        });
        match taken {
            Ok((stream, kind)) => self.handle_taken(stream, kind),
            Err(violation) => self.refuse(violation),
        }
        len
    }

    fn handle_taken(&mut self, stream: StreamId, kind: Kind) {
        match kind {
            Kind::Open => wake(&mut self.inbound_waker),
            Kind::Data => self.set_busy(Some(stream)),
            Kind::Blocked => self.grant(stream),
            Kind::End | Kind::Reset | Kind::Credit => {}
        }
    }

    fn set_busy(&mut self, stream: Option<StreamId>) {
        if self.busy != stream {
            self.busy = stream;
            self.is_reader_due = false;
            self.readiness.reader.take();
        }
    }

    /// Waits for more to come. Whoever asks, the task is woken, and the reader that looks for itself.
    fn poll_receive(&mut self) -> Poll<()> {
        let received = self
            .tls
            .poll_receive(&mut Context::from_waker(&self.readiness_waker));
        if let Err(error) = ready!(received) {
            self.end(MuxerError::Failed(error));
        }
        Poll::Ready(())
    }

    /// Tells the peer how much more it may send on a stream, once that is worth a record.
    fn grant(&mut self, stream: StreamId) {
        if let Some(n) = self.streams.grant(stream) {
            self.seal(stream, Kind::Credit, &n.to_le_bytes());
            self.send();
        }
    }

    fn seal(&mut self, stream: StreamId, kind: Kind, content: &[u8]) {
        if !self.has_ended
            && let Err(error) = self.tls.seal(content, &header::encode(stream, kind))
        {
            self.end(MuxerError::Failed(error));
        }
    }

    /// Gives the socket what it takes of what is sealed.
    fn send(&mut self) {
        let Some(task) = &self.task else {
            return;
        };
        if self.has_ended {
            return;
        }
        if !self.is_own_runtime() {
            task.wake_by_ref();
            return;
        }
        match self.tls.poll_send(&mut Context::from_waker(task)) {
            Poll::Ready(Ok(())) => self.backlog.handle_drained(),
            Poll::Ready(Err(error)) => self.end(MuxerError::Failed(error)),
            Poll::Pending => {}
        }
        if self.tls.n_unsent() <= MOST_UNSENT / 2 {
            self.writers.drain(..).for_each(Waker::wake);
        }
    }

    /// Ends the connection because the peer has broken a rule.
    fn refuse(&mut self, violation: Violation) {
        self.tls.refuse(AlertDescription::IllegalParameter);
        let error = io::Error::new(io::ErrorKind::InvalidData, violation);
        self.end(MuxerError::Failed(error));
    }

    /// Ends the connection for all who use it.
    fn end(&mut self, error: MuxerError) {
        if self.has_ended {
            return;
        }
        self.has_ended = true;
        if error.is_violation() {
            tracing::debug!(
                error = with_sources(&error),
                "the peer broke a rule; the connection ends"
            );
            self.counters.record_violations.fetch_add(1, Relaxed);
        }
        self.error = Some(error);
        self.streams.wake_all();
        self.backlog.handle_drained();
        self.writers.drain(..).for_each(Waker::wake);
        wake(&mut self.inbound_waker);
        self.wake_task();
    }

    fn set_task(&mut self, cx: &Context<'_>) {
        self.readiness.task.register(cx.waker());
        match &mut self.task {
            Some(task) => task.clone_from(cx.waker()),
            None => self.task = Some(cx.waker().clone()),
        }
        self.runtime = current_runtime();
    }

    fn wake_task(&self) {
        if let Some(task) = &self.task {
            task.wake_by_ref();
        }
    }

    /// Says whether the caller is on the connection's runtime, and so may use its socket.
    fn is_own_runtime(&self) -> bool {
        self.runtime == current_runtime()
    }
}

impl MuxerError {
    /// Says whether the peer broke a rule, of records or of the streams in them.
    fn is_violation(&self) -> bool {
        let Self::Failed(error) = self else {
            return false;
        };
        let cause = error.get_ref();
        cause.is_some_and(|cause| cause.is::<Violation>() || cause.is::<RecordError>())
    }
}

fn current_runtime() -> Option<Id> {
    Handle::try_current().ok().map(|handle| handle.id())
}

/// Moves bytes to `target`. A queue that was long is not kept.
fn take(unread: &mut VecDeque<u8>, target: &mut [u8]) -> usize {
    let mut n = 0;
    let (first, second) = unread.as_slices();
    for part in [first, second] {
        let room = target.get_mut(n..).unwrap_or_default();
        let len = part.len().min(room.len());
        room[..len].copy_from_slice(&part[..len]);
        n += len;
    }
    unread.drain(..n);
    if unread.is_empty() && unread.capacity() > FIRST_WINDOW as usize {
        unread.shrink_to(0);
    }
    n
}

#[cfg(test)]
impl<C: AsyncRead + AsyncWrite + Unpin> Connection<C> {
    /// Seals a record that need not follow the rules.
    pub(super) fn seal_raw(&mut self, record: &[u8]) {
        self.tls.seal(record, &[]).expect("the connection stands");
    }
}
