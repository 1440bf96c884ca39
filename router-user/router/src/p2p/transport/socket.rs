//! A TCP socket that follows its connection to another runtime, and reads much per system call.

use std::{
    io::{self, IoSlice},
    net::IpAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use futures::{AsyncRead, AsyncWrite};
use nix::sys::socket::getsockopt;
use tokio::{
    io::{AsyncRead as _, AsyncWrite as _, ReadBuf},
    net::TcpStream,
    runtime::{Handle, Id},
    time::{Instant, Sleep, sleep},
};

use super::backlog::{Backlog, Room};
use super::segments::{SegmentBook, Stall};
use super::tcp_info::{ConnectionInfo, TcpInfo, is_multipath};
use super::tcp_sockets::limit_silence;
use crate::p2p::{
    limits::{DEAD_AFTER, LONGEST_SILENCE},
    losses::{Losses, Packets},
};

/// Largest read buffer. Noise reads a record or less at a time, which would be a system call for every 4 KiB. A larger
/// buffer costs more in cache misses than it saves: 256 KiB here and in the cork took half as much CPU time again per byte.
const MAX_READ_BYTES: usize = 64 * 1024;

/// First read buffer of a connection that has not shown that it needs more. A reader with more room of its own, as TLS has,
/// gets what comes there.
const FIRST_READ_BYTES: usize = 8 * 1024;

/// Retransmissions in a row after which a connection that ends counts as one that got stuck.
const STUCK_RETRANSMITS: u8 = 2;

/// Retransmissions in a row after which a connection that goes on is doubted, and after which another is tried in its place.
const DOUBTED_RETRANSMITS: u8 = 2;
const SUSPECTED_RETRANSMITS: u8 = 3;

/// How long nothing was acknowledged then; never less than so many round trips.
const QUIET_MS: u32 = 400;
const QUIET_ROUND_TRIPS: u32 = 4;

/// How often it is looked, while something is sent, whether it is acknowledged.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);

/// Silence after which a connection that ends counts as one that got stuck, if something was sent in it: what is sent is
/// answered, if only by the pings that go with it.
const STUCK_SILENCE_MS: u32 = 3000;

/// How long after the last data that came something is sent that is no answer to it.
const ANSWER_MS: u32 = 500;

/// Looks whether a connection gets through what is sent, and whether it got stuck before it ends, and tells if so.
#[derive(Debug)]
pub(super) struct PathWatch {
    host: IpAddr,
    segments: Arc<SegmentBook>,
    /// Ends at the next look; `None` while nothing is sent, and on a runtime that has not looked.
    next_look: Option<Pin<Box<Sleep>>>,
    /// Bytes that were written when the next look was planned.
    n_written: u64,
    /// Whether anything was written before the last look, or was not acknowledged then.
    waits: bool,
    /// How much was acknowledged when it was first seen that so much was and more is to be, and when that was.
    stuck: Option<(u64, Instant)>,
    /// Whether the connection may have several paths.
    is_multipath: bool,
    /// What was told since something was last acknowledged.
    told: Option<Stall>,
    /// How long data may be unacknowledged until the kernel gives the connection up.
    limit: Duration,
    /// What counts the connection's packets.
    losses: Arc<Losses>,
}

impl PathWatch {
    pub(super) fn new(host: IpAddr, segments: Arc<SegmentBook>) -> Self {
        Self {
            host,
            segments,
            next_look: None,
            n_written: 0,
            waits: false,
            stuck: None,
            is_multipath: false,
            told: None,
            limit: DEAD_AFTER,
            losses: Arc::default(),
        }
    }

    /// Has the connection's packets counted.
    pub(super) fn counting(mut self, losses: Arc<Losses>) -> Self {
        self.losses = losses;
        self
    }

    /// Looks at a connection to which `n_written` bytes were written in all, if it is time to; `cx` is woken when it next is.
    fn poll_look(&mut self, stream: &TcpStream, n_written: u64, cx: &mut Context<'_>) {
        loop {
            let Some(next_look) = &mut self.next_look else {
                if !self.waits && self.n_written == n_written {
                    return;
                }
                self.n_written = n_written;
                self.next_look = Some(Box::pin(sleep(LOOK_INTERVAL)));
                continue;
            };
            if next_look.as_mut().poll(cx).is_pending() {
                return;
            }
            self.next_look = None;
            self.waits = self.look(stream, n_written) || self.n_written != n_written;
        }
    }

    /// Looks at a connection to which `n_written` bytes were written in all, and tells if it stalls. Returns whether any of them is
    /// not acknowledged, or may not be.
    fn look(&mut self, stream: &TcpStream, n_written: u64) -> bool {
        // What the kernel does not tell is found out by pings.
        let Ok(info) = ConnectionInfo::of(stream, self.is_multipath) else {
            return false;
        };
        let now = Instant::now();
        let packets = Packets {
            n_sent: info.path.n_data_segments_sent.into(),
            n_lost: info.path.n_total_retransmits.into(),
        };
        self.losses.handle_counts(packets, now);
        self.follow_round_trip(stream, &info);
        let stall = self.stall(&info, n_written, now);
        if let Some(stall) = stall
            && Some(stall) > self.told
        {
            self.segments.handle_stalled(self.host, stall, Instant::now());
        }
        self.told = stall;
        if info.is_unknown() {
            return stall.is_none();
        }
        info.is_unacked() || info.n_unsent() > 0
    }

    /// Has the kernel wait longer for what is acknowledged where round trips are so long that what is lost comes again late.
    fn follow_round_trip(&mut self, stream: &TcpStream, info: &ConnectionInfo) {
        let wanted = Duration::from_micros(info.path.rtt_us.into()) * QUIET_ROUND_TRIPS;
        // By whole seconds, so that it is set rarely.
        let limit = Duration::from_secs(wanted.as_secs() + 1).clamp(DEAD_AFTER, LONGEST_SILENCE);
        if limit != self.limit && limit_silence(stream, limit).is_ok() {
            self.limit = limit;
        }
    }

    /// Says how a connection stalls of which the kernel tells this.
    fn stall(&mut self, info: &ConnectionInfo, n_written: u64, now: Instant) -> Option<Stall> {
        let n_acked = info.n_acked(n_written);
        let before = self.stuck.filter(|(before, _)| *before == n_acked);
        self.stuck = info.is_unacked().then(|| before.unwrap_or((n_acked, now)));
        let path = &info.path;
        let quiet_ms = QUIET_MS.max(path.rtt_us / 1000 * QUIET_ROUND_TRIPS);
        let quiet = Duration::from_millis(quiet_ms.into());
        let stuck_for = self.stuck.map(|(_, since)| now.saturating_duration_since(since));
        let is_stuck = |quiet: Duration| stuck_for.is_some_and(|stuck_for| stuck_for >= quiet);
        // A slow link with a long queue has bytes sent again that are on their way, and acknowledges others all the time. Where one
        // path of several is dead, others do, and what it has sent again says nothing of them.
        let (is_quiet, is_quiet_for_long) = match info.n_unacked_by_all {
            None => (path.last_acked_ms >= quiet_ms, true),
            Some(_) => (is_stuck(quiet), is_stuck(quiet * SUSPECTED_RETRANSMITS.into())),
        };
        let doubted = match path.last_received_ms < quiet_ms {
            // A slow link may be busy the other way.
            true => Some(Stall::Doubted),
            false => Some(Stall::Dark),
        };
        match path.n_retransmits {
            _ if !is_quiet => None,
            SUSPECTED_RETRANSMITS.. if is_quiet_for_long => Some(Stall::Suspected),
            DOUBTED_RETRANSMITS.. => doubted,
            _ if is_stuck(quiet) => doubted,
            // Nothing is on its way, and the kernel tries in vain to send more: the host itself drops it.
            _ if path.n_probes >= DOUBTED_RETRANSMITS => doubted,
            // Multipath TCP waits for another path when it has none left.
            _ if info.is_unknown() => doubted,
            _ => None,
        }
    }

    /// Records that a connection has ended with `error`, or was closed by the peer.
    fn handle_end(self, stream: &TcpStream, error: Option<&io::Error>) {
        let timed_out = error.is_some_and(|error| error.kind() == io::ErrorKind::TimedOut);
        // The peer may have given up first.
        let was_stuck = || {
            getsockopt(stream, TcpInfo).is_ok_and(|info| {
                let sent_since = info.last_received_ms >= info.last_sent_ms.saturating_add(ANSWER_MS);
                let was_silent = info.last_received_ms >= STUCK_SILENCE_MS && sent_since;
                info.n_retransmits >= STUCK_RETRANSMITS || was_silent
            })
        };
        if timed_out || was_stuck() {
            self.segments.handle_given_up(self.host, Instant::now());
        }
    }
}

/// A TCP socket below the security protocol.
///
/// Handshakes run on one runtime and the connection on another. tokio binds a socket to the runtime that it was made in,
/// so each readiness event would cross threads; this type moves the socket when it is first used on another runtime.
#[derive(Debug)]
pub(super) struct Socket {
    /// The socket; `None` only while it is moved.
    stream: Option<TcpStream>,
    runtime: Option<Id>,
    /// `None` once the connection has ended.
    watch: Option<PathWatch>,
    backlog: Arc<Backlog>,
    /// Until when nothing more may be written.
    pause: Option<Pin<Box<Sleep>>>,
    buffer: Vec<u8>,
    start: usize,
    end: usize,
}

impl Socket {
    pub(super) fn new(stream: TcpStream, mut watch: PathWatch) -> io::Result<Self> {
        limit_silence(&stream, DEAD_AFTER)?;
        Backlog::limit_socket(&stream)?;
        watch.is_multipath = is_multipath(&stream);
        Ok(Self {
            stream: Some(stream),
            runtime: current_runtime(),
            backlog: Arc::new(Backlog::new(watch.is_multipath)),
            watch: Some(watch),
            pause: None,
            buffer: Vec::new(),
            start: 0,
            end: 0,
        })
    }

    /// Returns what the connection holds unsent, which its streams are to bound.
    pub(super) fn backlog(&self) -> Arc<Backlog> {
        Arc::clone(&self.backlog)
    }

    fn stream(&mut self) -> io::Result<Pin<&mut TcpStream>> {
        let runtime = current_runtime();
        if runtime != self.runtime
            && runtime.is_some()
            && let Some(stream) = self.stream.take()
        {
            self.stream = Some(TcpStream::from_std(stream.into_std()?)?);
            self.runtime = runtime;
            // A timer of the other runtime may never end.
            self.pause = None;
            if let Some(watch) = &mut self.watch {
                watch.next_look = None;
            }
        }
        self.stream
            .as_mut()
            .map(Pin::new)
            .ok_or_else(|| io::ErrorKind::NotConnected.into())
    }

    fn handle_end(&mut self, error: Option<&io::Error>) {
        if let (Some(watch), Some(stream)) = (self.watch.take(), &self.stream) {
            watch.handle_end(stream, error);
        }
    }

    /// Takes the result of writing.
    fn written<T>(&mut self, result: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if let Poll::Ready(Err(error)) = &result {
            self.handle_end(Some(error));
        }
        result
    }

    /// Returns how many bytes may be written.
    fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        self.stream()?;
        let backlog = Arc::clone(&self.backlog);
        // A pause may be over before it is first looked at; to write nothing would end the connection.
        loop {
            if let Some(pause) = &mut self.pause {
                ready!(pause.as_mut().poll(cx));
                self.pause = None;
            }
            match backlog.socket_room(&*self.stream()?, Instant::now().into_std())? {
                Room::Bytes(n) => return Poll::Ready(Ok(n)),
                Room::After(wait) => self.pause = Some(Box::pin(sleep(wait))),
            }
        }
    }

    fn poll_write_some(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let room = ready!(self.poll_room(cx))?;
        let n = ready!(self.stream()?.poll_write(cx, bytes.get(..room).unwrap_or(bytes)))?;
        self.backlog.handle_written(n);
        Poll::Ready(Ok(n))
    }

    fn poll_write_slices(&mut self, cx: &mut Context<'_>, slices: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let room = ready!(self.poll_room(cx))?;
        let written = match within(slices, room) {
            Some(fitting) => self.stream()?.poll_write_vectored(cx, fitting),
            None => {
                let first = slices.first().map_or(&[][..], |slice| slice);
                self.stream()?.poll_write(cx, first.get(..room).unwrap_or(first))
            }
        };
        let n = ready!(written)?;
        self.backlog.handle_written(n);
        Poll::Ready(Ok(n))
    }

    fn poll_receive(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut buffer = std::mem::take(&mut self.buffer);
        if buffer.is_empty() {
            buffer.resize(FIRST_READ_BYTES, 0);
        }
        let received = self.poll_receive_into(cx, &mut buffer);
        let len = buffer.len();
        self.buffer = buffer;
        let n = ready!(received)?;
        self.start = 0;
        self.end = n;
        if n == len && len < MAX_READ_BYTES {
            self.buffer.resize((len * 4).min(MAX_READ_BYTES), 0);
        }
        Poll::Ready(Ok(()))
    }

    fn poll_receive_into(&mut self, cx: &mut Context<'_>, target: &mut [u8]) -> Poll<io::Result<usize>> {
        let mut unfilled = ReadBuf::new(target);
        let Poll::Ready(received) = self.stream()?.poll_read(cx, &mut unfilled) else {
            // A handshake that stalls is dealt with by who dials.
            if let (Some(watch), Some(stream)) = (&mut self.watch, &self.stream)
                && let Some(n_written) = self.backlog.n_written()
            {
                watch.poll_look(stream, n_written, cx);
            }
            return Poll::Pending;
        };
        let n = unfilled.filled().len();
        match &received {
            Ok(()) if n > 0 => {
                if let Some(watch) = &self.watch {
                    watch.losses.handle_read();
                }
            }
            Ok(()) => self.handle_end(None),
            Err(error) => self.handle_end(Some(error)),
        }
        Poll::Ready(received.map(|()| n))
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        target: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        if self.start == self.end {
            if target.len() >= FIRST_READ_BYTES {
                self.buffer = Vec::new();
                (self.start, self.end) = (0, 0);
                return self.poll_receive_into(cx, target);
            }
            ready!(self.poll_receive(cx))?;
        }
        let waiting = self.buffer.get(self.start..self.end).unwrap_or_default();
        let n = waiting.len().min(target.len());
        target[..n].copy_from_slice(&waiting[..n]);
        self.start += n;
        Poll::Ready(Ok(n))
    }
}

