//! Rings: wake-ups, what happens when they are full, and that records come out whole and in order.

use std::collections::VecDeque;

use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::bench::{Bench, Outcome, Plan, SHOT, STOLEN};
use crate::packets::{icmp, ipv4, tcp_packet, udp_packet};
use router_common::names;
use router_common::packet::protocol::ICMP;
use router_common::peer::PRESSURE_MIN_LEN;
use router_common::reason::Reason;
use router_common::record::RecordHeader;
use router_common::slots::SLOT_COUNT;
use stream_router_node::kernel::RingConsumer;

const PAGE: u32 = 4096;
/// Time in which a wake-up comes, and after which none will.
const WAKE_UP: u16 = 2000;
const NO_WAKE_UP: u16 = 50;
/// The kernel's header of a record.
const RECORD_OVERHEAD: usize = 8;
/// The length below which all records have one size.
const SMALL: usize = 64;
/// The largest packet of a run: a page without the room that a socket buffer needs.
const LARGEST_RUN: usize = 3500;

#[test]
fn record_for_a_sleeping_worker_wakes_it_and_clears_its_flag() {
    let mut bench = bench_of_one(PAGE);
    let epoll = edge_triggered(&bench.rings[0]);
    assert!(bench.rings[0].prepare_sleep());
    assert_eq!(sleeping(&bench), 1);

    bench.verdict(&udp_packet(40, 1, 1)).unwrap();

    assert_eq!(sleeping(&bench), 0);
    assert!(woken(&epoll, WAKE_UP));
    assert_eq!(bench.drain().len(), 1);
}

#[test]
fn records_for_a_worker_that_is_awake_wake_nobody() {
    let mut bench = bench_of_one(PAGE);
    let epoll = edge_triggered(&bench.rings[0]);

    for seed in 0..3 {
        assert_eq!(bench.verdict(&udp_packet(40, 1, seed)).unwrap(), STOLEN);
        assert_eq!(bench.verdict(&udp_packet(400, 1, seed)).unwrap(), STOLEN);
    }

    assert!(!woken(&epoll, NO_WAKE_UP));
    assert_eq!(bench.drain().len(), 6);
}

#[test]
fn only_the_first_of_many_records_wakes_a_worker() {
    let mut bench = bench_of_one(PAGE);
    let epoll = edge_triggered(&bench.rings[0]);
    assert!(bench.rings[0].prepare_sleep());
    bench.verdict(&udp_packet(400, 1, 1)).unwrap();
    assert!(woken(&epoll, WAKE_UP));

    bench.verdict(&udp_packet(400, 1, 2)).unwrap();
    bench.verdict(&udp_packet(40, 1, 3)).unwrap();

    assert!(!woken(&epoll, NO_WAKE_UP));
    assert_eq!(bench.drain().len(), 3);
}

#[test]
fn worker_with_a_record_to_read_does_not_go_to_sleep() {
    let mut bench = bench_of_one(PAGE);
    bench.verdict(&udp_packet(40, 1, 1)).unwrap();

    assert!(!bench.rings[0].prepare_sleep());
    assert_eq!(sleeping(&bench), 0);
    bench.drain();
    assert!(bench.rings[0].prepare_sleep());
}

#[test]
fn record_behind_a_held_bell_wakes_nobody_and_is_told_of_when_the_bell_is_armed() {
    let mut bench = bench_of_one(PAGE);
    let (epoll, bell) = (edge_triggered(&bench.rings[0]), bench.rings[0].bell());
    assert!(!bell.hold(), "the worker is awake");
    assert!(bench.rings[0].prepare_sleep());

    assert!(bell.hold());
    bench.verdict(&udp_packet(40, 1, 1)).unwrap();

    assert!(!woken(&epoll, NO_WAKE_UP));
    assert!(!bell.arm());
    assert_eq!(bench.drain().len(), 1);
}

#[test]
fn worker_whose_bell_was_held_for_nothing_is_woken_by_the_next_record() {
    let mut bench = bench_of_one(PAGE);
    let (epoll, bell) = (edge_triggered(&bench.rings[0]), bench.rings[0].bell());
    assert!(bench.rings[0].prepare_sleep());

    assert!(bell.hold());
    assert!(bell.arm());
    bench.verdict(&udp_packet(40, 1, 1)).unwrap();

    assert!(woken(&epoll, WAKE_UP));
    assert_eq!(bench.drain().len(), 1);
}

