//! The connection table: flows stay where they began.

use std::hint::spin_loop;
use std::iter;
use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use ipnet::IpNet;

use crate::bench::{Bench, Plan, STOLEN, prefixes};
use crate::packets::{
    A4, A6, B4, B6, fragment, ipv4, ipv4_full, ipv6, key, tcp, tcp_packet, udp, udp_packet,
};
use router_common::names;
use router_common::packet::protocol::{FRAGMENT, TCP, UDP};
use router_common::reason::Reason;
use router_common::settings::Settings;
use router_common::slots::SLOT_COUNT;
use stream_router_engine::prefix_steps::PrefixStep;

/// Several ticks of the coarse clock.
const PATIENCE: Duration = Duration::from_secs(5);

#[test]
fn packets_of_one_flow_share_worker_and_hash_and_are_counted_together() {
    let mut bench = Bench::new().unwrap();
    let flow = key((A4, B4), UDP, 40000, 53);
    let (short, long) = (udp_packet(40, 40000, 1), udp_packet(900, 40000, 2));

    let first = bench.run(&short).unwrap().captured().unwrap();
    let begun = bench.connections.get(&flow, 0).unwrap();
    let second = bench.run(&long).unwrap().captured().unwrap();
    let conn = bench.connections.get(&flow, 0).unwrap();

    assert_eq!((first.packet, second.packet), (short, long));
    assert_eq!(first.worker, second.worker);
    assert_eq!(first.header.flow_hash, second.header.flow_hash);
    assert_eq!((begun.packets, begun.bytes), (1, 40));
    assert_eq!((conn.packets, conn.bytes), (2, 940));
    assert_eq!(begun.first_seen_ns, begun.last_seen_ns);
    assert_eq!(conn.first_seen_ns, begun.first_seen_ns);
    assert_eq!(bench.n_flows(), 1);
}

#[test]
fn last_packet_of_a_flow_moves_its_last_seen_and_nothing_else_of_its_times() {
    let mut bench = Bench::new().unwrap();
    let (flow, packet) = (key((A4, B4), UDP, 40000, 53), udp_packet(40, 40000, 1));
    bench.run(&packet).unwrap();
    let begun = bench.connections.get(&flow, 0).unwrap();

    let moved = eventually(|| {
        bench.run(&packet).unwrap();
        let conn = bench.connections.get(&flow, 0).unwrap();
        (conn.last_seen_ns > begun.last_seen_ns).then_some(conn)
    });

    assert_eq!(moved.first_seen_ns, begun.first_seen_ns);
}

#[test]
fn both_directions_and_both_ports_are_flows_of_their_own() {
    let mut bench = Bench::new().unwrap();
    let back = ipv4_full((B4, A4), 0, (0, false), UDP, &udp(53, 40000, b""));

    for packet in [udp_packet(28, 40000, 0), udp_packet(28, 40001, 0), back] {
        bench.run(&packet).unwrap().captured().unwrap();
    }

    assert_eq!(bench.n_flows(), 3);
}

#[test]
fn tcp_and_udp_with_equal_ports_are_flows_of_their_own() {
    let mut bench = Bench::new().unwrap();

    for packet in [udp_packet(28, 40000, 0), ipv4(TCP, &tcp(40000, 53, 0))] {
        bench.run(&packet).unwrap().captured().unwrap();
    }

    assert_eq!(bench.n_flows(), 2);
}

#[test]
fn of_two_cpus_that_see_a_new_flow_at_once_neither_replaces_the_entry_of_the_other() {
    const FLOWS: u16 = 5000;
    let mut bench = Bench::with(Plan {
        ring_bytes: 2 * 1024 * 1024,
        ..Plan::default()
    })
    .unwrap();
    let n_begun = AtomicU32::new(0);

    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                for port in 0..FLOWS {
                    n_begun.fetch_add(1, Relaxed);
                    while n_begun.load(Relaxed) < 2 * (u32::from(port) + 1) {
                        spin_loop();
                    }
                    bench.verdict(&udp_packet(40, port, 0)).expect("the program runs");
                }
            });
        }
    });

    // A replaced entry would have counted one packet.
    let counts = bench.connections.iter().map(|entry| entry.unwrap().1.packets);
    assert!(counts.eq(iter::repeat_n(2, FLOWS.into())));
    assert_eq!(bench.drain().len(), 2 * usize::from(FLOWS));
}

