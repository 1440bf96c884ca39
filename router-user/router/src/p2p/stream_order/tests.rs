use std::task::Waker;

use libp2p::PeerId;
use proptest::prelude::*;
use tokio::time::advance;

use super::*;
use crate::p2p::{
    state::tests::{connected_since, n_doubted},
    uplink::Uplinks,
};

const LANE: LaneId = LaneId { set: 7, index: 3 };
const RUN: u64 = 70;

fn order() -> Arc<StreamOrder> {
    let network = NetworkState::new(PeerId::random(), [], Uplinks::default());
    Arc::new(StreamOrder::new(PeerId::random(), Arc::new(network)))
}

fn n_cut(order: &StreamOrder) -> u64 {
    order.network.counters.lane_streams_cut.load(Relaxed)
}

/// A stream that was opened after the one before was closed.
fn closed_before(number: u64) -> Preamble {
    preamble(RUN, LANE, number, false)
}

/// A stream that was opened after the one before was lost.
fn lost_before(number: u64) -> Preamble {
    preamble(RUN, LANE, number, true)
}

fn of_run(run: u64, number: u64) -> Preamble {
    preamble(run, LANE, number, false)
}

fn preamble(run: u64, lane: LaneId, number: u64, after_loss: bool) -> Preamble {
    let stream = LaneStream {
        lane,
        number,
        after_loss,
    };
    Preamble { run, stream }
}

/// What a reader finds that asks for its turn.
#[derive(Debug, PartialEq, Eq)]
enum Found {
    Wait,
    Turn,
    Cut,
}

fn ask(place: &mut StreamPlace) -> Found {
    match place.poll_turn(&mut Context::from_waker(Waker::noop())) {
        Poll::Pending => Found::Wait,
        Poll::Ready(Ok(())) => Found::Turn,
        Poll::Ready(Err(error)) => {
            assert_eq!(error.kind(), io::ErrorKind::ConnectionAborted);
            Found::Cut
        }
    }
}

/// Tells a place what came of reading its stream.
fn read(place: &mut StreamPlace, outcome: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
    place.handle_read(outcome, &mut Context::from_waker(Waker::noop()))
}

fn read_bytes(place: &mut StreamPlace) {
    assert_eq!(ask(place), Found::Turn);
    assert!(matches!(read(place, Poll::Ready(Ok(100))), Poll::Ready(Ok(100))));
}

fn read_to_end(place: &mut StreamPlace) {
    assert_eq!(ask(place), Found::Turn);
    assert!(matches!(read(place, Poll::Ready(Ok(0))), Poll::Ready(Ok(0))));
}

#[tokio::test(start_paused = true)]
async fn a_stream_is_read_once_the_one_before_was_read_to_its_end() {
    let order = order();
    let mut first = order.place(closed_before(1)).unwrap();
    let mut second = order.place(lost_before(2)).unwrap();
    assert_eq!(ask(&mut second), Found::Wait);

    read_bytes(&mut first);
    assert_eq!(ask(&mut second), Found::Wait);
    read_to_end(&mut first);

    assert_eq!(ask(&mut second), Found::Turn);
    // What ended is over; asking it again gives nobody another turn.
    assert_eq!(ask(&mut first), Found::Turn);
    assert_eq!(n_cut(&order), 0);
}

#[tokio::test(start_paused = true)]
async fn a_stream_is_read_once_the_one_before_has_failed_or_was_dropped() {
    let order = order();
    let mut first = order.place(closed_before(1)).unwrap();
    let mut second = order.place(lost_before(2)).unwrap();
    let mut third = order.place(lost_before(3)).unwrap();

    let failed = read(
        &mut first,
        Poll::Ready(Err(io::ErrorKind::ConnectionReset.into())),
    );

    assert!(matches!(failed, Poll::Ready(Err(_))));
    assert_eq!((ask(&mut second), ask(&mut third)), (Found::Turn, Found::Wait));
    drop(second);
    assert_eq!(ask(&mut third), Found::Turn);
}