#[test]
fn refused_packet_wakes_nobody() {
    let mut bench = bench_of_one(PAGE);
    let epoll = edge_triggered(&bench.rings[0]);
    assert!(bench.rings[0].prepare_sleep());

    bench.verdict(&[0x45; 18]).unwrap();

    assert_eq!(sleeping(&bench), 1);
    assert!(!woken(&epoll, NO_WAKE_UP));
}

#[test]
fn full_ring_refuses_packets_until_its_worker_reads() {
    for len in [28, 63, 64, 1000, 3000] {
        let mut bench = bench_of_one(PAGE);
        let n_fit = (PAGE as usize - 1) / record_len(len);
        for seed in 0..n_fit {
            assert_eq!(
                bench.verdict(&udp_packet(len, 1, seed as u8)).unwrap(),
                STOLEN,
                "{len}"
            );
        }
        let before = bench.kernel.counters.read().unwrap();

        assert_eq!(bench.verdict(&udp_packet(len, 1, 0xee)).unwrap(), SHOT, "{len}");

        assert_eq!(bench.counted_since(&before).unwrap(), [(Reason::RingFull, 1)]);
        let records = bench.drain();
        assert_eq!(records.len(), n_fit);
        for (seed, record) in records.iter().enumerate() {
            assert_eq!(record.packet, udp_packet(len, 1, seed as u8));
        }
        bench.run(&udp_packet(len, 1, 0xff)).unwrap().captured().unwrap();
    }
}

#[test]
fn full_ring_of_one_worker_holds_up_no_other() {
    let mut bench = Bench::with(Plan {
        n_workers: 2,
        ring_bytes: PAGE,
        ..Plan::default()
    })
    .unwrap();
    let port_of = |bench: &mut Bench, worker| {
        let is_its = |port: &u16| {
            let record = bench.run(&udp_packet(28, *port, 0)).unwrap().captured().unwrap();
            record.worker == worker
        };
        (1..=1000).find(is_its).unwrap()
    };
    let (full, free) = (port_of(&mut bench, 0), port_of(&mut bench, 1));
    while bench.verdict(&udp_packet(1000, full, 0)).unwrap() == STOLEN {}

    assert_eq!(bench.verdict(&udp_packet(1000, full, 1)).unwrap(), SHOT);
    assert_eq!(bench.verdict(&udp_packet(1000, free, 2)).unwrap(), STOLEN);
}

#[test]
fn records_of_all_sizes_come_out_whole_and_in_order_around_the_ring() {
    const N_PACKETS: usize = 5000;
    let mut bench = bench_of_one(4 * PAGE);
    let mut random = StdRng::seed_from_u64(7);
    let (mut expected, mut refused) = (VecDeque::new(), 0);

    for n in 0..N_PACKETS {
        let len = match random.random_range(0..4) {
            0 => random.random_range(28..2 * SMALL),
            1 => random.random_range(500..530),
            _ => random.random_range(28..=LARGEST_RUN),
        };
        let packet = udp_packet(len, random.random_range(1..100), n as u8);
        match bench.verdict(&packet).unwrap() {
            STOLEN => expected.push_back(packet),
            SHOT => refused += 1,
            other => panic!("verdict {other}"),
        }
        if random.random_ratio(1, 4) {
            let budget = random.random_range(1..8000);
            take(&mut bench.rings[0], budget, &mut expected);
        }
    }
    take(&mut bench.rings[0], usize::MAX, &mut expected);

    assert!(expected.is_empty(), "{} packets are lost", expected.len());
    assert!((1..N_PACKETS / 2).contains(&refused), "{refused} refused");
    assert_eq!(bench.rings[0].gauge().fill(), 0.0);
}

#[test]
fn drain_stops_at_its_budget_and_goes_on_from_there() {
    let mut bench = bench_of_one(PAGE);
    for seed in 0..3 {
        bench.verdict(&udp_packet(1000, 1, seed)).unwrap();
    }
    assert_eq!(
        bench.rings[0].gauge().fill(),
        3.0 * record_len(1000) as f64 / f64::from(PAGE)
    );

    let mut read = Vec::new();
    let mut handle = |record: &[u8]| read.push(record[RecordHeader::LEN..].to_vec());
    assert_eq!(bench.rings[0].drain(0, &mut handle), 0);
    assert_eq!(bench.rings[0].drain(1, &mut handle), 1);
    assert_eq!(bench.rings[0].drain(record_len(1000) + 1, &mut handle), 2);
    assert_eq!(bench.rings[0].drain(usize::MAX, &mut handle), 0);

    assert_eq!(read, [0, 1, 2].map(|seed| udp_packet(1000, 1, seed)));
}