impl AsyncWrite for Socket {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = self.poll_write_some(cx, bytes);
        self.written(written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = self.poll_write_slices(cx, slices);
        self.written(written)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream()?.poll_flush(cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.stream()?.poll_shutdown(cx))?;
        // Closing a socket with unread input resets the connection, and what the peer has not yet received is lost. So
        // the peer is left to close first; how long it may take is for the caller to say.
        while let Ok(()) = ready!(self.poll_receive(cx)) {
            if self.end == 0 {
                break;
            }
        }
        Poll::Ready(Ok(()))
    }
}

/// Returns the first of `slices` that are no more than `n` bytes together, or `None` if the first is more by itself.
fn within<'a, 'b>(slices: &'a [IoSlice<'b>], n: usize) -> Option<&'a [IoSlice<'b>]> {
    let mut rest = n;
    let fits = |slice: &&IoSlice<'_>| {
        let left = rest.checked_sub(slice.len());
        rest = left.unwrap_or(0);
        left.is_some()
    };
    let n_fitting = slices.iter().take_while(fits).count();
    slices
        .get(..n_fitting)
        .filter(|fitting| !fitting.is_empty() || slices.is_empty())
}

fn current_runtime() -> Option<Id> {
    Handle::try_current().ok().map(|handle| handle.id())
}