#[tokio::test(start_paused = true)]
async fn connections_are_doubted_once_a_second_while_a_stream_waits() {
    let peer = PeerId::random();
    let network = Arc::new(NetworkState::new(PeerId::random(), [peer], Uplinks::default()));
    let connections = connected_since(&network, peer, &[QUIET, QUIET]);
    let order = Arc::new(StreamOrder::new(peer, Arc::clone(&network)));
    let n_doubted = || n_doubted(&network, &connections);

    let mut first = order.place(closed_before(1)).unwrap();
    read_bytes(&mut first);
    let mut second = order.place(closed_before(2)).unwrap();
    assert_eq!((ask(&mut second), n_doubted()), (Found::Wait, 0));
    advance(QUIET).await;
    assert_eq!((ask(&mut second), n_doubted()), (Found::Wait, 2), "it comes late");

    let third = order.place(lost_before(3)).unwrap();
    assert_eq!(n_doubted(), 0, "that was just now");
    advance(DOUBT_INTERVAL).await;
    let _fourth = order.place(lost_before(4)).unwrap();
    assert_eq!(n_doubted(), 2);

    drop((first, third));
    read_to_end(&mut second);
    advance(DOUBT_INTERVAL).await;
    order
        .place(preamble(RUN, LaneId { set: 8, index: 0 }, 1, true))
        .unwrap();
    assert_eq!(n_doubted(), 0, "it waits for none");
}

#[tokio::test(start_paused = true)]
async fn a_reader_that_waits_is_woken_when_its_turn_comes() {
    let order = order();
    let first = order.place(closed_before(1)).unwrap();
    let mut second = order.place(lost_before(2)).unwrap();
    let turn = tokio::spawn(async move { std::future::poll_fn(|cx| second.poll_turn(cx)).await });
    tokio::task::yield_now().await;

    drop(first);

    turn.await.unwrap().unwrap();
    assert_eq!(n_cut(&order), 0);
}

#[tokio::test(start_paused = true)]
async fn streams_of_different_lanes_do_not_wait_for_each_other() {
    let order = order();
    let lanes = [(7, 0), (7, 1), (8, 0)].map(|(set, index)| LaneId { set, index });
    let mut places = lanes.map(|lane| order.place(preamble(RUN, lane, 1, false)).unwrap());

    for place in &mut places {
        assert_eq!(ask(place), Found::Turn);
    }
}

#[tokio::test(start_paused = true)]
async fn streams_that_are_found_in_the_wrong_order_are_read_in_the_right_one() {
    let order = order();
    let mut first = order.place(closed_before(1)).unwrap();
    let mut third = order.place(lost_before(3)).unwrap();
    let mut second = order.place(lost_before(2)).unwrap();

    read_to_end(&mut first);
    assert_eq!((ask(&mut second), ask(&mut third)), (Found::Turn, Found::Wait));
    read_to_end(&mut second);

    assert_eq!(ask(&mut third), Found::Turn);
}

#[tokio::test(start_paused = true)]
async fn a_lost_stream_is_cut_when_nothing_comes_on_it() {
    let order = order();
    let mut first = order.place(closed_before(1)).unwrap();
    let mut second = order.place(lost_before(2)).unwrap();
    assert_eq!(ask(&mut second), Found::Wait);
    // Something comes at every look but the last.
    for _ in 0..10 {
        read_bytes(&mut first);
        advance(QUIET).await;
        assert_eq!(ask(&mut second), Found::Wait);
    }
    assert_eq!(n_cut(&order), 0);

    advance(QUIET).await;

    assert_eq!(
        ask(&mut second),
        Found::Wait,
        "the reader of the first may still deal with bytes"
    );
    assert_eq!(n_cut(&order), 1);
    assert_eq!(ask(&mut first), Found::Cut);
    assert_eq!(ask(&mut second), Found::Turn);
    assert_eq!(ask(&mut first), Found::Cut, "for good");
}

