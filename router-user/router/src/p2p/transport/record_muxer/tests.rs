use std::{
    sync::atomic::Ordering::{Relaxed, SeqCst},
    task::Waker,
};

use super::{
    header::{Kind, StreamId, encode},
    window::FIRST_WINDOW,
    *,
};
use crate::p2p::transport::{
    test_wire::{End, Wire, counting_waker},
    tls::tests::pair,
};

type Muxer = RecordMuxer<End>;
type Stream = RecordStream<End>;

/// Two sides of a connection in memory.
struct Sides {
    wire: Wire,
    muxers: [Muxer; 2],
    counters: [Arc<LiveNetworkCounters>; 2],
}

impl Sides {
    fn new() -> Self {
        let wire = Wire::default();
        let [near, far] = pair(&wire);
        let counters = [Arc::default(), Arc::default()];
        let muxer = |tls, is_dialler, counters| {
            let backlog = Arc::new(Backlog::unbounded());
            RecordMuxer::new(tls, is_dialler, backlog, counters, None)
        };
        let muxers = [
            muxer(near, true, Arc::clone(&counters[0])),
            muxer(far, false, Arc::clone(&counters[1])),
        ];
        Self {
            wire,
            muxers,
            counters,
        }
    }

    /// Polls the task of a side.
    fn poll(&mut self, side: usize) -> Poll<Result<StreamMuxerEvent, MuxerError>> {
        Pin::new(&mut self.muxers[side]).poll(&mut Context::from_waker(Waker::noop()))
    }

    /// Polls both tasks until all is said.
    fn settle(&mut self) {
        for _ in 0..40 {
            for side in [0, 1] {
                assert!(self.poll(side).is_pending(), "side {side} has ended");
            }
        }
    }

    /// Opens a stream from one side to the other.
    fn open(&mut self, side: usize) -> [Stream; 2] {
        let mut cx = Context::from_waker(Waker::noop());
        let Poll::Ready(Ok(own)) = Pin::new(&mut self.muxers[side]).poll_outbound(&mut cx) else {
            panic!("no stream");
        };
        self.settle();
        let Poll::Ready(Ok(peers)) = Pin::new(&mut self.muxers[1 - side]).poll_inbound(&mut cx) else {
            panic!("nothing has come");
        };
        [own, peers]
    }

    /// Has the dialler send a record of any kind.
    fn send(&self, stream: u32, kind: Kind, content: &[u8]) {
        self.send_raw(&[content, &encode(StreamId(stream), kind)].concat());
    }

    fn send_raw(&self, record: &[u8]) {
        self.muxers[0].shared.lock().seal_raw(record);
    }
}

fn write(stream: &mut Stream, bytes: &[u8]) -> Poll<io::Result<usize>> {
    Pin::new(stream).poll_write(&mut Context::from_waker(Waker::noop()), bytes)
}

fn flush(stream: &mut Stream) {
    let flushed = Pin::new(stream).poll_flush(&mut Context::from_waker(Waker::noop()));
    assert!(matches!(flushed, Poll::Ready(Ok(()))));
}

fn close(stream: &mut Stream) {
    let closed = Pin::new(stream).poll_close(&mut Context::from_waker(Waker::noop()));
    assert!(matches!(closed, Poll::Ready(Ok(()))));
}

/// Reads what is there, up to the end of the stream.
fn read(stream: &mut Stream) -> Result<Vec<u8>, io::ErrorKind> {
    let (mut bytes, mut part) = (Vec::new(), vec![0; 100_000]);
    // A reader gives way to others after a while.
    let mut n_pending = 0;
    loop {
        let read = Pin::new(&mut *stream).poll_read(&mut Context::from_waker(Waker::noop()), &mut part);
        match read {
            Poll::Ready(Ok(0)) => return Ok(bytes),
            Poll::Ready(Ok(n)) => bytes.extend_from_slice(&part[..n]),
            Poll::Ready(Err(error)) if bytes.is_empty() => return Err(error.kind()),
            Poll::Pending if n_pending == 0 => n_pending += 1,
            Poll::Ready(Err(_)) | Poll::Pending => return Ok(bytes),
        }
    }
}

/// Writes all of it, while the other side reads.
fn pass(sides: &mut Sides, writer: &mut Stream, reader: &mut Stream, bytes: &[u8]) -> Vec<u8> {
    let (mut n, mut received) = (0, Vec::new());
    for _ in 0..10_000 {
        if n < bytes.len()
            && let Poll::Ready(written) = write(writer, &bytes[n..])
        {
            n += written.expect("write");
        }
        flush(writer);
        sides.settle();
        received.extend(read(reader).expect("read"));
        if received.len() == bytes.len() {
            break;
        }
    }
    received
}

fn content(n: usize) -> Vec<u8> {
    (0..n).map(|at| (at % 251) as u8).collect()
}