#[cfg(test)]
mod tests {
    use futures::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;
    use crate::p2p::transport::{
        marks::SocketMarks,
        segments::SegmentSize,
        tcp_sockets::{Origin, TcpSockets},
        test_network::in_own_network,
    };

    #[test]
    fn a_connection_is_doubted_of_which_the_host_itself_sends_nothing() {
        in_own_network(|| {
            runtime().block_on(async {
                let (mut near, _far) = streams().await;
                let host = near.peer_addr().expect("address").ip();
                let segments = Arc::new(SegmentBook::default());
                let mut watch = PathWatch::new(host, Arc::clone(&segments));
                let table = "table inet hole { chain out { type filter hook output priority 0; drop; }; }";
                let status = std::process::Command::new("nft").arg(table).status();
                assert!(status.expect("nft is installed").success());
                tokio::io::AsyncWriteExt::write_all(&mut near, b"some")
                    .await
                    .expect("write");

                assert!(watch.look(&near, 4), "it waits to be sent");
                assert_eq!(getsockopt(&near, TcpInfo).expect("information").n_unacked, 0);
                let told = async {
                    while watch.told.is_none() {
                        sleep(LOOK_INTERVAL).await;
                        watch.look(&near, 4);
                    }
                    segments.stalled().await
                };
                let told = tokio::time::timeout(Duration::from_secs(60), told).await;
                assert_eq!(told.expect("in time"), [(host, Stall::Dark)].into());
            });
        });
    }

