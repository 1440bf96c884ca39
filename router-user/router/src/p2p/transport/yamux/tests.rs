use std::sync::atomic::Ordering::SeqCst;

use futures::{AsyncReadExt, AsyncWriteExt, future::poll_fn};

use super::*;
use crate::p2p::transport::test_wire::{Wire, counting_waker};

#[test]
fn frames_of_one_poll_leave_in_one_write() {
    let wire = Wire::default();
    let mut near = Muxer::new(wire.end(0), Mode::Client, unbounded());
    let (wakes, waker) = counting_waker();
    let mut cx = Context::from_waker(&waker);
    let mut stream = open(&mut near, &mut cx);
    for _ in 0..4 {
        assert!(matches!(
            Pin::new(&mut stream).poll_write(&mut cx, &[7; 1000]),
            Poll::Ready(Ok(1000))
        ));
    }

    assert!(Pin::new(&mut near).poll(&mut cx).is_pending());

    // A ping to measure the round trip, and four frames, each with its header of 12 bytes.
    assert_eq!(wire.writes(0), [12 + 4 * 1012]);
    assert_eq!(wire.flushes(0), 1);
    assert!(wakes.load(SeqCst) <= 1, "only the stream's own wake-up");
}

#[test]
fn more_than_the_buffer_leaves_in_full_writes() {
    let wire = Wire::default();
    let mut near = Muxer::new(wire.end(0), Mode::Client, unbounded());
    let (_, waker) = counting_waker();
    let mut cx = Context::from_waker(&waker);
    let mut stream = open(&mut near, &mut cx);
    let bytes = [1; 16 * 1024];
    let mut n_sent = 0;
    while let Poll::Ready(written) = Pin::new(&mut stream).poll_write(&mut cx, &bytes) {
        n_sent += written.expect("write");
    }
    assert!(n_sent > 64 * 1024);

    assert!(Pin::new(&mut near).poll(&mut cx).is_pending());

    let writes = wire.writes(0);
    let (last, full) = writes.split_last().expect("writes");
    assert!(full.iter().all(|n| *n == 64 * 1024), "{writes:?}");
    assert!(*last > 0 && *last <= 64 * 1024);
}

#[test]
fn blocked_socket_wakes_the_connection_when_it_can_send_again() {
    let wire = Wire::default();
    let mut near = Muxer::new(wire.end(0), Mode::Client, unbounded());
    let (wakes, waker) = counting_waker();
    let mut cx = Context::from_waker(&waker);
    let mut stream = open(&mut near, &mut cx);
    assert!(Pin::new(&mut stream).poll_write(&mut cx, b"held up").is_ready());
    wire.set_room(0, Some(5));

    assert!(Pin::new(&mut near).poll(&mut cx).is_pending());
    assert_eq!(wire.writes(0), [5], "the socket took what it could");
    let before = wakes.load(SeqCst);
    wire.set_room(0, None);
    assert_eq!(
        wakes.load(SeqCst),
        before + 1,
        "the send waits with a waker of its own"
    );

    assert!(Pin::new(&mut near).poll(&mut cx).is_pending());
    assert_eq!(wire.writes(0).iter().sum::<usize>(), 12 + 12 + 7);
}

#[test]
fn blocked_flush_wakes_the_connection_when_it_can_go_on() {
    let wire = Wire::default();
    let mut near = Muxer::new(wire.end(0), Mode::Client, unbounded());
    let (wakes, waker) = counting_waker();
    let mut cx = Context::from_waker(&waker);
    let mut stream = open(&mut near, &mut cx);
    assert!(Pin::new(&mut stream).poll_write(&mut cx, b"held up").is_ready());
    wire.block_flush(0, true);

    assert!(Pin::new(&mut near).poll(&mut cx).is_pending());
    assert_eq!(wire.flushes(0), 0);
    let before = wakes.load(SeqCst);
    wire.block_flush(0, false);
    assert_eq!(wakes.load(SeqCst), before + 1);

    assert!(Pin::new(&mut near).poll(&mut cx).is_pending());
    assert_eq!(wire.flushes(0), 1);
}

