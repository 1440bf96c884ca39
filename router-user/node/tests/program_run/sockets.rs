//! The gateway program with AF_XDP sockets: frames become records in place, reach their worker's socket, and their
//! memory comes back.

use std::time::{Duration, Instant};

use anyhow::Result;

use crate::bench::{Bench, Plan, Record, record};
use crate::gateway_bench::*;
use crate::packets::*;
use router_common::reason::Reason;
use router_common::record::RecordHeader;
use stream_router_node::kernel::{
    CopyMode, GatewayHook, GatewayInterface, SocketConsumer, SocketDrops, SocketPool,
};

const REDIRECT: u32 = 4;
/// Entries of a socket's receive ring.
const SOCKET_ROOM: usize = 1024;
/// Chunks of a queue.
const N_CHUNKS: usize = 2048;
const LIMIT: Duration = Duration::from_secs(5);

#[test]
fn a_frame_for_a_socket_is_a_record_in_place() {
    let mut gateway = GatewayBench::with(GatewayHook::Xdp, one_worker()).unwrap();
    run_ip(&["link", "set", "lo", "up"]).unwrap();
    let frames = [
        (&[][..], udp_packet(46, 1, 1)),
        (&[0x8100], udp_packet(1400, 1, 2)),
        (&[0x88a8, 0x8100], ipv6(UDP_NUMBER, &udp(1, 2, b"question"))),
    ]
    .map(|(tags, packet)| (tags, with_hops(packet, 64)));
    let by_ring = frames
        .clone()
        .map(|(tags, packet)| gateway.run(&tagged(tags, &packet)).unwrap().records.remove(0));

    let pool = SocketPool::open(1, CopyMode::Copy, 1).unwrap();
    let interface = GatewayInterface {
        name: "lo".to_owned(),
        index: 1,
        address: HOST,
    };
    gateway
        .bench
        .kernel
        .gateways
        .add_with_sockets(&interface, 0, 1)
        .unwrap();
    let sockets = pool.open_sockets().unwrap();
    gateway.bench.kernel.gateways.add_sockets(0, 0, &sockets).unwrap();

    for ((tags, packet), by_ring) in frames.iter().zip(by_ring) {
        let before = gateway.bench.kernel.counters.read().unwrap();
        let (verdict, left) = gateway.run_and_keep(&padded(tagged(tags, packet))).unwrap();
        assert_eq!(verdict, REDIRECT);
        assert_eq!(record(0, &left), by_ring);
        assert_eq!(
            gateway.bench.counted_since(&before).unwrap(),
            [(Reason::Captured, 1)]
        );
        assert_eq!(gateway.bench.drain(), []);
    }
    drop(sockets);
    let back = gateway.run(&tagged(frames[0].0, &frames[0].1)).unwrap();
    assert_eq!(
        (back.verdict, back.records.len()),
        (DROP, 1),
        "without socket by the ring"
    );
}

#[test]
fn a_packet_too_large_for_a_frame_goes_by_the_ring() {
    let mut gateway = GatewayBench::with(
        GatewayHook::Xdp,
        Plan {
            device_mtu: 32_000,
            ..one_worker()
        },
    )
    .unwrap();
    run_ip(&["link", "set", "lo", "up"]).unwrap();
    let pool = SocketPool::open(1, CopyMode::Copy, 1).unwrap();
    let interface = GatewayInterface {
        name: "lo".to_owned(),
        index: 1,
        address: HOST,
    };
    gateway
        .bench
        .kernel
        .gateways
        .add_with_sockets(&interface, 0, 1)
        .unwrap();
    let sockets = pool.open_sockets().unwrap();
    gateway.bench.kernel.gateways.add_sockets(0, 0, &sockets).unwrap();

    for len in [3900, 9000] {
        let packet = with_hops(udp_packet(len, 1, 1), 64);
        let outcome = gateway.run(&tagged(&[], &packet)).unwrap();

        assert_eq!((outcome.verdict, outcome.records.len()), (DROP, 1), "{len} bytes");
        assert!(outcome.records[0].packet == with_hops(packet, 63));
    }
}

#[test]
fn frames_of_a_device_reach_the_socket_in_order_and_their_memory_comes_back() {
    let mut wire = Wire::new().unwrap();

    // More frames than there is memory, so each chunk is used again.
    let n_rounds = 3 * N_CHUNKS / 500;
    for round in 0..n_rounds {
        let packets: Vec<Vec<u8>> = (0..500_usize)
            .map(|n| with_hops(udp_packet(60 + (n * 7) % 1300, 1, (round + n) as u8), 64))
            .collect();
        for packet in &packets {
            wire.send(packet);
        }
        let records = wire.receive(packets.len());
        for (packet, record) in packets.iter().zip(&records) {
            assert!(record.packet == with_hops(packet.clone(), 63), "round {round}");
        }
    }

    assert_eq!(wire.pool.drops(), SocketDrops::default());
    let captured = wire.bench.counted_since(&wire.start).unwrap();
    assert!(
        captured.contains(&(Reason::Captured, (n_rounds * 500) as u64)),
        "{captured:?}"
    );
}

#[test]
fn frames_beyond_the_room_of_a_socket_are_counted_also_when_it_is_closed() {
    let mut wire = Wire::new().unwrap();
    let packet = with_hops(udp_packet(100, 1, 1), 64);

    for _ in 0..SOCKET_ROOM + 76 {
        wire.send(&packet);
    }
    let dropped = SocketDrops {
        ring_full: 76,
        ..SocketDrops::default()
    };
    let until = Instant::now() + LIMIT;
    while wire.pool.drops() != dropped && Instant::now() < until {
        std::thread::yield_now();
    }

    assert_eq!(wire.pool.drops(), dropped);
    assert_eq!(wire.receive(SOCKET_ROOM).len(), SOCKET_ROOM);
    wire.sockets.clear();
    assert_eq!(wire.pool.drops(), dropped);
}

const UDP_NUMBER: u8 = router_common::packet::protocol::UDP;

fn one_worker() -> Plan {
    Plan {
        n_workers: 1,
        ..Plan::default()
    }
}

/// A cable in the bench's namespaces; one end is a gateway with sockets.
struct Wire {
    bench: Bench,
    pool: SocketPool,
    sockets: Vec<SocketConsumer>,
    cable: Cable,
    start: Vec<(Reason, u64)>,
}

impl Wire {
    fn new() -> Result<Self> {
        let bench = Bench::with(one_worker())?;
        let cable = Cable::lay(&bench, GatewayHook::Xdp)?;
        let interface = &cable.interface;
        let pool = SocketPool::open(interface.index, CopyMode::Copy, 4)?;
        bench
            .kernel
            .gateways
            .add_with_sockets(interface, 0, pool.n_queues())?;
        let sockets = pool.open_sockets()?;
        bench.kernel.gateways.add_sockets(0, 0, &sockets)?;
        Ok(Self {
            start: bench.kernel.counters.read()?,
            bench,
            pool,
            sockets,
            cable,
        })
    }

    fn send(&self, packet: &[u8]) {
        self.cable.sender.send(&padded(tagged(&[], packet))).unwrap();
    }

    /// The next `n` records, or fewer when they do not come in time.
    fn receive(&mut self, n: usize) -> Vec<Record> {
        let (mut records, until) = (Vec::new(), Instant::now() + LIMIT);
        while records.len() < n && Instant::now() < until {
            for socket in &mut self.sockets {
                socket.drain(usize::MAX, |bytes| {
                    assert!(bytes.len() >= RecordHeader::LEN);
                    records.push(record(0, bytes));
                });
            }
        }
        records
    }
}