    #[test]
    fn a_connection_is_doubted_when_nothing_is_acknowledged_for_a_while() {
        let mut watch = PathWatch::new([192, 0, 2, 1].into(), Arc::default());
        let start = Instant::now();
        let mut stall = |at_ms: u64, n_unacked, n_acked, last_acked_ms, rtt_ms: u32| {
            let mut info = ConnectionInfo::default();
            info.path.n_unacked = n_unacked;
            info.path.n_acked = n_acked;
            info.path.last_acked_ms = last_acked_ms;
            info.path.rtt_us = rtt_ms * 1000;
            watch.stall(&info, 1000, start + Duration::from_millis(at_ms))
        };

        let quick: [_; 4] = std::array::from_fn(|i| stall(i as u64 * 100, 3, 10, i as u32 * 100, 1));
        assert_eq!(quick, [None; 4]);
        assert_eq!(stall(400, 3, 10, 400, 1), Some(Stall::Doubted));
        assert_eq!(stall(500, 3, 20, 5, 1), None, "something is acknowledged");

        // The last acknowledgement is that of what was sent long ago.
        assert_eq!(stall(9000, 0, 30, 5000, 1), None);
        assert_eq!(
            [stall(9100, 1, 30, 5100, 1), stall(9400, 1, 30, 5400, 1)],
            [None; 2]
        );
        assert_eq!(stall(9500, 1, 30, 5500, 1), Some(Stall::Doubted));

        // What others send comes, and acknowledges nothing of ours.
        assert_eq!(
            [stall(20_000, 1, 40, 5, 1), stall(21_000, 1, 40, 5, 1)],
            [None; 2]
        );
        let slow: [_; 3] = std::array::from_fn(|i| stall(30_000 + i as u64 * 900, 1, 50, 9000, 300));
        assert_eq!(slow, [None, None, Some(Stall::Doubted)], "four round trips");
    }

