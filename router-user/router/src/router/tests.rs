//! The queue before a worker. Its model for every order of memory is `tests/queue_model.rs`.

use std::thread;

use proptest::prelude::*;

use super::queue::{PacketQueue, Refused, Tag};

const TAG: Tag = Tag {
    flow_hash: 0x1234_5678,
    peer: 7,
};

fn drain(queue: &PacketQueue, n_most: u32) -> Vec<(Tag, Vec<u8>)> {
    let mut packets = Vec::new();
    let mut buffer = vec![0; 16];
    queue.drain(n_most, &mut buffer, 16, |tag, frame| {
        packets.push((tag, frame[16..].to_vec()));
    });
    packets
}

#[test]
fn full_by_number_and_by_bytes_are_told_and_leave_what_waits() {
    let by_number = PacketQueue::new(3, 1024);
    let by_bytes = PacketQueue::new(100, 1024);

    let taken = |queue: &PacketQueue, len| {
        (0..100)
            .take_while(|_| queue.push(TAG, &vec![0; len]).is_ok())
            .count()
    };

    assert_eq!((taken(&by_number, 20), taken(&by_bytes, 248)), (3, 4));
    assert_eq!(by_number.push(TAG, &[1]), Err(Refused::Full));
    assert_eq!(
        (drain(&by_number, 100).len(), drain(&by_bytes, 100).len()),
        (3, 4)
    );
    assert_eq!(by_number.push(TAG, &[1]), Ok(()));
}

#[test]
fn a_closed_queue_refuses_and_ends_once_it_is_empty() {
    let queue = PacketQueue::new(10, 1024);
    queue.push(TAG, b"one").unwrap();

    queue.close();

    assert_eq!(queue.push(TAG, b"two"), Err(Refused::Closed));
    assert!(!queue.has_ended());
    assert_eq!(drain(&queue, 10), [(TAG, b"one".to_vec())]);
    assert!(queue.has_ended());
    queue.open();
    assert!(!queue.has_ended() && queue.push(TAG, b"two").is_ok());
}

#[test]
fn only_one_of_those_that_push_wakes_a_sleeper() {
    let queue = PacketQueue::new(10, 1024);
    assert!(queue.prepare_sleep());
    queue.push(TAG, b"one").unwrap();

    assert!(queue.must_wake());
    assert!(!queue.must_wake());
    assert!(!queue.prepare_sleep(), "there is a packet");
    assert!(!queue.must_wake());
}

#[test]
fn four_threads_packets_come_out_whole_once_and_in_each_threads_order() {
    const N: u32 = 20_000;
    let queue = PacketQueue::new(64, 4096);
    let mut next = [0; 4];
    thread::scope(|scope| {
        for peer in 0..4_u32 {
            let queue = &queue;
            scope.spawn(move || {
                for number in 0..N {
                    let packet = vec![number as u8; 20 + (number % 50) as usize];
                    let tag = Tag {
                        flow_hash: number,
                        peer,
                    };
                    while queue.push(tag, &packet) == Err(Refused::Full) {
                        thread::yield_now();
                    }
                }
            });
        }
        while next.iter().sum::<u32>() < 4 * N {
            for (tag, packet) in drain(&queue, 100) {
                let expected = &mut next[tag.peer as usize];
                assert_eq!(tag.flow_hash, *expected);
                assert_eq!(packet, vec![*expected as u8; 20 + (*expected % 50) as usize]);
                *expected += 1;
            }
            thread::yield_now();
        }
    });
    assert!(drain(&queue, 1).is_empty());
}

proptest! {
    #[test]
    fn behaves_as_a_bounded_queue_of_packets(
        steps in prop::collection::vec(prop_oneof![(0..600_usize).prop_map(Ok), (0..5_u32).prop_map(Err)], 1..300),
    ) {
        let queue = PacketQueue::new(6, 2048);
        let mut model = std::collections::VecDeque::new();
        for (number, step) in (0_u32..).zip(steps) {
            match step {
                Ok(len) => {
                    let n_bytes = |len: usize| 8 + len.next_multiple_of(8);
                    let fits = model.iter().map(|(_, packet): &(Tag, Vec<u8>)| n_bytes(packet.len())).sum::<usize>() + n_bytes(len) <= 2048;
                    let packet = vec![number as u8; len];
                    let tag = Tag { flow_hash: number, peer: !number };
                    let pushed = queue.push(tag, &packet);
                    prop_assert_eq!(pushed.is_ok(), fits && model.len() < 6);
                    if pushed.is_ok() {
                        model.push_back((tag, packet));
                    }
                }
                Err(n_most) => {
                    let n = (n_most as usize).min(model.len());
                    let expected: Vec<_> = model.drain(..n).collect();
                    prop_assert_eq!(drain(&queue, n_most), expected);
                }
            }
            prop_assert_eq!(queue.n_waiting() as usize, model.len());
        }
    }
}