#[test]
fn established_flow_stays_in_a_table_flooded_with_flows_of_one_packet() {
    const FLOOD: u32 = 100_000;
    const EVERY: u32 = 100;
    let mut bench = Bench::new().unwrap();
    let (flow, packet) = (key((A4, B4), UDP, 40000, 53), udp_packet(40, 40000, 1));
    let begun = bench.run(&packet).unwrap().captured().unwrap();
    let first_seen_ns = bench.connections.get(&flow, 0).unwrap().first_seen_ns;

    for n in 0..FLOOD {
        let [_, _, c, d] = n.to_be_bytes();
        let source = Ipv4Addr::new(10, 8 + (n >> 16) as u8, c, d);
        let single = ipv4_full((source, B4), 0, (0, false), UDP, &udp(1000, 53, b""));
        bench.verdict(&single).unwrap();
        if n % EVERY == 0 {
            bench.drain();
            let record = bench.run(&packet).unwrap().captured().unwrap();
            assert_eq!(record.worker, begun.worker);
        }
    }

    let conn = bench.connections.get(&flow, 0).unwrap();
    assert_eq!(
        conn.first_seen_ns, first_seen_ns,
        "the entry is the one it began with"
    );
    assert_eq!(conn.packets, u64::from(1 + FLOOD / EVERY));
    assert!(bench.n_flows() <= 16_384);
}

#[test]
fn cleaning_reads_a_bounded_share_and_counts_the_live_flows_of_each_worker() {
    const FLOWS: u32 = 6000;
    let mut bench = Bench::new().unwrap();
    let mut table = bench.kernel.flows.table(Plan::default().flow_ttl).unwrap();
    make_flows(&mut bench, FLOWS);

    let first = table.step().unwrap();
    let second = table.step().unwrap().expect("6000 entries are two steps");

    assert_eq!(first, None);
    let live: Vec<u32> = (0..5).map(|worker| second.n_live(worker)).collect();
    assert!(live[..4].iter().all(|n| *n > FLOWS / 5), "{live:?}");
    assert_eq!((live.iter().sum::<u32>(), live[4]), (FLOWS, 0));
    assert_eq!(bench.n_flows(), FLOWS as usize);
}

#[test]
fn cleaning_removes_idle_flows_and_never_a_live_one() {
    const FLOWS: u32 = 6000;
    let ttl = Duration::from_millis(200);
    let mut bench = Bench::new().unwrap();
    let mut table = bench.kernel.flows.table(ttl).unwrap();
    let (live, packet) = (key((A4, B4), UDP, 40000, 53), udp_packet(40, 40000, 1));
    bench.run(&packet).unwrap();
    let first_seen_ns = bench.connections.get(&live, 0).unwrap().first_seen_ns;
    make_flows(&mut bench, FLOWS);

    eventually(|| {
        bench.run(&packet).unwrap();
        table.step().unwrap();
        (bench.n_flows() == 1).then_some(())
    });

    assert_eq!(
        bench.connections.get(&live, 0).unwrap().first_seen_ns,
        first_seen_ns
    );
}

fn make_flows(bench: &mut Bench, n: u32) {
    for n in 0..n {
        let [_, _, c, d] = n.to_be_bytes();
        let source = Ipv4Addr::new(10, 8, c, d);
        let packet = ipv4_full((source, B4), 0, (0, false), UDP, &udp(1000, 53, b""));
        bench.verdict(&packet).expect("the program runs");
        if n % 1000 == 0 {
            bench.drain();
        }
    }
    bench.drain();
}

#[test]
fn fragments_follow_their_first_one() {
    let mut bench = Bench::new().unwrap();
    let (small, large) = (udp(40000, 53, b"small"), udp(40000, 53, &[1; 16]));
    let piece4 = |at, payload: &[u8]| ipv4_full((A4, B4), 0, at, UDP, payload);
    let piece6 = |at, payload: &[u8]| ipv6(FRAGMENT, &fragment(UDP, at, payload));

    for (whole, pieces, key) in [
        (
            ipv4(UDP, &small),
            [
                piece4((0, true), &large),
                piece4((3, true), &[2; 24]),
                piece4((6, false), &[3; 5]),
            ],
            key((A4, B4), UDP, 40000, 53),
        ),
        (
            ipv6(UDP, &small),
            [
                piece6((0, true), &large),
                piece6((3, true), &[2; 24]),
                piece6((6, false), &[3; 5]),
            ],
            key((A6, B6), UDP, 40000, 53),
        ),
    ] {
        let n_flows = bench.n_flows();
        let whole = bench.run(&whole).unwrap().captured().unwrap();
        for piece in pieces {
            let outcome = bench.run(&piece).unwrap();
            assert_eq!(outcome.counted, [(Reason::Captured, 1)]);
            let piece = outcome.captured().unwrap();
            assert_eq!(piece.worker, whole.worker);
            assert_eq!(piece.header.flow_hash, whole.header.flow_hash);
        }
        assert_eq!(bench.connections.get(&key, 0).unwrap().packets, 4);
        assert_eq!(bench.n_flows(), n_flows + 1);
    }
}

