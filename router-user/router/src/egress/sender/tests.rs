use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Instant;

use tokio::task::JoinHandle;

use super::*;
use crate::egress::lanes::PeerLanes;
use stream_router_engine::batch::Batch;
use stream_router_engine::flow_class::{BucketIndex, FlowClass};
use stream_router_engine::queue::QueueLimits;

const LIMITS: QueueLimits = QueueLimits {
    pressure_at: 512 * 1024,
    relief_at: 256 * 1024,
    full_at: usize::MAX,
    aqm: false,
};

/// What the tests see and steer of a source and its streams.
#[derive(Default)]
struct Shared {
    /// When each stream was asked for, since the start.
    opened: Mutex<Vec<Duration>>,
    n_closed: AtomicU64,
    written: Mutex<Vec<u8>>,
    n_frames_written: AtomicU64,
    n_lost: AtomicU64,
    n_failed: AtomicU64,
    n_failed_finishing: AtomicU64,
    refuses_to_open: AtomicBool,
    fails_to_write: AtomicBool,
    stalls: AtomicBool,
    keeps_order: AtomicBool,
}

struct FakeSource {
    shared: Arc<Shared>,
    start: tokio::time::Instant,
}

struct FakeStream(Arc<Shared>);

impl AsyncWrite for FakeStream {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if self.0.stalls.load(Relaxed) {
            return Poll::Pending;
        }
        if self.0.fails_to_write.load(Relaxed) {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        self.0.written.lock().unwrap().extend_from_slice(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

impl StreamSource for FakeSource {
    type Stream = FakeStream;
    type Error = io::Error;

    async fn open(&self, _: LaneStream) -> io::Result<FakeStream> {
        self.shared.opened.lock().unwrap().push(self.start.elapsed());
        match self.shared.refuses_to_open.load(Relaxed) {
            true => Err(io::ErrorKind::ConnectionRefused.into()),
            false => Ok(FakeStream(self.shared.clone())),
        }
    }

    fn keeps_order(&self, _: &FakeStream) -> bool {
        self.shared.keeps_order.load(Relaxed)
    }

    async fn close(&self, _: FakeStream) -> io::Result<()> {
        self.shared.n_closed.fetch_add(1, Relaxed);
        Ok(())
    }

    fn handle_written(&self, n_frames: u64, _: u64) {
        self.shared.n_frames_written.fetch_add(n_frames, Relaxed);
    }

    fn handle_lost(&self, n_frames: u64) {
        self.shared.n_lost.fetch_add(n_frames, Relaxed);
    }

    fn handle_aqm(&self, _: AqmActions) {}

    fn handle_failed(&self, finishing: bool) {
        self.shared.n_failed.fetch_add(1, Relaxed);
        self.shared
            .n_failed_finishing
            .fetch_add(finishing.into(), Relaxed);
    }
}

/// A sender that runs beside the test.
struct Running {
    lanes: Arc<PeerLanes>,
    shared: Arc<Shared>,
    control: SenderControl,
    task: JoinHandle<()>,
}

impl Running {
    fn start(prepare: impl FnOnce(&Shared)) -> Self {
        let (lanes, shared) = (
            Arc::new(PeerLanes::new(1, 1, LIMITS, Box::new(|_| ()))),
            Arc::<Shared>::default(),
        );
        prepare(&shared);
        let control = SenderControl::default();
        let source = FakeSource {
            shared: shared.clone(),
            start: tokio::time::Instant::now(),
        };
        let task = {
            let (lanes, control) = (lanes.clone(), control.clone());
            tokio::spawn(async move { run(&lanes.all()[0], &source, &control).await })
        };
        Self {
            lanes,
            shared,
            control,
            task,
        }
    }

    fn lane(&self) -> &Lane {
        &self.lanes.all()[0]
    }

    fn push(&self, frames: &[&[u8]]) {
        let mut batch = Batch::default();
        for frame in frames {
            let class = self
                .lane()
                .outbox
                .classify(BucketIndex::of(1), frame.len(), true, 0);
            assert_eq!(class, FlowClass::Sparse);
            batch.push_sparse(frame);
        }
        assert_eq!(
            self.lane()
                .outbox
                .push(&mut batch, FlowClass::Sparse, Instant::now()),
            0
        );
    }

    /// Lets the sender run until it waits for something, timers too.
    async fn settle(&self) {
        tokio::time::sleep(Duration::from_micros(1)).await;
    }

    fn n_opened(&self) -> usize {
        self.shared.opened.lock().unwrap().len()
    }
}

#[tokio::test(start_paused = true)]
async fn a_stream_is_opened_only_when_something_waits() {
    let sender = Running::start(|_| ());
    sender.settle().await;
    assert_eq!(sender.n_opened(), 0);

    sender.push(&[b"one", b"two"]);
    sender.settle().await;

    assert_eq!(sender.n_opened(), 1);
    assert_eq!(*sender.shared.written.lock().unwrap(), b"onetwo");
    assert_eq!(sender.shared.n_frames_written.load(Relaxed), 2);
    assert!(sender.lane().open.load(Relaxed));
}

#[tokio::test(start_paused = true)]
async fn a_lane_that_is_to_close_closes_its_stream_and_opens_another_for_the_next_frame() {
    let sender = Running::start(|_| ());
    sender.push(&[b"one"]);
    sender.settle().await;

    sender.lane().close.notify_one();
    sender.settle().await;
    assert_eq!(sender.shared.n_closed.load(Relaxed), 1);
    assert!(!sender.lane().open.load(Relaxed));

    sender.push(&[b"two"]);
    sender.settle().await;
    assert_eq!(sender.n_opened(), 2);
    assert_eq!(*sender.shared.written.lock().unwrap(), b"onetwo");
}

#[tokio::test(start_paused = true)]
async fn the_wait_before_another_try_grows_to_a_second_and_starts_over_after_a_success() {
    let sender = Running::start(|shared| shared.refuses_to_open.store(true, Relaxed));
    sender.push(&[b"one"]);
    tokio::time::sleep(Duration::from_millis(4000)).await;
    let ms = |tries: &[Duration]| tries.iter().map(Duration::as_millis).collect::<Vec<_>>();
    let tries = ms(&sender.shared.opened.lock().unwrap());
    let waits: Vec<_> = tries.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert!(waits.starts_with(&[50, 100, 200, 400, 800, 1000]), "{waits:?}");
    assert_eq!(
        sender.shared.n_lost.load(Relaxed),
        0,
        "what was not handed to a stream waits on"
    );

    sender.shared.refuses_to_open.store(false, Relaxed);
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(*sender.shared.written.lock().unwrap(), b"one");
    sender.shared.opened.lock().unwrap().clear();
    sender.shared.fails_to_write.store(true, Relaxed);
    sender.push(&[b"two"]);
    sender.settle().await;
    sender.push(&[b"three"]);
    tokio::time::sleep(Duration::from_millis(60)).await;
    assert_eq!(sender.n_opened(), 1, "50 ms after the open stream failed");
}

#[tokio::test(start_paused = true)]
async fn frames_of_a_stream_that_fails_are_lost_and_counted() {
    let sender = Running::start(|shared| shared.fails_to_write.store(true, Relaxed));
    sender.push(&[b"one", b"two"]);
    sender.settle().await;
    assert_eq!(sender.shared.n_lost.load(Relaxed), 2);
    assert_eq!(sender.shared.n_failed.load(Relaxed), 1);
    assert_eq!(sender.shared.n_failed_finishing.load(Relaxed), 0);
}

#[tokio::test(start_paused = true)]
async fn frames_in_flight_when_the_task_is_dropped_are_lost_and_counted() {
    let sender = Running::start(|shared| shared.stalls.store(true, Relaxed));
    sender.push(&[b"one", b"two", b"three"]);
    sender.settle().await;
    assert_eq!(sender.shared.n_lost.load(Relaxed), 0);

    sender.task.abort();
    sender.settle().await;

    assert_eq!(sender.shared.n_lost.load(Relaxed), 3);
    assert!(!sender.lane().open.load(Relaxed));
}

#[tokio::test(start_paused = true)]
async fn a_sender_leaves_only_while_it_has_no_stream() {
    let sender = Running::start(|_| ());
    sender.push(&[b"one"]);
    sender.settle().await;

    sender.control.leave.cancel();
    sender.push(&[b"two"]);
    sender.settle().await;
    assert!(!sender.task.is_finished());
    assert_eq!(*sender.shared.written.lock().unwrap(), b"onetwo");

    sender.lane().close.notify_one();
    sender.settle().await;
    assert!(sender.task.is_finished());
    assert_eq!(sender.shared.n_closed.load(Relaxed), 1);
}

#[tokio::test(start_paused = true)]
async fn a_sender_in_a_hurry_leaves_between_two_batches_where_the_peer_keeps_the_order() {
    for keeps_order in [true, false] {
        let sender = Running::start(|shared| shared.keeps_order.store(keeps_order, Relaxed));
        sender.push(&[b"one"]);
        sender.settle().await;

        sender.control.leave.cancel();
        sender.control.hurry.cancel();
        sender.push(&[b"two"]);
        sender.settle().await;

        assert_eq!(sender.task.is_finished(), keeps_order);
        let written = sender.shared.written.lock().unwrap().clone();
        if keeps_order {
            assert_eq!(sender.shared.n_closed.load(Relaxed), 1);
            assert_eq!(sender.shared.n_lost.load(Relaxed), 0);
            // What was not written is left to the next sender.
            assert_eq!(written == b"one", !sender.lane().outbox.is_empty());
            // The stream before it was closed in order.
            assert!(!sender.lane().next_stream().after_loss);
        } else {
            assert_eq!(written, b"onetwo");
            sender.task.abort();
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_sender_that_finishes_writes_what_waits_and_closes_its_stream() {
    let sender = Running::start(|_| ());
    sender.push(&[b"one"]);
    sender.settle().await;

    sender.push(&[b"two"]);
    sender.control.finish.cancel();
    sender.settle().await;

    assert!(sender.task.is_finished());
    assert_eq!(*sender.shared.written.lock().unwrap(), b"onetwo");
    assert_eq!(sender.shared.n_closed.load(Relaxed), 1);
}

#[tokio::test(start_paused = true)]
async fn a_sender_that_finishes_and_cannot_write_says_so() {
    let sender = Running::start(|shared| shared.fails_to_write.store(true, Relaxed));
    sender.control.finish.cancel();
    sender.push(&[b"one"]);
    tokio::time::sleep(Duration::from_secs(1)).await;

    assert!(sender.task.is_finished());
    assert_eq!(sender.shared.n_failed_finishing.load(Relaxed), 1);
    assert_eq!(sender.shared.n_lost.load(Relaxed), 1);
}