    #[test]
    fn a_connection_is_dark_when_nothing_comes_either() {
        let mut watch = PathWatch::new([192, 0, 2, 1].into(), Arc::default());
        let start = Instant::now();
        let mut stall = |at_ms: u32, last_received_ms| {
            let mut info = ConnectionInfo::default();
            info.path.n_unacked = 1;
            info.path.last_acked_ms = at_ms;
            info.path.last_received_ms = last_received_ms;
            watch.stall(&info, 1000, start + Duration::from_millis(at_ms.into()))
        };

        assert_eq!(stall(0, 0), None);
        assert_eq!(stall(400, 100), Some(Stall::Doubted));
        assert_eq!(stall(700, 399), Some(Stall::Doubted));
        assert_eq!(stall(800, 400), Some(Stall::Dark));
    }

    #[test]
    fn a_connection_of_several_paths_is_doubted_by_what_all_of_them_have_acknowledged() {
        let mut watch = PathWatch::new([192, 0, 2, 1].into(), Arc::default());
        let start = Instant::now();
        let mut stall = |at_ms: u64, n_written, n_unacked, n_retransmits| {
            let mut info = ConnectionInfo {
                n_unacked_by_all: Some(n_unacked),
                ..ConnectionInfo::default()
            };
            // The first path is dead.
            info.path.n_unacked = 1;
            info.path.n_acked = 10;
            info.path.last_acked_ms = at_ms as u32;
            info.path.n_retransmits = n_retransmits;
            watch.stall(&info, n_written, start + Duration::from_millis(at_ms))
        };

        let other_path: [_; 9] = std::array::from_fn(|i| stall(i as u64 * 100, 100 * i as u64, 50, 2));
        assert_eq!(other_path, [None; 9]);
        assert_eq!([stall(900, 1000, 150, 3), stall(1100, 1050, 200, 3)], [None; 2]);
        assert_eq!(stall(1300, 1050, 200, 3), Some(Stall::Doubted));
        assert_eq!(stall(2000, 1050, 200, 3), Some(Stall::Doubted));
        assert_eq!(stall(2100, 1050, 200, 3), Some(Stall::Suspected));
        assert_eq!(stall(2200, 1060, 0, 3), None, "all is acknowledged");
    }

