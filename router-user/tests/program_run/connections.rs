//! The connection table: flows stay where they began.

use std::time::{Duration, Instant};

use ipnet::IpNet;
use router_common::names;
use router_common::packet::protocol::UDP;
use router_common::slots::SLOT_COUNT;

use crate::bench::{Bench, Plan, prefixes};
use crate::packets::{A4, B4, ipv4_full, key, udp, udp_packet};

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
fn fragments_follow_their_first_one() {
    let mut bench = Bench::new().unwrap();
    let piece = |at, payload: &[u8]| ipv4_full((A4, B4), 0, at, UDP, payload);
    let first = piece((0, true), &udp(40000, 53, &[1; 16]));

    let first = bench.run(&first).unwrap().captured().unwrap();
    for rest in [piece((3, true), &[2; 24]), piece((6, false), &[3; 5])] {
        let rest = bench.run(&rest).unwrap().captured().unwrap();
        assert_eq!(rest.worker, first.worker);
        assert_eq!(rest.header.flow_hash, first.header.flow_hash);
    }

    let conn = bench.connections.get(&key((A4, B4), UDP, 0, 0), 0).unwrap();
    assert_eq!(conn.packets, 3);
    assert_eq!(bench.n_flows(), 1);
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
    bench.kernel.add_prefixes(host_of_peer_9()).unwrap();

    let running = bench.run(&udp_packet(40, 40000, 2)).unwrap().captured().unwrap();
    let fresh = bench.run(&udp_packet(40, 40001, 3)).unwrap().captured().unwrap();

    assert_eq!((running.worker, running.header.peer), (before.worker, 0));
    assert_eq!((fresh.worker, fresh.header.peer), (other_worker, 9));
}

#[test]
fn idle_flow_begins_anew_after_its_time_to_live() {
    let mut bench = Bench::with(Plan {
        conn_ttl: Duration::ZERO,
        ..Plan::default()
    })
    .unwrap();
    let (flow, packet) = (key((A4, B4), UDP, 40000, 53), udp_packet(40, 40000, 1));
    bench.run(&packet).unwrap();
    let begun = bench.connections.get(&flow, 0).unwrap();
    bench.kernel.add_prefixes(host_of_peer_9()).unwrap();

    let renewed = eventually(|| {
        let record = bench.run(&packet).unwrap().captured().unwrap();
        let conn = bench.connections.get(&flow, 0).unwrap();
        (conn.first_seen_ns != begun.first_seen_ns).then_some((conn, record))
    });

    assert_eq!((renewed.0.packets, renewed.0.bytes), (1, 40));
    assert_eq!((renewed.0.peer, renewed.1.header.peer), (9, 9));
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