#[test]
fn a_fragment_whose_first_one_was_not_seen_is_counted_and_captured() {
    let mut bench = Bench::new().unwrap();
    let piece = ipv4_full((A4, B4), 0, (3, false), UDP, &[2; 24]);

    let outcome = bench.run(&piece).unwrap();

    assert_eq!(
        outcome.counted,
        [(Reason::Captured, 1), (Reason::FragmentAlone, 1)]
    );
    assert_eq!(outcome.records.len(), 1);
    assert!(bench.connections.get(&key((A4, B4), UDP, 0, 0), 0).is_ok());
}

#[test]
fn fragments_of_more_packets_than_the_table_has_room_for_are_captured_all_the_same() {
    const PACKETS: u16 = 20_000;
    let mut bench = Bench::with(Plan {
        ring_bytes: 4 * 1024 * 1024,
        ..Plan::default()
    })
    .unwrap();
    let piece = |id: u16, at, payload: &[u8]| {
        let mut packet = ipv4_full((A4, B4), 0, at, UDP, payload);
        packet[4..6].copy_from_slice(&id.to_be_bytes());
        packet
    };
    let before = bench.kernel.counters.read().unwrap();

    for id in 0..PACKETS {
        let first = piece(id, (0, true), &udp(40000, 53, &[1; 16]));
        assert_eq!(bench.verdict(&first).unwrap(), STOLEN);
    }
    for id in 0..PACKETS {
        let last = piece(id, (3, false), &[2; 8]);
        assert_eq!(bench.verdict(&last).unwrap(), STOLEN);
        if id % 1000 == 0 {
            bench.drain();
        }
    }

    let counted = bench.counted_since(&before).unwrap();
    assert_eq!(counted[0], (Reason::Captured, 2 * u64::from(PACKETS)));
    let (reason, n_alone) = counted[1];
    assert_eq!(reason, Reason::FragmentAlone);
    assert!((1..u64::from(PACKETS)).contains(&n_alone), "{n_alone} were alone");
}

#[test]
fn running_flow_keeps_its_worker_and_peer_when_the_tables_change() {
    let mut bench = Bench::new().unwrap();
    let before = bench.run(&udp_packet(40, 40000, 1)).unwrap().captured().unwrap();
    let other_worker = (before.worker + 1) % 4;
    let mut slots = bench.array::<u32>(names::SLOTS).unwrap();
    for slot in 0..SLOT_COUNT {
        slots.set(slot, other_worker, 0).unwrap();
    }
    bench.kernel.prefixes.add(host_of_peer_9()).unwrap();

    let running = bench.run(&udp_packet(40, 40000, 2)).unwrap().captured().unwrap();
    let fresh = bench.run(&udp_packet(40, 40001, 3)).unwrap().captured().unwrap();

    let peer = |port| {
        bench
            .connections
            .get(&key((A4, B4), UDP, port, 53), 0)
            .unwrap()
            .peer
    };
    assert_eq!((running.worker, peer(40000)), (before.worker, 0));
    assert_eq!((fresh.worker, peer(40001)), (other_worker, 9));
}