    #[test]
    fn a_connection_knows_whether_it_may_have_several_paths_and_what_is_acknowledged_by_all() {
        in_own_network(|| {
            runtime().block_on(async {
                for (dials, listens) in [(false, false), (false, true), (true, false), (true, true)] {
                    let (near, far) = multipath_streams(dials, listens).await;
                    let mut near = watched(near).expect("near socket");
                    let mut far = watched(far).expect("far socket");
                    near.write_all(&[7; 1000]).await.expect("write");
                    far.read_exact(&mut [0; 1000]).await.expect("read");

                    let stream = near.stream().expect("a stream");
                    let info = ConnectionInfo::of(&*stream, is_multipath(&*stream)).expect("information");
                    assert_eq!(info.n_unacked_by_all.is_some(), dials && listens);
                    assert_eq!(is_multipath(&*stream), dials && listens);
                    let all_acked = async {
                        loop {
                            let info = ConnectionInfo::of(&*stream, dials).expect("information");
                            if info.n_acked(1000) >= 1000 && !info.is_unacked() && info.n_unsent() == 0 {
                                break;
                            }
                            sleep(LOOK_INTERVAL / 20).await;
                        }
                    };
                    let waited = tokio::time::timeout(Duration::from_secs(60), all_acked).await;
                    waited.expect("all is acknowledged");
                }
            });
        });
    }

    #[test]
    fn a_connection_of_several_paths_that_has_lost_its_only_one_is_looked_at_until_that_is_told() {
        // Whether the kernel tells of all paths or of the first alone.
        for tells in [true, false] {
            in_own_network(|| {
                runtime().block_on(async {
                let (mut near, mut far) = multipath_streams(true, true).await;
                let at = near.peer_addr().expect("address");
                let segments = Arc::new(SegmentBook::default());
                let mut watch = PathWatch::new(at.ip(), Arc::clone(&segments));
                watch.is_multipath = tells;
                let table = format!(
                    "table inet cut {{ chain out {{ type filter hook output priority 0; tcp dport {} reject with tcp \
                     reset; }}; }}",
                    at.port()
                );
                let status = std::process::Command::new("nft").arg(table).status();
                assert!(status.expect("nft is installed").success());
                // What is reset is the acknowledgement, so that nothing waits for one.
                tokio::io::AsyncWriteExt::write_all(&mut far, b"some")
                    .await
                    .expect("write");

                let told = async {
                    while !ConnectionInfo::of(&near, false).expect("information").is_unknown() {
                        sleep(LOOK_INTERVAL / 20).await;
                    }
                    let room = Backlog::new(tells).socket_room(&near, std::time::Instant::now());
                    let room = room.expect("information");
assert!(matches!(room, Room::Bytes(1..)), "{room:?}");
                    tokio::io::AsyncWriteExt::write_all(&mut near, b"some")
                        .await
                        .expect("write");
                    while watch.told.is_none() {
                        let goes_on = watch.look(&near, 4);
                        assert!(goes_on || watch.told.is_some(), "nothing else would look again");
                        sleep(LOOK_INTERVAL).await;
                    }
                    segments.stalled().await
                };
                let told = tokio::time::timeout(Duration::from_secs(60), told).await;
                assert!(told.expect("in time").contains_key(&at.ip()));
                assert_eq!(watch.look(&near, 4), tells, "it was told, and may be over");
            });
            });
        }
    }