#[test]
fn closing_sends_what_was_written_before() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("runtime");
    runtime.block_on(async {
        let wire = Wire::default();
        let mut near = Muxer::new(wire.end(0), Mode::Client, unbounded());
        let mut far = Muxer::new(wire.end(1), Mode::Server, unbounded());
        let mut stream = poll_fn(|cx| Pin::new(&mut near).poll_outbound(cx))
            .await
            .expect("open");
        stream.write_all(b"last words").await.expect("write");

        poll_fn(|cx| Pin::new(&mut near).poll_close(cx))
            .await
            .expect("close");

        let mut inbound = poll_fn(|cx| {
            // It ends, as the other side has closed, but not before the stream is there.
            let _ended = Pin::new(&mut far).poll(cx);
            Pin::new(&mut far).poll_inbound(cx)
        });
        let mut inbound = tokio::time::timeout(CLOSE_TIMEOUT, &mut inbound)
            .await
            .expect("in time")
            .expect("stream");
        let mut received = [0; 10];
        inbound.read_exact(&mut received).await.expect("read");
        assert_eq!(&received, b"last words");
        assert!(wire.is_closed(0));
    });
}

#[test]
fn closing_gives_up_on_a_peer_that_takes_nothing() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("runtime");
    runtime.block_on(async {
        let wire = Wire::default();
        wire.set_room(0, Some(0));
        let mut near = Muxer::new(wire.end(0), Mode::Client, unbounded());
        let mut closing = poll_fn(|cx| Pin::new(&mut near).poll_close(cx));

        tokio::select! {
            biased;
            () = tokio::time::sleep(CLOSE_TIMEOUT / 2) => {}
            closed = &mut closing => panic!("it gave up early: {closed:?}"),
        }
        let closed = closing.await;

        assert!(matches!(closed, Err(MuxerError::CloseTimeout)), "{closed:?}");
    });
}

#[test]
fn end_of_the_socket_ends_the_connection() {
    let wire = Wire::default();
    let mut near = Muxer::new(wire.end(0), Mode::Client, unbounded());
    let (_, waker) = counting_waker();
    let mut cx = Context::from_waker(&waker);
    assert!(Pin::new(&mut near).poll(&mut cx).is_pending());
    let (_, far_waker) = counting_waker();
    assert!(
        Pin::new(&mut wire.end(1))
            .poll_close(&mut Context::from_waker(&far_waker))
            .is_ready()
    );

    let ended = Pin::new(&mut near).poll(&mut cx);

    assert!(
        matches!(
            ended,
            Poll::Ready(Err(MuxerError::Yamux(ConnectionError::Closed)))
        ),
        "{ended:?}"
    );
}

#[test]
fn much_input_is_read_in_portions() {
    let wire = Wire::default();
    let mut near = Muxer::new(wire.end(0), Mode::Client, unbounded());
    let (wakes, waker) = counting_waker();
    let mut cx = Context::from_waker(&waker);
    assert!(Pin::new(&mut near).poll(&mut cx).is_pending());
    // Pings of the far side, which yamux answers one by one: 12 bytes each.
    let ping = [0, 2, 0, 1, 0, 0, 0, 0, 0, 0, 0, 9];
    let input: Vec<u8> = ping.into_iter().cycle().take(12 * 40_000).collect();
    wire.push(0, &input);
    let before = wakes.load(SeqCst);

    assert!(Pin::new(&mut near).poll(&mut cx).is_pending());

    let left = wire.waiting(0);
    assert!(left > 0 && left < input.len(), "{left}");
    assert!(wakes.load(SeqCst) > before, "it asks to go on");
    for _ in 0..input.len().div_ceil(input.len() - left) {
        assert!(Pin::new(&mut near).poll(&mut cx).is_pending());
    }
    assert_eq!(wire.waiting(0), 0);
}

fn open<C: AsyncRead + AsyncWrite + Unpin>(muxer: &mut Muxer<C>, cx: &mut Context<'_>) -> Substream {
    match Pin::new(muxer).poll_outbound(cx) {
        Poll::Ready(Ok(stream)) => stream,
        other => panic!("{other:?}"),
    }
}

/// The backlog of a fast socket.
fn unbounded() -> Arc<Backlog> {
    Arc::new(Backlog::unbounded())
}