#[test]
fn what_is_written_is_sent_by_the_writer_and_opened_by_the_reader() {
    let mut sides = Sides::new();
    let [mut own, mut peers] = sides.open(0);
    // The first record finds its stream by way of the task; the next ones the reader takes itself.
    assert_eq!(pass(&mut sides, &mut own, &mut peers, b"first"), b"first");
    let n_writes = sides.wire.writes(0).len();

    assert!(matches!(
        write(&mut own, &content(50_000)),
        Poll::Ready(Ok(50_000))
    ));
    flush(&mut own);

    assert_eq!(sides.wire.writes(0).len(), n_writes + 1, "in one write");
    assert!(read(&mut peers).expect("read") == content(50_000));
}

#[test]
fn streams_of_both_sides_carry_bytes_both_ways_and_end_one_way_at_a_time() {
    for side in [0, 1] {
        let mut sides = Sides::new();
        let [mut own, mut peers] = sides.open(side);
        let bytes = content(3_000_000);
        assert!(pass(&mut sides, &mut own, &mut peers, &bytes) == bytes);
        assert!(pass(&mut sides, &mut peers, &mut own, &bytes) == bytes);

        assert!(write(&mut own, b"question").is_ready());
        close(&mut own);
        sides.settle();
        assert_eq!(read(&mut peers), Ok(b"question".to_vec()));
        assert!(matches!(write(&mut own, b"more"), Poll::Ready(Err(_))));
        assert_eq!(pass(&mut sides, &mut peers, &mut own, b"answer"), b"answer");
        close(&mut peers);
        sides.settle();
        assert_eq!(read(&mut own), Ok(Vec::new()));
    }
}

#[test]
fn a_reader_that_stands_still_holds_up_its_stream_and_nobody_else() {
    let mut sides = Sides::new();
    let [mut stuck, mut stuck_far] = sides.open(0);
    let [mut own, mut peers] = sides.open(0);
    let mut n_taken = 0;
    for _ in 0..100 {
        if let Poll::Ready(written) = write(&mut stuck, &content(50_000)) {
            n_taken += written.expect("write");
        }
        sides.settle();
    }
    assert_eq!(n_taken, FIRST_WINDOW as usize);

    let bytes = content(2_000_000);
    assert!(pass(&mut sides, &mut own, &mut peers, &bytes) == bytes);

    let mut received = Vec::new();
    for _ in 0..20 {
        received.extend(read(&mut stuck_far).expect("read"));
    }
    assert_eq!(received.len(), n_taken);
    sides.settle();
    assert!(write(&mut stuck, b"goes on").is_ready());
}

#[test]
fn a_reader_that_took_the_last_record_and_looks_no_more_holds_up_nobody() {
    let mut sides = Sides::new();
    let [mut busy, mut busy_far] = sides.open(0);
    let [mut own, mut peers] = sides.open(0);
    assert_eq!(pass(&mut sides, &mut busy, &mut busy_far, b"first"), b"first");
    for _ in 0..2 {
        assert!(write(&mut busy, b"more").is_ready());
        flush(&mut busy);
        assert_eq!(read(&mut busy_far), Ok(b"more".to_vec()));
    }

    assert!(write(&mut own, b"other").is_ready());
    flush(&mut own);
    sides.settle();

    assert_eq!(read(&mut peers), Ok(b"other".to_vec()));
}

#[test]
fn a_reader_that_waits_and_the_task_are_woken_by_what_comes() {
    let mut sides = Sides::new();
    let [mut own, mut peers] = sides.open(0);
    assert_eq!(pass(&mut sides, &mut own, &mut peers, b"first"), b"first");
    let ((n_reader, reader), (n_task, task)) = (counting_waker(), counting_waker());
    let mut part = [0; 100];
    let polled = Pin::new(&mut peers).poll_read(&mut Context::from_waker(&reader), &mut part);
    assert!(polled.is_pending());
    let polled = Pin::new(&mut sides.muxers[1]).poll(&mut Context::from_waker(&task));
    assert!(polled.is_pending());
    let before = [n_reader.load(SeqCst), n_task.load(SeqCst)];

    assert!(write(&mut own, b"second").is_ready());
    flush(&mut own);

    let after = [n_reader.load(SeqCst), n_task.load(SeqCst)];
    assert_eq!(after, [before[0] + 1, before[1] + 1]);
}

#[test]
fn writers_wait_for_the_socket_and_go_on_when_it_takes_more() {
    let mut sides = Sides::new();
    let [mut own, _peers] = sides.open(0);
    sides.wire.set_room(0, Some(0));
    let (n_woken, waker) = counting_waker();
    let mut n_written = 0;
    while let Poll::Ready(written) =
        Pin::new(&mut own).poll_write(&mut Context::from_waker(&waker), &content(10_000))
    {
        n_written += written.expect("write");
    }
    assert!((100_000..200_000).contains(&n_written), "{n_written}");
    assert_eq!(n_woken.load(SeqCst), 0);

    sides.wire.set_room(0, None);
    assert!(sides.poll(0).is_pending());

    assert_eq!(n_woken.load(SeqCst), 1);
    assert!(write(&mut own, b"more").is_ready());
}