    #[test]
    fn socket_keeps_working_after_its_first_runtime_is_gone() {
        in_own_network(|| {
            let first = runtime();
            let (mut near, mut far) = first.block_on(pair());
            first.block_on(async {
                near.write_all(b"one").await.expect("write");
                let mut bytes = [0; 3];
                far.read_exact(&mut bytes).await.expect("read");
            });

            let second = runtime();
            let written = second.block_on(async {
                far.write_all(b"two").await.expect("write");
                let mut bytes = [0; 3];
                near.read_exact(&mut bytes).await.expect("read");
                bytes
            });
            drop(first);
            assert_eq!(&written, b"two");

            second.block_on(async {
                near.write_all(b"three").await.expect("write");
                let mut bytes = Vec::new();
                let receive = async {
                    far.read_to_end(&mut bytes).await.expect("read");
                    drop(far);
                };
                let (closed, ()) = tokio::join!(near.close(), receive);
                closed.expect("close");
                assert_eq!(bytes, b"three");
            });
        });
    }

    #[test]
    fn closing_with_unread_input_loses_nothing_written_before() {
        in_own_network(|| {
            runtime().block_on(async {
                let (mut near, mut far) = pair().await;
                far.write_all(b"never read").await.expect("write");
                let sent = vec![7; 3_000_000];
                let mut received = Vec::new();
                let send = async {
                    near.write_all(&sent).await.expect("write");
                    near.close().await.expect("close");
                    drop(near);
                };
                let receive = async {
                    far.read_to_end(&mut received).await.expect("read");
                    drop(far);
                };
                tokio::join!(send, receive);
                assert!(received == sent, "{} bytes", received.len());
            });
        });
    }

    #[test]
    fn read_buffer_grows_for_bulk_and_loses_nothing() {
        in_own_network(|| {
            runtime().block_on(async {
                let (mut near, mut far) = pair().await;
                let sent: Vec<u8> = (0..4_000_000_u32).map(|n| (n % 251) as u8).collect();
                let expected = sent.clone();
                let writer = tokio::spawn(async move {
                    near.write_all(&sent).await.expect("write");
                    near.close().await.expect("close");
                });
                let (mut received, mut part) = (Vec::new(), [0; 4096]);
                loop {
                    match far.read(&mut part).await.expect("read") {
                        0 => break,
                        n => received.extend_from_slice(&part[..n]),
                    }
                }
                assert!(received == expected);
                assert!(far.buffer.len() > FIRST_READ_BYTES && far.buffer.len() <= MAX_READ_BYTES);
                drop(far);
                writer.await.expect("writer");
            });
        });
    }

    #[test]
    fn reader_with_room_of_its_own_gets_what_comes_there_and_what_came_before_first() {
        in_own_network(|| {
            runtime().block_on(async {
                let (mut near, mut far) = pair().await;
                let sent: Vec<u8> = (0..20_000_u32).map(|n| (n % 251) as u8).collect();
                near.write_all(&sent).await.expect("write");
                let mut received = vec![0; 20_000];
                far.read_exact(&mut received[..10]).await.expect("read");
                assert!(far.end > 10, "the rest of a read waits");
                far.read_exact(&mut received[10..]).await.expect("read");
                assert!(received == sent);
                assert!(far.buffer.is_empty());
            });
        });
    }

    fn runtime() -> tokio::runtime::Runtime {
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("runtime")
    }

    fn watched(stream: TcpStream) -> io::Result<Socket> {
        let host = stream.peer_addr()?.ip();
        Socket::new(stream, PathWatch::new(host, Arc::default()))
    }

    async fn streams() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
        let address = listener.local_addr().expect("address");
        let (near, far) = tokio::join!(TcpStream::connect(address), listener.accept());
        (near.expect("connect"), far.expect("accept").0)
    }

    /// Connects two sockets, each of which knows Multipath TCP or not.
    async fn multipath_streams(dials: bool, listens: bool) -> (TcpStream, TcpStream) {
        let sockets =
            |multipath| TcpSockets::new(SocketMarks::default(), None, multipath).expect("Multipath TCP");
        let listener = sockets(listens).listen("127.0.0.1:0".parse().expect("address"));
        let listener = listener.expect("listen");
        let at = listener.local_addr().expect("address");
        let dialler = sockets(dials);
        let connecting = dialler.connect(at, SegmentSize::Whole, &Origin::Anywhere);
        let (near, far) = tokio::join!(connecting, listener.accept());
        (near.expect("connect"), far.expect("accept").0)
    }

    async fn pair() -> (Socket, Socket) {
        let (near, far) = streams().await;
        (
            watched(near).expect("near socket"),
            watched(far).expect("far socket"),
        )
    }
}