#[tokio::test(start_paused = true)]
async fn a_reader_that_finds_nothing_is_woken_when_its_stream_is_cut() {
    let order = order();
    let mut first = order.place(closed_before(1)).unwrap();
    let mut second = order.place(lost_before(2)).unwrap();
    let cut = tokio::spawn(async move {
        std::future::poll_fn(|cx| {
            ready!(first.poll_turn(cx))?;
            first.handle_read(Poll::Pending, cx)
        })
        .await
    });

    std::future::poll_fn(|cx| second.poll_turn(cx)).await.unwrap();

    assert_eq!(
        cut.await.unwrap().unwrap_err().kind(),
        io::ErrorKind::ConnectionAborted
    );
    assert_eq!(n_cut(&order), 1);
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_was_closed_is_waited_for_though_nothing_comes() {
    let order = order();
    let mut first = order.place(closed_before(1)).unwrap();
    let mut second = order.place(closed_before(2)).unwrap();
    assert_eq!(ask(&mut second), Found::Wait);

    while second.since.elapsed() + QUIET < MAX_WAIT {
        advance(QUIET).await;
        assert_eq!(ask(&mut second), Found::Wait);
        assert_eq!(ask(&mut first), Found::Turn);
    }
    assert_eq!(n_cut(&order), 0);
    advance(QUIET).await;
    assert_eq!(ask(&mut second), Found::Wait);

    assert_eq!(n_cut(&order), 1);
    assert_eq!(ask(&mut first), Found::Cut);
    assert_eq!(ask(&mut second), Found::Turn);
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_never_ends_is_cut_though_bytes_keep_coming() {
    let order = order();
    let mut first = order.place(closed_before(1)).unwrap();
    let mut second = order.place(lost_before(2)).unwrap();
    while n_cut(&order) == 0 {
        read_bytes(&mut first);
        assert_eq!(ask(&mut second), Found::Wait);
        advance(QUIET).await;
        assert!(second.since.elapsed() <= MAX_WAIT + QUIET);
        let _ = ask(&mut second);
    }

    assert_eq!(ask(&mut first), Found::Cut);
    assert_eq!(ask(&mut second), Found::Turn);
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_waits_itself_is_cut_with_those_before_it() {
    let order = order();
    let mut first = order.place(closed_before(1)).unwrap();
    let mut second = order.place(closed_before(2)).unwrap();
    let mut third = order.place(closed_before(3)).unwrap();
    assert_eq!(ask(&mut third), Found::Wait);

    advance(MAX_WAIT).await;
    assert_eq!(ask(&mut third), Found::Wait);

    assert_eq!(n_cut(&order), 2);
    assert_eq!(ask(&mut second), Found::Cut);
    assert_eq!(ask(&mut third), Found::Wait, "the first is not back");
    assert_eq!(ask(&mut first), Found::Cut);
    assert_eq!(ask(&mut third), Found::Wait, "the second was never seen to end");
    advance(QUIET).await;
    assert_eq!(ask(&mut third), Found::Turn);
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_was_closed_and_has_not_come_is_waited_for() {
    let order = order();
    let mut first = order.place(closed_before(1)).unwrap();
    read_to_end(&mut first);
    let mut third = order.place(closed_before(3)).unwrap();
    assert_eq!(ask(&mut third), Found::Wait);

    let mut second = order.place(closed_before(2)).unwrap();

    assert_eq!((ask(&mut second), ask(&mut third)), (Found::Turn, Found::Wait));
    read_to_end(&mut second);
    assert_eq!(ask(&mut third), Found::Turn);
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_was_closed_and_never_comes_is_waited_for_so_long() {
    let order = order();
    let mut first = order.place(closed_before(1)).unwrap();
    read_to_end(&mut first);
    let mut third = order.place(closed_before(3)).unwrap();
    assert_eq!(ask(&mut third), Found::Wait);
    advance(UNSEEN_WAIT - QUIET).await;
    assert_eq!(ask(&mut third), Found::Wait);

    advance(QUIET).await;

    assert_eq!(ask(&mut third), Found::Turn);
    assert_eq!(order.place(closed_before(2)).unwrap_err(), OutOfOrder);
    assert_eq!(n_cut(&order), 0);
}

#[tokio::test(start_paused = true)]
async fn a_number_that_is_taken_or_passed_is_refused() {
    let order = order();
    let mut first = order.place(closed_before(5)).unwrap();
    let _waiting = order.place(lost_before(9)).unwrap();
    for taken in [5, 9] {
        assert_eq!(order.place(lost_before(taken)).unwrap_err(), OutOfOrder);
    }
    for passed in [1, 4] {
        assert_eq!(order.place(closed_before(passed)).unwrap_err(), OutOfOrder);
    }

    read_to_end(&mut first);

    for passed in [5, 7, 9] {
        assert_eq!(order.place(lost_before(passed)).unwrap_err(), OutOfOrder);
    }
    order.place(lost_before(10)).unwrap();
}

#[tokio::test(start_paused = true)]
async fn the_highest_number_of_all_ends_a_lane_and_nothing_else() {
    let order = order();
    let mut last = order.place(lost_before(u64::MAX)).unwrap();
    read_to_end(&mut last);

    assert_eq!(order.place(lost_before(1)).unwrap_err(), OutOfOrder);
    order.place(of_run(8, 1)).unwrap();
}

#[tokio::test(start_paused = true)]
async fn the_first_streams_of_another_run_wait_for_all_of_the_run_before() {
    let order = order();
    let other_lane = LaneId { index: 4, ..LANE };
    let mut old = [LANE, other_lane].map(|lane| order.place(preamble(1, lane, 1, false)).unwrap());
    let mut new = [LANE, other_lane].map(|lane| order.place(preamble(2, lane, 1, false)).unwrap());
    assert_eq!(new.each_mut().map(ask), [Found::Wait, Found::Wait]);

    read_to_end(&mut old[0]);
    assert_eq!(new.each_mut().map(ask), [Found::Wait, Found::Wait]);
    read_to_end(&mut old[1]);

    assert_eq!(new.each_mut().map(ask), [Found::Turn, Found::Turn]);
    assert_eq!(n_cut(&order), 0);
}

#[tokio::test(start_paused = true)]
async fn streams_of_a_run_that_is_over_are_cut_when_nothing_comes_on_them() {
    let order = order();
    let other_lane = LaneId { index: 4, ..LANE };
    let mut reading = order.place(of_run(1, 1)).unwrap();
    let mut waiting = order.place(of_run(1, 2)).unwrap();
    assert_eq!(ask(&mut waiting), Found::Wait);
    let mut new = [LANE, other_lane].map(|lane| order.place(preamble(2, lane, 1, false)).unwrap());
    assert_eq!(new.each_mut().map(ask), [Found::Wait, Found::Wait]);
    for _ in 0..3 {
        read_bytes(&mut reading);
        advance(QUIET).await;
        assert_eq!(new.each_mut().map(ask), [Found::Wait, Found::Wait]);
    }
    assert_eq!(n_cut(&order), 0);

    for _ in 0..2 {
        advance(QUIET).await;
        assert_eq!(new.each_mut().map(ask), [Found::Wait, Found::Wait]);
    }

    assert_eq!(n_cut(&order), 2);
    assert_eq!(ask(&mut waiting), Found::Cut);
    assert_eq!(
        new.each_mut().map(ask),
        [Found::Wait, Found::Wait],
        "a reader may still have bytes"
    );
    assert_eq!(ask(&mut reading), Found::Cut);
    assert_eq!(new.each_mut().map(ask), [Found::Turn, Found::Turn]);
}

#[tokio::test(start_paused = true)]
async fn a_run_that_never_ends_is_cut() {
    let order = order();
    let mut old = order.place(of_run(1, 1)).unwrap();
    let mut new = order.place(of_run(2, 1)).unwrap();
    while n_cut(&order) == 0 {
        read_bytes(&mut old);
        assert_eq!(ask(&mut new), Found::Wait);
        advance(QUIET).await;
        assert!(new.since.elapsed() <= MAX_WAIT + QUIET);
        let _ = ask(&mut new);
    }

    assert_eq!(ask(&mut old), Found::Cut);
    assert_eq!(ask(&mut new), Found::Turn);
}

#[tokio::test(start_paused = true)]
async fn a_run_that_is_over_comes_back_only_when_the_present_one_has_no_streams() {
    let order = order();
    let mut old = order.place(of_run(1, 1)).unwrap();
    read_to_end(&mut old);
    let mut new = order.place(of_run(2, 1)).unwrap();
    assert_eq!(ask(&mut new), Found::Turn);
    assert_eq!(order.place(of_run(1, 2)).unwrap_err(), OutOfOrder);

    read_to_end(&mut new);

    let mut back = order.place(of_run(1, 2)).unwrap();
    assert_eq!(ask(&mut back), Found::Turn);
    // Its lane is what it was.
    assert_eq!(order.place(of_run(1, 1)).unwrap_err(), OutOfOrder);
}

#[tokio::test(start_paused = true)]
async fn runs_are_bounded_and_those_without_streams_make_room() {
    let order = order();
    let mut places: Vec<_> = (0..MAX_RUNS as u64)
        .map(|run| order.place(of_run(run, 1)).unwrap())
        .collect();
    assert_eq!(order.place(of_run(100, 1)).unwrap_err(), OutOfOrder);

    drop(places.remove(3));

    order.place(of_run(100, 1)).unwrap();
    assert_eq!(order.runs().0.len(), MAX_RUNS);
}

#[tokio::test(start_paused = true)]
async fn lanes_are_bounded_and_those_without_streams_make_room() {
    let order = order();
    let lane = |set| LaneId { set, index: 0 };
    let mut places: Vec<_> = (0..MAX_LANES as u64)
        .map(|set| order.place(preamble(RUN, lane(set), 1, false)).unwrap())
        .collect();
    let another = preamble(RUN, lane(1 << 40), 1, false);
    assert_eq!(order.place(another).unwrap_err(), OutOfOrder);

    drop(places.remove(3));

    order.place(another).unwrap();
    assert_eq!(order.runs().0[0].lanes.len(), MAX_LANES);
}

/// A step of a peer that keeps to nothing, and of its readers here.
#[derive(Clone, Copy, Debug)]
enum Step {
    Open { run: u64, number: u64, after_loss: bool },
    Ask(usize),
    Read(usize),
    End(usize),
    Drop(usize),
    Advance(u64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (1..3_u64, 1..12_u64, any::<bool>()).prop_map(|(run, number, after_loss)| Step::Open {
            run,
            number,
            after_loss
        }),
        (0..8_usize).prop_map(Step::Ask),
        (0..8_usize).prop_map(Step::Read),
        (0..8_usize).prop_map(Step::End),
        (0..8_usize).prop_map(Step::Drop),
        (50..2000_u64).prop_map(Step::Advance),
    ]
}

proptest! {
    #[test]
    fn whatever_a_peer_does_one_stream_is_read_at_a_time_and_none_after_a_later_one(
        steps in prop::collection::vec(step(), 0..80)
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap();
        runtime.block_on(async {
            let order = order();
            // Each with whether its reader holds bytes.
            let mut places: Vec<(StreamPlace, bool)> = Vec::new();
            let mut highest = [0; 3];
            for step in steps {
                match step {
                    Step::Open { run, number, after_loss } => {
                        let placed = order.place(preamble(run, LANE, number, after_loss));
                        places.extend(placed.ok().map(|place| (place, false)));
                    }
                    Step::Ask(at) | Step::Read(at) | Step::End(at) => {
                        let Some((place, holds)) = places.get_mut(at) else { continue };
                        // A reader that is back has dealt with what it had.
                        *holds = false;
                        let number = place.preamble.stream.number;
                        let highest = &mut highest[place.preamble.run as usize];
                        if ask(place) != Found::Turn {
                            continue;
                        }
                        match step {
                            Step::Read(_) => {
                                read_bytes(place);
                                *holds = true;
                                assert!(number >= *highest, "{number} is read after {highest}");
                                *highest = number;
                            }
                            Step::End(_) => {
                                read_to_end(place);
                                places.remove(at);
                            }
                            _ => {}
                        }
                    }
                    Step::Drop(at) if at < places.len() => drop(places.remove(at)),
                    Step::Drop(_) => {}
                    Step::Advance(ms) => advance(Duration::from_millis(ms)).await,
                }
                assert!(places.iter().filter(|(_, holds)| *holds).count() <= 1);
            }
            // Nobody waits for ever.
            while !places.is_empty() {
                let before = Instant::now();
                while before.elapsed() <= 2 * MAX_WAIT {
                    places.retain_mut(|(place, _)| match ask(place) {
                        Found::Turn => {
                            read_to_end(place);
                            false
                        }
                        found => found == Found::Wait,
                    });
                    advance(QUIET).await;
                }
                assert!(places.is_empty(), "{places:?} wait");
            }
        });
    }
}