#[test]
fn a_stream_that_is_dropped_ends_on_the_other_side_behind_what_was_sent() {
    let mut sides = Sides::new();
    let [mut own, mut peers] = sides.open(0);
    assert!(write(&mut own, b"last").is_ready());
    drop(own);
    sides.settle();

    assert_eq!(read(&mut peers), Ok(b"last".to_vec()));
    let ended = Pin::new(&mut peers).poll_read(&mut Context::from_waker(Waker::noop()), &mut [0; 9]);
    assert!(matches!(ended, Poll::Ready(Ok(0))), "{ended:?}");
    assert!(matches!(write(&mut peers, b"x"), Poll::Ready(Err(_))));
    drop(peers);
    sides.settle();
}

#[test]
fn closing_brings_what_was_written_before() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("runtime");
    let mut sides = Sides::new();
    runtime.block_on(async {
        let [mut own, mut peers] = sides.open(0);
        assert!(write(&mut own, b"last words").is_ready());
        close(&mut own);

        let mut cx = Context::from_waker(Waker::noop());
        assert!(Pin::new(&mut sides.muxers[0]).poll_close(&mut cx).is_ready());
        let ended = sides.poll(1);

        assert!(matches!(ended, Poll::Ready(Err(MuxerError::Closed))), "{ended:?}");
        assert_eq!(read(&mut peers), Ok(b"last words".to_vec()));
        assert!(sides.wire.is_closed(0));
        assert_eq!(sides.counters[1].record_violations.load(Relaxed), 0);
    });
}

#[test]
fn closing_gives_up_on_a_peer_that_takes_nothing() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .start_paused(true)
        .build()
        .expect("runtime");
    let mut sides = Sides::new();
    runtime.block_on(async {
        sides.wire.set_room(0, Some(0));
        let closed = std::future::poll_fn(|cx| Pin::new(&mut sides.muxers[0]).poll_close(cx)).await;
        assert!(matches!(closed, Err(MuxerError::CloseTimeout)), "{closed:?}");
    });
}

#[test]
fn a_connection_that_is_lost_is_lost_for_its_streams_but_for_what_has_come() {
    let mut sides = Sides::new();
    let [mut own, mut peers] = sides.open(0);
    assert!(write(&mut own, b"last").is_ready());
    flush(&mut own);
    sides.settle();

    drop(sides);

    assert_eq!(read(&mut peers), Ok(b"last".to_vec()));
    assert_eq!(read(&mut peers), Err(io::ErrorKind::ConnectionReset));
    assert!(matches!(write(&mut own, b"x"), Poll::Ready(Err(_))));
}

#[test]
fn a_peer_that_breaks_a_rule_loses_the_connection_and_is_counted() {
    type Case = (&'static str, fn(&Sides), Violation);
    let cases: [Case; 8] = [
        ("no trailer", |sides| sides.send_raw(b"abc"), Violation::Trailer),
        (
            "a kind that there is not",
            |sides| sides.send_raw(&[0, 0, 0, 0, 9]),
            Violation::Trailer,
        ),
        (
            "a word of the wrong length",
            |sides| sides.send(0, Kind::Credit, b"123"),
            Violation::Content,
        ),
        (
            "a stream that was never opened",
            |sides| sides.send(2, Kind::Data, b"x"),
            Violation::Number,
        ),
        (
            "a stream of the other side",
            |sides| sides.send(1, Kind::Open, &[]),
            Violation::Number,
        ),
        (
            "more than the window",
            |sides| (0..17).for_each(|_| sides.send(0, Kind::Data, &content(16_000))),
            Violation::Window,
        ),
        (
            "credit without end",
            |sides| (0..2).for_each(|_| sides.send(0, Kind::Credit, &0x3FFF_FFFF_u32.to_le_bytes())),
            Violation::Credit,
        ),
        (
            "something behind the end",
            |sides| (0..2).for_each(|_| sides.send(0, Kind::End, &[])),
            Violation::Over,
        ),
    ];
    for (name, send, violation) in cases {
        let mut sides = Sides::new();
        let [_own, mut peers] = sides.open(0);

        send(&sides);
        assert!(sides.poll(0).is_pending());
        let mut ended = sides.poll(1);
        for _ in 0..10 {
            if ended.is_pending() {
                ended = sides.poll(1);
            }
        }

        let Poll::Ready(Err(MuxerError::Failed(error))) = ended else {
            panic!("{name}: {ended:?}");
        };
        let cause = error.get_ref().and_then(|cause| cause.downcast_ref());
        assert_eq!(cause, Some(&violation), "{name}");
        assert_eq!(sides.counters[1].record_violations.load(Relaxed), 1, "{name}");
        assert!(matches!(write(&mut peers, b"x"), Poll::Ready(Err(_))), "{name}");
        // The other side is told.
        let told = sides.poll(0);
        assert!(
            matches!(told, Poll::Ready(Err(MuxerError::Failed(_)))),
            "{name}: {told:?}"
        );
        assert_eq!(sides.counters[0].record_violations.load(Relaxed), 0, "{name}");
    }
}