#[test]
fn pressure_holds_back_the_big_packets_of_one_peer() {
    let (small, big) = (PRESSURE_MIN_LEN as usize, PRESSURE_MIN_LEN as usize + 1);
    let mut bench = Bench::new().unwrap();
    let refused = Outcome {
        verdict: SHOT,
        counted: vec![(Reason::PeerPressure, 1)],
        records: vec![],
    };
    let to = |address: [u8; 4], len| {
        let mut packet = tcp_packet(len, 1, 1);
        packet[16..20].copy_from_slice(&address);
        packet
    };
    let switch = bench.kernel.pressure.switch(0);

    switch(true);

    assert_eq!(bench.run(&to([10, 1, 0, 2], big)).unwrap(), refused);
    assert_eq!(bench.run(&to([10, 1, 0, 2], 3000)).unwrap(), refused);
    bench.run(&to([10, 1, 0, 2], small)).unwrap().captured().unwrap();
    bench.run(&to([10, 1, 2, 2], big)).unwrap().captured().unwrap();
    bench.run(&to([10, 77, 0, 2], big)).unwrap().captured().unwrap();
    // Only TCP hears of it: what it costs others is up to the peer's queue.
    bench.run(&udp_packet(3000, 1, 1)).unwrap().captured().unwrap();
    let echo = ipv4(ICMP, &[icmp(8, 77), vec![0; 3000]].concat());
    bench.run(&echo).unwrap().captured().unwrap();

    switch(false);

    bench.run(&to([10, 1, 0, 2], big)).unwrap().captured().unwrap();
}

#[test]
fn pressure_of_the_last_peer_is_its_own_and_of_a_peer_beyond_nobodys() {
    const LAST: u32 = router_common::peer::MAX_PEERS - 1;
    let mut bench = Bench::new().unwrap();
    let last = crate::bench::prefixes(&[("10.1.0.2/32", LAST)]).unwrap();
    bench.kernel.prefixes.add(last).unwrap();

    bench.kernel.pressure.switch(LAST - 1)(true);
    bench.kernel.pressure.switch(LAST + 1)(true);
    bench.run(&tcp_packet(1000, 1, 1)).unwrap().captured().unwrap();
    bench.kernel.pressure.switch(LAST)(true);

    assert_eq!(bench.run(&tcp_packet(1000, 1, 2)).unwrap().verdict, SHOT);
}

#[test]
fn flow_of_a_worker_without_ring_is_refused() {
    let mut bench = bench_of_one(PAGE);
    let mut slots = bench.array::<u32>(names::SLOTS).unwrap();
    for slot in 0..SLOT_COUNT {
        slots.set(slot, 1, 0).unwrap();
    }

    let outcome = bench.run(&udp_packet(100, 1, 1)).unwrap();

    let counted = vec![(Reason::NoRing, 1)];
    assert_eq!(
        outcome,
        Outcome {
            verdict: SHOT,
            counted,
            records: vec![]
        }
    );
}

fn bench_of_one(ring_bytes: u32) -> Bench {
    Bench::with(Plan {
        n_workers: 1,
        ring_bytes,
        ..Plan::default()
    })
    .unwrap()
}

fn sleeping(bench: &Bench) -> u64 {
    let flags = bench.array::<[u64; 8]>(names::WAKE).unwrap();
    flags.get(&0, 0).unwrap()[0]
}

/// Reports wake-ups only, where a plain poll would report records.
fn edge_triggered(ring: &RingConsumer) -> Epoll {
    let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).unwrap();
    let event = EpollEvent::new(EpollFlags::EPOLLIN | EpollFlags::EPOLLET, 0);
    epoll.add(ring, event).unwrap();
    epoll
}

fn woken(epoll: &Epoll, within_ms: u16) -> bool {
    let mut events = [EpollEvent::empty()];
    epoll.wait(&mut events, EpollTimeout::from(within_ms)).unwrap() == 1
}

fn record_len(packet_len: usize) -> usize {
    (RECORD_OVERHEAD + RecordHeader::LEN + packet_len.max(SMALL)).next_multiple_of(8)
}

fn take(ring: &mut RingConsumer, budget: usize, expected: &mut VecDeque<Vec<u8>>) {
    ring.drain(budget, |record| {
        let packet = expected.pop_front().expect("as many records as captured packets");
        let (header, rest) = record.split_at(RecordHeader::LEN);
        let header: RecordHeader = bytemuck::pod_read_unaligned(header);
        assert_eq!(header.frame.len as usize, packet.len());
        assert!(
            rest.starts_with(&packet),
            "the bytes of a packet of {} bytes",
            packet.len()
        );
    });
}