#[test]
fn running_flow_looks_its_peer_up_anew_once_the_peers_are_renewed_and_keeps_its_worker() {
    let mut bench = Bench::new().unwrap();
    let (flow, packet) = (key((A4, B4), UDP, 40000, 53), udp_packet(40, 40000, 1));
    let before = bench.run(&packet).unwrap().captured().unwrap();
    let mut slots = bench.array::<u32>(names::SLOTS).unwrap();
    for slot in 0..SLOT_COUNT {
        slots.set(slot, (before.worker + 1) % 4, 0).unwrap();
    }
    let begun = bench.connections.get(&flow, 0).unwrap();
    let [(net, owner)] = host_of_peer_9()[..] else {
        panic!("one prefix");
    };

    for (steps, peer) in [
        (vec![PrefixStep::Write(net, owner)], owner),
        (vec![PrefixStep::Remove(net)], begun.peer),
    ] {
        bench.kernel.prefixes.change(steps).unwrap();
        bench.kernel.settings.renew_peers();
        let after = bench.run(&packet).unwrap().captured().unwrap();
        let conn = bench.connections.get(&flow, 0).unwrap();

        assert_eq!(
            (after.worker, after.header.flow_hash),
            (before.worker, conn.flow_hash)
        );
        assert_eq!(
            (conn.peer, conn.peers_version),
            (peer, bench.kernel.settings.peers_version())
        );
        assert_eq!(conn.first_seen_ns, begun.first_seen_ns);
    }
    assert_eq!(bench.n_flows(), 1);
}

#[test]
fn pressure_of_a_flow_is_that_of_its_new_peer() {
    let mut bench = Bench::new().unwrap();
    let packet = tcp_packet(1000, 40000, 1);
    bench.run(&packet).unwrap().captured().unwrap();
    bench.kernel.prefixes.add(host_of_peer_9()).unwrap();
    bench.kernel.settings.renew_peers();
    bench.kernel.pressure.switch(0)(true);

    bench.run(&packet).unwrap().captured().unwrap();
    bench.kernel.pressure.switch(0)(false);
    bench.kernel.pressure.switch(9)(true);

    assert!(bench.run(&packet).unwrap().captured().is_err());
}

#[test]
fn another_time_to_live_counts_from_the_next_packet_on() {
    let mut bench = Bench::new().unwrap();
    let (flow, packet) = (key((A4, B4), UDP, 40000, 53), udp_packet(40, 40000, 1));
    bench.run(&packet).unwrap();
    let begun = bench.connections.get(&flow, 0).unwrap();
    let hash_key = bench.settings.hash_key;

    bench.kernel.settings.set_flow_ttl(Duration::ZERO);

    eventually(|| {
        bench.run(&packet).unwrap();
        let conn = bench.connections.get(&flow, 0).unwrap();
        (conn.first_seen_ns != begun.first_seen_ns).then_some(())
    });
    let settings = bench
        .array::<Settings>(names::SETTINGS)
        .unwrap()
        .get(&0, 0)
        .unwrap();
    assert_eq!((settings.flow_ttl_ns, settings.hash_key), (0, hash_key));
    assert_eq!(bench.kernel.settings.flow_ttl(), Duration::ZERO);
}

#[test]
fn idle_flow_begins_anew_after_its_time_to_live() {
    let mut bench = Bench::with(Plan {
        flow_ttl: Duration::ZERO,
        ..Plan::default()
    })
    .unwrap();
    let (flow, packet) = (key((A4, B4), UDP, 40000, 53), udp_packet(40, 40000, 1));
    bench.run(&packet).unwrap();
    let begun = bench.connections.get(&flow, 0).unwrap();
    bench.kernel.prefixes.add(host_of_peer_9()).unwrap();

    let renewed = eventually(|| {
        let record = bench.run(&packet).unwrap().captured().unwrap();
        let conn = bench.connections.get(&flow, 0).unwrap();
        (conn.first_seen_ns != begun.first_seen_ns).then_some((conn, record))
    });

    assert_eq!((renewed.0.packets, renewed.0.bytes), (1, 40));
    assert_eq!((renewed.0.peer, renewed.1.header.flow_hash), (9, begun.flow_hash));
    assert_eq!(renewed.0.flow_hash, begun.flow_hash);
    assert_eq!(bench.n_flows(), 1);
}

#[test]
fn each_load_hashes_with_a_key_of_its_own() {
    let keys = [(); 2].map(|()| Bench::new().unwrap().settings.hash_key);

    assert_ne!(keys[0].k0, keys[1].k0);
    assert_ne!(keys[0].k1, keys[1].k1);
}

fn host_of_peer_9() -> Vec<(IpNet, u32)> {
    prefixes(&[("10.1.0.2/32", 9)]).unwrap()
}

fn eventually<T>(mut attempt: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(value) = attempt() {
            return value;
        }
        assert!(start.elapsed() < PATIENCE, "not within {PATIENCE:?}");
    }
}
