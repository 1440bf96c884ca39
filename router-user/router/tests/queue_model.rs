//! The queue before a worker, under every order in which memory may show it.
//!
//! The file of the queue is compiled here with a model's atomics in place of the machine's.

#[path = "../src/router/queue.rs"]
#[expect(dead_code, reason = "the model uses what moves packets and wakes the worker")]
mod queue;

mod sync {
    pub(super) use loom::sync::atomic::{AtomicBool, AtomicU64, Ordering, fence};

    pub(super) fn zeroed(n: usize) -> Box<[AtomicU64]> {
        (0..n).map(|_| AtomicU64::new(0)).collect()
    }
}

use loom::model::Builder;
use loom::sync::{Arc, Notify};
use loom::thread;

use queue::{PacketQueue, Refused, Tag};

fn tag(peer: u32) -> Tag {
    Tag {
        flow_hash: peer,
        peer,
    }
}

fn drain(queue: &PacketQueue) -> Vec<(u32, Vec<u8>)> {
    let mut packets = Vec::new();
    queue.drain(8, &mut Vec::new(), 0, |tag, packet| {
        packets.push((tag.peer, packet.to_vec()));
    });
    packets
}

/// Two switches away from a thread that could go on find nearly every fault, in seconds.
fn check(model: impl Fn() + Sync + Send + 'static) {
    let mut builder = Builder::new();
    builder.preemption_bound = Some(2);
    builder.check(model);
}

#[test]
fn no_wake_up_is_lost_and_every_packet_comes_once_and_whole() {
    check(|| {
        let queue = Arc::new(PacketQueue::new(2, 64));
        let bell = Arc::new(Notify::new());
        let dispatchers: Vec<_> = (1..3_u32)
            .map(|peer| {
                let (queue, bell) = (queue.clone(), bell.clone());
                thread::spawn(move || {
                    queue.push(tag(peer), &[peer as u8; 9]).unwrap();
                    if queue.must_wake() {
                        bell.notify();
                    }
                })
            })
            .collect();
        let mut packets = Vec::new();
        while packets.len() < 2 {
            let drained = drain(&queue);
            // A lost wake-up is a deadlock, which the model reports.
            if drained.is_empty() && queue.prepare_sleep() {
                bell.wait();
            }
            packets.extend(drained);
        }
        for dispatcher in dispatchers {
            dispatcher.join().unwrap();
        }
        packets.sort();
        assert_eq!(packets, [(1, vec![1; 9]), (2, vec![2; 9])]);
        assert_eq!(queue.n_waiting(), 0);
    });
}

#[test]
fn room_is_not_written_again_before_it_is_read() {
    check(|| {
        // Room for one packet at a time.
        let queue = Arc::new(PacketQueue::new(1, 16));
        let dispatcher = {
            let queue = queue.clone();
            thread::spawn(move || {
                for number in 1..3_u8 {
                    while queue.push(tag(number.into()), &[number; 8]) == Err(Refused::Full) {
                        thread::yield_now();
                    }
                }
            })
        };
        let mut packets = Vec::new();
        while packets.len() < 2 {
            let drained = drain(&queue);
            if drained.is_empty() {
                thread::yield_now();
            }
            packets.extend(drained);
        }
        dispatcher.join().unwrap();
        assert_eq!(packets, [(1, vec![1; 8]), (2, vec![2; 8])]);
    });
}

#[test]
fn what_was_taken_before_the_queue_closed_comes_out() {
    check(|| {
        let queue = Arc::new(PacketQueue::new(2, 64));
        let dispatcher = {
            let queue = queue.clone();
            thread::spawn(move || queue.push(tag(1), &[1; 8]).is_ok())
        };
        queue.close();
        let mut n = 0;
        while !queue.has_ended() {
            n += drain(&queue).len();
            thread::yield_now();
        }
        assert_eq!(n, usize::from(dispatcher.join().unwrap()));
    });
}
